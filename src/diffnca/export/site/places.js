// Rectangles of a world, and which blocks of it are known.

export const BLOCK = 32; // side of a block in pixels: what is computed, kept and thrown away as a whole
export const ENDLESS = 2 ** 31; // the largest canvas, which joins its own opposite edges

export const modulo = (a, n) => ((a % n) + n) % n;

// Beyond the edges of a grid: its last cells again, its opposite side, its mirror image, or nothing.
export const EDGES = { open: 0, around: 1, mirror: 2, empty: 3 };

// The index within a grid that stands for any index; -1 stands for nothing.
export function folded(index, size, edge) {
  if (index >= 0 && index < size) return index;
  if (edge === EDGES.around) return modulo(index, size);
  if (edge === EDGES.empty) return -1;
  if (edge === EDGES.open) return Math.min(Math.max(index, 0), size - 1);
  const turn = Math.max(2 * (size - 1), 1), there = modulo(index, turn);
  return Math.min(there, turn - there);
}

export function rect(top, left, height, width) { return { top, left, height, width }; }

export function grown(r, by) { return rect(r.top - by, r.left - by, r.height + 2 * by, r.width + 2 * by); }

export const areaOf = (rects) => rects.reduce((sum, { height, width }) => sum + height * width, 0);

export function toBlocks(r, side = BLOCK) {
  const top = Math.floor(r.top / side) * side, left = Math.floor(r.left / side) * side;
  return rect(top, left, Math.ceil((r.top + r.height) / side) * side - top, Math.ceil((r.left + r.width) / side) * side - left);
}

// A square whose middle is as near to a place as units of length allow.
export function square([y, x], side, unit = 1) {
  const [top, left] = [y, x].map((middle) => Math.round((middle - side / 2) / unit) * unit);
  return rect(top, left, side, side);
}

// What two rectangles share; without it, a side is not above zero.
export function shared(a, b) {
  const top = Math.max(a.top, b.top), left = Math.max(a.left, b.left);
  return rect(top, left, Math.min(a.top + a.height, b.top + b.height) - top, Math.min(a.left + a.width, b.left + b.width) - left);
}

export function overlap(a, b) {
  return a.top < b.top + b.height && b.top < a.top + a.height && a.left < b.left + b.width && b.left < a.left + a.width;
}

export function around(rects) {
  const top = Math.min(...rects.map((r) => r.top)), left = Math.min(...rects.map((r) => r.left));
  const bottom = Math.max(...rects.map((r) => r.top + r.height)), right = Math.max(...rects.map((r) => r.left + r.width));
  return rect(top, left, bottom - top, right - left);
}

// Which blocks of a map are there: all that ever came, or the last ones in a buffer with `side` blocks on a side.
export class Known {
  constructor(side, world) {
    [this.side, this.world, this.held] = [side, world / BLOCK, new Map()];
  }

  slot(y, x) { return `${modulo(y, this.side)},${modulo(x, this.side)}`; }

  has(y, x) {
    const held = this.held.get(this.slot(y, x));
    return held !== undefined && held[0] === modulo(y, this.world) && held[1] === modulo(x, this.world);
  }

  add(y, x) { this.held.set(this.slot(y, x), [modulo(y, this.world), modulo(x, this.world)]); }

  drop(r) { for (const [y, x] of this.blocks(r)) this.held.delete(this.slot(y, x)); }

  *blocks(r) {
    for (let y = Math.floor(r.top / BLOCK); y < (r.top + r.height) / BLOCK; y++) {
      for (let x = Math.floor(r.left / BLOCK); x < (r.left + r.width) / BLOCK; x++) yield [y, x];
    }
  }

  addAll(r) { for (const [y, x] of this.blocks(r)) this.add(y, x); }

  hasAll(r) {
    for (const [y, x] of this.blocks(r)) if (!this.has(y, x)) return false;
    return true;
  }

  // The unknown blocks of a rectangle, as few rectangles: runs of a row, joined with equal runs below.
  missing(r) {
    const open = new Map(), found = [];
    for (let y = Math.floor(r.top / BLOCK); y <= (r.top + r.height) / BLOCK; y++) {
      const runs = new Map();
      if (y < (r.top + r.height) / BLOCK) {
        let first = null;
        const end = Math.ceil((r.left + r.width) / BLOCK);
        for (let x = Math.floor(r.left / BLOCK); x <= end; x++) {
          const isFree = x < end && !this.has(y, x);
          if (isFree && first === null) first = x;
          if (!isFree && first !== null) { runs.set(`${first},${x}`, [first, x]); first = null; }
        }
      }
      for (const [key, each] of open) if (!runs.has(key)) { found.push(each); open.delete(key); }
      for (const [key, [first, end]] of runs) {
        const each = open.get(key) ?? rect(y * BLOCK, first * BLOCK, 0, (end - first) * BLOCK);
        each.height += BLOCK;
        open.set(key, each);
      }
    }
    return [...found, ...open.values()];
  }
}

// Cut rectangles into pieces of at most `side` pixels a side.
export function pieces(rects, side) {
  return rects.flatMap((r) => {
    const cut = [];
    for (let y = 0; y < r.height; y += side) {
      for (let x = 0; x < r.width; x += side) {
        cut.push(rect(r.top + y, r.left + x, Math.min(side, r.height - y), Math.min(side, r.width - x)));
      }
    }
    return cut;
  });
}

// How far a place is from a line through points.
export function distance(points, y, x) {
  let least = Infinity;
  points.forEach(([y1, x1], index) => {
    const [y0, x0] = points[Math.max(index - 1, 0)], length = (y1 - y0) ** 2 + (x1 - x0) ** 2;
    const share = length ? Math.max(0, Math.min(1, ((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length)) : 0;
    least = Math.min(least, Math.hypot(y - y0 - share * (y1 - y0), x - x0 - share * (x1 - x0)));
  });
  return least;
}
