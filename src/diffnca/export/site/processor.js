// The engine without a graphics card: the kernels of cell.wgsl and pixels.wgsl on the processor.

import { isHere, panels, products } from "./product.js";
import { modulo } from "./places.js";

const OPEN = 0, AROUND = 1;
const LAST = 1, DIRTY_ONLY = 2, LOOK = 4, FREE = 8, MARK = 0x80000000;
const CELLS = 64; // of a block

export class Processor {
  static open() {
    if (!isHere()) throw new Error("This page needs WebGPU, or WebAssembly with SIMD; this browser has neither. A newer one has.");
    return new Processor();
  }

  constructor() { Object.assign(this, { isHalf: false, isSlow: true, name: "the processor", queued: [] }); }

  watch() {}

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

  cellKernel(entry, constants) { return KERNELS[entry](constants); }

  pixelKernel(entry, constants) { return KERNELS[entry](constants); }

  cellGroup(buffers) { return buffers; }

  pixelGroup(buffers) { return buffers; }

  queue(kernel, buffers, groups, job) { this.queued.push(() => kernel(buffers, job, groups)); }

  submit() {}

  // Work off the list; the page may do other things between two kernels.
  async done() {
    for (let next; (next = this.queued.shift()); ) {
      next();
      await new Promise((go) => { Processor.pause.port1.onmessage = go; Processor.pause.port2.postMessage(0); });
    }
  }

  async read(buffer, first, bytes) {
    await this.done();
    return buffer.words.buffer.slice(first, first + bytes);
  }
}

Processor.pause = new MessageChannel(); // unlike timers, it does not wait

function high(a, b) { // upper word of a product
  const low = (a & 0xffff) * (b & 0xffff), cross = (a >>> 16) * (b & 0xffff) + (low >>> 16);
  const other = (a & 0xffff) * (b >>> 16) + (cross & 0xffff);
  return ((a >>> 16) * (b >>> 16) + Math.floor(cross / 65536) + (other >>> 16)) >>> 0;
}

export function philox(counter, seed, words = new Uint32Array(4)) { // Philox4x32-10, as diffnca.canvas.noise
  let [a, b, c, d] = counter, [low, up] = seed;
  for (let round = 0; round < 10; round++) {
    const first = high(a, 0xD2511F53), second = high(c, 0xCD9E8D57), lowFirst = Math.imul(a, 0xD2511F53), lowSecond = Math.imul(c, 0xCD9E8D57);
    a = (second ^ b ^ low) >>> 0;
    b = lowSecond >>> 0;
    c = (first ^ d ^ up) >>> 0;
    d = lowFirst >>> 0;
    low = (low + 0x9E3779B9) >>> 0;
    up = (up + 0xBB67AE85) >>> 0;
  }
  words[0] = a; words[1] = b; words[2] = c; words[3] = d;
  return words;
}

const polynomial = (factors, x) => factors.reduceRight((sum, factor) => sum * x + factor, 0);
const CENTRAL = [[3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125, 45921.953931549871457,
  67265.770927008700853, 33430.575583588128105, 2509.0809287301226727], [1, 42.313330701600911252, 687.18700749205790830,
  5394.1960214247511077, 21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610]];
const TAIL = [[1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504, 1.27045825245236838258,
  0.241780725177450611770, 2.27238449892691845833e-2, 7.74545014278341407640e-4], [1, 2.05319162663775882187, 1.67638483018380384940,
  0.689767334985100004550, 0.148103976427480074590, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9]];

export function quantile(word) { // of the normal distribution at (word + 0.5) / 2^32: Wichura's AS 241
  const offset = (word + 0.5 - 2 ** 31) * 2 ** -32, square = 0.180625 - offset * offset;
  if (Math.abs(offset) <= 0.425) return offset * polynomial(CENTRAL[0], square) / polynomial(CENTRAL[1], square);
  const radius = Math.sqrt(-Math.log(0.5 - Math.abs(offset))) - 1.6;
  return Math.sign(offset) * polynomial(TAIL[0], radius) / polynomial(TAIL[1], radius);
}

function folded(index, size, edge) {
  if (index >= 0 && index < size) return index;
  if (edge === AROUND) return modulo(index, size);
  if (edge === OPEN) return Math.min(Math.max(index, 0), size - 1);
  const turn = Math.max(2 * (size - 1), 1), there = modulo(index, turn);
  return Math.min(there, turn - there);
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

function begin({ CHANNELS, PATCH, CLASSES, PLANES, STATE, HANDED = 0, SIDE = 1, COARSE_ROW = 1, COARSE_FIRST = 0 }) {
  const row = 4 * (PLANES + STATE), held = 4 * PLANES, inside = PATCH * PATCH, numbers = CHANNELS * inside;
  return ([image, marks, coarse, cells], job) => {
    const { first, size, grid } = job, state = cells.numbers;
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

function advance({ PLANES, STATE, HIDDEN, FIRST, CHANCE }) {
  const planes = 4 * PLANES, state = 4 * STATE, hidden = 4 * HIDDEN, row = planes + state, seen = row + state, inner = 9 * state;
  const expandAt = inner * state, projectAt = expandAt + seen * hidden, biasesAt = projectAt + hidden * state;
  const lengths = { perceive: inner * state, perceiveBias: state, expand: seen * hidden, expandBias: hidden, project: hidden * state,
    projectBias: state, patch: CELLS * inner, seen: CELLS * seen, hidden: CELLS * hidden, change: CELLS * state };
  const at = {};
  let total = 0;
  for (const [name, length] of Object.entries(lengths)) [at[name], total] = [total, total + length];
  const { product, numbers } = products(4 * total), part = (name) => numbers.subarray(at[name], at[name] + lengths[name]);
  const multiply = (input, width, name, output, outputRow, outputs) => product(4 * at[input], 4 * width, 4 * at[name],
    4 * at[`${name}Bias`], 4 * output, 4 * outputRow, CELLS, width, outputs / 4);
  const [patch, near, layer, change] = ["patch", "seen", "hidden", "change"].map(part), words = new Uint32Array(4);
  let laid = null;

  const layOut = (weights, table) => { // the modulation of the perception goes into the weights
    if (laid !== weights) {
      panels(weights, inner, state, part("perceive"));
      panels(weights.subarray(projectAt), hidden, state, part("project"));
      part("perceiveBias").set(weights.subarray(biasesAt, biasesAt + state));
      part("projectBias").set(weights.subarray(biasesAt + state + hidden, biasesAt + 2 * state + hidden));
      laid = weights;
    }
    const matrix = weights.subarray(expandAt), bias = part("expandBias");
    panels(matrix, seen, hidden, part("expand"), table);
    for (let o = 0; o < hidden; o++) {
      let sum = weights[biasesAt + state + o];
      for (let i = 0; i < seen; i++) sum += table[seen + i] * matrix[i * hidden + o];
      bias[o] = sum;
    }
  };

  const activate = (cell, table) => {
    const first = cell * hidden, scale = 2 * seen, shift = 2 * seen + hidden;
    let mean = 0, variance = 0;
    for (let c = 0; c < hidden; c++) mean += layer[first + c];
    mean /= hidden;
    for (let c = 0; c < hidden; c++) variance += (layer[first + c] - mean) ** 2;
    const rate = 1 / Math.sqrt(variance / hidden + 1e-5);
    for (let c = 0; c < hidden; c++) {
      const value = (layer[first + c] - mean) * rate * table[scale + c] + table[shift + c];
      layer[first + c] = value > 0 ? value : 0.01 * value;
    }
  };

  const updates = ({ place, canvas, key, clock }, y, x) => {
    if (!CHANCE) return true;
    const column = modulo(x + place[1], canvas[1]);
    philox([modulo(y + place[0], canvas[0]), Math.floor(column / 4), 2 << 24, clock], key, words);
    return words[column % 4] < CHANCE;
  };

  return ([weights, modulation, before, after], job) => {
    const { grid, first, size, edge, dilation } = job, from = before.numbers, to = after.numbers;
    const table = modulation.numbers.subarray(4 * job.modulation), count = size[0] * size[1];
    layOut(weights.numbers, table);
    for (let start = 0; start < count; start += CELLS) {
      const cells = Math.min(CELLS, count - start);
      for (let cell = 0; cell < cells; cell++) {
        const y = first[0] + Math.floor((start + cell) / size[1]), x = first[1] + (start + cell) % size[1];
        for (let tap = 0; tap < 9; tap++) {
          const row0 = folded(y + dilation * (Math.floor(tap / 3) - 1), grid[0], edge[0]);
          const column = folded(x + dilation * (tap % 3 - 1), grid[1], edge[1]);
          const source = (row0 * grid[1] + column) * row + planes, target = cell * inner + tap * state;
          for (let c = 0; c < state; c++) patch[target + c] = from[source + c];
        }
        const own = (y * grid[1] + x) * row;
        for (let c = 0; c < row; c++) near[cell * seen + c] = from[own + c];
      }
      multiply("patch", inner, "perceive", at.seen + row, seen, state);
      multiply("seen", seen, "expand", at.hidden, hidden, hidden);
      for (let cell = 0; cell < cells; cell++) activate(cell, table);
      multiply("hidden", hidden, "project", at.change, state, state);
      for (let cell = 0; cell < cells; cell++) {
        const y = first[0] + Math.floor((start + cell) / size[1]), x = first[1] + (start + cell) % size[1];
        const own = (y * grid[1] + x) * row, isUpdated = updates(job, y, x);
        for (let c = 0; c < row; c++) {
          const isWritten = isUpdated && c >= planes + FIRST;
          to[own + c] = isWritten ? from[own + c] + change[cell * state + c - planes] : from[own + c];
        }
      }
    }
  };
}

const KERNELS = { noise, means, begin, finish, advance };
