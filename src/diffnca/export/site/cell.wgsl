// One cell step of a stage, in one kernel: perceive, expand, normalise, modulate, project, add.
// A group of threads computes four columns by CELLS / 4 rows of cells. Each thread computes four cells by four
// channels at a time, so it uses every weight four times. Each cell takes the same operations in the same order
// wherever it lies: tiles are equal to the bit.

override PLANES: u32; // all counts in groups of four channels: given planes,
override STATE: u32; // the other channels of the state,
override HIDDEN: u32; // the hidden layer
override FIRST: u32; // the first channel that changes, without the planes
override CELLS: u32;
override THREADS: u32 = 64;
override CHANCE: u32 = 0; // probability of an update, times 2^32; 0 means always
override PLACED: u32 = 0; // 1: each cell has a modulation of its own

override ROW: u32 = PLANES + STATE;
override SEEN: u32 = ROW + STATE;
override EXPAND: u32 = 36 * STATE * STATE; // where each part of the weights begins
override PROJECT: u32 = EXPAND + 4 * SEEN * HIDDEN;
override BIASES: u32 = PROJECT + 4 * HIDDEN * STATE;

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> weights: array<half4>;
@group(0) @binding(2) var<storage, read> modulation: array<vec4f>;
@group(0) @binding(3) var<storage, read> before: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> after: array<vec4f>;

var<workgroup> near: array<vec4f, CELLS * STATE>;
var<workgroup> hidden: array<vec4f, CELLS * HIDDEN>;
var<workgroup> parts: array<f32, THREADS>;

fn weight(index: u32) -> vec4f { return vec4f(weights[index]); }

// Where a cell stands in `before`.
fn stands(cell: vec2i) -> u32 {
  let beyond = vec2u(cell.yx) >= job.grid; // also before the first
  if ((beyond.x && job.edge.x == EMPTY) || (beyond.y && job.edge.y == EMPTY)) { return job.grid.x * job.grid.y * ROW; }
  let y = folded(cell.y, i32(job.grid.x), job.edge.x);
  let x = folded(cell.x, i32(job.grid.y), job.edge.y);
  return u32(y * i32(job.grid.y) + x) * ROW;
}

// Where the modulations of four cells begin.
fn tables(at: vec4u) -> vec4u { return job.modulation + PLACED * at / ROW * 2 * (SEEN + HIDDEN); }

// What multiplies a channel of four cells, or is added to it.
fn modulations(tables: vec4u, channel: u32) -> mat4x4f {
  let first = modulation[tables.x + channel];
  if (PLACED == 0) { return mat4x4f(first, first, first, first); }
  return mat4x4f(first, modulation[tables.y + channel], modulation[tables.z + channel], modulation[tables.w + channel]);
}

// Where four cells of a row stand.
fn stand(cell: vec2i, last: vec2i) -> vec4u {
  return vec4u(stands(min(cell, last)), stands(min(cell + vec2i(1, 0), last)), stands(min(cell + vec2i(2, 0), last)),
    stands(min(cell + vec2i(3, 0), last)));
}

fn updates(cell: vec2i) -> bool {
  if (CHANCE == 0) { return true; }
  let place = vec2u(wrapped(cell.y + job.place.x, job.canvas.x), wrapped(cell.x + job.place.y, job.canvas.y));
  let words = philox(vec4u(place.x, place.y / 4, 2u << 24, job.clock), job.key);
  return words[place.y % 4] < CHANCE;
}

@compute @workgroup_size(THREADS)
fn advance(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let corner = vec2i(vec2u(job.first.y + 4 * group.x, job.first.x + CELLS / 4 * group.y)); // x, y
  let last = vec2i(vec2u(job.first.y + job.size.y, job.first.x + job.size.x)) - 1;
  let step = i32(job.dilation);

  for (var item = lane; item < CELLS / 4 * STATE; item += THREADS) {
    let channel = item % STATE;
    let row = item / STATE;
    var sum_0 = weight(BIASES + channel);
    var sum_1 = sum_0; var sum_2 = sum_0; var sum_3 = sum_0;
    for (var tap = 0; tap < 9; tap++) {
      let cell = corner + vec2i(0, i32(row));
      let shift = step * vec2i(tap % 3 - 1, tap / 3 - 1);
      let at_0 = stands(min(cell, last) + shift);
      let at_1 = stands(min(cell + vec2i(1, 0), last) + shift);
      let at_2 = stands(min(cell + vec2i(2, 0), last) + shift);
      let at_3 = stands(min(cell + vec2i(3, 0), last) + shift);
      for (var input = 0u; input < STATE; input++) {
        let first = (u32(tap) * STATE + input) * 4 * STATE + channel;
        let w = mat4x4f(weight(first), weight(first + STATE), weight(first + 2 * STATE), weight(first + 3 * STATE));
        sum_0 += w * before[at_0 + PLANES + input];
        sum_1 += w * before[at_1 + PLANES + input];
        sum_2 += w * before[at_2 + PLANES + input];
        sum_3 += w * before[at_3 + PLANES + input];
      }
    }
    let own = tables(stand(corner + vec2i(0, i32(row)), last));
    let scale = modulations(own, ROW + channel);
    let shift = modulations(own, SEEN + ROW + channel);
    near[(4 * row + 0) * STATE + channel] = sum_0 * scale[0] + shift[0];
    near[(4 * row + 1) * STATE + channel] = sum_1 * scale[1] + shift[1];
    near[(4 * row + 2) * STATE + channel] = sum_2 * scale[2] + shift[2];
    near[(4 * row + 3) * STATE + channel] = sum_3 * scale[3] + shift[3];
  }
  workgroupBarrier();

  for (var item = lane; item < CELLS / 4 * HIDDEN; item += THREADS) {
    let channel = item % HIDDEN;
    let row = item / HIDDEN;
    let at = stand(corner + vec2i(0, i32(row)), last);
    let own = tables(at);
    var sum_0 = weight(BIASES + STATE + channel);
    var sum_1 = sum_0; var sum_2 = sum_0; var sum_3 = sum_0;
    for (var input = 0u; input < ROW; input++) {
      let first = EXPAND + input * 4 * HIDDEN + channel;
      let w = mat4x4f(weight(first), weight(first + HIDDEN), weight(first + 2 * HIDDEN), weight(first + 3 * HIDDEN));
      let scale = modulations(own, input);
      let shift = modulations(own, SEEN + input);
      sum_0 += w * (before[at.x + input] * scale[0] + shift[0]);
      sum_1 += w * (before[at.y + input] * scale[1] + shift[1]);
      sum_2 += w * (before[at.z + input] * scale[2] + shift[2]);
      sum_3 += w * (before[at.w + input] * scale[3] + shift[3]);
    }
    for (var input = 0u; input < STATE; input++) {
      let first = EXPAND + (ROW + input) * 4 * HIDDEN + channel;
      let w = mat4x4f(weight(first), weight(first + HIDDEN), weight(first + 2 * HIDDEN), weight(first + 3 * HIDDEN));
      sum_0 += w * near[(4 * row + 0) * STATE + input];
      sum_1 += w * near[(4 * row + 1) * STATE + input];
      sum_2 += w * near[(4 * row + 2) * STATE + input];
      sum_3 += w * near[(4 * row + 3) * STATE + input];
    }
    hidden[(4 * row + 0) * HIDDEN + channel] = sum_0;
    hidden[(4 * row + 1) * HIDDEN + channel] = sum_1;
    hidden[(4 * row + 2) * HIDDEN + channel] = sum_2;
    hidden[(4 * row + 3) * HIDDEN + channel] = sum_3;
  }
  workgroupBarrier();

  // the layer norm of each cell: THREADS / CELLS threads share a cell, and add their parts in one order
  let team = THREADS / CELLS;
  let own = lane / team;
  let table = tables(vec4u(stands(min(corner + vec2i(i32(own % 4), i32(own / 4)), last)))).x;
  var part = 0.0;
  for (var channel = lane % team; channel < HIDDEN; channel += team) { part += dot(hidden[own * HIDDEN + channel], vec4f(1)); }
  parts[lane] = part;
  workgroupBarrier();
  var mean = 0.0;
  for (var each = 0u; each < team; each++) { mean += parts[own * team + each]; }
  mean /= f32(4 * HIDDEN);
  workgroupBarrier();
  part = 0.0;
  for (var channel = lane % team; channel < HIDDEN; channel += team) {
    let apart = hidden[own * HIDDEN + channel] - mean;
    part += dot(apart, apart);
  }
  parts[lane] = part;
  workgroupBarrier();
  var variance = 0.0;
  for (var each = 0u; each < team; each++) { variance += parts[own * team + each]; }
  let rate = 1.0 / sqrt(variance / f32(4 * HIDDEN) + 1e-5);
  for (var channel = lane % team; channel < HIDDEN; channel += team) {
    let at = own * HIDDEN + channel;
    let scale = modulation[table + 2 * SEEN + channel];
    let shift = modulation[table + 2 * SEEN + HIDDEN + channel];
    let value = (hidden[at] - mean) * rate * scale + shift;
    hidden[at] = max(value, 0.01 * value); // leaky ReLU
  }
  workgroupBarrier();

  for (var item = lane; item < CELLS / 4 * STATE; item += THREADS) {
    let channel = item % STATE;
    let row = item / STATE;
    var sum_0 = weight(BIASES + STATE + HIDDEN + channel);
    var sum_1 = sum_0; var sum_2 = sum_0; var sum_3 = sum_0;
    for (var input = 0u; input < HIDDEN; input++) {
      let first = PROJECT + input * 4 * STATE + channel;
      let w = mat4x4f(weight(first), weight(first + STATE), weight(first + 2 * STATE), weight(first + 3 * STATE));
      sum_0 += w * hidden[(4 * row + 0) * HIDDEN + input];
      sum_1 += w * hidden[(4 * row + 1) * HIDDEN + input];
      sum_2 += w * hidden[(4 * row + 2) * HIDDEN + input];
      sum_3 += w * hidden[(4 * row + 3) * HIDDEN + input];
    }
    let cell = corner + vec2i(0, i32(row));
    let written = select(vec4f(0), vec4f(1), 4 * channel + vec4u(0, 1, 2, 3) >= vec4u(FIRST));
    put(cell, last, channel, written * sum_0);
    put(cell + vec2i(1, 0), last, channel, written * sum_1);
    put(cell + vec2i(2, 0), last, channel, written * sum_2);
    put(cell + vec2i(3, 0), last, channel, written * sum_3);
  }
}

fn put(cell: vec2i, last: vec2i, channel: u32, change: vec4f) {
  if (any(cell > last)) { return; }
  let at = stands(cell);
  let share = select(0.0, 1.0, updates(cell));
  after[at + PLANES + channel] = before[at + PLANES + channel] + share * change;
  if (channel < PLANES) { after[at + channel] = before[at + channel]; }
}
