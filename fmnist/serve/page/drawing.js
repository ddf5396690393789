// The drawing board: strokes, light on black as the data set's images are, and what they enclose; or a given picture.

const SIDE = 252; // pixels that are sent, 9 x 28: few enough for the service to decode them at once
const FILL = 210; // with it a model of 91 % recognized 7 of 7 drawn outlines; 1 of 7 as they were
const OPEN = 128; // darker than this, and reached from the border, is outside
const STEP = 6;

/** A picture is {source, smooth, body(), type, truth}; what is drawn becomes one too. */
export class Board {
  #canvas;
  #changed;
  #small = makeCanvas();
  #cloth = makeCanvas(); // what is enclosed
  #state = { strokes: [], picture: null };
  #past = [];
  #pen = null; // [x, y] of the keyboard's
  #penDown = false;
  #stale = true;
  #asked = 0;
  width = 10;
  #fills = true;

  /** `changed(time)` is told of each change, and when what caused it happened. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#changed = changed;
    this.#listen();
    this.#show();
  }

  get isEmpty() {
    return !this.#state.strokes.length && !this.#state.picture;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  set fills(fills) {
    this.#fills = fills;
    this.#touch();
  }

  /** What is to be asked about, null where there is nothing. */
  get picture() {
    if (this.isEmpty) return null;
    return this.#state.picture ?? { type: "image/png", body: () => this.#png() };
  }

  give(picture) {
    this.#become({ strokes: [], picture });
  }

  clear() {
    if (!this.isEmpty) this.#become({ strokes: [], picture: null });
  }

  undo() {
    if (!this.canUndo) return;
    this.#state = this.#past.pop();
    this.#penDown = false;
    this.#touch();
  }

  #become(state) {
    this.#past = [...this.#past.slice(-99), this.#state];
    this.#state = state;
    this.#penDown = false;
    this.#touch();
  }

  #begin(point) {
    this.#become({ strokes: [...this.#state.strokes, { width: this.width, points: [point] }], picture: null });
  }

  #extend(points, time) {
    this.#state.strokes.at(-1).points.push(...points);
    this.#touch(time);
  }

  #touch(time = performance.now()) {
    this.#stale = true;
    this.#show();
    this.#changed(time);
  }

  #show() {
    if (!this.#asked) this.#asked = requestAnimationFrame(() => ((this.#asked = 0), this.#paint()));
  }

  #listen() {
    const canvas = this.#canvas;
    let holding = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button) return;
      holding = event.pointerId;
      canvas.setPointerCapture(holding);
      this.#pen = null;
      this.#begin(this.#place(event));
    });
    // A browser holds the latter back until it draws a frame.
    const moving = "onpointerrawupdate" in canvas ? "pointerrawupdate" : "pointermove";
    canvas.addEventListener(moving, (event) => {
      if (event.pointerId !== holding || !this.#state.strokes.length) return;
      const events = event.getCoalescedEvents?.() ?? [];
      this.#extend((events.length ? events : [event]).map((one) => this.#place(one)), event.timeStamp);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => event.pointerId === holding && (holding = null));
    }
    canvas.addEventListener("keydown", (event) => this.#type(event));
    canvas.addEventListener("blur", () => ((this.#pen = null), (this.#penDown = false), this.#show()));
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  #type(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if ((!move && event.key !== " ") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#pen ??= [SIDE / 2, SIDE / 2];
    if (event.key === " ") {
      const down = !this.#penDown;
      if (down) this.#begin(this.#pen);
      this.#penDown = down;
    } else {
      const far = STEP * (event.shiftKey ? 4 : 1);
      this.#pen = this.#pen.map((value, axis) => Math.min(Math.max(value + move[axis] * far, 0), SIDE));
      if (this.#penDown) this.#extend([this.#pen], event.timeStamp);
    }
    this.#show();
  }

  #paint() {
    const context = this.#canvas.getContext("2d", { alpha: false });
    const { width } = this.#canvas;
    black(context, width);
    if (this.#state.picture) {
      fit(context, this.#state.picture, width);
    } else {
      this.#refresh();
      context.imageSmoothingEnabled = true;
      context.drawImage(this.#cloth, 0, 0, width, width);
      drawStrokes(context, this.#state.strokes, width / SIDE);
    }
    if (this.#pen) drawPen(context, this.#pen, width / SIDE, this.width, this.#penDown);
  }

  /** Bring the small canvas, which is what is sent, up to date. */
  #refresh() {
    if (!this.#stale) return;
    this.#stale = false;
    const context = this.#small.getContext("2d");
    const cloth = this.#cloth.getContext("2d");
    black(context, SIDE);
    drawStrokes(context, this.#state.strokes, 1);
    if (this.#fills) {
      const drawn = context.getImageData(0, 0, SIDE, SIDE);
      fillEnclosed(drawn.data);
      cloth.putImageData(drawn, 0, 0);
      context.drawImage(this.#cloth, 0, 0);
      drawStrokes(context, this.#state.strokes, 1);
    } else {
      black(cloth, SIDE);
    }
  }

  #png() {
    this.#refresh();
    const encoded = this.#small.toDataURL("image/png").split(",")[1]; // toBlob waits until the browser is idle
    return Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  }
}

function makeCanvas() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  return canvas;
}

function black(context, side) {
  context.fillStyle = "#000";
  context.fillRect(0, 0, side, side);
}

function drawStrokes(context, strokes, scale) {
  context.strokeStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  for (const { width, points } of strokes) {
    context.lineWidth = width * scale;
    context.beginPath();
    context.moveTo(points[0][0] * scale, points[0][1] * scale);
    for (const [x, y] of points) context.lineTo(x * scale, y * scale);
    context.stroke();
  }
}

function drawPen(context, [x, y], scale, width, down) {
  context.beginPath();
  context.arc(x * scale, y * scale, (width / 2 + 2) * scale, 0, 2 * Math.PI);
  context.lineWidth = 2 * scale;
  context.strokeStyle = down ? "#2dd4bf" : "#9aa3b0";
  context.stroke();
}

function fit(context, { source, smooth }, side) {
  const scale = side / Math.max(source.width, source.height);
  const [width, height] = [source.width * scale, source.height * scale];
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (side - width) / 2, (side - height) / 2, width, height);
}

/** RGBA of the strokes -> cloth: all but the darkness that can be reached from the border. */
export function fillEnclosed(data) {
  const outside = new Uint8Array(SIDE * SIDE);
  const stack = new Int32Array(SIDE * SIDE);
  let size = 0;
  const visit = (at) => {
    if (!outside[at] && data[4 * at] < OPEN) {
      outside[at] = 1;
      stack[size++] = at;
    }
  };
  for (let i = 0; i < SIDE; i++) [i, i * SIDE, i * SIDE + SIDE - 1, (SIDE - 1) * SIDE + i].forEach(visit);
  while (size) {
    const at = stack[--size];
    const x = at % SIDE;
    if (x > 0) visit(at - 1);
    if (x < SIDE - 1) visit(at + 1);
    if (at >= SIDE) visit(at - SIDE);
    if (at < SIDE * (SIDE - 1)) visit(at + SIDE);
  }
  for (let at = 0; at < SIDE * SIDE; at++) {
    data[4 * at] = data[4 * at + 1] = data[4 * at + 2] = outside[at] ? 0 : FILL;
  }
}
