// A model file (safetensors) and its weights as the kernels read them.

import { COLUMNS, machine, padded, panels } from "./simd.js";

const READ = { // from bytes to numbers
  F16: (bytes) => Float32Array.from(new Uint16Array(bytes)).map((half) => HALVES[half]),
  F32: (bytes) => new Float32Array(bytes),
  I8: (bytes) => Float32Array.from(new Int8Array(bytes)),
};

export function halfToFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
  if (exponent === 0) return sign * rest * 2 ** -24;
  return exponent === 31 ? (rest ? NaN : sign * Infinity) : sign * (1024 + rest) * 2 ** (exponent - 25);
}

const HALVES = new Float32Array(2 ** 16).map((_, bits) => halfToFloat(bits));

function floatToHalf(value, view = new DataView(new ArrayBuffer(4))) { // of numbers that are halves already
  view.setFloat32(0, value);
  const bits = view.getUint32(0), sign = (bits >>> 16) & 0x8000, exponent = ((bits >>> 23) & 255) - 112;
  if (exponent > 0) return sign | (exponent << 10) | ((bits >>> 13) & 1023);
  return sign | Math.round(Math.abs(value) * 2 ** 24);
}

// Return the bytes of a compressed file; servers may have decompressed it already.
async function unpacked(bytes) {
  if (new DataView(bytes).getUint16(0) !== 0x1f8b) return bytes;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// Return the tensors by name, each { shape, data } in float32, and the choices of the model.
export async function readModel(bytes) {
  const buffer = await unpacked(bytes), length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, about] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [first, end] } = about;
    if (!(dtype in READ)) throw new Error(`${name}: numbers of type ${dtype} are not read here`);
    tensors[name] = { shape, data: READ[dtype](buffer.slice(8 + length + first, 8 + length + end)) };
  }
  for (const [name, { data: factors }] of Object.entries(tensors).filter(([name]) => name.endsWith(".factor"))) {
    const { data } = tensors[name.slice(0, -".factor".length)], each = data.length / factors.length;
    data.forEach((whole, index) => { data[index] = whole * factors[Math.floor(index / each)]; });
  }
  return { ...JSON.parse(header.__metadata__.page), tensors };
}

const fours = (count) => Math.ceil(count / 4);

// The weights of one stage in the order of cell.wgsl: channels in fours, inputs before outputs, zeros between.
export function layOut(model, name, stage) {
  const of = (part) => model.tensors[`${name}.${part}`].data;
  const planes = fours(stage.planes), state = fours(stage.channels), hidden = fours(stage.hidden);
  const row = planes + state;
  const seen = []; // where each perceived channel stands
  for (let c = 0; c < stage.planes; c++) seen.push(c);
  for (let c = 0; c < stage.channels; c++) seen.push(4 * planes + c);
  for (let c = 0; c < stage.channels; c++) seen.push(4 * row + c);
  const perceived = seen.length, all = stage.planes + stage.channels;
  const starts = { expand: 144 * state * state };
  starts.project = starts.expand + 16 * (row + state) * hidden;
  starts.biases = starts.project + 16 * hidden * state;
  const data = new Float32Array(starts.biases + 4 * (2 * state + hidden));
  const perceive = of("perceive.weight"), expand = of("expand.weight"), project = of("project.weight");
  for (let out = 0; out < stage.channels; out++) {
    for (let input = 0; input < stage.channels; input++) {
      for (let tap = 0; tap < 9; tap++) {
        data[(tap * 4 * state + input) * 4 * state + out] = perceive[(out * stage.channels + input) * 9 + tap];
      }
    }
    data[starts.biases + out] = of("perceive.bias")[out];
    for (let input = 0; input < stage.hidden; input++) {
      data[starts.project + input * 4 * state + out] = project[(stage.planes + out) * stage.hidden + input];
    }
    data[starts.biases + 4 * (state + hidden) + out] = of("project.bias")[stage.planes + out];
  }
  for (let out = 0; out < stage.hidden; out++) {
    for (let input = 0; input < perceived; input++) {
      data[starts.expand + seen[input] * 4 * hidden + out] = expand[out * perceived + input];
    }
    data[starts.biases + 4 * state + out] = of("expand.bias")[out];
  }
  return { data, planes, state, hidden, row, seen, all };
}

export function asHalves(data) {
  const view = new DataView(new ArrayBuffer(4));
  return Uint16Array.from(data, (value) => floatToHalf(value, view));
}

const silu = (x) => x / (1 + Math.exp(-x));

// Return rows times a matrix, [outputs][inputs], plus a bias.
function dense(rows, weight, bias) {
  const inputs = weight.length / bias.length, inner = 4 * fours(inputs), width = padded(bias.length), lines = 4 * fours(rows.length);
  const matrixAt = lines * inner, biasAt = matrixAt + inner * width, fromAt = biasAt + width, resultAt = fromAt + lines;
  const { product, numbers, words } = machine(4 * (resultAt + lines * width));
  rows.forEach((row, index) => numbers.set(row, index * inner));
  for (let line = 0; line < lines; line++) words[fromAt + line] = 4 * line * inner;
  const turned = new Float32Array(inner * bias.length);
  weight.forEach((value, index) => { turned[(index % inputs) * bias.length + Math.floor(index / inputs)] = value; });
  panels(turned, inner, bias.length, numbers.subarray(matrixAt));
  numbers.set(bias, biasAt);
  product(4 * fromAt, 1, inner, 4 * matrixAt, 4 * biasAt, 4 * resultAt, 4 * width, lines, width / COLUMNS);
  return rows.map((_, index) => numbers.subarray(resultAt + index * width, resultAt + index * width + bias.length));
}

// What time and cell step (and row and column, where cells know them) do to the layers of a stage, one table after another.
export function modulations(model, name, stage, laid, clocks) {
  const layer = (rows, part) => dense(rows, model.tensors[`${name}.${part}.weight`].data, model.tensors[`${name}.${part}.bias`].data);
  const waves = clocks.map((numbers) => {
    const angles = numbers.flatMap((number) => [0, 1, 2, 3, 4, 5].map((octave) => number * (Math.PI / 2) * 2 ** octave));
    return [...angles.map(Math.cos), ...angles.map(Math.sin)];
  });
  const embedded = layer(layer(waves, "embedding.features.net.0").map((row) => row.map(silu)), "embedding.features.net.2");
  const seen = embedded.map((row) => row.map(silu));
  const perception = layer(seen, "gate_perception.net"), hidden = layer(seen, "gate_hidden.net");
  const width = 4 * (laid.row + laid.state), size = 2 * width + 8 * laid.hidden, tables = new Float32Array(size * clocks.length);
  for (let table = 0; table < clocks.length; table++) {
    const own = tables.subarray(table * size, (table + 1) * size);
    laid.seen.forEach((at, index) => {
      own[at] = 1 + perception[table][index];
      own[width + at] = perception[table][laid.seen.length + index];
    });
    for (let index = 0; index < stage.hidden; index++) {
      own[2 * width + index] = 1 + hidden[table][index];
      own[2 * width + 4 * laid.hidden + index] = hidden[table][stage.hidden + index];
    }
  }
  return tables;
}
