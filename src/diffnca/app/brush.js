"use strict";
// Brushes: a canvas in an element <div class="brush" data-brush="NAME">, on which a person paints classes.
// Python begins a brush with what can be painted, and reads it as a PNG in exactly these colours.
(() => {
  const FREE = 255;
  const brushes = {};

  const element = (kind, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(kind), properties);
    made.append(...children);
    return made;
  };

  const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

  class Brush {
    constructor(told) {
      this.told = told;
      const { height, width, classes } = told;
      this.numbers = new Uint8Array(height * width).fill(FREE);
      this.before = [];
      this.chosen = classes.length > 1 ? 1 : 0;
      this.canvas = element("canvas", { height, width });
      this.canvas.setAttribute("aria-label", "paint here");
      if (told.background) {
        this.canvas.style.backgroundImage = `url("${told.background}")`;
        this.canvas.style.backgroundSize = "100% 100%";
      }
      this.size = element("input", { type: "range", min: 1, max: 100, value: told.size ?? 30, title: "size of the brush" });
      this.tools = element("div", { className: "tools" });
      this.root = element("div", { className: "painting" }, this.tools, this.canvas);
      const colours = classes.map(({ name, shown }, number) => this.button(name, shown, number));
      this.tools.append(...colours, this.button(told.free, null, FREE), this.size);
      this.tools.append(this.action("Undo", () => this.undo()), this.action("Clear", () => this.fill(FREE)));
      for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"])
        this.canvas.addEventListener(kind, (event) => this[kind]?.(event));
      (told.example ?? []).forEach(([number, y, x, radius]) =>
        this.dab(number, y * height, x * width, radius * Math.min(height, width)));
      this.draw();
    }

    button(name, colour, number) {
      const swatch = element("span", { className: colour ? "swatch" : "swatch free" });
      if (colour) swatch.style.background = colour;
      const made = element("button", { type: "button" }, swatch, name);
      made.onclick = () => { this.chosen = number; this.mark(); };
      made.number = number;
      if (number === this.chosen) made.setAttribute("aria-pressed", "true");
      return made;
    }

    action(name, does) {
      return element("button", { type: "button", className: "action", onclick: does }, name);
    }

    mark() {
      for (const button of this.tools.querySelectorAll("button:not(.action)"))
        button.setAttribute("aria-pressed", String(button.number === this.chosen));
    }

    at(event) {
      const frame = this.canvas.getBoundingClientRect();
      const { height, width } = this.told;
      return [((event.clientY - frame.top) / frame.height) * height, ((event.clientX - frame.left) / frame.width) * width];
    }

    pointerdown(event) {
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.keep();
      this.last = this.at(event);
      this.stroke(this.last);
    }

    pointermove(event) {
      if (!this.last) return;
      for (const each of event.getCoalescedEvents?.() ?? [event]) this.stroke(this.at(each));
    }

    pointerup() { this.last = null; }

    pointercancel() { this.last = null; }

    stroke([y, x]) {
      const radius = (this.size.value / 100) * 0.25 * Math.min(this.told.height, this.told.width);
      const [before_y, before_x] = this.last;
      const steps = Math.max(1, Math.ceil(Math.hypot(y - before_y, x - before_x) / Math.max(1, radius / 2)));
      for (let step = 1; step <= steps; step++) {
        const share = step / steps;
        this.dab(this.chosen, before_y + share * (y - before_y), before_x + share * (x - before_x), radius);
      }
      this.last = [y, x];
      this.draw();
    }

    dab(number, y, x, radius) {
      const { height, width } = this.told;
      for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(height, y + radius + 1); row++)
        for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(width, x + radius + 1); column++)
          if (Math.hypot(row + 0.5 - y, column + 0.5 - x) <= Math.max(radius, 0.8)) this.numbers[row * width + column] = number;
    }

    keep() {
      this.before.push(this.numbers.slice());
      if (this.before.length > 20) this.before.shift();
    }

    undo() {
      this.numbers = this.before.pop() ?? this.numbers;
      this.draw();
    }

    fill(number) {
      this.keep();
      this.numbers.fill(number);
      this.draw();
    }

    pixels(colourOf, opacity) {
      const { height, width, classes } = this.told;
      const image = new ImageData(width, height);
      const colours = classes.map((each) => rgb(colourOf(each)));
      this.numbers.forEach((number, at) => {
        if (number !== FREE) image.data.set([...colours[number], opacity], 4 * at);
      });
      return image;
    }

    draw() {
      const opacity = this.told.background ? 150 : 255;
      this.canvas.getContext("2d").putImageData(this.pixels((each) => each.shown, opacity), 0, 0);
    }

    png() {
      const { height, width } = this.told;
      const exact = element("canvas", { height, width });
      exact.getContext("2d").putImageData(this.pixels((each) => each.colour, 255), 0, 0);
      return exact.toDataURL("image/png");
    }
  }

  // gradio adds the elements of a tab when the tab is opened, and may make them anew
  const attach = () => {
    for (const place of document.querySelectorAll("[data-brush]")) {
      const brush = brushes[place.dataset.brush];
      if (brush && place.firstChild !== brush.root) place.replaceChildren(brush.root);
    }
  };

  const begin = (name, text) => {
    if (!text || brushes[name]?.text === text) return;
    brushes[name] = new Brush(JSON.parse(text));
    brushes[name].text = text;
    attach();
  };

  window.brushes = { begin, read: (name) => brushes[name]?.png() ?? "" };
  new MutationObserver(attach).observe(document, { childList: true, subtree: true });
})();
