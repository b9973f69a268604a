/** A table of the shown units: it sorts, filters and pages. */

import { make, newId, onceAFrame } from "./elements.js";
import { nUnits, short, whole } from "./numbers.js";

const ROWS = 15;
const EXAMPLE = "score > 5 and layer >= 20";

export class Table {
  constructor(state) {
    this.state = state;
    this.by = "rank";
    this.down = false;
    this.page = 0;
    this.orders = new Map();
    this.filter = make("input", {
      type: "search",
      id: newId("filter"),
      placeholder: EXAMPLE,
      spellcheck: "false",
      autocomplete: "off",
    });
    this.filter.addEventListener("input", () => this.ask());
    this.wrong = make("p", { class: "refused", role: "alert", hidden: true });
    this.head = make("tr");
    this.body = make("tbody");
    this.count = make("span", { class: "faint", role: "status" });
    this.select = make("button", { type: "button", onclick: () => this.state.select(() => true) }, "Select these");
    this.element = make(
      "section",
      { class: "units", "aria-label": "Units" },
      make("h3", {}, "Units"),
      make(
        "div",
        { class: "tools" },
        make("label", { for: this.filter.id }, "Filter"),
        this.filter,
        this.select,
        this.count,
      ),
      this.wrong,
      make("div", { class: "scrolls" }, make("table", {}, make("thead", {}, this.head), this.body)),
      this.pager(),
    );
    state.on("units", () => this.begin());
    state.on("shown", () => this.list());
    state.on("cut selected", () => this.soon());
    state.on("focus", () => this.reveal());
  }

  pager() {
    const button = (name, to) => make("button", { type: "button", onclick: () => this.turn(to(this.page)) }, name);
    this.where = make("span", { class: "faint" });
    return make(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "Pages of the table" },
      button("First", () => 0),
      button("Previous", (page) => page - 1),
      this.where,
      button("Next", (page) => page + 1),
      button("Last", () => Infinity),
    );
  }

  begin() {
    const { units, filter } = this.state;
    this.orders.clear();
    if (!filter) this.filter.value = "";
    this.columns = ["unit", "forget", "retain", "score", "rank", "cut", ...(units.steps ? ["step"] : [])];
    if (!this.columns.includes(this.by)) this.by = "rank";
    this.headers();
    this.list();
  }

  headers() {
    this.head.replaceChildren(
      ...this.columns.map((name) => {
        const sorted = name === this.by ? (this.down ? "descending" : "ascending") : "none";
        const mark = { ascending: " ▲", descending: " ▼", none: "" }[sorted];
        const button = make(
          "button",
          { type: "button", onclick: () => this.sort(name) },
          name,
          make("span", { "aria-hidden": "true" }, mark),
        );
        return make("th", { scope: "col", "aria-sort": sorted }, button);
      }),
    );
  }

  sort(name) {
    const descending = ["forget", "retain", "score", "cut"].includes(name);
    this.down = name === this.by ? !this.down : descending;
    this.by = name;
    this.page = 0;
    this.headers();
    this.list();
    this.head.children[this.columns.indexOf(name)].firstChild.focus();
  }

  /** All units in ascending order of a column; ties in the order of the units. */
  order(name) {
    const { units, chosen } = this.state;
    const numbers = () => Uint32Array.from({ length: units.total }, (_, i) => i);
    if (name === "unit") return numbers();
    if (name === "rank") return units.order;
    if (name === "cut") return numbers().sort((a, b) => chosen[a] - chosen[b] || units.ranks[b] - units.ranks[a]);
    const value = units.column(name);
    const last = (x) => (Number.isNaN(x) ? Infinity : x);
    return numbers().sort((a, b) => last(value(a)) - last(value(b)) || a - b);
  }

  ask() {
    try {
      this.page = 0;
      this.state.setFilter(this.filter.value);
      this.wrong.hidden = true;
    } catch (error) {
      this.wrong.textContent = error.message;
      this.wrong.hidden = false;
    }
    this.filter.setAttribute("aria-invalid", String(!this.wrong.hidden));
  }

  list() {
    const { state } = this;
    if (!this.columns) return;
    if (this.by === "cut") this.orders.delete("cut");
    if (!this.orders.has(this.by)) this.orders.set(this.by, this.order(this.by));
    const order = this.orders.get(this.by);
    this.rows = state.shown ? order.filter((i) => state.shown[i] === 1) : order.slice();
    if (this.down) this.rows.reverse();
    this.count.textContent = nUnits(this.rows.length);
    this.select.disabled = this.rows.length === 0;
    this.turn(this.page);
  }

  turn(page) {
    const last = Math.max(0, Math.ceil(this.rows.length / ROWS) - 1);
    this.page = Math.min(last, Math.max(0, page));
    this.where.textContent = `page ${whole(this.page + 1)} of ${whole(last + 1)}`;
    this.draw();
  }

  soon = onceAFrame(() => {
    if (this.columns) this.draw();
  });

  draw() {
    const { state } = this;
    const from = this.page * ROWS;
    const rows = [...this.rows.subarray(from, from + ROWS)].map((i) => {
      const row = make("tr", {
        "data-unit": i,
        "aria-selected": String(i === state.focus),
        onclick: () => state.look(i),
      });
      row.classList.toggle("looked-at", i === state.focus);
      row.append(...this.columns.map((name) => this.cell(name, i)));
      return row;
    });
    const held = this.body.contains(document.activeElement) ? document.activeElement.closest("tr").dataset.unit : null;
    this.body.replaceChildren(...rows);
    if (held) this.body.querySelector(`tr[data-unit="${held}"] button`)?.focus();
  }

  cell(name, i) {
    const { units, chosen, cut } = this.state;
    if (name === "unit") {
      const button = make("button", { type: "button", class: "link" }, units.name(i));
      return make("th", { scope: "row" }, button);
    }
    if (name === "cut") {
      const by_hand = cut?.added?.includes(i) || cut?.removed?.includes(i) ? " by hand" : "";
      return make("td", {}, chosen[i] ? `cut${by_hand}` : by_hand ? `kept${by_hand}` : "");
    }
    const value = units.column(name)(i);
    return make(
      "td",
      {},
      name === "rank" ? whole(value) : name === "step" ? (Number.isNaN(value) ? "" : String(value)) : short(value),
    );
  }

  /** Turn to the page of the unit that is looked at. */
  reveal() {
    const { focus } = this.state;
    const at = this.rows ? this.rows.indexOf(focus) : -1;
    if (at >= 0) this.turn(Math.floor(at / ROWS));
    else this.soon();
  }
}
