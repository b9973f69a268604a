/** A bar for each layer, as high as the number of its units that are cut. A click shows this layer alone. */

import { make, onceAFrame } from "./elements.js";
import { nUnits, whole } from "./numbers.js";

const LABELS = 12; // at most so many numbers below the bars

export class Layers {
  constructor(state, look) {
    this.state = state;
    this.look = look;
    this.note = make("p", { class: "faint" });
    this.bars = make("div", { class: "layer-bars", role: "toolbar", "aria-label": "Layers" });
    this.bars.addEventListener("keydown", (event) => this.step(event));
    this.element = make(
      "section",
      { class: "layers", "aria-label": "Layers" },
      make("h3", {}, "Cut units by layer"),
      this.bars,
      this.note,
    );
    state.on("units", () => this.begin());
    state.on("cut shown", () => this.soon());
  }

  begin() {
    const { layers } = this.state.units;
    if (this.buttons?.length === layers) return;
    const each = Math.ceil(layers / LABELS);
    this.buttons = Array.from({ length: layers }, (_, layer) => {
      const button = make(
        "button",
        {
          type: "button",
          tabindex: layer === 0 ? 0 : -1,
          "data-layer": layer,
          onclick: () => this.state.setLayer(layer),
        },
        make("span", { class: "bar" }),
        make("span", { class: "number", "aria-hidden": "true" }, layer % each === 0 ? String(layer) : ""),
      );
      return button;
    });
    this.bars.replaceChildren(...this.buttons);
  }

  /** Arrows, Home and End go from bar to bar; Tab leaves them. */
  step(event) {
    const at = this.buttons.indexOf(event.target);
    const last = this.buttons.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = this.buttons[Math.min(last, Math.max(0, to))];
    this.buttons.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
    next.focus();
  }

  soon = onceAFrame(() => this.draw());

  draw() {
    const { units, layer, cut } = this.state;
    if (!units || !cut?.added) return;
    const { colours } = this.look();
    this.bars.style.setProperty("--lost", units.forward ? colours.forget : colours.retain);
    const counts = this.state.perLayer();
    const most = Math.max(1, ...counts);
    this.buttons.forEach((button, at) => {
      button.firstChild.style.height = `${(100 * counts[at]) / most}%`;
      const text = `layer ${at}: ${whole(counts[at])} of ${whole(units.each)} units cut`;
      button.setAttribute("aria-label", text);
      button.setAttribute("title", text);
      button.setAttribute("aria-pressed", String(layer === at));
    });
    const total = counts.reduce((sum, count) => sum + count, 0);
    const alone = layer === null ? "Click a layer to see it alone." : `Layer ${layer} alone; click it again for all.`;
    this.note.textContent = `${nUnits(total)}, at most ${whole(Math.max(...counts))} in a layer. ${alone}`;
  }
}
