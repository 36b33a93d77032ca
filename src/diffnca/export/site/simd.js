// What the processor computes for cells: a small WebAssembly module with SIMD, written here byte by byte.
//
// product(from, parts, inner, b, bias, c, cRow, rows, groups): c[i] = bias + a[i] b for `rows` rows, a multiple of 4.
// A row of `a` consists of `parts` parts of `inner` numbers. `from` says where they lie: for each four rows, the
// addresses of their first parts, then of their second ones, and so on. `b` lies in panels of eight columns,
// [groups][parts * inner][8].
//
// activate(layer, stride, scale, shift, row, rows): normalise rows of `layer`, `row` bytes of each `stride`, then scale
// and shift them, and bend them below zero.
//
// Addresses, `cRow`, `stride` and `row` are in bytes; `inner` is a multiple of 4, and `row` of 16.
// Each row takes the same operations in the same order, whichever row it is.

export const COLUMNS = 8; // of a panel
const ROWS = 4; // at once
const BELOW_ZERO = 0.01, LEAST_VARIANCE = 1e-5;
const I32 = 0x7f, V128 = 0x7b;

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

const get = (local) => [0x20, local], constant = (value) => [0x41, ...number(value)];
const set = (local, value) => [...value, 0x21, local];
const sum = (...parts) => parts.reduce((before, part) => [...before, ...part, 0x6a]);
const more = (local, bytes) => set(local, sum(get(local), constant(bytes)));
const pointer = (address, offset) => [...address, 0x28, 2, ...size(offset)];
const simd = (operation) => (...values) => [...values.flat(), 0xfd, ...size(operation)];
const plus = simd(0xe4), minus = simd(0xe5), times = simd(0xe6), over = simd(0xe7), root = simd(0xe3), larger = simd(0xe9);
const reading = (operation) => (address, offset = 0) => [...address, 0xfd, operation, 2, ...size(offset)];
const load = reading(0), spread = reading(9);
const store = (address, value, offset = 0) => [...address, ...value, 0xfd, 11, 2, ...size(offset)];
const all = (value) => [...value, 0xfd, 0x13]; // a number, four times
const real = (value) => [0x43, ...new Uint8Array(Float32Array.of(value).buffer)];
const lanes = (vector) => [0, 1, 2, 3].flatMap((lane) => [...get(vector), 0xfd, 0x1f, lane, ...(lane ? [0x92] : [])]); // their sum
const apart = (c, a, b) => plus(c, times(a, b)), fused = (c, a, b) => simd(0x105)(a, b, c); // c + a b
const whileAbove = (local, less, body) => // do the body, then again while the local, made less, is above zero
  [0x03, 0x40, ...body, ...get(local), ...constant(less), 0x6b, 0x22, local, ...constant(0), 0x4a, 0x0d, 0, 0x0b];

function product(added) {
  const [FROM, PARTS, INNER, B, BIAS, C, C_ROW, LEFT_ROWS, GROUPS, AT_FROM, LEFT_PARTS, LEFT, GROUP, AT_B, AT_C, AT_BIAS, TO] = Array(17).keys();
  const AT_A = 17, SUM = AT_A + ROWS, PANEL = SUM + 2 * ROWS, VALUE = PANEL + 2;
  const rows = [...Array(ROWS).keys()], halves = [0, 1], sumOf = (row, half) => SUM + 2 * row + half;
  const step = [0, 1, 2, 3].flatMap((k) => [
    ...halves.flatMap((half) => set(PANEL + half, load(get(AT_B), 32 * k + 16 * half))),
    ...rows.flatMap((row) => [...set(VALUE, spread(get(AT_A + row), 4 * k)), ...halves.flatMap((half) =>
      set(sumOf(row, half), added(get(sumOf(row, half)), get(VALUE), get(PANEL + half))))])]);
  const part = [
    ...rows.flatMap((row) => set(AT_A + row, pointer(get(AT_FROM), 4 * row))), ...more(AT_FROM, 4 * ROWS), ...set(LEFT, get(INNER)),
    ...whileAbove(LEFT, 4, [...step, ...more(AT_B, 128), ...rows.flatMap((row) => more(AT_A + row, 16))])];
  const panel = [
    ...rows.flatMap((row) => halves.flatMap((half) => set(sumOf(row, half), load(get(AT_BIAS), 16 * half)))),
    ...set(AT_FROM, get(FROM)), ...set(LEFT_PARTS, get(PARTS)), ...whileAbove(LEFT_PARTS, 1, part), ...set(TO, get(AT_C)),
    ...rows.flatMap((row) => [...halves.flatMap((half) => store(get(TO), get(sumOf(row, half)), 16 * half)), ...set(TO, sum(get(TO), get(C_ROW)))]),
    ...more(AT_C, 32), ...more(AT_BIAS, 32)];
  const code = whileAbove(LEFT_ROWS, ROWS, [
    ...set(AT_B, get(B)), ...set(AT_BIAS, get(BIAS)), ...set(AT_C, get(C)), ...set(GROUP, get(GROUPS)), ...whileAbove(GROUP, 1, panel),
    ...set(FROM, get(AT_FROM)), ...rows.flatMap(() => set(C, sum(get(C), get(C_ROW))))]);
  return { parameters: 9, locals: [[SUM - 9, I32], [VALUE + 1 - SUM, V128]], code };
}

function activate(added) {
  const [LAYER, STRIDE, SCALE, SHIFT, ROW, LEFT_ROWS, AT, LEFT, AT_SCALE, AT_SHIFT, COUNT, TOTAL, MEAN, RATE, VALUE] = Array(15).keys();
  const sweep = (body) => [...set(AT, get(LAYER)), ...set(LEFT, get(ROW)), ...whileAbove(LEFT, 16, [...body, ...more(AT, 16)])];
  const mean = over(all(lanes(TOTAL)), get(COUNT)), away = set(VALUE, minus(load(get(AT)), get(MEAN)));
  const code = [...set(COUNT, times(all([...get(ROW), 0xb2]), all(real(0.25)))), ...whileAbove(LEFT_ROWS, 1, [
    ...set(TOTAL, all(real(0))), ...sweep(set(TOTAL, plus(get(TOTAL), load(get(AT))))), ...set(MEAN, mean),
    ...set(TOTAL, all(real(0))), ...sweep([...away, ...set(TOTAL, added(get(TOTAL), get(VALUE), get(VALUE)))]),
    ...set(RATE, over(all(real(1)), root(plus(mean, all(real(LEAST_VARIANCE)))))), ...set(AT_SCALE, get(SCALE)), ...set(AT_SHIFT, get(SHIFT)),
    ...sweep([...away, ...set(VALUE, added(load(get(AT_SHIFT)), times(get(VALUE), get(RATE)), load(get(AT_SCALE)))),
      ...store(get(AT), larger(get(VALUE), times(get(VALUE), all(real(BELOW_ZERO))))), ...more(AT_SCALE, 16), ...more(AT_SHIFT, 16)]),
    ...set(LAYER, sum(get(LAYER), get(STRIDE)))])];
  return { parameters: 6, locals: [[4, I32], [5, V128]], code };
}

// The module; `added` rounds c + a b once where the browser can, which is faster, else twice.
function module(added) {
  const section = (id, bytes) => [id, ...size(bytes.length), ...bytes];
  const text = (word) => [word.length, ...[...word].map((letter) => letter.charCodeAt(0))];
  const list = (items) => [items.length, ...items.flat()], functions = [product(added), activate(added)];
  const bodies = functions.map(({ locals, code }) => [...list(locals), ...code, 0x0b]);
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, list(functions.map(({ parameters }) => [0x60, parameters, ...Array(parameters).fill(I32), 0]))),
    ...section(2, [1, ...text("js"), ...text("memory"), 2, 0, 1]),
    ...section(3, list(functions.map((_, index) => [index]))),
    ...section(7, list([[...text("product"), 0, 0], [...text("activate"), 0, 1]])),
    ...section(10, list(bodies.map((body) => [...size(body.length), ...body])))]);
}

let compiled = null;

export function isHere() {
  if (typeof WebAssembly !== "object") return false;
  const bytes = compiled ? null : [fused, apart].map(module).find((each) => WebAssembly.validate(each));
  if (bytes) compiled = new WebAssembly.Module(bytes);
  return compiled !== null;
}

// Return the functions `product` and `activate`, and their memory: `numbers`, `words`, and `grow(bytes)`, which renews both.
export function machine(bytes) {
  if (!isHere()) throw new Error("WebAssembly with SIMD is missing.");
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) });
  const { exports } = new WebAssembly.Instance(compiled, { js: { memory } });
  const views = () => ({ numbers: new Float32Array(memory.buffer), words: new Uint32Array(memory.buffer) });
  const grow = (wanted) => {
    const missing = wanted - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    return Object.assign(made, views());
  };
  const made = { ...exports, grow, ...views() };
  return made;
}

export const padded = (columns) => COLUMNS * Math.ceil(columns / COLUMNS);

// Lay columns of a matrix out in panels, from column `first` on; `scale` multiplies its rows.
export function panels(matrix, inner, columns, target, { first = 0, scale = null } = {}) {
  for (let k = 0; k < inner; k++) {
    const factor = scale ? scale[k] : 1, from = k * columns + first;
    for (let c = 0; c < columns - first; c++) {
      target[(Math.floor(c / COLUMNS) * inner + k) * COLUMNS + c % COLUMNS] = factor * matrix[from + c];
    }
  }
}
