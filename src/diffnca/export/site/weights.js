// A model file (safetensors) and its weights as the kernels read them.

const BYTES = { F16: 2, F32: 4 };

export function halfToFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
  if (exponent === 0) return sign * rest * 2 ** -24;
  return exponent === 31 ? (rest ? NaN : sign * Infinity) : sign * (1024 + rest) * 2 ** (exponent - 25);
}

function floatToHalf(value, view = new DataView(new ArrayBuffer(4))) { // of numbers that are halves already
  view.setFloat32(0, value);
  const bits = view.getUint32(0), sign = (bits >>> 16) & 0x8000, exponent = ((bits >>> 23) & 255) - 112;
  if (exponent > 0) return sign | (exponent << 10) | ((bits >>> 13) & 1023);
  return sign | Math.round(Math.abs(value) * 2 ** 24);
}

// Return the tensors by name, each { shape, data } in float32, and the choices of the model.
export function readModel(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, about] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [first, end] } = about;
    const bytes = buffer.slice(8 + length + first, 8 + length + end);
    if (!(dtype in BYTES)) throw new Error(`${name}: numbers of type ${dtype} are not read here`);
    const data = dtype === "F32" ? new Float32Array(bytes) : Float32Array.from(new Uint16Array(bytes), halfToFloat);
    tensors[name] = { shape, data };
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

function dense(input, weight, bias) {
  const output = new Float64Array(bias.length);
  for (let o = 0; o < bias.length; o++) {
    let sum = bias[o];
    for (let i = 0; i < input.length; i++) sum += weight[o * input.length + i] * input[i];
    output[o] = sum;
  }
  return output;
}

// What time and cell step (and row and column, where cells know them) do to the layers of a stage.
export function modulation(model, name, stage, laid, numbers) {
  const of = (part) => model.tensors[`${name}.${part}`].data;
  const angles = numbers.flatMap((number) => [0, 1, 2, 3, 4, 5].map((octave) => number * (Math.PI / 2) * 2 ** octave));
  const features = [...angles.map(Math.cos), ...angles.map(Math.sin)];
  const inner = dense(features, of("embedding.features.net.0.weight"), of("embedding.features.net.0.bias"));
  const embedding = dense(inner.map(silu), of("embedding.features.net.2.weight"), of("embedding.features.net.2.bias"));
  const gates = ["perception", "hidden"].map((layer) =>
    dense(embedding.map(silu), of(`gate_${layer}.net.weight`), of(`gate_${layer}.net.bias`)));
  const width = 4 * (laid.row + laid.state), result = new Float32Array(2 * width + 8 * laid.hidden);
  laid.seen.forEach((at, index) => {
    result[at] = 1 + gates[0][index];
    result[width + at] = gates[0][laid.seen.length + index];
  });
  for (let index = 0; index < stage.hidden; index++) {
    result[2 * width + index] = 1 + gates[1][index];
    result[2 * width + 4 * laid.hidden + index] = gates[1][stage.hidden + index];
  }
  return result;
}
