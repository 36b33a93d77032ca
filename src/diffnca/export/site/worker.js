// A thread of the processor: it keeps the kernels that it is given, and does parts of cell steps with them.

import { cellStep } from "./cells.js";

const kernels = new Map();

onmessage = ({ data: { kernel, constants, weights, table, state, job } }) => {
  if (constants) kernels.set(kernel, { step: cellStep(constants), weights });
  else {
    const { step, weights: own } = kernels.get(kernel), made = step(own, table, state, job);
    postMessage(made, [made.buffer]);
  }
};
