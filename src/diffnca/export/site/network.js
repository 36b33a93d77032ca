// A model on an engine: the weights of its stages, and its kernels.

import { layOut, modulation } from "./weights.js";

const PREDICTIONS = { noise: 0, clean: 1, velocity: 2 };
const SHARED_BYTES = 16384; // memory of a group of threads that every device has

// One stage of a network, ready to run: weights, and what time does to its layers.
class Stage {
  constructor(engine, model, name, choices) {
    Object.assign(this, choices, { engine, name });
    this.laid = layOut(model, name, choices);
    const { planes, state, hidden, row } = this.laid;
    this.row = row;
    this.weights = engine.weights(this.laid.data);
    const tables = model.levels.flatMap(({ time }) => choices.dilations.map((_, k) =>
      modulation(model, name, choices, this.laid, [time, k / choices.period])));
    this.width = tables[0].length / 4;
    const joined = new Float32Array(4 * this.width * tables.length);
    tables.forEach((table, index) => joined.set(table, index * 4 * this.width));
    this.modulation = engine.filled(joined);
    this.cells = [16, 8, 4].find((cells) => 16 * cells * (state + hidden) + 256 <= SHARED_BYTES) ?? 4;
    this.constants = { PLANES: planes, STATE: state, HIDDEN: hidden, FIRST: model.channels * choices.patch ** 2,
      CELLS: this.cells, CHANCE: choices.chance };
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
    const { engine, model, image, coarse } = this;
    const shared = { CHANNELS: model.channels, CLASSES: model.classes.length, PREDICTION: PREDICTIONS[model.prediction] };
    const of = (stage, more) => ({ ...shared, PATCH: stage.patch, PLANES: stage.laid.planes, STATE: stage.laid.state, ...more });
    const cell = (stage) => engine.cellKernel("advance", stage.constants);
    const pixels = (entry, constants) => engine.pixelKernel(entry, constants);
    const handed = coarse ? { HANDED: model.handed, SIDE: coarse.patch / image.patch, COARSE_ROW: coarse.row,
      COARSE_FIRST: 4 * coarse.laid.planes + model.channels * coarse.patch ** 2 } : {};
    const jobs = { noise: pixels("noise", of(image)), means: pixels("means", of(image)), begin: pixels("begin", of(image, handed)),
      finish: pixels("finish", of(image)), advance: cell(image) };
    if (coarse) Object.assign(jobs, { beginCoarse: pixels("begin", of(coarse)), advanceCoarse: cell(coarse) });
    const made = await Promise.all(Object.values(jobs));
    this.kernels = Object.fromEntries(Object.keys(jobs).map((name, index) => [name, made[index]]));
  }
}
