// The picture of a map, as tiles that are kept after the graphics card has gone on.

import { BLOCK, Known, modulo, rect } from "./places.js";

const TILE = 256; // side in pixels
const MOST_TILES = 600; // 150 MB; of more, those that were not used for longest are thrown away

export class Tiles {
  constructor(world) {
    this.world = world;
    this.side = Math.min(TILE, world);
    this.canvases = new Map(); // the last used is the last
    this.known = new Known(world / BLOCK, world); // blocks that are finished
  }

  // Each tile that a rectangle touches, with the place of its corner as the rectangle counts.
  *touched(r) {
    for (let top = Math.floor(r.top / this.side) * this.side; top < r.top + r.height; top += this.side) {
      for (let left = Math.floor(r.left / this.side) * this.side; left < r.left + r.width; left += this.side) yield [top, left];
    }
  }

  tile(top, left, isMade) {
    const key = `${modulo(top, this.world)},${modulo(left, this.world)}`;
    let context = this.canvases.get(key);
    if (!context && !isMade) return null;
    context ??= new OffscreenCanvas(this.side, this.side).getContext("2d", { willReadFrequently: true });
    this.canvases.delete(key);
    this.canvases.set(key, context);
    if (this.canvases.size > MOST_TILES) {
      const [oldest] = this.canvases.keys(), [y, x] = oldest.split(",").map(Number);
      this.canvases.delete(oldest);
      this.known.drop(rect(y, x, this.side, this.side));
    }
    return context.canvas;
  }

  // Take over pixels (red, green, blue, alpha) of a rectangle; those of alpha 0 leave what is there.
  put(r, data) {
    const given = new OffscreenCanvas(r.width, r.height);
    given.getContext("2d").putImageData(new ImageData(data, r.width, r.height), 0, 0);
    for (const [top, left] of this.touched(r)) {
      this.tile(top, left, true).getContext("2d").drawImage(given, r.left - left, r.top - top);
    }
  }

  // Draw a rectangle at the origin of a context, one pixel for one.
  draw(context, r) {
    for (const [top, left] of this.touched(r)) {
      const tile = this.tile(top, left, false);
      if (tile) context.drawImage(tile, left - r.left, top - r.top);
    }
  }

  // Return the pixels of a rectangle: red, green, blue, alpha.
  pixels(r) {
    const context = new OffscreenCanvas(r.width, r.height).getContext("2d", { willReadFrequently: true });
    this.draw(context, r);
    return context.getImageData(0, 0, r.width, r.height).data;
  }
}
