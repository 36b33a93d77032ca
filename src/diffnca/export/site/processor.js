// The engine without a graphics card: the kernels of cell.wgsl and pixels.wgsl on the processor.

import { folded, modulo } from "./places.js";
import { philox, quantile } from "./random.js";
import { isHere } from "./simd.js";
import { analyse, synthesise } from "./spectrum.js";

const LAST = 1, DIRTY_ONLY = 2, LOOK = 4, FREE = 8, MARK = 0x80000000;
const MOST_THREADS = 8;

export class Processor {
  static open() {
    if (!isHere()) throw new Error("This page needs WebGPU, or WebAssembly with SIMD; this browser has neither. A newer one has.");
    return new Processor();
  }

  constructor() {
    Object.assign(this, { isHalf: false, isSlow: true, queued: [] });
    const cores = navigator.hardwareConcurrency ?? 2, count = Math.min(cores > 2 ? cores - 1 : cores, MOST_THREADS);
    this.threads = [...Array(count)].map(() => new Worker(new URL("worker.js", import.meta.url), { type: "module" }));
    this.kernels = 0;
  }

  get name() { return `the processor, ${this.threads.length} thread${this.threads.length > 1 ? "s" : ""}`; }

  watch(fail) {
    for (const thread of this.threads) thread.onerror = ({ message }) => fail(new Error(`A thread stopped; reload the page. ${message ?? ""}`));
  }

  buffer(bytes) {
    const data = new ArrayBuffer(4 * Math.ceil(Math.max(bytes, 16) / 4));
    return { size: data.byteLength, numbers: new Float32Array(data), words: new Uint32Array(data), destroy() {} };
  }

  filled(data) {
    const made = this.buffer(data.byteLength);
    made.numbers.set(data);
    return made;
  }

  weights(data) { return this.filled(data); }

  write(buffer, at, words, first, count) { buffer.words.set(words.subarray(first, first + count), at); }

  // A kernel of cells shares its lines out among the threads.
  cellKernel(entry, constants) {
    const kernel = this.kernels++;
    let told = null;
    return async ([weights, ...buffers], job) => {
      if (told !== weights) this.threads.forEach((thread) => thread.postMessage({ kernel, constants, weights: weights.numbers }));
      told = weights;
      const { first: [top], size: [height] } = job, share = Math.ceil(height / this.threads.length);
      const count = Math.ceil(height / share), lines = (index) => [top + index * share, Math.min(share, height - index * share)];
      await Promise.all([...Array(count).keys()].map((index) => advance(this.threads[index], kernel, constants, buffers, job, lines(index))));
    };
  }

  pixelKernel(entry, constants) { return KERNELS[entry](constants); }

  cellGroup(buffers) { return buffers; }

  pixelGroup(buffers) { return buffers; }

  queue(kernel, buffers, groups, job) { this.queued.push(() => kernel(buffers, job, groups)); }

  submit() {}

  // Work off the list; the page may do other things between two kernels.
  async done() {
    for (let next; (next = this.queued.shift()); ) {
      await next();
      await new Promise((go) => { Processor.pause.port1.onmessage = go; Processor.pause.port2.postMessage(0); });
    }
  }

  async read(buffer, first, bytes) {
    await this.done();
    return buffer.words.buffer.slice(first, first + bytes);
  }
}

Processor.pause = new MessageChannel(); // unlike timers, it does not wait

// Let a thread do a cell step of some lines of cells.
async function advance(thread, kernel, { PLANES, STATE, HIDDEN, PLACED }, [modulation, before, after], job, [top, height]) {
  const { grid: [lines, across], first: [, left], size: [, width], edge, place, dilation } = job;
  const row = 4 * (PLANES + STATE), line = across * row, ofCell = 8 * (PLANES + 2 * STATE + HIDDEN);
  const from = 4 * job.modulation + (PLACED ? top * across * ofCell : 0), table = modulation.numbers.slice(from, from + (PLACED ? height * across : 1) * ofCell);
  const strip = new Float32Array((height + 2 * dilation) * line + row); // with the lines that its cells see, and a cell of zeros
  for (let y = -dilation; y < height + dilation; y++) {
    const there = folded(top + y, lines, edge[0]);
    if (there >= 0) strip.set(before.numbers.subarray(there * line, (there + 1) * line), (y + dilation) * line);
  }
  const answer = new Promise((done) => { thread.onmessage = ({ data }) => done(data); });
  const part = { grid: [height + 2 * dilation, across], first: [dilation, left], size: [height, width], edge: edge[1], place: [place[0] + top - dilation, place[1]] };
  thread.postMessage({ kernel, table, strip, job: { ...job, ...part } }, [table.buffer, strip.buffer]);
  const made = await answer;
  for (let y = 0; y < height; y++) {
    const at = ((y + dilation) * across + left) * row;
    after.numbers.set(made.subarray(at, at + width * row), ((top + y) * across + left) * row);
  }
}

const pixelAt = ({ place, ring }, y, x) => modulo(y + place[0], ring[0]) * ring[1] + modulo(x + place[1], ring[1]);
const colour = (value) => Math.floor(Math.min(Math.max(value, -1), 1) * 127.5) + 128;

// Draw the first noise of a pixel into `words`, as three or four words of random bits.
function drawn({ canvas, key }, y, x, mark, words) {
  const stroke = (mark & ~MARK) >>> 8;
  return philox([modulo(y, canvas[0]), modulo(x, canvas[1]), (stroke ? 3 : 0) << 24, (stroke << 16) >>> 0], key, words);
}

function noise({ CHANNELS }) {
  return ([image, marks, , , means, shown], job) => {
    const words = new Uint32Array(4), { place: [top, left], size: [height, width], tile } = job;
    const of = (at) => Math.floor(at / tile), across = of(left + width - 1) - of(left) + 1;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = pixelAt(job, y, x), mark = marks.words[at];
        drawn(job, top + y, left + x, mark, words);
        const square = tile ? 4 * ((of(top + y) - of(top)) * across + of(left + x) - of(left)) : 0;
        let packed = 0xff000000;
        for (let c = 0; c < CHANNELS; c++) {
          const value = quantile(words[c]) + (tile ? job.tone[c] / tile - means.numbers[square + c] : 0);
          image.numbers[at * CHANNELS + c] = value;
          packed |= colour(value) << (8 * c);
        }
        if (job.flags & LOOK) shown.words[y * width + x] = mark & MARK ? packed : 0;
      }
    }
  };
}

function means() {
  return ([, , , , next], job, [columns, rows]) => {
    const words = new Uint32Array(4), { place, tile } = job;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const sums = [0, 0, 0, 0], y = (Math.floor(place[0] / tile) + row) * tile, x = (Math.floor(place[1] / tile) + column) * tile;
        for (let pixel = 0; pixel < tile * tile; pixel++) {
          drawn(job, y + Math.floor(pixel / tile), x + pixel % tile, 0, words);
          for (let c = 0; c < 3; c++) sums[c] += quantile(words[c]);
        }
        sums.forEach((sum, c) => { next.numbers[4 * (row * columns + column) + c] = sum / tile / tile; });
      }
    }
  };
}

function begin({ CHANNELS, PATCH, CLASSES, PLANES, STATE, HANDED = 0, SIDE = 1, COARSE_ROW = 1, COARSE_FIRST = 0, ...window }) {
  const row = 4 * (PLANES + STATE), held = 4 * PLANES, inside = PATCH * PATCH, numbers = CHANNELS * inside;
  return ([image, marks, coarse, cells, waves], job) => {
    const { first, size, grid } = job, state = cells.numbers;
    if (window.IS_WINDOW) return analyse(image.numbers, waves.numbers, state, job.canvas[0], { CHANNELS, row, ...window });
    for (let y = first[0]; y < first[0] + size[0]; y++) {
      for (let x = first[1]; x < first[1] + size[1]; x++) {
        const at = (y * grid[1] + x) * row;
        state.fill(0, at, at + row);
        for (let pixel = 0; pixel < inside; pixel++) {
          const there = pixelAt(job, y * PATCH + Math.floor(pixel / PATCH), x * PATCH + pixel % PATCH);
          for (let c = 0; c < CHANNELS; c++) state[at + held + c * inside + pixel] = image.numbers[there * CHANNELS + c];
          const known = job.flags & FREE ? -1 : (marks.words[there] & 0xff) - 1;
          if (known >= 0 && known < CLASSES) state[at + known] += 1 / inside;
        }
        if (window.HALF) synthesise(coarse.numbers, waves.numbers, state, at + numbers, y, x, grid[0], { CHANNELS, COARSE_ROW, ...window });
        if (!HANDED) continue;
        const from = (Math.floor(y / SIDE) * Math.floor(grid[1] / SIDE) + Math.floor(x / SIDE)) * 4 * COARSE_ROW + COARSE_FIRST;
        const corner = (y % SIDE) * SIDE + x % SIDE;
        for (let c = 0; c < HANDED; c++) state[at + held + 2 * numbers + c] = coarse.numbers[from + c * SIDE * SIDE + corner];
      }
    }
  };
}

function finish({ CHANNELS, PATCH, PLANES, STATE, PREDICTION }) {
  const row = 4 * (PLANES + STATE), inside = PATCH * PATCH, held = 4 * PLANES + CHANNELS * inside;
  return ([image, marks, free, cells, next, shown], job) => {
    const { first, size, grid, flags, obey = 1, level: [alpha, sigma, kept, weight] } = job;
    for (let y = first[0], spot = 0; y < first[0] + size[0]; y++) {
      for (let x = first[1]; x < first[1] + size[1]; x++, spot++) {
        const at = pixelAt(job, y, x);
        shown.words[spot] = 0;
        if (flags & DIRTY_ONLY && !(marks.words[at] & MARK)) continue;
        const cell = (Math.floor(y / PATCH) * grid[1] + Math.floor(x / PATCH)) * row + held + (y % PATCH) * PATCH + x % PATCH;
        let packed = 0xff000000;
        for (let c = 0; c < CHANNELS; c++) {
          const xT = image.numbers[at * CHANNELS + c];
          let predicted = cells.numbers[cell + c * inside];
          if (obey !== 1) predicted = obey * predicted - (obey - 1) * free.numbers[cell + c * inside];
          const clean = PREDICTION === 0 ? (xT - sigma * predicted) / alpha : PREDICTION === 2 ? alpha * xT - sigma * predicted : predicted;
          if (!(flags & (LAST | LOOK))) next.numbers[at * CHANNELS + c] = kept * xT + weight * clean;
          packed |= CHANNELS === 1 ? colour(clean) * 0x10101 : colour(clean) << (8 * c);
        }
        shown.words[spot] = packed;
      }
    }
  };
}

const KERNELS = { noise, means, begin, finish };
