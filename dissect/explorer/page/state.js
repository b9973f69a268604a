/** What the page shows: the units, the cut, and what is filtered, selected and looked at. Its parts follow it. */

import { parse } from "./query.js";
import { typed } from "./units.js";

export const HIDDEN = 0,
  KEPT = 1,
  CUT = 2,
  SELECTED = 3;

export class State extends EventTarget {
  units = null;
  cut = null;
  chosen = new Uint8Array(0);
  selected = new Uint8Array(0);
  nSelected = 0;
  layer = null;
  filter = null;
  shown = null;
  focus = -1;
  busy = false;

  /** Call a function after every change of one of these kinds: units, cut, shown, selected, focus, busy. */
  on(kinds, call) {
    kinds.split(" ").forEach((kind) => this.addEventListener(kind, call));
  }

  changed(kind) {
    this.dispatchEvent(new Event(kind));
  }

  /** Other units: another site, or other scores. What was looked at stays, where the units are the same ones. */
  setUnits(units) {
    const same = this.units?.site === units.site;
    this.units = units;
    this.chosen = new Uint8Array(units.total);
    if (!same) {
      this.selected = new Uint8Array(units.total);
      this.nSelected = 0;
      this.layer = null;
      this.filter = null;
      this.shown = null;
      this.focus = -1;
    }
    this.changed("units");
    this.refilter();
    if (!same) ["selected", "focus"].forEach((kind) => this.changed(kind));
  }

  setCut(message, buffers) {
    const edits = buffers.length
      ? { added: typed(Uint32Array, buffers[0]), removed: typed(Uint32Array, buffers[1]) }
      : {};
    this.cut = { ...this.cut, ...message, ...edits };
    this.choose();
  }

  /** Show at once what a move of the fraction will choose; Python's answer follows. */
  preview(count) {
    if (!count || !this.cut?.added) return;
    this.cut = { ...this.cut, count };
    this.choose();
  }

  choose() {
    if (!this.units || !this.cut?.added) return;
    const {
      chosen,
      units: { ranks, total },
    } = this;
    const { count, added, removed } = this.cut;
    for (let i = 0; i < total; i++) chosen[i] = ranks[i] < count ? 1 : 0;
    added.forEach((i) => (chosen[i] = 1));
    removed.forEach((i) => (chosen[i] = 0));
    this.changed("cut");
    if (this.filter?.names.has("cut") || this.filter?.names.has("by_hand")) this.refilter();
  }

  /** The number of units that are cut in each layer. */
  perLayer() {
    const { chosen, units } = this;
    const counts = new Array(units.layers).fill(0);
    for (let layer = 0, i = 0; layer < units.layers; layer++) {
      for (const end = (layer + 1) * units.each; i < end; i++) counts[layer] += chosen[i];
    }
    return counts;
  }

  /** One layer alone, or all again. */
  setLayer(layer) {
    this.layer = this.layer === layer ? null : layer;
    this.refilter();
  }

  /** Only the units that a filter keeps. Throws an error that says what is wrong with it; nothing changes then. */
  setFilter(text) {
    this.filter = text.trim() ? { text, ...parse(text, (name) => this.column(name), this.known()) } : null;
    this.refilter();
  }

  known() {
    const names = ["forget", "retain", "score", "rank", "cut", "selected", "by_hand"];
    return [...this.units.columns, ...names, ...(this.units.steps ? ["step"] : [])];
  }

  column(name) {
    if (name === "cut") return (i) => this.chosen[i];
    if (name === "selected") return (i) => this.selected[i];
    if (name === "by_hand") {
      const { added, removed } = this.cut;
      const edited = new Set([...added, ...removed]);
      return (i) => edited.has(i);
    }
    return this.units.column(name);
  }

  /** `shown` is 1 for units of the layer and the filter that are there; null where all are. */
  refilter() {
    const { units, layer, filter } = this;
    if (layer === null && !filter && !units.partial) {
      this.shown = null;
    } else {
      const test = filter ? parse(filter.text, (name) => this.column(name), this.known()).test : () => true;
      const [from, to] = layer === null ? [0, units.total] : [layer * units.each, (layer + 1) * units.each];
      this.shown = new Uint8Array(units.total);
      for (let i = from; i < to; i++) this.shown[i] = units.there(i) && test(i) ? 1 : 0;
    }
    this.changed("shown");
  }

  isShown(i) {
    return !this.shown || this.shown[i] === 1;
  }

  /** How each unit is drawn. */
  flags() {
    const { chosen, selected, shown, nSelected } = this;
    const flags = new Uint8Array(chosen.length);
    for (let i = 0; i < flags.length; i++) {
      if (shown && !shown[i]) continue;
      flags[i] = nSelected && selected[i] ? SELECTED : chosen[i] ? CUT : KEPT;
    }
    return flags;
  }

  /** Select the shown units of which `test` is true. */
  select(test) {
    this.selected = new Uint8Array(this.units.total);
    this.nSelected = 0;
    for (let i = 0; i < this.units.total; i++) {
      if (this.isShown(i) && test(i)) {
        this.selected[i] = 1;
        this.nSelected += 1;
      }
    }
    this.changed("selected");
    if (this.filter?.names.has("selected")) this.refilter();
  }

  selection() {
    const found = new Uint32Array(this.nSelected);
    for (let i = 0, n = 0; n < found.length; i++) if (this.selected[i]) found[n++] = i;
    return found;
  }

  look(i) {
    this.focus = i;
    this.changed("focus");
  }

  setBusy(busy) {
    if (busy === this.busy) return;
    this.busy = busy;
    this.changed("busy");
  }
}
