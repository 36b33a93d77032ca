// The page: what is chosen, the controls, the keys.

import { addressOf, readAddress, seedOf } from "./address.js";
import { download } from "./download.js";
import { openEngine } from "./engine.js";
import { Network } from "./network.js";
import { ENDLESS } from "./places.js";
import { fail, find, frame, isStill, isWall, page, say } from "./state.js";
import { View, follow } from "./view.js";
import { Wall } from "./wall.js";
import { readModel } from "./weights.js";
import { awake, brush, cancel, save, showPlans, undo, watch, work } from "./work.js";
import { World } from "./world.js";

const TONE_PX = 128; // side of the squares of equal tone
const OBEY = 4; // how closely tissue follows what is painted
const TILE_PX = 512; // side of the tile of the command, on an endless map
const FAR_ZOOM = 3, WALL_ROWS = 3; // what a window shows at first
const SLOW_WORLD_PX = 256, PHONE_WORLD_PX = 512;

// What the list of models says of the chosen one; a `side` says that it makes single images, not a map.
const listed = () => page.listed.find(({ name }) => name === page.model);
const chosen = ({ model, seed, tone, size } = page) => ({ model, seed, tone, size });

// Choose what the address says; return the place, and a remark where the page does otherwise.
function read() {
  const told = readAddress(location.hash), { engine } = page, remarks = [];
  const isPhone = matchMedia("(pointer: coarse)").matches; // with little memory
  const usual = engine.isSlow ? SLOW_WORLD_PX : isPhone ? PHONE_WORLD_PX : ENDLESS;
  Object.assign(page, { ...chosen(told), model: told.model ?? page.listed[0].name, size: told.size ?? usual });
  if (!listed()) {
    page.model = page.listed[0].name;
    remarks.push(`This page has no model ${told.model}; it shows ${page.model}.`);
  }
  if (page.size === ENDLESS && engine.isSlow) {
    page.size = SLOW_WORLD_PX;
    if (!isWall(listed())) remarks.push(`Without a graphics card, the map without end takes minutes: this is a tile of ${page.size} px. The button at the top has the choice.`);
  }
  return { place: told.place, remark: remarks.join(" ") };
}

// Move the window to a place, by default to the middle.
function look({ y = null, x = null, zoom = null }) {
  const { view } = page, { side } = listed();
  [view.y, view.x] = [y ?? 0, x ?? 0];
  view.zoomTo(zoom || (side ? Math.min(view.width, view.height) / side / WALL_ROWS : FAR_ZOOM));
}

// Write the choice and the place into the address, and tell them.
function write() {
  const { view, world, shown } = page;
  history.replaceState(null, "", addressOf(page, view));
  if (!world) return;
  const seed = world.seedAt?.(view.y, view.x);
  find("where").textContent = seed === undefined ? `x ${Math.round(view.x)}  y ${Math.round(view.y)}  ·  seed ${shown.seed}` : `seed ${seed}`;
  find("command").textContent = command(seed);
}

// The command that makes the same pixels.
function command(seed) {
  const { world: { side, model: { name, channels } }, shown } = page;
  if (seed !== undefined) return `diffnca sample ${name} --seed ${seed} --height ${side} --width ${side}`;
  const tile = shown.size === ENDLESS ? TILE_PX : shown.size, tone = Array(channels).fill(shown.tone).join(" ");
  return `diffnca sample ${name} --seed ${shown.seed} --height ${tile} --width ${tile} `
    + `--seamless both --even-px ${TONE_PX} --tone ${tone}`;
}

// A small stored picture of what the page makes at first, until its pixels are there.
function preview() {
  const { preview: picture, side } = listed();
  if (page.seed !== 0 || page.tone !== 0) return null;
  if (side) return { picture, top: -side / 2, left: -side / 2, side, isRepeated: false };
  return page.size === SLOW_WORLD_PX ? { picture, top: 0, left: 0, side: page.size, isRepeated: true } : null;
}

async function load(name) {
  if (page.network?.model.name === name) return page.network;
  say("Loading the model …");
  const answer = await download(`${name}.safetensors.gz`);
  return Network.load(page.engine, await readModel(await answer.arrayBuffer()));
}

// Begin a world anew, with what is chosen, at a place if one is given. Where its model does not come, the world that is there stays.
async function begin({ place = null, remark = "" } = {}) {
  const number = (page.begun += 1), { view } = page;
  if (place) {
    page.before ??= { y: view.y, x: view.x, zoom: view.zoom };
    look(place);
  }
  view.preview = preview();
  view.touch();
  if (view.preview) frame().then(() => { page.times.preview ??= performance.now(); });
  find("note").textContent = remark;
  showChoices();
  try {
    const network = await load(page.model);
    if (number !== page.begun) return;
    replace(network);
  } catch (error) {
    if (number !== page.begun) return;
    if (page.world) goBack(error);
    else fail(error);
  }
  page.before = null;
  awake();
}

// Let a new world take the place of the one that is there.
function replace(network) {
  const { view, world: before, shown } = page, { model } = network;
  const isSameModel = before?.network === network, isSameMap = isSameModel && shown.seed === page.seed && shown.size === page.size;
  const options = { size: page.size, seed: BigInt(page.seed), tile: TONE_PX, tone: Array(model.channels).fill(page.tone), obey: OBEY, isStill,
    edits: isSameMap ? before.edits : [] };
  page.world = isWall(model) ? new Wall(network, options, isSameModel ? before : null) : new World(network, options);
  page.network = network;
  page.shown = chosen();
  if (before) page.retired.push(before);
  page.isBusy = true;
  view.tiles = page.world.tiles;
  cancel(isSameMap);
  if (!isSameModel) showModel(model);
  find("save").querySelector("span").textContent = isWall(model) ? "Image" : page.size === ENDLESS ? "View" : "Tile";
  if (!before) {
    document.body.classList.remove("trouble"); // a model before did not come
    find("tools").hidden = false;
  }
  showChoices();
  write();
}

// Go back to the world that is there, and say why.
function goBack(error) {
  Object.assign(page, page.shown);
  Object.assign(page.view, page.before, { preview: null });
  page.view.touch();
  find("note").textContent = error.message;
  console.error(error);
  showChoices();
  write();
}

// Show in the controls what is chosen.
function showChoices() {
  const world = find("world"), size = String(page.size === ENDLESS ? 0 : page.size);
  if (![...world.options].some((option) => option.value === size)) world.add(new Option(`a tile of ${size} px that repeats`, size));
  [find("model").value, world.value, find("seed").value] = [page.model, size, page.seed];
  find("tone").querySelector("input").value = page.tone;
}

function showModel(model) {
  document.body.classList.toggle("wall", isWall(model));
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
  document.querySelectorAll("[data-tool]").forEach((each) => {
    each.setAttribute("aria-checked", each === button);
    each.tabIndex = each === button ? 0 : -1; // the arrow keys reach the others
  });
  document.body.classList.toggle("brushing", page.tool !== "move");
  document.body.style.setProperty("--ink", button.style.getPropertyValue("--ink") || "var(--accent)");
  find("size").hidden = page.tool === "move";
  trace(null);
}

const radius = () => Number(find("size").querySelector("input").value);
const stroke = (points) => ({ points, radius: radius(), class: page.tool === "heal" ? null : page.class, ink: getComputedStyle(find("trace")).color });

// Show the line of a brush, or the brush alone.
function trace(line, pointer = null) {
  if (line || page.line) {
    page.line = line && stroke(line);
    showPlans();
  }
  page.pointer = line?.at(-1) ?? pointer;
  showBrush();
}

function showBrush() {
  const { view, pointer } = page, circle = find("trace").firstElementChild;
  circle.setAttribute("r", pointer && page.tool !== "move" ? radius() * view.zoom : 0);
  if (!pointer) return;
  circle.setAttribute("cx", (pointer[1] - view.x) * view.zoom + view.width / 2);
  circle.setAttribute("cy", (pointer[0] - view.y) * view.zoom + view.height / 2);
}

function resize(by) {
  const size = find("size").querySelector("input");
  size.value = Number(size.value) + by;
  showBrush();
}

function another() {
  page.seed += 1;
  begin();
}

// The buttons of a group of choices: an arrow key chooses the next one. Return whether the event was that.
function step(event) {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by || !event.target.matches("[role=radio]")) return false;
  const buttons = [...document.querySelectorAll("[data-tool]")], next = buttons.at((buttons.indexOf(event.target) + by) % buttons.length);
  choose(next);
  next.focus();
  return true;
}

function press(event) {
  const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z", { view } = page, far = 80, number = Number(event.key);
  if ((event.ctrlKey || event.metaKey || event.altKey) && !isUndo) return;
  if (!page.world || find("about").open || event.target.matches("select, input")) return;
  const keys = {
    ArrowLeft: () => view.moveBy(far, 0), ArrowRight: () => view.moveBy(-far, 0),
    ArrowUp: () => view.moveBy(0, far), ArrowDown: () => view.moveBy(0, -far),
    "+": () => view.zoomTo(view.zoom * 1.25), "=": () => view.zoomTo(view.zoom * 1.25), "-": () => view.zoomTo(view.zoom / 1.25),
    m: () => choose(document.querySelector("[data-tool=move]")), h: () => choose(document.querySelector("[data-tool=heal]")),
    n: another, w: watch, s: save, u: undo, z: isUndo && undo, "?": () => find("about").showModal(),
    "[": () => resize(-4), "]": () => resize(4),
  };
  if (page.tool !== "move" && !event.target.closest("button")) keys.Enter = () => brush(stroke([[view.y, view.x]]));
  const action = keys[event.key] || (number > 0 && (() => choose(document.querySelector(`[data-class="${number - 1}"]`))));
  if (step(event)) event.preventDefault();
  else if (action) {
    event.preventDefault();
    action();
    write();
  }
}

function listen() {
  const change = (id, choose) => find(id).addEventListener("change", ({ target }) => begin(choose(target)));
  follow(page.view, {
    isMoving: () => page.tool === "move",
    stroke: (line, isDone, pointer) => {
      trace(isDone ? null : line, pointer);
      if (line && isDone) brush(stroke(line));
    },
    changed: write,
  });
  addEventListener("keydown", press);
  addEventListener("hashchange", () => {
    const before = JSON.stringify(chosen()), told = read();
    if (JSON.stringify(chosen()) !== before || told.remark) begin(told);
    else look(told.place);
  });
  change("tone", (input) => { page.tone = Number(input.value); });
  change("world", (list) => { page.size = Number(list.value) || ENDLESS; });
  change("seed", (input) => { page.seed = seedOf(input.value); });
  change("model", (list) => {
    page.model = list.value;
    return isWall(listed()) === document.body.classList.contains("wall") ? {} : { place: {} }; // another kind of place
  });
  find("brushes").addEventListener("click", (event) => { if (event.target.closest("[data-tool]")) choose(event.target.closest("[data-tool]")); });
  find("size").addEventListener("input", showBrush);
  for (const [id, action] of Object.entries({ another, watch, save, undo })) find(id).addEventListener("click", action);
  find("more").addEventListener("click", () => find("about").showModal());
}

async function start() {
  document.body.classList.toggle("framed", window.top !== window);
  const list = download("models.json").then((answer) => answer.json());
  page.engine = await openEngine(readAddress(location.hash).engine);
  page.listed = await list;
  page.engine.watch(fail);
  page.view = new View(find("map"), awake);
  find("model").replaceChildren(...page.listed.map(({ name }) => new Option(name, name)));
  find("model").hidden = page.listed.length < 2;
  listen();
  await begin(read());
  await work();
}

start().catch(fail);
