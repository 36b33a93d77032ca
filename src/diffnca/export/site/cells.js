// One cell step of a stage on the processor, as cell.wgsl does it: blocks of cells, three matrix products each.

import { folded, modulo } from "./places.js";
import { COLUMNS, machine, padded, panels } from "./simd.js";
import { philox } from "./random.js";

const BLOCK = 64, AT_ONCE = 4; // cells of a block, and of a product

// The kernel of cell.wgsl for cells of these sizes.
export class Cells {
  constructor({ PLANES, STATE, HIDDEN, FIRST, CHANCE, PLACED = 0 }, weights) {
    const planes = 4 * PLANES, state = 4 * STATE, hidden = 4 * HIDDEN, row = planes + state, seen = row + state;
    const fixed = COLUMNS * Math.floor(FIRST / COLUMNS); // state channels that no cell step changes, in whole panels
    const expandAt = 9 * state * state, projectAt = expandAt + seen * hidden, biasesAt = projectAt + hidden * state;
    Object.assign(this, { planes, state, hidden, row, seen, fixed, first: FIRST, chance: CHANCE, isPlaced: Boolean(PLACED), bits: new Uint32Array(4),
      expansion: weights.subarray(expandAt, projectAt), expansionBias: weights.subarray(biasesAt + state, biasesAt + state + hidden) });
    this.products = { // of how many parts and numbers a row consists, and how many come of it
      perceive: { parts: 9, inner: state, width: padded(state) },
      expand: { parts: 1, inner: seen, width: padded(hidden) },
      project: { parts: 1, inner: hidden, width: padded(state - fixed) },
    };
    this.rows = { near: row + padded(state), layer: padded(hidden), change: padded(state - fixed) };
    this.placeAll();
    this.layOut("perceive", weights, state, weights.subarray(biasesAt, biasesAt + state));
    this.layOut("project", weights.subarray(projectAt), state, weights.subarray(biasesAt + state + hidden), { first: fixed });
    if (PLACED) this.layOut("expand", this.expansion, hidden, this.expansionBias);
    this.connect("expand", "near");
    this.connect("project", "layer");
  }

  // Give each matrix, bias, list of addresses and block of rows its place in the memory.
  placeAll() {
    this.at = {};
    this.length = 0;
    const place = (name, length) => {
      this.at[name] = this.length;
      this.length += 4 * Math.ceil(length / 4);
    };
    for (const [name, { parts, inner, width }] of Object.entries(this.products)) {
      place(name, parts * inner * width);
      place(`${name}Bias`, width);
      place(`${name}From`, parts * BLOCK);
    }
    for (const [name, width] of Object.entries(this.rows)) place(name, BLOCK * width);
    this.machine = machine(4 * this.length);
  }

  layOut(name, matrix, columns, bias, { first = 0, scale = null } = {}) {
    const { at, machine: { numbers }, products: { [name]: { parts, inner } } } = this;
    panels(matrix, parts * inner, columns, numbers.subarray(at[name]), { first, scale });
    numbers.set(bias.subarray(first, columns), at[`${name}Bias`]);
  }

  // Let a product read the rows of a block.
  connect(name, rows) {
    const { at, machine: { words } } = this;
    for (let cell = 0; cell < BLOCK; cell++) words[at[`${name}From`] + cell] = 4 * (at[rows] + cell * this.rows[rows]);
  }

  multiply(name, to, toRow, count) {
    const { at, products: { [name]: { parts, inner, width } } } = this;
    this.machine.product(4 * at[`${name}From`], parts, inner, 4 * at[name], 4 * at[`${name}Bias`], 4 * to, 4 * toRow,
      AT_ONCE * Math.ceil(count / AT_ONCE), width / COLUMNS);
  }

  // Put the modulation of the perception into the weights: all cells have the same one.
  modulate(table) {
    const { seen, hidden, expansion, expansionBias } = this, bias = Float64Array.from(expansionBias);
    for (let i = 0; i < seen; i++) {
      for (let o = 0; o < hidden; o++) bias[o] += table[seen + i] * expansion[i * hidden + o];
    }
    this.layOut("expand", expansion, hidden, bias, { scale: table });
  }

  // Do a cell step of the cells of the job. `strip` holds their lines, those around them that they see, and a cell of
  // zeros; their states in it become those after the step.
  step(table, strip, job) {
    const { row, planes, fixed, first, length } = this, { size, grid, first: [top, left] } = job, count = size[0] * size[1];
    const { numbers } = this.machine.grow(4 * (length + table.length + strip.length)), stripAt = length + table.length;
    numbers.set(table, length);
    numbers.set(strip, stripAt);
    if (!this.isPlaced) this.modulate(table);
    for (let start = 0; start < count; start += BLOCK) {
      const cells = Math.min(BLOCK, count - start);
      this.change(start, cells, stripAt, job);
      for (let cell = 0; cell < cells; cell++) {
        const y = top + Math.floor((start + cell) / size[1]), x = left + (start + cell) % size[1];
        if (!this.updates(job, y, x)) continue;
        const to = (y * grid[1] + x) * row + planes, from = this.at.change + cell * this.rows.change - fixed;
        for (let c = first; c < this.state; c++) strip[to + c] += numbers[from + c];
      }
    }
  }

  // Compute what a block of cells adds to its states.
  change(start, cells, stripAt, job) {
    const { at, rows } = this;
    this.see(start, cells, stripAt, job);
    this.multiply("perceive", at.near + this.row, rows.near, cells);
    if (this.isPlaced) for (let cell = 0; cell < cells; cell++) this.perceive(cell, this.tableAt(start + cell, job));
    this.multiply("expand", at.layer, rows.layer, cells);
    if (!this.isPlaced) this.activate(0, cells, this.length);
    else for (let cell = 0; cell < cells; cell++) this.activate(cell, 1, this.tableAt(start + cell, job));
    this.multiply("project", at.change, rows.change, cells);
  }

  // Find the cells around each cell of a block, and copy its own state.
  see(start, cells, stripAt, { size, grid: [lines, across], first: [top, left], edge, dilation }) {
    const { row, planes, at, rows, machine: { numbers, words } } = this, zero = lines * across;
    for (let cell = 0; cell < cells; cell++) {
      const y = top + Math.floor((start + cell) / size[1]), x = left + (start + cell) % size[1];
      const to = at.perceiveFrom + 9 * (cell - cell % AT_ONCE) + cell % AT_ONCE;
      for (let tapX = 0; tapX < 3; tapX++) {
        const column = folded(x + dilation * (tapX - 1), across, edge);
        for (let tapY = 0; tapY < 3; tapY++) {
          const there = column < 0 ? zero : (y + dilation * (tapY - 1)) * across + column;
          words[to + AT_ONCE * (3 * tapY + tapX)] = 4 * (stripAt + there * row + planes);
        }
      }
      const own = stripAt + (y * across + x) * row;
      numbers.copyWithin(at.near + cell * rows.near, own, own + row);
    }
  }

  // Where the table of a cell lies that knows its place.
  tableAt(cell, { size, grid, first }) {
    const index = Math.floor(cell / size[1]) * grid[1] + first[1] + cell % size[1];
    return this.length + index * 2 * (this.seen + this.hidden);
  }

  perceive(cell, tableAt) {
    const { seen, at, rows, machine: { numbers } } = this, near = at.near + cell * rows.near;
    for (let c = 0; c < seen; c++) numbers[near + c] = numbers[near + c] * numbers[tableAt + c] + numbers[tableAt + seen + c];
  }

  activate(cell, cells, tableAt) {
    const { seen, hidden, at, rows } = this, scale = tableAt + 2 * seen;
    this.machine.activate(4 * (at.layer + cell * rows.layer), 4 * rows.layer, 4 * scale, 4 * (scale + hidden), 4 * hidden, cells);
  }

  updates({ place, canvas, key, clock }, y, x) {
    if (!this.chance) return true;
    const column = modulo(x + place[1], canvas[1]);
    philox([modulo(y + place[0], canvas[0]), Math.floor(column / 4), 2 << 24, clock], key, this.bits);
    return this.bits[column % 4] < this.chance;
  }
}
