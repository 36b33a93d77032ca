// From pixels to cells and back: the first noise, the state before the first cell step, the step of the sampler.

override CHANNELS: u32; // of the image
override PATCH: u32; // side of a cell in pixels
override CLASSES: u32 = 0;
override PLANES: u32 = 0; // in groups of four
override STATE: u32;
override HANDED: u32 = 0; // numbers that each cell receives from a coarser cell,
override SIDE: u32 = 1; // which is as many cells wide,
override COARSE_ROW: u32 = 1; // and holds so many groups of four channels,
override COARSE_FIRST: u32 = 0; // the handed numbers from this channel on
override HALF: u32 = 1; // or it receives the sum of waves: channels of the real part of their spectrum, and of the imaginary part,
override ROWS: u32 = 1; // whose vertical frequencies are so many,
override FIRST_ROW: i32 = 0; // from this one on,
override COLUMNS: u32 = 1; // and whose horizontal frequencies count from zero
override IS_WINDOW: bool = false; // whether cells are these frequencies
override PREDICTION: u32 = 2; // noise, clean, velocity

override ROW: u32 = PLANES + STATE;
override NUMBERS: u32 = CHANNELS * PATCH * PATCH;
override HELD: u32 = 4u * PLANES;

const LAST = 1u; // flags: the step ends at the clean image,
const DIRTY_ONLY = 2u; // changes only pixels that are marked,
const LOOK = 4u; // or only shows the estimate;
const FREE = 8u; // cells see no map
const MARK = 0x80000000u;

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read_write> image: array<f32>; // x_t
@group(0) @binding(2) var<storage, read_write> marks: array<u32>; // class + 1, << 8 the stroke that drew new noise
@group(0) @binding(3) var<storage, read_write> coarse: array<f32>;
@group(0) @binding(4) var<storage, read_write> cells: array<f32>;
@group(0) @binding(5) var<storage, read_write> next: array<f32>; // x_s; means of squares for noise; waves
@group(0) @binding(6) var<storage, read_write> shown: array<u32>;

fn at_pixel(pixel: vec2i) -> u32 { // y, x within the grid
  let there = pixel + job.place;
  return wrapped(there.x, job.ring.x) * job.ring.y + wrapped(there.y, job.ring.y);
}

fn drawn(there: vec2i, mark: u32) -> vec4f {
  let stroke = (mark & ~MARK) >> 8;
  let place = vec2u(wrapped(there.x, job.canvas.x), wrapped(there.y, job.canvas.y));
  let stream = select(0u, 3u, stroke > 0); // INITIAL, or TASK for a healed place
  return normal(vec4u(place, stream << 24, stroke << 16));
}

fn normal(counter: vec4u) -> vec4f {
  let words = philox(counter, job.key);
  return vec4f(quantile(words.x), quantile(words.y), quantile(words.z), quantile(words.w));
}

@compute @workgroup_size(8, 8)
fn noise(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= job.size.y || id.y >= job.size.x) { return; }
  let pixel = vec2i(i32(id.y), i32(id.x));
  let at = at_pixel(pixel);
  let there = pixel + job.place;
  var value = drawn(there, marks[at]);
  if (job.tile > 0) {
    let tile = i32(job.tile);
    let first = vec2i(floor_by(job.place.x, tile), floor_by(job.place.y, tile));
    let square = vec2i(floor_by(there.x, tile), floor_by(there.y, tile)) - first;
    let across = u32(floor_by(job.place.y + i32(job.size.y) - 1, tile) - first.y + 1);
    let mean = 4 * (u32(square.x) * across + u32(square.y));
    value += job.tone / f32(tile) - vec4f(next[mean], next[mean + 1], next[mean + 2], next[mean + 3]);
  }
  for (var c = 0u; c < CHANNELS; c++) { image[at * CHANNELS + c] = value[c]; }
  if ((job.flags & LOOK) == 0) { return; }
  let packed = colour(value.x) | (colour(value.y) << 8) | (colour(value.z) << 16) | 0xff000000u;
  shown[id.y * job.size.y + id.x] = select(0u, packed, (marks[at] & MARK) != 0);
}

fn floor_by(value: i32, divisor: i32) -> i32 {
  return select(value / divisor, (value - divisor + 1) / divisor, value < 0);
}

var<workgroup> sums: array<vec4f, 64>;

@compute @workgroup_size(64) // a group for each square; its threads add rows, then the first adds their sums
fn means(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let tile = i32(job.tile);
  let first = vec2i(floor_by(job.place.x, tile), floor_by(job.place.y, tile));
  let corner = (first + vec2i(i32(group.y), i32(group.x))) * tile;
  var sum = vec4f(0);
  for (var row = lane; row < job.tile; row += 64) {
    var of_row = vec4f(0);
    for (var column = 0u; column < job.tile; column++) { of_row += drawn(corner + vec2i(i32(row), i32(column)), 0u); }
    sum += of_row;
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (lane > 0) { return; }
  for (var each = 1u; each < 64; each++) { sum += sums[each]; }
  sum /= f32(tile * tile);
  let at = 4 * (group.y * groups.x + group.x);
  for (var c = 0u; c < 4; c++) { next[at + c] = sum[c]; }
}

fn plane(cell: vec2u, class_number: u32) -> f32 {
  if (class_number >= CLASSES || (job.flags & FREE) != 0) { return 0.0; }
  var count = 0u;
  for (var y = 0u; y < PATCH; y++) {
    for (var x = 0u; x < PATCH; x++) {
      let mark = marks[at_pixel(vec2i(cell * PATCH + vec2u(y, x)))];
      count += select(0u, 1u, (mark & 0xffu) == class_number + 1);
    }
  }
  return f32(count) / f32(PATCH * PATCH);
}

// Cosine and sine of a wave at a place. `next` holds them for each share of a turn, then a scale for each frequency.
fn wave(frequency: u32, place: vec2u, side: u32) -> vec2f {
  let row = i32(frequency / COLUMNS) + FIRST_ROW;
  let share = wrapped(row * i32(place.x) + i32(frequency % COLUMNS * place.y), side);
  return vec2f(next[share], next[side + share]);
}

// A channel of the spectrum of the image.
fn analysed(frequency: u32, channel: u32) -> f32 {
  let own = channel % HALF;
  if (own >= CHANNELS || channel >= 2 * HALF) { return 0.0; }
  let side = job.canvas.x;
  var sum = vec2f(0);
  for (var y = 0u; y < side; y++) {
    var of_row = vec2f(0);
    for (var x = 0u; x < side; x++) { of_row += wave(frequency, vec2u(y, x), side) * image[(y * side + x) * CHANNELS + own]; }
    sum += of_row;
  }
  return select(sum.x, -sum.y, channel >= HALF) * next[2 * side + frequency];
}

// A channel of the sum of the waves of a spectrum, which `coarse` holds.
fn synthesised(cell: vec2u, channel: u32) -> f32 {
  let side = job.canvas.x / PATCH;
  var sum = 0.0;
  for (var frequency = 0u; frequency < ROWS * COLUMNS; frequency++) {
    let factors = wave(frequency, cell, side) * next[2 * side + frequency];
    let at = frequency * 4 * COARSE_ROW + CHANNELS + channel;
    sum += factors.x * coarse[at] - factors.y * coarse[at + HALF];
  }
  return sum;
}

fn number(cell: vec2u, channel: u32) -> f32 {
  if (IS_WINDOW) { return analysed(cell.x * COLUMNS + cell.y, channel); }
  if (channel < HELD) { return plane(cell, channel); }
  let own = channel - HELD;
  if (own < NUMBERS) {
    let inside = own % (PATCH * PATCH);
    let pixel = vec2i(cell * PATCH + vec2u(inside / PATCH, inside % PATCH));
    return image[at_pixel(pixel) * CHANNELS + own / (PATCH * PATCH)];
  }
  if (own < NUMBERS + HALF - min(CHANNELS, HALF)) { return synthesised(cell, own - NUMBERS); }
  if (own < 2 * NUMBERS || own >= 2 * NUMBERS + HANDED) { return 0.0; }
  let from_channel = COARSE_FIRST + (own - 2 * NUMBERS) * SIDE * SIDE + (cell.x % SIDE) * SIDE + cell.y % SIDE;
  let from_cell = (cell.x / SIDE) * (job.grid.y / SIDE) + cell.y / SIDE;
  return coarse[from_cell * 4 * COARSE_ROW + from_channel];
}

@compute @workgroup_size(64)
fn begin(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.y * groups.x * 64 + id.x;
  if (index >= job.size.x * job.size.y * ROW) { return; }
  let cell = job.first + vec2u(index / ROW / job.size.y, (index / ROW) % job.size.y);
  let at = 4 * ((cell.x * job.grid.y + cell.y) * ROW + index % ROW);
  for (var c = 0u; c < 4; c++) { cells[at + c] = number(cell, 4 * (index % ROW) + c); }
}

fn colour(value: f32) -> u32 { return u32(floor(clamp(value, -1.0, 1.0) * 127.5) + 128.0); }

@compute @workgroup_size(8, 8)
fn finish(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= job.size.y || id.y >= job.size.x) { return; }
  let pixel = job.first + vec2u(id.y, id.x);
  let at = at_pixel(vec2i(pixel));
  let spot = id.y * job.size.y + id.x;
  shown[spot] = 0;
  if ((job.flags & DIRTY_ONLY) != 0 && (marks[at] & MARK) == 0) { return; }
  let inside = (pixel.x % PATCH) * PATCH + pixel.y % PATCH;
  let cell = (pixel.x / PATCH) * job.grid.y + pixel.y / PATCH;
  var packed = 0xff000000u;
  for (var c = 0u; c < CHANNELS; c++) {
    let x_t = image[at * CHANNELS + c];
    let number = 4 * (cell * ROW) + HELD + NUMBERS + c * PATCH * PATCH + inside;
    var predicted = cells[number];
    if (job.obey != 1.0) { predicted = job.obey * predicted - (job.obey - 1.0) * coarse[number]; } // `coarse`: the free cells
    var clean = predicted;
    if (PREDICTION == 0) { clean = (x_t - job.level.y * predicted) / job.level.x; }
    if (PREDICTION == 2) { clean = job.level.x * x_t - job.level.y * predicted; }
    if ((job.flags & (LAST | LOOK)) == 0) { next[at * CHANNELS + c] = job.level.z * x_t + job.level.w * clean; }
    packed |= colour(clean) << (8 * c);
    if (CHANNELS == 1) { packed |= (colour(clean) << 8) | (colour(clean) << 16); }
  }
  shown[spot] = packed;
}
