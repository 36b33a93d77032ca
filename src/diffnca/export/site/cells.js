// One cell step of a stage on the processor, as cell.wgsl does it: blocks of cells, three matrix products each.

import { modulo } from "./places.js";
import { panels, products } from "./product.js";
import { philox } from "./random.js";

const OPEN = 0, AROUND = 1, EMPTY = 3; // what lies beyond the grid; else its mirror
const CELLS = 64; // of a block

function folded(index, size, edge) {
  if (index >= 0 && index < size) return index;
  if (edge === AROUND) return modulo(index, size);
  if (edge === EMPTY) return -1;
  if (edge === OPEN) return Math.min(Math.max(index, 0), size - 1);
  const turn = Math.max(2 * (size - 1), 1), there = modulo(index, turn);
  return Math.min(there, turn - there);
}

// Make the kernel of cell.wgsl for cells of these sizes.
export function cellStep({ PLANES, STATE, HIDDEN, FIRST, CHANCE, PLACED = 0 }) {
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

  const layOut = (weights, table) => { // the modulation of the perception goes into the weights, if all cells have the same
    if (laid !== weights) {
      if (PLACED) panels(weights.subarray(expandAt), seen, hidden, part("expand"));
      if (PLACED) part("expandBias").set(weights.subarray(biasesAt + state, biasesAt + state + hidden));
      panels(weights, inner, state, part("perceive"));
      panels(weights.subarray(projectAt), hidden, state, part("project"));
      part("perceiveBias").set(weights.subarray(biasesAt, biasesAt + state));
      part("projectBias").set(weights.subarray(biasesAt + state + hidden, biasesAt + 2 * state + hidden));
      laid = weights;
    }
    if (PLACED) return;
    const matrix = weights.subarray(expandAt), bias = part("expandBias");
    panels(matrix, seen, hidden, part("expand"), table);
    for (let o = 0; o < hidden; o++) {
      let sum = weights[biasesAt + state + o];
      for (let i = 0; i < seen; i++) sum += table[seen + i] * matrix[i * hidden + o];
      bias[o] = sum;
    }
  };

  const perceive = (cell, table) => {
    for (let c = 0; c < seen; c++) near[cell * seen + c] = near[cell * seen + c] * table[c] + table[seen + c];
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

  // Return the state after the cell step, from the first cell of the job to its last, row by row of the grid.
  return (weights, table, from, job) => {
    const { grid, first, size, edge, dilation } = job, count = size[0] * size[1];
    const tableOf = (cell) => { // of the modulation of a cell
      const y = first[0] + Math.floor(cell / size[1]), x = first[1] + cell % size[1], width = 2 * (seen + hidden);
      return PLACED ? table.subarray((y * grid[1] + x) * width, (y * grid[1] + x + 1) * width) : table;
    };
    const base = (first[0] * grid[1] + first[1]) * row, to = new Float32Array(((size[0] - 1) * grid[1] + size[1]) * row);
    layOut(weights, table);
    for (let start = 0; start < count; start += CELLS) {
      const cells = Math.min(CELLS, count - start);
      for (let cell = 0; cell < cells; cell++) {
        const y = first[0] + Math.floor((start + cell) / size[1]), x = first[1] + (start + cell) % size[1];
        for (let tap = 0; tap < 9; tap++) {
          const line = folded(y + dilation * (Math.floor(tap / 3) - 1), grid[0], edge[0]);
          const column = folded(x + dilation * (tap % 3 - 1), grid[1], edge[1]);
          const there = line < 0 || column < 0 ? grid[0] * grid[1] : line * grid[1] + column; // behind the last, a cell of zeros
          const source = there * row + planes, target = cell * inner + tap * state;
          for (let c = 0; c < state; c++) patch[target + c] = from[source + c];
        }
        const own = (y * grid[1] + x) * row;
        for (let c = 0; c < row; c++) near[cell * seen + c] = from[own + c];
      }
      multiply("patch", inner, "perceive", at.seen + row, seen, state);
      if (PLACED) for (let cell = 0; cell < cells; cell++) perceive(cell, tableOf(start + cell));
      multiply("seen", seen, "expand", at.hidden, hidden, hidden);
      for (let cell = 0; cell < cells; cell++) activate(cell, tableOf(start + cell));
      multiply("hidden", hidden, "project", at.change, state, state);
      for (let cell = 0; cell < cells; cell++) {
        const y = first[0] + Math.floor((start + cell) / size[1]), x = first[1] + (start + cell) % size[1];
        const own = (y * grid[1] + x) * row, isUpdated = updates(job, y, x);
        for (let c = 0; c < row; c++) {
          const isWritten = isUpdated && c >= planes + FIRST;
          to[own + c - base] = isWritten ? from[own + c] + change[cell * state + c - planes] : from[own + c];
        }
      }
    }
    return to;
  };
}
