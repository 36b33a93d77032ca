// The address: model, seed, world, tone, place and zoom. What is not allowed counts as left out.

import { ENDLESS } from "./places.js";

const SIZES = [64, 128, 256, 512, 1024]; // of worlds that repeat
const LARGEST_TONE = 2.5, LARGEST_ZOOM = 100;

export function seedOf(text) {
  const seed = Math.abs(Math.trunc(text));
  return Number.isSafeInteger(seed) ? seed : 0;
}

// Return what an address says; `null` stands for what it does not say.
export function readAddress(address) {
  const told = new URLSearchParams(address.slice(1));
  const number = (name, largest) => {
    const value = told.has(name) ? Number(told.get(name)) : NaN;
    return Math.abs(value) <= largest ? value : null;
  };
  const size = told.get("world") === "endless" ? ENDLESS : SIZES.find((each) => each === number("world", ENDLESS)) ?? null;
  return { engine: told.get("engine"), model: told.get("model"), seed: seedOf(told.get("seed")), tone: number("tone", LARGEST_TONE) ?? 0,
    size, place: { y: number("y", ENDLESS), x: number("x", ENDLESS), zoom: number("zoom", LARGEST_ZOOM) } };
}

export function addressOf({ model, seed, size, tone }, { x, y, zoom }) {
  const told = { model, seed, world: size === ENDLESS ? "endless" : size, ...(tone ? { tone } : {}),
    x: Math.round(x), y: Math.round(y), zoom: +zoom.toFixed(2) };
  return `#${new URLSearchParams(told)}`;
}
