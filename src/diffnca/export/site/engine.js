// The engine that this browser has: a graphics card if it is a real one, else the processor.

import { Graphics } from "./graphics.js";
import { Processor } from "./processor.js";

// Return an engine; `wanted` is "graphics" or "processor", or nothing for the faster one.
export async function openEngine(wanted = null) {
  const graphics = wanted === "processor" ? null : await Graphics.open();
  if (graphics && (wanted === "graphics" || !graphics.isSlow)) return graphics;
  return Processor.open();
}
