// The page: what the controls do, the work in the background, the address.

import { ENDLESS, rect } from "./places.js";
import { openEngine } from "./engine.js";
import { Network } from "./network.js";
import { readModel } from "./weights.js";
import { World } from "./world.js";
import { View, follow } from "./view.js";
import { Wall } from "./wall.js";

const TONE_PX = 128; // side of the squares of equal tone
const OBEY = 4; // how closely tissue follows what is painted
const SAVED_PX = 512; // side of a tile that is saved
const FAR_ZOOM = 3, WALL_ROWS = 3; // what a window shows at first
const SLOW_WORLD_PX = 256, PHONE_WORLD_PX = 512;
const PATIENCE_MS = 250; // longest work between two looks at what the user wants
const FRAME_MS = 250; // longest wait for a frame: a hidden tab has none

const STOPPED = Symbol("stopped by the user");
const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;

const find = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const frame = () => new Promise(requestAnimationFrame);

const page = { model: "", seed: 0, tone: 0, size: null, tool: "move", pieceSide: 256, plans: [], retired: [],
  isBusy: true, times: {} };
window.page = page; // for tests, and for the curious

function say(text) { find("state").textContent = text; }

// The address: model, seed, world, tone, place and zoom.
function read() {
  const told = new URLSearchParams(location.hash.slice(1)), number = (name) => (told.has(name) ? Number(told.get(name)) : null);
  page.model = page.listed.some(({ name }) => name === told.get("model")) ? told.get("model") : page.listed[0].name;
  page.seed = Math.abs(Math.trunc(number("seed") || 0));
  page.tone = number("tone") || 0;
  const isPhone = matchMedia("(pointer: coarse)").matches; // with little memory
  const usual = page.engine.isSlow ? SLOW_WORLD_PX : isPhone ? PHONE_WORLD_PX : ENDLESS;
  page.size = told.get("world") === "endless" ? ENDLESS : number("world") || usual;
  look({ y: number("y"), x: number("x"), zoom: number("zoom") });
}

// What the list of models says of the chosen one; a `side` says that it makes single images, not a map.
const listed = () => page.listed.find(({ name }) => name === page.model);
const isWall = () => "side" in listed();

// Move the window to a place, by default to the middle.
function look({ y = null, x = null, zoom = null } = {}) {
  const { view } = page, { side } = listed();
  [view.y, view.x] = [y ?? 0, x ?? 0];
  view.zoomTo(zoom || (side ? Math.min(view.width, view.height) / side / WALL_ROWS : FAR_ZOOM));
}

function write() {
  const { view } = page;
  const told = { model: page.model, seed: page.seed, world: page.size === ENDLESS ? "endless" : page.size,
    ...(page.tone ? { tone: page.tone } : {}), x: Math.round(view.x), y: Math.round(view.y), zoom: +view.zoom.toFixed(2) };
  page.address = `#${new URLSearchParams(told)}`;
  history.replaceState(null, "", page.address);
  if (!page.world) return;
  const seed = page.world.seedAt?.(view.y, view.x);
  find("where").textContent = seed === undefined ? `x ${told.x}  y ${told.y}  ·  seed ${page.seed}` : `seed ${seed}`;
  find("command").textContent = command(seed);
}

// The command that makes the same pixels.
function command(seed) {
  const { side, model: { name, channels } } = page.world;
  if (seed !== undefined) return `diffnca sample ${name} --seed ${seed} --height ${side} --width ${side}`;
  const tile = page.size === ENDLESS ? SAVED_PX : page.size, tone = Array(channels).fill(page.tone).join(" ");
  return `diffnca sample ${name} --seed ${page.seed} --height ${tile} --width ${tile} `
    + `--seamless both --even-px ${TONE_PX} --tone ${tone}`;
}

function options(size) {
  const tone = Array(page.network.model.channels).fill(page.tone);
  return { size, seed: BigInt(page.seed), tile: TONE_PX, tone, obey: OBEY, isStill };
}

// A small stored picture of what the page makes at first, until its pixels are there.
function preview() {
  const { preview: picture, side } = listed();
  if (page.seed !== 0 || page.tone !== 0) return null;
  if (side) return { picture, top: -side / 2, left: -side / 2, side, isRepeated: false };
  return page.size === SLOW_WORLD_PX ? { picture, top: 0, left: 0, side: page.size, isRepeated: true } : null;
}

// Begin a map anew, with the model, seed, tone and size of the page.
async function begin() {
  const number = (page.begun = (page.begun ?? 0) + 1);
  page.plans = [];
  find("model").value = page.model;
  page.view.preview = preview();
  page.view.touch();
  if (page.view.preview) frame().then(() => { page.times.preview ??= performance.now(); });
  if (page.network?.model.name !== page.model) {
    say("Loading the model …");
    const file = `${page.model}.safetensors.gz`, answer = await fetch(file);
    if (!answer.ok) throw new Error(`${file}: did not come (${answer.status})`);
    const network = await Network.load(page.engine, await readModel(await answer.arrayBuffer()));
    if (number !== page.begun) return;
    page.network = network;
    showModel(network.model);
  }
  const before = page.world;
  if (before) page.retired.push(before);
  if (isWall()) page.world = new Wall(page.network, options(), before?.network === page.network ? before : null);
  else page.world = new World(page.network, options(page.size));
  page.view.tiles = page.world.tiles;
  page.isBusy = true;
  page.view.touch();
  showChoices();
  write();
}

const chosen = () => JSON.stringify([page.model, page.seed, page.tone, page.size]);

// Show in the controls what the page has chosen.
function showChoices() {
  const world = find("world"), size = String(page.size === ENDLESS ? 0 : page.size);
  if (![...world.options].some((option) => option.value === size)) world.add(new Option(`a tile of ${size} px that repeats`, size));
  [world.value, find("seed").value] = [size, page.seed];
  find("tone").querySelector("input").value = page.tone;
}

function showModel(model) {
  document.body.classList.toggle("wall", isWall());
  find("exact").textContent = model.bits === 16 ? "pixel for pixel" : "nearly (there the weights have 16 bits, here 8)";
  const told = [model.title, model.licence && `licence: ${model.licence}`, ...model.limits].filter(Boolean);
  find("of-model").textContent = told.map((each) => `${each[0].toUpperCase()}${each.slice(1)}.`).join(" ").replaceAll("`", "");
  document.querySelectorAll("[data-class]").forEach((button) => button.remove());
  model.classes.forEach(({ name, colour }, index) => {
    const button = document.createElement("button");
    button.setAttribute("role", "radio");
    Object.assign(button.dataset, { tool: "paint", class: index });
    button.title = `Paint ${name}, and let it grow (${index + 1})`;
    button.style.setProperty("--ink", `rgb(${colour})`);
    button.append(document.createElement("i"), name[0].toUpperCase() + name.slice(1));
    find("brushes").append(button);
  });
  choose(document.querySelector("[data-tool=move]"));
}

function choose(button) {
  if (!button?.checkVisibility() && button?.dataset.tool !== "move") return;
  page.tool = button.dataset.tool;
  page.class = button.dataset.class === undefined ? null : Number(button.dataset.class);
  document.querySelectorAll("[data-tool]").forEach((each) => each.setAttribute("aria-checked", each === button));
  document.body.classList.toggle("brushing", page.tool !== "move");
  document.body.style.setProperty("--ink", button.style.getPropertyValue("--ink") || "var(--accent)");
  find("size").hidden = page.tool === "move";
  trace(null);
}

const radius = () => Number(find("size").querySelector("input").value);

// Show the line of a brush, or the brush alone.
function trace(line, pointer = null) {
  const { view } = page, [polyline, circle] = find("trace").children;
  const spot = ([y, x]) => [(x - view.x) * view.zoom + view.width / 2, (y - view.y) * view.zoom + view.height / 2];
  const points = (line ?? []).map(spot), at = points.at(-1) ?? (pointer && page.tool !== "move" ? spot(pointer) : null);
  polyline.setAttribute("points", (points.length === 1 ? [points[0], points[0]] : points).map(([x, y]) => `${x},${y}`).join(" "));
  polyline.style.strokeWidth = `${2 * radius() * view.zoom}px`;
  circle.setAttribute("r", at ? radius() * view.zoom : 0);
  if (at) [["cx", at[0]], ["cy", at[1]]].forEach(([name, value]) => circle.setAttribute(name, value));
}

// Plan some work.
function ask(wish) {
  page.plans.push(wish);
  wake();
}

function brush(line) { ask({ points: line, radius: radius(), class: page.tool === "heal" ? null : page.class }); }

async function redraw() {
  page.view.touch();
  await Promise.race([frame(), pause(FRAME_MS)]);
}

let wake = () => {};
const rest = () => new Promise((done) => { wake = done; }); // until something is wanted, or may be

// Show the first pixels.
async function glance() {
  page.times.live = performance.now();
  await redraw();
}

// All that is computed, one thing after another: edits first, then what is missing in the window.
async function work() {
  for (;;) {
    const { world, view } = page;
    page.retired.splice(0).forEach((each) => each.destroy());
    const plan = world && page.plans.shift(), next = world && !plan && world.next(view.seen, page.pieceSide);
    page.isBusy = Boolean(plan || next);
    if (plan?.watch) {
      await watched(plan);
    } else if (plan?.size) {
      await saved(plan);
    } else if (plan) {
      say(plan.class === null ? "Healing …" : `Growing ${world.model.classes[plan.class].name} …`);
      await world.edit(plan, redraw);
    } else if (next) {
      say(`${view.preview && !page.times.live ? "A preview; growing" : "Growing"}, step ${next.level} of ${world.steps} …`);
      const began = performance.now();
      await world.make(next, page.times.live ? null : glance);
      const spent = performance.now() - began;
      if (spent > 2 * PATIENCE_MS) page.pieceSide = Math.max(64, page.pieceSide / 2);
      view.touch();
      if (!isStill || next.level === world.steps) page.times.live ??= performance.now();
    } else {
      if (world?.model.name === page.model) settle(); // else another model is being loaded
      await rest();
    }
  }
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
  if (page.isWatched) return;
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

async function watched({ watch: part, world }) {
  let shown = 0;
  const each = isStill ? 1 : world.network.image.dilations.length;
  const look = async (level) => {
    if (page.world !== world || !page.isWatched) throw STOPPED;
    say(`Step ${level + 1} of ${world.steps}${isStill ? "" : `, cell step ${(shown++ % each) + 1}`}`);
    await redraw();
    await pause(isStill ? 600 : page.engine.isSlow ? 0 : 70);
  };
  await world.watch(part, look).catch((error) => { if (error !== STOPPED) throw error; });
  page.isWatched = false;
  find("watch").setAttribute("aria-pressed", "false");
  await redraw();
}

function another() {
  page.seed += 1;
  return begin();
}

// Show how the window came to be, cell step by cell step.
function watch() {
  if (page.isWatched) {
    page.isWatched = false; // stops it
    return;
  }
  const { world, view } = page, side = page.engine.isSlow ? 64 : 256;
  const height = Math.min(view.seen.height, side), width = Math.min(view.seen.width, side);
  const part = rect(Math.round(view.y - height / 2), Math.round(view.x - width / 2), height, width);
  page.isWatched = true;
  find("watch").setAttribute("aria-pressed", "true");
  ask({ watch: part, world });
}

async function save() {
  const button = find("save");
  button.disabled = true;
  const { x, y } = page.view, [size, seed] = isWall() ? [page.world.side, page.world.seedAt(y, x)]
    : [page.size === ENDLESS ? SAVED_PX : page.size, page.seed];
  ask({ size, y, x, name: `${page.model}-seed-${seed}-${size}px.png`, button });
}

async function saved({ size, y, x, name, button }) {
  say(isWall() ? "Making the image in the middle …" : `Making a seamless tile of ${size} px …`);
  const own = isWall() || page.size === size ? page.world : new World(page.network, options(size));
  const canvas = new OffscreenCanvas(size, size);
  canvas.getContext("2d").putImageData(new ImageData(await own.picture(y, x), size, size), 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: "image/png" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  if (own !== page.world) own.destroy();
  button.disabled = false;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input, dialog *")) return;
  const { view } = page, far = 80, number = Number(event.key);
  const size = find("size").querySelector("input");
  const keys = {
    ArrowLeft: () => view.moveBy(far, 0), ArrowRight: () => view.moveBy(-far, 0),
    ArrowUp: () => view.moveBy(0, far), ArrowDown: () => view.moveBy(0, -far),
    "+": () => view.zoomTo(view.zoom * 1.25), "=": () => view.zoomTo(view.zoom * 1.25), "-": () => view.zoomTo(view.zoom / 1.25),
    m: () => choose(document.querySelector("[data-tool=move]")), h: () => choose(document.querySelector("[data-tool=heal]")),
    n: another, w: watch, s: save, "?": () => find("about").showModal(),
    "[": () => { size.value -= 4; }, "]": () => { size.value = Number(size.value) + 4; },
  };
  if (event.target === view.canvas && page.tool !== "move") keys.Enter = () => brush([[view.y, view.x]]);
  const action = keys[event.key] ?? (number > 0 ? () => choose(document.querySelector(`[data-class="${number - 1}"]`)) : null);
  if (!action) return;
  event.preventDefault();
  action();
  write();
}

async function start() {
  document.body.classList.toggle("framed", window.top !== window);
  const list = fetch("models.json").then((answer) => answer.json());
  page.engine = await openEngine(new URLSearchParams(location.hash.slice(1)).get("engine"));
  page.listed = await list;
  page.engine.watch(fail);
  page.view = new View(find("map"), () => wake());
  find("model").replaceChildren(...page.listed.map(({ name }) => new Option(name, name)));
  find("model").hidden = page.listed.length < 2;
  read();
  find("tools").hidden = false;
  follow(page.view, {
    isMoving: () => page.tool === "move",
    stroke: (line, isDone, pointer) => {
      if (line && isDone) brush(line);
      trace(isDone ? null : line, pointer);
    },
    changed: write,
  });
  addEventListener("keydown", press);
  addEventListener("hashchange", () => {
    const before = chosen();
    read();
    if (chosen() !== before) begin().catch(fail);
  });
  find("brushes").addEventListener("click", (event) => choose(event.target.closest("[data-tool]")));
  find("tone").addEventListener("change", (event) => { page.tone = Number(event.target.value); begin().catch(fail); });
  find("model").addEventListener("change", (event) => {
    page.model = event.target.value;
    if (isWall() !== document.body.classList.contains("wall")) look(); // another kind of place
    begin().catch(fail);
  });
  find("world").addEventListener("change", (event) => { page.size = Number(event.target.value) || ENDLESS; begin().catch(fail); });
  find("seed").addEventListener("change", (event) => { page.seed = Math.abs(Math.trunc(event.target.value)) || 0; begin().catch(fail); });
  find("another").addEventListener("click", () => another().catch(fail));
  find("watch").addEventListener("click", watch);
  find("save").addEventListener("click", save);
  find("more").addEventListener("click", () => find("about").showModal());
  await begin();
  await work();
}

function fail(error) {
  document.body.classList.add("trouble");
  find("tools").hidden = true;
  say(error.message.split("\n")[0]);
  console.error(error);
}

start().catch(fail);
