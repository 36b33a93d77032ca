// A model on an engine: the weights of its stages, and its kernels.

import { waves } from "./spectrum.js";
import { layOut, modulations } from "./weights.js";

const PREDICTIONS = { noise: 0, clean: 1, velocity: 2 };
const PIXELS_PER_UNIT = 32; // length of a unit of position
const SHARED_BYTES = 16384; // memory of a group of threads that every device has

// One stage of a network, ready to run: weights, and what time does to its layers.
class Stage {
  constructor(engine, model, name, choices) {
    Object.assign(this, choices, { engine, name });
    this.laid = layOut(model, name, choices);
    const { planes, state, hidden, row } = this.laid;
    this.row = row;
    this.weights = engine.weights(this.laid.data);
    const clocks = model.levels.flatMap(({ time }) => choices.dilations.flatMap((_, k) =>
      this.places.map((place) => [...place, time, k / choices.period])));
    this.width = this.places.length * 2 * (row + state + hidden); // of what modulates a cell step
    this.modulation = engine.filled(modulations(model, name, choices, this.laid, clocks));
    this.cells = [16, 8, 4].find((cells) => 16 * cells * (state + hidden) + 256 <= SHARED_BYTES) ?? 4;
    this.constants = { PLANES: planes, STATE: state, HIDDEN: hidden, FIRST: model.channels * choices.patch ** 2,
      CELLS: this.cells, CHANCE: choices.chance, PLACED: Number(this.places.length > 1) };
  }

  // Positions that cells know, one after another; a single one without numbers, if they know none.
  get places() {
    if (!this.isPlaced) return [[]];
    const { rows, firstRow, columns } = this;
    return [...Array(rows * columns).keys()].map((index) =>
      [Math.floor(index / columns) + firstRow, index % columns].map((position) => position / PIXELS_PER_UNIT));
  }

  // How far, in cells, the last cell steps see: what must be computed before step k, around what is wanted.
  get reaches() {
    const reaches = [0];
    for (const dilation of this.dilations.toReversed()) reaches.unshift(reaches[0] + dilation);
    return reaches;
  }
}

// A model on an engine: its stages and its kernels.
export class Network {
  constructor(engine, model) {
    Object.assign(this, { engine, model });
    this.image = new Stage(engine, model, "image", model.image);
    this.coarse = model.coarse && new Stage(engine, model, "coarse", model.coarse);
    this.spectrum = model.spectrum && new Stage(engine, model, "fourier", model.spectrum);
    if (this.spectrum) {
      const table = (name, side) => engine.filled(waves(side, model.tensors[name].data));
      Object.assign(this, { analysis: table("analysis", model.side), synthesis: table("synthesis", model.side / model.image.patch) });
    }
    this.unit = (model.coarse ?? model.image).patch;
    const reach = this.image.patch * (this.image.reaches[0] + 1);
    this.radius = this.coarse ? this.coarse.patch * (this.coarse.reaches[0] + 2) + reach : reach;
  }

  // Return a model that is ready to run.
  static async load(engine, model) {
    const made = new Network(engine, model);
    await made.compile();
    return made;
  }

  async compile() {
    const { engine, model, image, coarse, spectrum } = this;
    const shared = { CHANNELS: model.channels, CLASSES: model.classes.length, PREDICTION: PREDICTIONS[model.prediction] };
    const of = (stage, more) => ({ ...shared, PATCH: stage.patch, PLANES: stage.laid.planes, STATE: stage.laid.state, ...more });
    const cell = (stage) => engine.cellKernel("advance", stage.constants);
    const pixels = (entry, constants) => engine.pixelKernel(entry, constants);
    const handed = coarse ? { HANDED: model.handed, SIDE: coarse.patch / image.patch, COARSE_ROW: coarse.row,
      COARSE_FIRST: 4 * coarse.laid.planes + model.channels * coarse.patch ** 2 } : {};
    const window = spectrum ? { HALF: spectrum.channels / 2, ROWS: spectrum.rows, FIRST_ROW: spectrum.firstRow,
      COLUMNS: spectrum.columns, COARSE_ROW: spectrum.row } : {};
    const jobs = { noise: pixels("noise", of(image)), means: pixels("means", of(image)), begin: pixels("begin", of(image, { ...handed, ...window })),
      finish: pixels("finish", of(image)), advance: cell(image) };
    if (coarse) Object.assign(jobs, { beginCoarse: pixels("begin", of(coarse)), advanceCoarse: cell(coarse) });
    if (spectrum) Object.assign(jobs, { beginWindow: pixels("begin", of(spectrum, { ...window, IS_WINDOW: 1 })), advanceWindow: cell(spectrum) });
    const made = await Promise.all(Object.values(jobs));
    this.kernels = Object.fromEntries(Object.keys(jobs).map((name, index) => [name, made[index]]));
  }
}
