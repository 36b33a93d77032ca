// What the parts of the page share: its state, its elements, what it says.

export const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;

// Model, seed, tone and size are what is chosen; `shown` has those of the world that is there. They differ until a model has come.
export const page = { model: "", seed: 0, tone: 0, size: null, shown: null, world: null, tool: "move", line: null, pieceSide: 256,
  plans: [], plan: null, watched: null, retired: [], begun: 0, isBusy: true, times: {} };
window.page = page; // for tests, and for the curious

export const find = (id) => document.getElementById(id);
export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
export const frame = () => new Promise(requestAnimationFrame);

export function say(text) { find("state").textContent = text; }

// Models with a `side` make single images, on a wall; others make a map.
export const isWall = (model) => "side" in model;

export function fail(error) {
  document.body.classList.add("trouble");
  find("tools").hidden = true;
  say(error.message.split("\n")[0]);
  console.error(error);
}
