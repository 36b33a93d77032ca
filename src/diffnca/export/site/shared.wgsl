// What all kernels share: the job, places on a canvas, random numbers.

struct Job {
  grid: vec2u, // cells of the grid, y and x
  first: vec2u, // where the work begins: in cells of the grid, or in pixels of the grid
  size: vec2u, // how much of it
  edge: vec2u, // beyond the grid: OPEN, AROUND, MIRROR or EMPTY
  place: vec2i, // of the first cell or pixel of the grid on the canvas
  canvas: vec2u, // sides of the canvas, in cells or pixels
  ring: vec2u, // sides of the buffers that hold pixels; a pixel stands at its place modulo these
  key: vec2u, // the seed
  dilation: u32,
  modulation: u32,
  clock: u32, // diffusion step << 16 | cell step
  flags: u32,
  tile: u32, // side of the squares of noise that have one mean; 0 for none
  obey: f32, // how closely the image follows the map of classes: 1 as trained
  spare: vec2u,
  level: vec4f, // alpha and sigma of x_t; shares of x_t and of the estimate in the next x
  tone: vec4f,
}

const OPEN = 0u;
const AROUND = 1u;
const MIRROR = 2u;
const EMPTY = 3u; // zeros, of a cell that stands after the last one of the grid

fn wrapped(index: i32, size: u32) -> u32 {
  if (size == 0x80000000u) { return bitcast<u32>(index) & 0x7fffffffu; }
  let rest = index % i32(size);
  return u32(select(rest, rest + i32(size), rest < 0));
}

fn folded(index: i32, size: i32, edge: u32) -> i32 {
  if (index >= 0 && index < size) { return index; }
  if (edge == AROUND) { return i32(wrapped(index, u32(size))); }
  if (edge == OPEN) { return clamp(index, 0, size - 1); }
  let turn = max(2 * (size - 1), 1);
  let there = i32(wrapped(index, u32(turn)));
  return min(there, turn - there);
}

fn wide(a: u32, b: u32) -> vec2u { // high and low word of a product
  let low = (a & 0xffffu) * (b & 0xffffu);
  let cross = (a >> 16) * (b & 0xffffu) + (low >> 16);
  let other = (a & 0xffffu) * (b >> 16) + (cross & 0xffffu);
  return vec2u((a >> 16) * (b >> 16) + (cross >> 16) + (other >> 16), a * b);
}

fn philox(counter: vec4u, seed: vec2u) -> vec4u { // Philox4x32-10, as diffnca.canvas.noise
  var words = counter;
  var key = seed;
  for (var round = 0; round < 10; round++) {
    let first = wide(words.x, 0xD2511F53u);
    let second = wide(words.z, 0xCD9E8D57u);
    words = vec4u(second.x ^ words.y ^ key.x, second.y, first.x ^ words.w ^ key.y, first.y);
    key += vec2u(0x9E3779B9u, 0xBB67AE85u);
  }
  return words;
}

fn quantile(word: u32) -> f32 { // of the normal distribution at (word + 0.5) / 2^32: Wichura's AS 241
  let is_upper = word >= 0x80000000u;
  let rest = select(word, ~word, is_upper); // counted from the nearer end, so small numbers keep their bits
  let central = f32(0x7fffffffu - rest) + 0.5;
  let offset = central / 4294967296.0;
  var magnitude: f32;
  if (offset <= 0.425) {
    let r = 0.180625 - offset * offset;
    magnitude = offset * (((((((2509.0809287301227 * r + 33430.575583588128) * r + 67265.770927008701) * r
      + 45921.953931549871) * r + 13731.693765509461) * r + 1971.5909503065514) * r + 133.14166789178438) * r
      + 3.3871328727963667) / (((((((5226.495278852855 * r + 28729.085735721943) * r + 39307.895800092711) * r
      + 21213.794301586596) * r + 5394.1960214247511) * r + 687.18700749205791) * r + 42.313330701600911) * r + 1.0);
  } else {
    let r = sqrt(log(4294967296.0 / (f32(rest) + 0.5))) - 1.6;
    magnitude = (((((((7.7454501427834141e-4 * r + 0.022723844989269184) * r + 0.24178072517745061) * r
      + 1.2704582524523684) * r + 3.6478483247632045) * r + 5.7694972214606914) * r + 4.6303378461565456) * r
      + 1.4234371107496836) / (((((((1.0507500716444168e-9 * r + 5.4759380849953449e-4) * r + 0.015198666563616457) * r
      + 0.14810397642748008) * r + 0.689767334985100005) * r + 1.6763848301838038) * r + 2.0531916266377588) * r + 1.0);
  }
  return select(-magnitude, magnitude, is_upper);
}
