// A thread of the processor: it keeps the kernels that it is given, and does parts of cell steps with them.

import { Cells } from "./cells.js";

const kernels = new Map();

onmessage = ({ data: { kernel, constants, weights, table, strip, job } }) => {
  if (constants) kernels.set(kernel, new Cells(constants, weights));
  else {
    kernels.get(kernel).step(table, strip, job);
    postMessage(strip, [strip.buffer]);
  }
};
