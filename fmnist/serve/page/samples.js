// The test images: six of each class, one after the other.

import { request } from "./server.js";

/** What the test images are labelled as. */
export const CLASSES = [
  "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
];
const SIDE = 28;
const PIXELS = SIDE * SIDE;

/** Fill `place` with them; `take(picture)` gets the one that is chosen. */
export async function showSamples(place, take) {
  const bytes = new Uint8Array(await (await request("samples")).arrayBuffer());
  const each = bytes.length / PIXELS / CLASSES.length;
  const buttons = [];
  const groups = CLASSES.map((name, label) => {
    const group = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = name;
    for (let n = 0; n < each; n++) {
      const start = (label * each + n) * PIXELS;
      const button = makeButton(bytes.slice(start, start + PIXELS), name, n + 1, take);
      buttons.push(button);
      group.append(button);
    }
    group.append(caption);
    return group;
  });
  place.replaceChildren(...groups);
  moveByArrows(place, buttons);
}

function makeButton(grey, name, number, take) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const pixels = new ImageData(SIDE, SIDE);
  grey.forEach((value, at) => pixels.data.set([value, value, value, 255], 4 * at));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const button = document.createElement("button");
  button.setAttribute("aria-label", `${name} ${number}`);
  button.append(canvas);
  button.addEventListener("click", () =>
    take({ source: canvas, smooth: false, type: "application/octet-stream", body: () => grey, truth: name }),
  );
  return button;
}

/** One stop of the Tab key for all of them. */
function moveByArrows(place, buttons) {
  const reach = (at) => buttons.forEach((button, n) => (button.tabIndex = n === at ? 0 : -1));
  reach(0);
  place.addEventListener("focusin", ({ target }) => reach(buttons.indexOf(target)));
  place.addEventListener("keydown", (event) => {
    const last = buttons.length - 1;
    const at = buttons.indexOf(document.activeElement);
    const columns = 2; // of a class
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns };
    const to = { ...moves, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    buttons[Math.min(Math.max(to, 0), last)].focus();
  });
}
