// A world: a map of pixels that are made where they are wanted, level by level, and edited with brushes.

import { BLOCK, EDGES, ENDLESS, Known, areaOf, around, distance, grown, modulo, overlap, pieces, rect, shared, square, toBlocks } from "./places.js";
import { Tiles } from "./tiles.js";

const LAST = 1, DIRTY_ONLY = 2, LOOK = 4, FREE = 8; // flags of pixels.wgsl
const MARK = 0x80000000; // of a pixel that an edit changes now
const RING_PX = 2048; // side of the buffers of a larger world, a window that moves with the view
const LARGEST_CHUNK_PX = 768;
const PAINT_MARGIN_PX = 24; // around painted places, where their surroundings adapt
const GLANCE_PX = 96; // side of what is shown first of a step

// A canvas of any size whose pixels are made where they are wanted, and the same wherever they are made.
export class World {
  // `size`: sides in pixels. `edge`: "around" joins opposite edges, "mirror" is the canvas of `diffnca sample`.
  // `tile`, `tone` and `obey`: as --even-px, --tone and --obey. `isStill`: show finished pixels only. `edits`: of a world before.
  constructor(network, { size = ENDLESS, edge = "around", seed = 0n, tile = 0, tone = [0, 0, 0], obey = 1, isStill = false, edits = [] } = {}) {
    if (size % BLOCK) throw new Error(`size=${size}: must be a multiple of ${BLOCK} px`);
    Object.assign(this, { network, engine: network.engine, model: network.model, size, edge, tone, obey, isStill, edits });
    this.tile = tile === 0 ? 0 : Math.min(tile, size);
    this.side = Math.min(size, RING_PX); // of the buffers
    this.key = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
    this.steps = this.model.levels.length;
    const area = this.side ** 2, known = () => new Known(Math.ceil(this.side / BLOCK), size);
    this.levels = this.model.levels.map(() => this.engine.buffer(4 * this.model.channels * area));
    this.marks = this.engine.buffer(4 * area);
    this.marked = new Uint32Array(area);
    this.known = this.levels.map(known);
    this.tiles = new Tiles(size);
    this.known.push(this.tiles.known);
    this.settled = known(); // where the marks are those of the edits
    this.none = this.engine.buffer(16);
    this.scratch = new Map();
    this.spent = { milliseconds: 0, pixels: 0 };
  }

  destroy() {
    for (const buffer of [...this.levels, this.marks, this.none, ...this.scratch.values()]) buffer.destroy();
  }

  get isWhole() { return this.size <= RING_PX; }

  // Side of a part of the map whose surroundings, for all steps, fit into the buffers.
  get chunk() { return Math.min(RING_PX - 2 * (this.steps - 1) * this.reach, LARGEST_CHUNK_PX); }

  // Pixels that a step sees around a pixel, in whole blocks.
  get reach() { return Math.ceil(this.network.radius / BLOCK) * BLOCK; }

  // What must be known of level `level` so that `r` can be finished.
  needed(level, r) {
    return this.within(toBlocks(grown(r, (this.steps - level) * this.reach)));
  }

  // A rectangle, cut to the world: an axis counts once.
  within(r) {
    if (!this.isWhole) return r;
    const made = { ...r };
    if (this.edge === "mirror" || r.height >= this.size) [made.top, made.height] = [0, this.size];
    if (this.edge === "mirror" || r.width >= this.size) [made.left, made.width] = [0, this.size];
    return made;
  }

  // Scratch memory for cells, as large as was ever needed.
  room(name, bytes) {
    const there = this.scratch.get(name);
    if (there && there.size >= bytes) return there;
    there?.destroy();
    const made = this.engine.buffer(bytes);
    this.scratch.set(name, made);
    return made;
  }

  job(more) {
    const canvas = [this.size, this.size];
    return { grid: [0, 0], first: [0, 0], size: [0, 0], edge: [0, 0], place: [0, 0], canvas, ring: [this.side, this.side],
      key: this.key, ...more };
  }

  pixelGroup({ image = this.none, coarse = this.none, cells = this.none, next = this.none, shown = this.none } = {}) {
    return this.engine.pixelGroup([image, this.marks, coarse, cells, next, shown]
      .map((buffer, index, all) => (buffer === this.none && all.indexOf(buffer) !== index ? this.spare(index) : buffer)));
  }

  spare(index) { return this.room(`spare ${index}`, 16); }

  // Draw the first noise on a rectangle.
  drawNoise(r, flags = 0) {
    const { kernels } = this.network, { tile } = this, place = [r.top, r.left], size = [r.height, r.width];
    const tone = [...this.tone, 0, 0, 0].slice(0, 4);
    const job = this.job({ grid: size, size, place, tile, tone, flags });
    let next = this.none;
    if (tile) {
      const across = (from, length) => Math.floor((from + length - 1) / tile) - Math.floor(from / tile) + 1;
      const [rows, columns] = [across(r.top, r.height), across(r.left, r.width)];
      next = this.room("means", 16 * rows * columns);
      this.engine.queue(kernels.means, this.pixelGroup({ next }), [columns, rows], job);
    }
    const shown = flags & LOOK ? this.room("shown", 4 * r.height * r.width) : this.none;
    const group = this.pixelGroup({ image: this.levels[0], next, shown });
    this.engine.queue(kernels.noise, group, [Math.ceil(r.width / 8), Math.ceil(r.height / 8)], job);
  }

  // The grid of pixels that one step over a rectangle reads, and how it goes on beyond its edges.
  gridOf(r) {
    const { unit, radius } = this.network;
    const axis = (start, length) => {
      if (length === this.size) return [start, length, EDGES[this.edge]];
      const first = Math.floor((start - radius) / unit) * unit;
      return [first, Math.ceil((start + length + radius - first) / unit) * unit, EDGES.open];
    };
    const [top, height, edgeY] = axis(r.top, r.height), [left, width, edgeX] = axis(r.left, r.width);
    return { ...rect(top, left, height, width), edge: [edgeY, edgeX] };
  }

  // Make level + 1 from `level` on a rectangle; `look` is called after cell steps whose estimate is shown, and `glance.look`
  // when the estimate of `glance.part` is shown, before that of the rest.
  async step(level, r, { flags = 0, look = null, glance = null } = {}) {
    const grid = this.gridOf(r), inside = rect(r.top - grid.top, r.left - grid.left, r.height, r.width);
    this.settle(grid);
    if (level === 0) this.drawNoise(this.within(grid));
    const free = this.isLed(grid) ? await this.estimate(level, grid, inside, "Free", FREE) : this.none;
    const cells = await this.estimate(level, grid, inside, "", 0, look && !this.isStill && (async (state) => {
      this.finish(level, grid, inside, state, this.none, flags | LOOK);
      await this.show(r);
      await look();
    }), glance);
    this.finish(level, grid, inside, cells, free, flags | (level === this.steps - 1 ? LAST : 0) | (look ? LOOK : 0));
    if (look || !this.isStill || level === this.steps - 1) await this.show(r);
    else await this.engine.done();
    if (look && this.isStill) await look();
  }

  // Whether cells of a rectangle see painted places, which the image follows more closely than the model would.
  isLed(r) {
    const sees = ({ box, class: number }) => number !== null && (this.isWhole || overlap(box, r));
    return this.obey !== 1 && this.edits.some(sees);
  }

  // Run the network; return the buffer with the last state of its cells. `set` names the scratch memory.
  async estimate(level, grid, inside, set, flags, look = null, glance = null) {
    const { image, coarse, spectrum, analysis, synthesis } = this.network;
    const run = (stage, more) => this.runStage(stage, level, grid, { set, flags, plot: this.plot(stage, grid, inside, 0), ...more });
    if (spectrum) {
      const drawn = run(spectrum, { kind: "Window", plot: this.windowPlot(spectrum), waves: analysis });
      return run(image, { handed: drawn, waves: synthesis, look });
    }
    if (!coarse) return run(image, { look });
    const handed = run(coarse, { kind: "Coarse", plot: this.plot(coarse, grid, inside, image.patch * image.reaches[0]) });
    if (glance) await this.glance(level, grid, handed, glance);
    return run(image, { handed, look });
  }

  // Show the estimate of a part, after the coarse cells of the whole.
  async glance(level, grid, handed, { part, look }) {
    const { image } = this.network, inside = rect(part.top - grid.top, part.left - grid.left, part.height, part.width);
    const cells = this.runStage(image, level, grid, { plot: this.plot(image, grid, inside, 0), set: "", flags: 0, handed });
    this.finish(level, grid, inside, cells, this.none, LOOK);
    await this.show(part);
    await look();
  }

  // Bring what the last kernel has shown of a rectangle into the tiles.
  async show(r) {
    const bytes = 4 * r.height * r.width;
    this.tiles.put(r, new Uint8ClampedArray(await this.engine.read(this.room("shown", bytes), 0, bytes)));
  }

  // The cells of a stage, and which of them are wanted, `more` pixels around a rectangle.
  plot({ patch }, grid, inside, more) {
    const rows = grid.height / patch, columns = grid.width / patch;
    const wanted = (reach) => { // in cells: what is wanted after the stage, grown by the reach of its later steps
      const span = (start, length, edge, all) => {
        const first = Math.floor((start - more) / patch) - reach, end = Math.ceil((start + length + more) / patch) + reach;
        if (edge === EDGES.around && (first < 0 || end > all)) return [0, all];
        return [Math.max(first, 0), Math.min(end, all) - Math.max(first, 0)];
      };
      const [y, height] = span(inside.top, inside.height, grid.edge[0], rows);
      const [x, width] = span(inside.left, inside.width, grid.edge[1], columns);
      return { first: [y, x], size: [height, width] };
    };
    const place = [Math.floor(grid.top / patch), Math.floor(grid.left / patch)];
    return { grid: [rows, columns], edge: grid.edge, place, canvas: [this.size / patch, this.size / patch], wanted };
  }

  // The cells of the window of low frequencies: all, always.
  windowPlot({ rows, columns, edge }) {
    const grid = [rows, columns], wanted = () => ({ first: [0, 0], size: grid });
    return { grid, edge: [EDGES[edge], EDGES[edge]], place: [0, 0], canvas: grid, wanted };
  }

  // Run the cell steps of a stage; return the buffer that holds its last state.
  runStage(stage, level, grid, { plot, set, flags, kind = "", handed = this.none, waves = this.none, look = null }) {
    const { engine, network } = this, { row, reaches } = stage, { wanted, place, canvas, ...cells } = plot;
    const bytes = 16 * row * (cells.grid[0] * cells.grid[1] + 1); // and a cell of zeros
    let state = this.room(`state${kind}${set}`, bytes), other = this.room(`other${kind}${set}`, bytes);
    const { first, size } = wanted(reaches[0]), numbers = Math.ceil(size[0] * size[1] * row / 64);
    const across = Math.min(numbers, 32768);
    engine.queue(network.kernels[`begin${kind}`], this.pixelGroup({ image: this.levels[level], coarse: handed, cells: state, next: waves }),
      [across, Math.ceil(numbers / across)], this.job({ ...cells, first, size, place: [grid.top, grid.left], flags }));
    const groups = [this.cellGroup(stage, state, other), this.cellGroup(stage, other, state)];
    const advance = (k) => {
      const part = wanted(reaches[k + 1]);
      const job = this.job({ ...cells, ...part, place, canvas,
        dilation: stage.dilations[k], modulation: (level * stage.dilations.length + k) * stage.width,
        clock: (level << 16) | (stage.firstMask + k) });
      const perGroup = stage.cells / 4;
      engine.queue(network.kernels[`advance${kind}`], groups[k % 2], [Math.ceil(part.size[1] / 4), Math.ceil(part.size[0] / perGroup)], job);
      engine.submit();
      [state, other] = [other, state];
    };
    if (!look) {
      stage.dilations.forEach((_, k) => advance(k));
      return state;
    }
    return (async () => {
      for (let k = 0; k < stage.dilations.length; k++) {
        advance(k);
        await look(state);
      }
      return state;
    })();
  }

  cellGroup(stage, before, after) {
    return this.engine.cellGroup([stage.weights, stage.modulation, before, after]);
  }

  finish(level, grid, inside, cells, free, flags) {
    const at = this.model.levels[level], next = level + 1 < this.steps ? this.levels[level + 1] : this.none;
    const shown = this.room("shown", 4 * inside.height * inside.width);
    const group = this.pixelGroup({ image: this.levels[level], coarse: free, cells, next, shown });
    const job = this.job({ obey: free === this.none ? 1 : this.obey, grid: [grid.height / this.network.image.patch, grid.width / this.network.image.patch],
      first: [inside.top, inside.left], size: [inside.height, inside.width], place: [grid.top, grid.left], flags,
      level: [at.alpha, at.sigma, at.kept, at.weight] });
    this.engine.queue(this.network.kernels.finish, group, [Math.ceil(inside.width / 8), Math.ceil(inside.height / 8)], job);
  }

  // The next piece of work so that `r` gets finished, nearest to its middle first, and the share of its level that is done;
  // `null` if all is there.
  next(r, pieceSide) {
    const middle = [r.top + r.height / 2, r.left + r.width / 2];
    const far = (p) => Math.hypot(p.top + p.height / 2 - middle[0], p.left + p.width / 2 - middle[1]);
    const near = (rects) => rects.sort((a, b) => far(a) - far(b))[0];
    const chunks = this.isWhole ? [this.within(toBlocks(r))] : pieces([toBlocks(r)], this.chunk);
    for (const chunk of chunks.sort((a, b) => far(a) - far(b))) {
      if (this.known[this.steps].hasAll(chunk)) continue;
      for (let level = 1; level <= this.steps; level++) {
        const needed = this.needed(level, chunk), missing = this.known[level].missing(needed);
        if (!missing.length) continue;
        const whole = missing.find((each) => each.height === this.size && each.width === this.size);
        const piece = whole && this.size <= 512 ? this.around(middle) : near(pieces(missing, pieceSide));
        return { level, piece, middle, done: 1 - areaOf(missing) / areaOf([needed]) };
      }
    }
    return null;
  }

  // The whole world as a rectangle; where opposite edges meet, its middle is as near to a place as blocks allow.
  around(middle) { return this.edge === "around" ? square(middle, this.size, BLOCK) : rect(0, 0, this.size, this.size); }

  // Do a piece of work; `look` is called before its end, when the middle of what is wanted is shown.
  async make({ level, piece, middle }, look = null) {
    const began = performance.now(), part = look && middle && shared(square(middle, GLANCE_PX), piece);
    const hasPart = part && part.height > 0 && part.width > 0 && !this.isStill && !this.isLed(piece);
    await this.step(level - 1, piece, { glance: hasPart ? { part, look } : null });
    this.known[level].addAll(piece);
    this.spent.milliseconds += performance.now() - began;
    this.spent.pixels += piece.height * piece.width / this.steps;
  }

  // Make a rectangle, to the end.
  async finished(r, pieceSide = 256) {
    for (let work; (work = this.next(r, pieceSide)); ) await this.make(work);
  }

  // Make all that step `level` over a rectangle reads.
  async prepare(level, r, side = 256) {
    if (level === 0) return;
    for (const piece of pieces(this.known[level].missing(this.within(toBlocks(r))), side)) {
      await this.prepare(level - 1, grown(piece, this.network.radius), side);
      await this.make({ level, piece });
    }
  }

  // Bring the marks of a rectangle in line with the edits, where the buffer has held another place.
  settle(r) {
    for (const blocks of this.settled.missing(this.within(toBlocks(r)))) {
      this.eachPixel(blocks, (at) => { this.marked[at] = 0; });
      for (const edit of this.edits) this.mark(edit, blocks, 0);
      this.upload(blocks);
      this.settled.addAll(blocks);
    }
  }

  eachPixel(r, visit) {
    for (let y = r.top; y < r.top + r.height; y++) {
      const row = modulo(y, this.side) * this.side;
      for (let x = r.left; x < r.left + r.width; x++) visit(row + modulo(x, this.side), y, x);
    }
  }

  // Write an edit into the marks within a rectangle; `dirt` marks what is to be made anew.
  mark({ points, radius, margin, class: number, stroke }, r, dirt) {
    const box = around(points.map(([y, x]) => rect(Math.floor(y - radius - margin), Math.floor(x - radius - margin),
      Math.ceil(2 * (radius + margin)) + 1, Math.ceil(2 * (radius + margin)) + 1)));
    this.eachPixel(shared(box, r), (at, y, x) => {
      const far = distance(points, y + 0.5, x + 0.5);
      let mark = this.marked[at];
      if (far <= radius) mark = number === null ? (mark & 0xff) | (stroke << 8) : (mark & ~0xff) | (number + 1);
      this.marked[at] = far <= radius + margin ? mark | dirt : mark;
    });
  }

  upload(r) {
    for (let y = r.top; y < r.top + r.height; y++) {
      const row = modulo(y, this.side) * this.side, left = modulo(r.left, this.side);
      const first = Math.min(r.width, this.side - left);
      this.engine.write(this.marks, row + left, this.marked, row + left, first);
      if (first < r.width) this.engine.write(this.marks, row, this.marked, row, Math.min(r.width - first, this.side));
    }
  }

  // Heal a stroke (new noise, `class` null) or paint a class along it; only pixels near the stroke change. `look` is
  // called when something new is shown.
  async edit({ points, radius, class: number = null }, look = async () => {}) {
    const edit = { points, radius, margin: number === null ? 0 : PAINT_MARGIN_PX, class: number, stroke: this.edits.length + 1 };
    const reach = radius + edit.margin;
    const whole = toBlocks(around(points.map(([y, x]) => rect(y - reach, x - reach, 2 * reach, 2 * reach))));
    const box = await this.prepareAll(whole);
    this.settle(box);
    this.edits.push({ ...edit, box: whole });
    this.mark(edit, whole, MARK);
    this.upload(box);
    if (number === null && !this.isStill) {
      this.drawNoise(box, LOOK);
      await this.show(box);
      await look();
    }
    await this.remake(box, look);
  }

  // Take back the last edit.
  async undo(look = async () => {}) {
    const edit = this.edits.pop();
    if (!edit) return;
    this.settled.drop(this.within(edit.box));
    const box = await this.prepareAll(edit.box);
    this.settle(box);
    this.mark({ ...edit, radius: -1, margin: edit.radius + edit.margin + 1 }, edit.box, MARK); // no class, no noise
    this.upload(box);
    await this.remake(box, look);
  }

  // Make all that the steps over a rectangle read; return it, cut to the world.
  async prepareAll(r) {
    const box = this.within(r);
    for (let level = this.steps; level > 0; level--) {
      await this.prepare(level, level === this.steps ? box : grown(box, this.network.radius));
    }
    return box;
  }

  // Make the marked pixels of a rectangle anew, at each level.
  async remake(box, look) {
    for (let level = 0; level < this.steps; level++) {
      for (const piece of box.height === this.size ? [box] : pieces([box], 256)) await this.step(level, piece, { flags: DIRTY_ONLY });
      if (!this.isStill || level === this.steps - 1) await look();
    }
    this.eachPixel(box, (at) => { this.marked[at] &= ~MARK; });
    this.upload(box);
  }

  // Show a rectangle after each cell step of the last stage, from noise to image.
  async watch(r, look) {
    const shown = await this.prepareAll(toBlocks(r));
    const before = this.tiles.pixels(shown); // healed places keep their surroundings, which this would make anew
    try {
      for (let level = 0; level < this.steps; level++) await this.step(level, shown, { look: () => look(level) });
    } finally {
      this.tiles.put(shown, before);
    }
  }

  // Return a picture of a rectangle, or of the whole of a small world.
  async picture(r) {
    const shown = this.isWhole ? rect(0, 0, this.size, this.size) : r;
    await this.finished(shown);
    return new ImageData(this.tiles.pixels(shown), shown.width, shown.height);
  }

  get tilePx() { return 256; }

  get millisecondsPerTile() { return this.spent.pixels ? this.spent.milliseconds / this.spent.pixels * this.tilePx ** 2 : null; }
}
