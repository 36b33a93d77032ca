// A wall without end of images, each with its own seed: for models that make an image as a whole.

import { rect } from "./places.js";
import { World } from "./world.js";

const GAP_PX = 6;
const MOST_IMAGES = 500; // of more, those that are not seen are thrown away, the first to come first
const FRAME = "rgb(128 128 128 / 14%)"; // where an image will be

// Count places around the middle, ring after ring; the middle has number 0.
export function numberOf(row, column) {
  const ring = Math.max(Math.abs(row), Math.abs(column)), side = 2 * ring;
  if (ring === 0) return 0;
  const first = (side - 1) ** 2; // inner rings have so many places
  if (row === -ring && column < ring) return first + column + ring;
  if (column === ring && row < ring) return first + side + row + ring;
  if (row === ring && column > -ring) return first + 2 * side + ring - column;
  return first + 3 * side + ring - row;
}

// It offers the page what a `World` does. The middle has the seed of the wall, the places around it the next seeds.
export class Wall {
  // `before`: a wall of the same network, whose images are taken over.
  constructor(network, { seed, isStill }, before = null) {
    Object.assign(this, { network, model: network.model, seed: Number(seed), isStill, steps: network.model.levels.length });
    this.side = this.model.side;
    this.pitch = this.side + GAP_PX;
    this.whole = rect(0, 0, this.side, this.side);
    this.images = before?.images ?? new Map(); // by seed: its tiles, and whether it is finished
    this.spent = before?.spent ?? { milliseconds: 0, pixels: 0 };
    this.tiles = this; // a view draws it
  }

  destroy() { this.leave(); }

  leave() {
    this.world?.destroy();
    this.world = null;
  }

  seedAt(y, x) { return this.seed + numberOf(Math.round(y / this.pitch), Math.round(x / this.pitch)); }

  // The images that a rectangle touches, with their corners.
  *places(r) {
    const half = this.side / 2, line = (at) => Math.floor((at + half) / this.pitch);
    for (let row = line(r.top); row <= line(r.top + r.height - 1); row++) {
      for (let column = line(r.left); column <= line(r.left + r.width - 1); column++) {
        yield { seed: this.seed + numberOf(row, column), top: row * this.pitch - half, left: column * this.pitch - half };
      }
    }
  }

  draw(context, r) {
    context.fillStyle = FRAME;
    for (const { seed, top, left } of this.places(r)) {
      context.setTransform(1, 0, 0, 1, left - r.left, top - r.top);
      const image = this.images.get(seed);
      if (!image?.isFinished) context.fillRect(0, 0, this.side, this.side);
      image?.tiles.draw(context, this.whole);
    }
    context.resetTransform();
  }

  // The next piece of work, for the image nearest to the middle of `r` first; `null` if all are there.
  next(r) {
    const far = ({ top, left }) => Math.hypot(top + this.side / 2 - r.top - r.height / 2, left + this.side / 2 - r.left - r.width / 2);
    const places = [...this.places(r)];
    this.forget(new Set(places.map(({ seed }) => seed)));
    const open = places.filter(({ seed }) => !this.images.get(seed)?.isFinished).sort((a, b) => far(a) - far(b))[0];
    return open ? this.nextOf(open.seed) : null;
  }

  // Throw away images that are not seen, if there are too many.
  forget(seen) {
    const others = [...this.images.keys()].filter((seed) => !seen.has(seed));
    others.slice(0, Math.max(0, this.images.size - MOST_IMAGES)).forEach((seed) => this.images.delete(seed));
  }

  nextOf(seed) {
    if (this.world?.seed !== seed) {
      this.leave();
      this.world = this.worldOf(seed);
    }
    return this.world.next(this.whole);
  }

  // The world of one image; it draws into the tiles that the wall keeps.
  worldOf(seed) {
    const { side: size, isStill } = this, world = new World(this.network, { size, edge: "mirror", seed: BigInt(seed), isStill });
    if (this.images.has(seed)) world.tiles = this.images.get(seed).tiles;
    this.images.set(seed, { tiles: world.tiles, isFinished: this.images.get(seed)?.isFinished });
    return Object.assign(world, { seed });
  }

  async make(work) {
    const { world } = this;
    await world.make(work);
    if (work.level < this.steps) return;
    this.images.set(world.seed, { tiles: world.tiles, isFinished: true });
    this.spent.milliseconds += world.spent.milliseconds;
    this.spent.pixels += world.spent.pixels;
    this.leave();
  }

  // Return a picture of the image in the middle of `r`.
  async picture(r) {
    const seed = this.seedAt(r.top + r.height / 2, r.left + r.width / 2);
    while (!this.images.get(seed)?.isFinished) await this.make(this.nextOf(seed));
    return new ImageData(this.images.get(seed).tiles.pixels(this.whole), this.side, this.side);
  }

  // Show the image in the middle of `r` after each cell step of the last stage, from noise to image.
  async watch(r, look) {
    const world = this.worldOf(this.seedAt(r.top + r.height / 2, r.left + r.width / 2));
    try {
      await world.watch(this.whole, look);
    } finally {
      world.destroy();
    }
  }

  get tilePx() { return this.side; }

  get millisecondsPerTile() { return this.spent.pixels ? this.spent.milliseconds / this.spent.pixels * this.tilePx ** 2 : null; }
}
