// A pad on which a digit is drawn with mouse, finger or keyboard, and the 28 x 28 image that MNIST would make of it.
import { fromRgba } from "./pixels.js";

const SIZE = 280;
const STEP = 10;

export class DigitPad {
  /** `changed` is called after every stroke. */
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, pen: [SIZE / 2, SIZE / 2], down: false, empty: true });
    canvas.width = canvas.height = SIZE;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.ink = new OffscreenCanvas(SIZE, SIZE);
    this.inkContext = this.ink.getContext("2d", { willReadFrequently: true });
    Object.assign(this.inkContext, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    this.clear();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.down = true;
      this.pen = this.position(event);
      this.stroke(this.pen);
    });
    canvas.addEventListener("pointermove", (event) => this.down && this.stroke(this.position(event)));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.lift());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.show());
    canvas.addEventListener("blur", () => this.show());
  }

  position(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
  }

  /** Arrow keys move the pen, Space lowers and lifts it, Delete wipes the pad. */
  key(event) {
    const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    if (event.key === " ") {
      if (this.down) this.lift();
      else {
        this.down = true;
        this.stroke(this.pen);
      }
    } else if (event.key === "Delete" || event.key === "Backspace") this.clear(true);
    else if (event.key in moves) {
      const to = this.pen.map((v, i) => Math.max(0, Math.min(SIZE, v + moves[event.key][i])));
      if (this.down) this.stroke(to);
      this.pen = to;
      if (this.down) this.changed();
    } else return;
    event.preventDefault();
    this.show();
  }

  stroke(to) {
    this.inkContext.beginPath();
    this.inkContext.moveTo(...this.pen);
    this.inkContext.lineTo(to[0] + 0.01, to[1]);
    this.inkContext.stroke();
    this.pen = to;
    this.empty = false;
    this.show();
  }

  lift() {
    if (!this.down) return;
    this.down = false;
    this.show();
    this.changed();
  }

  clear(tell = false) {
    this.inkContext.clearRect(0, 0, SIZE, SIZE);
    this.empty = true;
    this.show();
    if (tell) this.changed();
  }

  show() {
    const { context } = this;
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIZE, SIZE);
    context.drawImage(this.ink, 0, 0);
    if (document.activeElement === this.canvas) {
      context.strokeStyle = this.down ? "#ffb000" : "#58a6ff";
      context.lineWidth = 2;
      context.beginPath();
      context.arc(...this.pen, 12, 0, 7);
      context.stroke();
    }
  }

  /** Pixels [1, 28, 28] as MNIST's makers had it: scaled into 20 x 20, centred by the centre of mass; null when empty. */
  pixels() {
    const { data } = this.inkContext.getImageData(0, 0, SIZE, SIZE);
    let [left, top, right, bottom] = [SIZE, SIZE, -1, -1];
    for (let y = 0; y < SIZE; y++) {
      for (let x = 0; x < SIZE; x++) {
        if (data[4 * (y * SIZE + x) + 3] < 8) continue;
        [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
      }
    }
    if (right < 0) return null;
    const scale = 20 / Math.max(right - left + 1, bottom - top + 1);
    const [width, height] = [(right - left + 1) * scale, (bottom - top + 1) * scale];
    const draw = (dx, dy) => {
      const canvas = new OffscreenCanvas(28, 28);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.fillRect(0, 0, 28, 28);
      context.imageSmoothingQuality = "high";
      context.drawImage(this.ink, left, top, right - left + 1, bottom - top + 1, dx, dy, width, height);
      return fromRgba(context.getImageData(0, 0, 28, 28).data, [1, 28, 28]);
    };
    const first = draw((28 - width) / 2, (28 - height) / 2);
    let [mass, mx, my] = [0, 0, 0];
    first.forEach((v, p) => {
      mass += v;
      mx += v * (p % 28);
      my += v * Math.floor(p / 28);
    });
    return draw((28 - width) / 2 + 13.5 - mx / mass, (28 - height) / 2 + 13.5 - my / mass);
  }
}
