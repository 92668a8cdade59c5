// A canvas to scribble on, as coarse as the network's pictures, with a second layer for what is rubbed out.
import { el } from "./dom.js";

export class Pad {
  constructor(id) {
    this.canvas = el("canvas", { class: "pad pixels", id, tabindex: 0, role: "img", "aria-label": "Draw here" });
    this.tool = "pen";
    this.colour = "#ffffff";
    [this.size, this.channels] = [0, 1];
    this.last = null;
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.last = null; this.stroke(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (event.buttons) this.stroke(event); });
    this.canvas.addEventListener("pointerup", () => { this.last = null; });
  }

  /** Begin anew with pictures of so many pixels and channels: 3 are red, green and blue, any other number is grey. */
  resize(size, channels) {
    if (size === this.size && channels === this.channels) return;
    [this.size, this.channels] = [size, channels];
    this.clear();
  }

  /** Grey pictures are scribbled white on black, as digits are; colours on white. */
  clear() {
    this.ink = new Float32Array(this.channels * this.size ** 2).fill(this.channels === 3 ? 1 : 0);
    this.hole = new Uint8Array(this.size ** 2);
    this.show();
  }

  /** A picture (1, C, H, W) of the network's own. */
  load(images) {
    for (let p = 0; p < this.ink.length; p++) this.ink[p] = images.bytes[p] / 255;
    this.hole.fill(0);
    this.show();
  }

  /** From where the pointer was to where it is, in small steps, so that a quick stroke has no gaps. */
  stroke(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = [((event.clientX - box.left) / box.width) * this.size, ((event.clientY - box.top) / box.height) * this.size];
    const from = this.last ?? at, pieces = Math.max(1, Math.ceil(2 * Math.hypot(at[0] - from[0], at[1] - from[1])));
    for (let k = 0; k <= pieces; k++) this.dot(from[0] + (k / pieces) * (at[0] - from[0]), from[1] + (k / pieces) * (at[1] - from[1]));
    this.last = at;
    this.show();
  }

  dot(x, y) {
    const radius = (this.tool === "pen" ? 0.055 : 0.11) * this.size, plane = this.size ** 2;
    const pen = [1, 3, 5].map((at) => parseInt(this.colour.slice(at, at + 2), 16) / 255);
    for (let row = 0; row < this.size; row++) {
      for (let column = 0; column < this.size; column++) {
        const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(column + 0.5 - x, row + 0.5 - y))); // of the pixel by the tip
        const p = row * this.size + column;
        if (this.tool !== "pen") {
          if (cover > 0.5) this.hole[p] = 255;
        } else {
          for (let c = 0; c < this.channels; c++) {
            const at = c * plane + p;
            this.ink[at] = this.channels === 3 ? this.ink[at] + cover * (pen[c] - this.ink[at]) : Math.max(this.ink[at], cover);
          }
        }
      }
    }
  }

  show() {
    this.canvas.width = this.canvas.height = this.size;
    const context = this.canvas.getContext("2d"), data = context.createImageData(this.size, this.size);
    const plane = this.size ** 2, channels = this.channels === 3 ? [0, 1, 2] : [0, 0, 0];
    for (let p = 0; p < plane; p++) {
      data.data.set(this.hole[p] ? [192, 122, 28, 255] : [...channels.map((c) => 255 * this.ink[c * plane + p]), 255], 4 * p);
    }
    context.putImageData(data, 0, 0);
  }

  get picture() {
    return encoded(this.ink.map((ink) => Math.round(255 * ink)));
  }

  get rubbedOut() {
    return encoded(this.hole);
  }
}

function encoded(values) {
  return btoa(String.fromCharCode(...values));
}
