// Pictures from elsewhere: chosen, dropped, pasted, photographed.

const SENT_AS_IS = ["image/png", "image/jpeg", "image/webp"];
const LIGHT = 1 << 20; // bytes; what is heavier is made smaller here
const LONGEST = 1024; // pixels of a side then
const find = (id) => document.getElementById(id);

/** `take(picture)` gets each picture, `complain(text)` what stands in its way. */
export function listen(take, complain) {
  const accept = async (files) => {
    const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
    if (file) take({ ...(await asPicture(file)), name: file.name });
  };
  for (const [button, input] of [["pick", "file"], ["photograph", "shot"]]) {
    find(input).addEventListener("change", ({ target }) => {
      accept(target.files);
      target.value = ""; // the same file may be chosen again
    });
    if (button === "pick") find(button).addEventListener("click", () => find(input).click());
  }
  find("photograph").addEventListener("click", () => photograph(accept, complain));
  document.addEventListener("paste", (event) => event.clipboardData?.files.length && accept(event.clipboardData.files));
  listenToDrops(accept);
}

function listenToDrops(accept) {
  const marked = document.documentElement.classList;
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    marked.toggle("dragging", event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? marked.remove("dragging"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    marked.remove("dragging");
    accept(event.dataTransfer.files);
  });
}

/** A file that is no picture is sent too, as it is: the service says what is wrong with it. */
async function asPicture(file) {
  const source = await createImageBitmap(file).catch(() => null);
  const type = file.type.startsWith("image/") ? file.type : "image/unknown";
  if (!source || (SENT_AS_IS.includes(type) && file.size <= LIGHT)) {
    return { source, smooth: true, type, body: () => file, size: file.size };
  }
  const smaller = shrink(source);
  return { source: smaller, smooth: true, type: "image/png", body: () => encode(smaller), size: 0 };
}

function shrink(source) {
  const scale = Math.min(1, LONGEST / Math.max(source.width, source.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(source.width * scale));
  canvas.height = Math.max(1, Math.round(source.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const encode = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

/** By a phone's own camera program, elsewhere by a view of the camera in the page. */
async function photograph(accept, complain) {
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices?.getUserMedia) return find("shot").click();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const why = error.name === "NotAllowedError" ? "this page may not use it; allow it" : "there is none";
    return complain(`The camera: ${why}, or choose a picture`);
  }
  const [dialog, view] = ["camera", "view"].map(find);
  view.srcObject = stream;
  dialog.showModal();
  find("camera-close").onclick = () => dialog.close();
  find("shoot").onclick = async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [view.videoWidth, view.videoHeight];
    canvas.getContext("2d").drawImage(view, 0, 0);
    dialog.close();
    accept([new File([await encode(canvas)], "the photo", { type: "image/png" })]);
  };
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
}
