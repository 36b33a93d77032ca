// Matrix products for the processor: a small WebAssembly module with SIMD, written here byte by byte.
//
// product(a, aRow, b, bias, c, cRow, rows, inner, groups): c[i] = bias + a[i] b for `rows` rows, a multiple of 8.
// Pointers and the lengths of rows are in bytes; `inner` is a multiple of 4. `b` lies in panels of four columns,
// [groups][inner][4]. Each row takes the same operations in the same order, whichever row it is.

const [A, A_ROW, B, BIAS, C, C_ROW, ROWS, INNER, GROUPS, AT_BIAS, LEFT, GROUP, AT_B, AT_C] = Array(14).keys();
const AT_A = 14, SUM = 22, PANEL = 30, ROWS_AT_ONCE = 8;

function number(value) { // LEB128
  const bytes = [];
  for (;;) {
    const byte = value & 127;
    value >>= 7;
    if ((value === 0 && !(byte & 64)) || (value === -1 && byte & 64)) return [...bytes, byte];
    bytes.push(byte | 128);
  }
}

function size(value) {
  const bytes = [];
  for (; value > 127; value >>>= 7) bytes.push((value & 127) | 128);
  return [...bytes, value];
}

const get = (local) => [0x20, local], set = (local) => [0x21, local], constant = (value) => [0x41, ...number(value)];
const sum = (...parts) => parts.reduce((before, part) => [...before, ...part, 0x6a]);
const load = (address, offset) => [...address, 0xfd, 0, 2, ...size(offset)];
const splat = (address, offset) => [...address, 0xfd, 9, 2, ...size(offset)];
const store = (address, value) => [...address, ...value, 0xfd, 11, 2, 0];
const fused = (a, b, c) => [...a, ...b, ...c, 0xfd, 0xe6, 1, 0xfd, 0xe4, 1]; // a + b c
const whileAbove = (local, less, body) => // do the body, then again while the local, made less, is above zero
  [0x03, 0x40, ...body, ...get(local), ...constant(less), 0x6b, 0x22, local, ...constant(0), 0x4a, 0x0d, 0, 0x0b];

function code() {
  const rows = [...Array(ROWS_AT_ONCE).keys()];
  const step = [0, 1, 2, 3].flatMap((k) => [
    ...load(get(AT_B), 16 * k), ...set(PANEL),
    ...rows.flatMap((r) => [...fused(get(SUM + r), splat(get(AT_A + r), 4 * k), get(PANEL)), ...set(SUM + r)])]);
  const panel = [
    ...rows.flatMap((r) => [...(r ? sum(get(AT_A + r - 1), get(A_ROW)) : get(A)), ...set(AT_A + r),
      ...load(get(AT_BIAS), 0), ...set(SUM + r)]),
    ...get(INNER), ...set(LEFT),
    ...whileAbove(LEFT, 4, [...step, ...sum(get(AT_B), constant(64)), ...set(AT_B),
      ...rows.flatMap((r) => [...sum(get(AT_A + r), constant(16)), ...set(AT_A + r)])]),
    ...rows.flatMap((r) => [...(r ? [...sum(get(AT_A), get(C_ROW)), ...set(AT_A)] : [...get(AT_C), ...set(AT_A)]),
      ...store(get(AT_A), get(SUM + r))]),
    ...sum(get(AT_C), constant(16)), ...set(AT_C), ...sum(get(AT_BIAS), constant(16)), ...set(AT_BIAS)];
  const block = [...get(B), ...set(AT_B), ...get(BIAS), ...set(AT_BIAS), ...get(C), ...set(AT_C), ...get(GROUPS), ...set(GROUP),
    ...whileAbove(GROUP, 1, panel),
    ...rows.flatMap(() => [...sum(get(A), get(A_ROW)), ...set(A), ...sum(get(C), get(C_ROW)), ...set(C)])];
  return whileAbove(ROWS, ROWS_AT_ONCE, block);
}

function module() {
  const section = (id, bytes) => [id, ...size(bytes.length), ...bytes];
  const text = (word) => [word.length, ...[...word].map((letter) => letter.charCodeAt(0))];
  const body = [2, AT_A + ROWS_AT_ONCE - AT_BIAS, 0x7f, ROWS_AT_ONCE + 1, 0x7b, ...code(), 0x0b];
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 9, ...Array(9).fill(0x7f), 0]),
    ...section(2, [1, ...text("js"), ...text("memory"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text("product"), 0, 0]),
    ...section(10, [1, ...size(body.length), ...body])]);
}

export function isHere() { return typeof WebAssembly === "object" && WebAssembly.validate(module()); }

// Return the function `product`, and its memory as numbers.
export function products(bytes) {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module()), { js: { memory } });
  return { product: exports.product, numbers: new Float32Array(memory.buffer) };
}

// Lay a matrix out in panels of four columns; `scale` multiplies its rows.
export function panels(matrix, inner, columns, target, scale = null) {
  for (let group = 0; group < columns / 4; group++) {
    for (let k = 0; k < inner; k++) {
      const factor = scale ? scale[k] : 1, from = k * columns + 4 * group, to = (group * inner + k) * 4;
      for (let c = 0; c < 4; c++) target[to + c] = factor * matrix[from + c];
    }
  }
}
