// The work of the page, one thing after another: what was asked for, then what is missing in the window.

import { ENDLESS, rect } from "./places.js";
import { find, frame, isStill, isWall, page, pause, say } from "./state.js";

const PATIENCE_MS = 250; // longest work between two looks at what the user wants
const LARGEST_PIECE_PX = 256;
const FRAME_MS = 250; // longest wait for a frame: a hidden tab has none

const STOPPED = Symbol("stopped by the user");

let wake = () => {};
const rest = () => new Promise((done) => { wake = done; }); // until something is wanted, or may be
export const awake = () => wake();

async function redraw() {
  page.view.touch();
  await Promise.race([frame(), pause(FRAME_MS)]);
}

// Plan some work: a "save", an "edit" or a "watch", with what runs it.
function ask(plan) {
  page.plans.push(plan);
  showPlans();
  wake();
  return plan;
}

// Show what is planned: in the buttons, and as lines of brushes that wait.
export function showPlans() {
  const { plan, plans, line, view, world, watched } = page, all = plan ? [plan, ...plans] : plans;
  const strokes = all.flatMap(({ stroke }) => stroke ?? []);
  find("save").disabled = all.some(({ kind }) => kind === "save");
  find("watch").setAttribute("aria-pressed", watched !== null);
  find("undo").hidden = !strokes.length && !world?.edits?.length;
  view.strokes = line ? [...strokes, line] : strokes;
  view.touch();
}

// Drop what was planned on a world that goes; pictures are still saved. A world with the same edits takes over its strokes.
export function cancel(hasSameEdits) {
  page.plans = page.plans.filter(({ kind }) => kind === "save" || (kind === "edit" && hasSameEdits));
  page.watched = null;
  showPlans();
}

export async function work() {
  for (;;) {
    const { world, view } = page;
    page.plan = page.plans.shift() ?? null;
    if (!page.plan) page.retired.splice(0).forEach((each) => each.destroy());
    const next = page.plan ? null : world?.next(view.seen, page.pieceSide);
    page.isBusy = Boolean(page.plan || next);
    if (page.plan) {
      await page.plan.run();
      page.plan = null;
      showPlans();
    } else if (next) {
      await make(next);
    } else {
      if (world?.model.name === page.model) settle(); // else another model is being loaded
      await rest();
    }
  }
}

async function make(next) {
  const { world, view, times } = page, percent = Math.floor(100 * next.done);
  say(`${view.preview && !times.live ? "A preview; growing" : "Growing"}, step ${next.level} of ${world.steps}${percent ? `, ${percent}%` : ""} …`);
  const began = performance.now();
  await world.make(next, times.live ? null : glance);
  page.pieceSide = fitted(page.pieceSide, performance.now() - began, world.reach);
  view.touch();
  if (!isStill || next.level === world.steps) times.live ??= performance.now();
}

// The side of the next pieces, by how long one took. Smaller ones than what a piece sees around itself take longer in all.
function fitted(side, spent, reach) {
  if (spent > 2 * PATIENCE_MS) return Math.max(side / 2, Math.min(reach, LARGEST_PIECE_PX));
  return spent < PATIENCE_MS / 2 ? Math.min(2 * side, LARGEST_PIECE_PX) : side;
}

// Show the first pixels.
async function glance() {
  page.times.live = performance.now();
  await redraw();
}

// All of the window is there.
function settle() {
  const { view } = page;
  page.times.whole ??= performance.now();
  if (view.preview) {
    view.preview = null;
    view.touch();
  }
  tell();
}

function tell() {
  const { world, engine } = page;
  if (page.watched) return;
  const each = world.millisecondsPerTile;
  const told = each >= 10_000 ? `${Math.round(each / 1000)} s` : `${each < 10 ? each?.toFixed(1) : Math.round(each)} ms`;
  const speed = each === null ? "" : `${told} for ${world.tilePx} × ${world.tilePx} px`;
  say(speed || "Ready");
  const after = (time) => `${(time / 1000).toFixed(1)} s after the page was opened`;
  const facts = [["speed", speed], ["first pixels", after(page.times.live)], ["the window", `full ${after(page.times.whole)}`], ["runs on", engine.name], ["weights", `${world.model.bits}-bit in the file, ${engine.isHalf ? 16 : 32}-bit here`]];
  const text = JSON.stringify(facts);
  if (page.told === text) return;
  page.told = text;
  find("numbers").replaceChildren(...facts.flatMap(([name, value]) => ["dt", "dd"].map((tag, index) => {
    const element = document.createElement(tag);
    element.textContent = index ? value : name;
    return element;
  })));
}

// Plan a stroke: { points, radius, class, ink }. Its line stays until there is something to see.
export function brush(stroke) {
  const look = () => {
    plan.stroke = null;
    showPlans();
    return redraw();
  };
  const plan = ask({ kind: "edit", stroke, run: () => {
    say(stroke.class === null ? "Healing …" : `Growing ${page.world.model.classes[stroke.class].name} …`);
    return page.world.edit(stroke, look);
  } });
}

// Take back the last stroke, whether it waits or is there.
export function undo() {
  if (find("undo").hidden) return;
  const last = page.plans.findLastIndex(({ kind }) => kind === "edit");
  if (page.plans[last]?.stroke) {
    page.plans.splice(last, 1);
    showPlans();
    return;
  }
  ask({ kind: "edit", run: () => {
    say("Taking back …");
    return page.world.undo(redraw);
  } });
}

// Show how the window came to be, cell step by cell step.
export function watch() {
  if (page.watched) {
    page.watched = null; // stops it
    showPlans();
    return;
  }
  const { world, view } = page, side = page.engine.isSlow ? 64 : 256;
  const height = Math.min(view.seen.height, side), width = Math.min(view.seen.width, side);
  const part = rect(Math.round(view.y - height / 2), Math.round(view.x - width / 2), height, width);
  const plan = { kind: "watch", run: () => watched(plan, world, part) };
  page.watched = plan;
  ask(plan);
}

async function watched(plan, world, part) {
  let shown = 0;
  const each = isStill ? 1 : world.network.image.dilations.length;
  const look = async (level) => {
    if (page.watched !== plan) throw STOPPED;
    say(`Step ${level + 1} of ${world.steps}${isStill ? "" : `, cell step ${(shown++ % each) + 1}`}`);
    await redraw();
    await pause(isStill ? 600 : page.engine.isSlow ? 0 : 70);
  };
  await world.watch(part, look).catch((error) => { if (error !== STOPPED) throw error; });
  if (page.watched === plan) page.watched = null;
  await redraw();
}

// Plan to save a picture: of what is seen on an endless map, of the tile, or of the image in the middle.
export function save() {
  if (find("save").disabled) return;
  const { world, view: { seen }, shown: { size } } = page, [y, x] = [seen.top + seen.height / 2, seen.left + seen.width / 2];
  const seed = isWall(world.model) ? world.seedAt(y, x) : page.shown.seed;
  const place = isWall(world.model) ? `${world.side}px` : size === ENDLESS ? `x${Math.floor(x)}-y${Math.floor(y)}` : `${size}px`;
  const name = `${world.model.name}-seed-${seed}-${place}.png`;
  ask({ kind: "save", run: async () => {
    say("Making the picture …");
    offer(name, await world.picture(seen));
  } });
}

// Let the browser save a picture.
async function offer(name, image) {
  const canvas = new OffscreenCanvas(image.width, image.height), link = document.createElement("a");
  canvas.getContext("2d").putImageData(image, 0, 0);
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: "image/png" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
