// The window on a map: where it is, how fingers, mouse and keys move it, and how it is drawn.

import { rect } from "./places.js";

const FARTHEST_PX = 1800; // longer side of a window in pixels of the map
const CLOSEST = 24; // pixels of the screen for a pixel of the map
const SQUARE = 8; // from here on, pixels are squares

export class View {
  // `changed` is called when something else may be seen from now on.
  constructor(canvas, changed = () => {}) {
    Object.assign(this, { canvas, changed, y: 0, x: 0, zoom: 2, tiles: null, strokes: [], preview: null, isStale: false });
    this.context = canvas.getContext("2d");
    this.sheet = new OffscreenCanvas(1, 1);
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const ratio = window.devicePixelRatio;
    [this.width, this.height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = Math.max(1, Math.round(this.width * ratio));
    this.canvas.height = Math.max(1, Math.round(this.height * ratio));
    this.zoomTo(this.zoom);
    this.draw(); // at once: a new size has cleared the canvas
  }

  // The rectangle of the map in the window.
  get seen() {
    const height = this.height / this.zoom, width = this.width / this.zoom;
    return rect(Math.floor(this.y - height / 2), Math.floor(this.x - width / 2), Math.ceil(height) + 1, Math.ceil(width) + 1);
  }

  place(clientX, clientY) { // of the map, under a point of the window
    const box = this.canvas.getBoundingClientRect();
    return [this.y + (clientY - box.top - this.height / 2) / this.zoom, this.x + (clientX - box.left - this.width / 2) / this.zoom];
  }

  moveBy(dx, dy) {
    this.x -= dx / this.zoom;
    this.y -= dy / this.zoom;
    this.touch();
  }

  zoomTo(zoom, clientX = null, clientY = null) {
    const before = clientX === null ? null : this.place(clientX, clientY);
    this.zoom = Math.min(CLOSEST, Math.max(zoom, Math.max(this.width, this.height) / FARTHEST_PX, 0.5));
    if (before) {
      const after = this.place(clientX, clientY);
      this.y += before[0] - after[0];
      this.x += before[1] - after[1];
    }
    this.touch();
  }

  // Draw at the next frame.
  touch() {
    if (!this.isStale) requestAnimationFrame(() => this.draw());
    this.isStale = true;
    this.changed();
  }

  // Lay a preview behind all pixels: a square picture with its place, or a tile that repeats.
  drawPreview() {
    const { canvas: { style }, preview, zoom } = this;
    style.backgroundImage = preview ? `url(${preview.picture})` : "";
    if (!preview) return;
    const { top, left, side, isRepeated } = preview;
    style.backgroundSize = `${side * zoom}px ${side * zoom}px`;
    style.backgroundPosition = `${(left - this.x) * zoom + this.width / 2}px ${(top - this.y) * zoom + this.height / 2}px`;
    style.backgroundRepeat = isRepeated ? "repeat" : "no-repeat";
  }

  draw() {
    this.isStale = false;
    this.drawPreview();
    if (!this.tiles) return;
    const { context, sheet, seen } = this, scale = this.zoom * this.canvas.width / Math.max(this.width, 1);
    [sheet.width, sheet.height] = [seen.width, seen.height]; // one pixel for one: no seams between tiles
    this.tiles.draw(sheet.getContext("2d"), seen);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = scale < SQUARE;
    context.imageSmoothingQuality = "high";
    const x = (seen.left - this.x) * scale + this.canvas.width / 2, y = (seen.top - this.y) * scale + this.canvas.height / 2;
    context.drawImage(sheet, x, y, seen.width * scale, seen.height * scale);
    for (const stroke of this.strokes) this.drawStroke(stroke, scale);
  }

  // Draw the line of a brush; the map shows through.
  drawStroke({ points, radius, ink }, scale) {
    const { context, canvas } = this;
    context.save();
    context.translate(canvas.width / 2, canvas.height / 2);
    Object.assign(context, { strokeStyle: ink, globalAlpha: 0.45, lineWidth: 2 * radius * scale, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    for (const [y, x] of [points[0], ...points]) context.lineTo((x - this.x) * scale, (y - this.y) * scale);
    context.stroke();
    context.restore();
  }
}

// Mouse, pen, fingers and wheel: one pointer does what the tool says, two pointers move and zoom.
export function follow(view, { isMoving, stroke, changed }) {
  const { canvas } = view, down = new Map();
  let line = null;
  const middle = () => {
    const points = [...down.values()], [a, b] = [points[0], points.at(-1)];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (down.size === 1 && !isMoving() && event.button === 0) line = [view.place(event.clientX, event.clientY)];
    if (down.size > 1) line = null;
    stroke(line, false);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!down.has(event.pointerId)) return stroke(null, false, view.place(event.clientX, event.clientY));
    const before = middle();
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (line) {
      line.push(view.place(event.clientX, event.clientY));
      return stroke(line, false);
    }
    const after = middle();
    view.moveBy(after.x - before.x, after.y - before.y);
    if (down.size > 1 && before.apart) view.zoomTo(view.zoom * after.apart / before.apart, after.x, after.y);
    changed();
  });
  const up = (event) => {
    if (!down.delete(event.pointerId)) return;
    if (line && event.type === "pointerup") stroke(line, true);
    else stroke(null, false);
    line = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { if (!down.size) stroke(null, false); });
  canvas.addEventListener("wheel", (event) => {
    if (window.top !== window && !document.hasFocus()) return; // a page that is part of another one lets it scroll, until it is touched
    event.preventDefault();
    view.zoomTo(view.zoom * 2 ** (-event.deltaY * (event.ctrlKey ? 4 : 1) / 400), event.clientX, event.clientY);
    changed();
  }, { passive: false });
}
