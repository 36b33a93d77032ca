// The low frequencies of a canvas, there and back, as pixels.wgsl computes them: a window of its discrete Fourier transform.

import { modulo } from "./places.js";

// The table of waves that the kernels read: cosines and sines of each share of a turn, then the scale of each frequency.
export function waves(side, scale) {
  const turns = [...Array(side).keys()].map((share) => 2 * Math.PI * share / side);
  return Float32Array.from([...turns.map(Math.cos), ...turns.map(Math.sin), ...scale]);
}

// Write the spectrum of an image into the cells of the frequencies; their other channels are zero.
export function analyse(image, table, state, side, { CHANNELS, HALF, ROWS, FIRST_ROW, COLUMNS, row }) {
  state.fill(0, 0, ROWS * COLUMNS * row);
  for (let frequency = 0; frequency < ROWS * COLUMNS; frequency++) {
    const up = Math.floor(frequency / COLUMNS) + FIRST_ROW, across = frequency % COLUMNS;
    const real = [0, 0, 0], imaginary = [0, 0, 0];
    for (let y = 0, at = 0; y < side; y++) {
      for (let x = 0, share = modulo(up * y, side); x < side; x++, share = (share + across) % side) {
        const cosine = table[share], sine = table[side + share];
        for (let c = 0; c < CHANNELS; c++, at++) {
          real[c] += cosine * image[at];
          imaginary[c] -= sine * image[at];
        }
      }
    }
    const scale = table[2 * side + frequency];
    for (let c = 0; c < CHANNELS; c++) {
      state[frequency * row + c] = scale * real[c];
      state[frequency * row + HALF + c] = scale * imaginary[c];
    }
  }
}

// Write the sum of the waves of a spectrum, at the cell (y, x), into `state` from `to` on.
export function synthesise(spectrum, table, state, to, y, x, side, { CHANNELS, HALF, ROWS, FIRST_ROW, COLUMNS, COARSE_ROW }) {
  const count = HALF - CHANNELS, sums = new Float64Array(count);
  for (let up = 0, frequency = 0; up < ROWS; up++) {
    let share = modulo((up + FIRST_ROW) * y, side);
    for (let across = 0; across < COLUMNS; across++, frequency++, share = (share + x) % side) {
      const scale = table[2 * side + frequency], cosine = scale * table[share], sine = scale * table[side + share];
      const from = frequency * 4 * COARSE_ROW + CHANNELS;
      for (let c = 0; c < count; c++) sums[c] += cosine * spectrum[from + c] - sine * spectrum[from + HALF + c];
    }
  }
  state.set(sums, to);
}
