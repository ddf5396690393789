// The answer: what the model saw, what it takes it for, and how sure it is of each class.

const find = (id) => document.getElementById(id);
const [panel, seen, label, share, truth, by, bars, spoken] = [
  "answer", "seen", "label", "share", "truth", "by", "bars", "spoken",
].map(find);
let rows = new Map();
let telling = 0;

export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;

/** A row for each class; they stay in their places. */
export function showClasses(names) {
  if (rows.size === names.length && names.every((name) => rows.has(name))) return;
  rows = new Map(names.map((name) => [name, makeRow(name)]));
  bars.replaceChildren(...[...rows.values()].map((row) => row.item));
}

function makeRow(name) {
  const item = document.createElement("li");
  const [title, track, value] = ["span", "span", "span"].map((kind) => document.createElement(kind));
  const fill = document.createElement("i");
  title.textContent = name;
  title.className = "name";
  track.className = "track";
  value.className = "value";
  track.append(fill);
  item.append(title, track, value);
  return { item, fill, value };
}

/** `expected`: the true class, where it is known. `since`: when what was asked about happened, as performance.now(). */
export function showAnswer(answer, expected, since) {
  showClasses(Object.keys(answer.probabilities));
  for (const [name, value] of Object.entries(answer.probabilities)) {
    const row = rows.get(name);
    row.fill.style.transform = `scaleX(${value})`;
    row.value.textContent = percent(value);
    row.item.classList.toggle("top", name === answer.label);
  }
  drawSeen(answer.image);
  const right = expected === answer.label;
  label.textContent = answer.label;
  share.textContent = percent(answer.probability);
  truth.textContent = expected ? `${right ? "Right" : "Wrong"}: it is labelled ${expected}` : "\u00a0";
  truth.className = expected ? (right ? "right" : "wrong") : "";
  const milliseconds = Math.max(1, Math.round(performance.now() - since));
  by.textContent = `version ${answer.version}, ${milliseconds} ms`;
  panel.dataset.milliseconds = milliseconds;
  panel.classList.add("given");
  tell(`${answer.label}, ${percent(answer.probability, 0)}`);
}

export function showNothing() {
  panel.classList.remove("given");
  delete panel.dataset.milliseconds;
  for (const { item, fill, value } of rows.values()) {
    fill.style.transform = "scaleX(0)";
    value.textContent = "";
    item.classList.remove("top");
  }
  seen.getContext("2d").clearRect(0, 0, 28, 28);
  label.textContent = "–";
  for (const line of [share, truth, by]) line.textContent = "\u00a0";
  truth.className = "";
  tell("");
}

function drawSeen(image) {
  const pixels = new ImageData(28, 28);
  image.flat().forEach((value, at) => pixels.data.set([value, value, value, 255], 4 * at));
  seen.getContext("2d").putImageData(pixels, 0, 0);
}

/** To a screen reader, once the drawing rests. */
function tell(text) {
  clearTimeout(telling);
  telling = setTimeout(() => (spoken.textContent = text), 700);
}
