/** Importance to forget against importance to retain: Plotly's axes over a canvas with all dots. */

import { Cloud, inPolygon } from "./cloud.js";
import { make, onceAFrame } from "./elements.js";
import { Key } from "./key.js";
import { short, whole } from "./numbers.js";
import { layout } from "./plotly.js";
import { channels } from "./theme.js";
import { extent } from "./units.js";

const MODES = { zoom: "Zoom", pan: "Pan", select: "Box select", lasso: "Lasso select" };
const HEIGHT = 430;

export class Dots {
  constructor(state, look) {
    this.state = state;
    this.look = look;
    this.canvas = make("canvas", { class: "cloud", role: "img" });
    this.cloud = new Cloud(this.canvas);
    this.plot = make("div", { class: "axes" });
    this.tip = make("div", { class: "tip", hidden: true });
    this.stage = make("div", { class: "stage" }, this.canvas, this.plot, this.tip);
    this.key = new Key();
    this.element = make(
      "section",
      { class: "dots", "aria-label": "Dots" },
      this.title(),
      this.tools(),
      this.stage,
      this.key.element,
    );
    state.on("units", () => this.begin());
    state.on("cut shown selected focus", () => this.soon());
  }

  title() {
    this.heading = make("h3", {}, "Importance of every unit");
    return this.heading;
  }

  tools() {
    this.modes = Object.entries(MODES).map(([mode, name]) =>
      make(
        "button",
        { type: "button", "aria-pressed": String(mode === "zoom"), "data-mode": mode, onclick: () => this.drag(mode) },
        name,
      ),
    );
    const button = (name, call) => make("button", { type: "button", onclick: call }, name);
    return make(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "How the dots are looked at" },
      ...this.modes,
      make("span", { class: "gap" }),
      button("Zoom in", () => this.scale(0.5)),
      button("Zoom out", () => this.scale(2)),
      button("Zoom to the cut", () => this.zoomTo((i) => this.state.chosen[i])),
      button("Reset", () => this.zoomTo(() => true)),
    );
  }

  /** Draw with Plotly from now on. */
  async open(Plotly) {
    this.Plotly = Plotly;
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(this.stage);
    await this.begin();
  }

  close() {
    this.closed = true;
    this.resizing?.disconnect();
    window.removeEventListener("pointerup", this.release, true);
    if (this.ready) this.Plotly.purge(this.plot);
    this.canvas.width = this.canvas.height = 0;
  }

  /** Other units: new axes. */
  async begin() {
    const {
      state: { units },
      Plotly,
    } = this;
    if (!units || !Plotly || this.closed) return;
    this.cloud.setPoints(units.x, units.y);
    this.heading.textContent = `Importance of ${units.site} units`;
    const first = !this.ready;
    const { colours, theme } = this.look();
    const common = layout(theme, colours);
    const axis = (which, side) => ({
      ...common[which],
      type: "log",
      exponentformat: "power",
      nticks: 7,
      range: extent(side === "retain" ? units.x : units.y, () => true),
      title: { text: units.titles[side === "retain" ? 1 : 0], standoff: 8 },
    });
    await Plotly.react(
      this.plot,
      [{ x: [], y: [], mode: "markers" }], // without a trace there are no axes; the canvas has the dots
      {
        ...common,
        height: HEIGHT,
        width: this.stage.clientWidth,
        showlegend: false,
        hovermode: false,
        dragmode: this.mode ?? "zoom",
        selections: [],
        newselection: { line: { color: theme.text, width: 1.5, dash: "dot" } },
        xaxis: axis("xaxis", "retain"),
        yaxis: axis("yaxis", "forget"),
      },
      { displayModeBar: false, doubleClick: "reset", scrollZoom: false },
    );
    if (this.closed) return Plotly.purge(this.plot);
    this.ready = true;
    if (first) this.watch();
    this.aim();
  }

  watch() {
    this.plot.on("plotly_relayout", () => this.aim());
    this.plot.on("plotly_relayouting", () => this.aim());
    this.plot.on("plotly_selected", (found) => this.selected(found));
    this.plot.on("plotly_deselect", () => this.state.select(() => false));
    this.plot.addEventListener("pointermove", (event) => this.hover(event));
    this.plot.addEventListener("pointerleave", () => (this.tip.hidden = true));
    // Plotly takes the mouse between down and up, so no click comes through.
    this.plot.addEventListener("pointerdown", (event) => (this.down = this.within(event)), true);
    this.release = (event) => this.up(event);
    window.addEventListener("pointerup", this.release, true);
  }

  /** Where the mouse is in the plot area, in CSS pixels; null outside. */
  within(event) {
    const { l, t, w, h } = this.plot._fullLayout._size;
    const box = this.plot.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left - l, event.clientY - box.top - t];
    return left < 0 || top < 0 || left > w || top > h ? null : { left, top };
  }

  hover(event) {
    const at = this.within(event);
    const i = at && !event.buttons ? this.cloud.nearest(at.left, at.top) : -1;
    this.tip.hidden = i < 0;
    if (i < 0) return;
    const { units, chosen } = this.state;
    const told = ["score", "forget", "retain"].map((name) => `${name} ${short(units[name][i])}`);
    this.tip.textContent = `${units.name(i)}: ${told.join(", ")}${chosen[i] ? ", cut" : ""}`;
    const { l, t, w } = this.plot._fullLayout._size;
    const right = this.cloud.px[i] > w / 2;
    this.tip.style.top = `${t + this.cloud.py[i] + 10}px`;
    this.tip.style.left = right ? "auto" : `${l + this.cloud.px[i] + 10}px`;
    this.tip.style.right = right ? `${this.stage.clientWidth - l - this.cloud.px[i] + 10}px` : "auto";
  }

  up(event) {
    const from = this.down,
      to = from && this.within(event);
    this.down = null;
    if (!to || Math.hypot(to.left - from.left, to.top - from.top) > 3) return;
    const i = this.cloud.nearest(to.left, to.top);
    if (i >= 0) this.state.look(i);
  }

  drag(mode) {
    this.mode = mode;
    this.modes.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
    if (this.ready) this.Plotly.relayout(this.plot, { dragmode: mode });
  }

  /** What a box or a lasso holds; Plotly gives its corners as importances. */
  selected(found) {
    if (!found) return;
    const { units } = this.state;
    if (found.lassoPoints) {
      const [xs, ys] = [found.lassoPoints.x, found.lassoPoints.y].map((values) => values.map(Math.log10));
      this.state.select((i) => inPolygon(units.x[i], units.y[i], xs, ys));
    } else if (found.range) {
      const [[x0, x1], [y0, y1]] = [found.range.x, found.range.y].map((ends) =>
        ends.map(Math.log10).sort((a, b) => a - b),
      );
      this.state.select((i) => units.x[i] >= x0 && units.x[i] <= x1 && units.y[i] >= y0 && units.y[i] <= y1);
    }
    this.Plotly.relayout(this.plot, { selections: [] });
  }

  scale(factor) {
    if (!this.ready) return;
    const { xaxis, yaxis } = this.plot._fullLayout;
    const { units, focus } = this.state;
    const ranges = [xaxis, yaxis].map(({ range: [low, high] }, which) => {
      const of = which === 0 ? units.x : units.y;
      const middle = focus >= 0 && of[focus] > low && of[focus] < high ? of[focus] : (low + high) / 2;
      return [middle - (middle - low) * factor, middle + (high - middle) * factor];
    });
    this.Plotly.relayout(this.plot, { "xaxis.range": ranges[0], "yaxis.range": ranges[1] });
  }

  zoomTo(test) {
    if (!this.ready) return;
    const { units } = this.state;
    this.Plotly.relayout(this.plot, { "xaxis.range": extent(units.x, test), "yaxis.range": extent(units.y, test) });
  }

  resize() {
    if (this.ready && this.stage.clientWidth > 0 && this.stage.clientWidth !== this.plot._fullLayout.width) {
      this.Plotly.relayout(this.plot, { width: this.stage.clientWidth });
    }
  }

  /** Look where Plotly's axes look. */
  aim() {
    if (!this.ready) return;
    const {
      xaxis,
      yaxis,
      _size: { l, t, w, h },
    } = this.plot._fullLayout;
    Object.assign(this.canvas.style, { left: `${l}px`, top: `${t}px`, width: `${w}px`, height: `${h}px` });
    this.cloud.look(xaxis.range, yaxis.range, w, h);
    this.paint();
  }

  soon = onceAFrame(() => this.paint());

  paint() {
    const { state, ready } = this;
    if (!ready || this.closed || !state.cut?.added) return;
    const { colours, theme } = this.look();
    const { forward } = state.units;
    const [lost, selected] = forward ? [colours.forget, colours.runs[3]] : [colours.retain, colours.runs[2]];
    this.cloud.paint(state.flags(), [theme.faint, lost, selected].map(channels));
    this.cloud.line(this.threshold(), theme.text);
    if (state.focus >= 0) this.cloud.ring(state.focus, theme.text);
    this.key.show(state, this.cloud.shown, { kept: theme.faint, cut: lost, selected });
    const total = whole(state.units.total);
    const label = `${total} units: importance to forget upwards, to retain to the right; the table lists them`;
    this.canvas.setAttribute("aria-label", label);
  }

  /** The line on which the score is the lowest of those chosen. */
  threshold() {
    const { units, cut } = this.state;
    const threshold = units.threshold(cut.count);
    const [low, high] = this.plot._fullLayout[units.forward ? "xaxis" : "yaxis"].range;
    return Array.from({ length: 60 }, (_, k) => {
      const keep = low + ((high - low) * k) / 59;
      const lose = Math.log10(threshold * (10 ** keep + units.eps));
      return units.forward ? [keep, lose] : [lose, keep];
    });
  }

  /** Other colours. */
  async redress() {
    if (!this.ready) return;
    const { xaxis, yaxis } = this.plot._fullLayout;
    const kept = { "xaxis.range": [...xaxis.range], "yaxis.range": [...yaxis.range] };
    await this.begin();
    await this.Plotly.relayout(this.plot, kept);
  }
}
