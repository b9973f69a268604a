/** The units of a site, as columns: one typed array for each number, one entry for each unit. */

/** A typed array of what was sent; copied where its bytes do not begin at a multiple of the type's size. */
export function typed(Kind, bytes) {
  const { buffer, byteOffset: from, byteLength: length } = bytes;
  return from % Kind.BYTES_PER_ELEMENT
    ? new Kind(buffer.slice(from, from + length))
    : new Kind(buffer, from, length / Kind.BYTES_PER_ELEMENT);
}

export class Units {
  constructor(message, buffers) {
    const [forget, retain, score, ranks, steps] = buffers;
    Object.assign(this, message);
    this.forget = typed(Float32Array, forget);
    this.retain = typed(Float32Array, retain);
    this.score = typed(Float32Array, score);
    this.ranks = typed(Uint32Array, ranks);
    this.steps = steps.byteLength ? typed(Int16Array, steps) : null;
    this.total = this.score.length;
    this.partial = this.score.some(Number.isNaN); // some layers lack the site
    this.layers = this.shape[0];
    this.each = this.total / this.layers;
    this.x = logarithms(this.retain, this.floors[1]);
    this.y = logarithms(this.forget, this.floors[0]);
    this.order = new Uint32Array(this.total);
    for (let i = 0; i < this.total; i++) this.order[this.ranks[i]] = i;
  }

  /** False for a place in a layer that lacks the site. */
  there(i) {
    return !Number.isNaN(this.score[i]);
  }

  layer(i) {
    return Math.floor(i / this.each);
  }

  /** Its layer, and its indices in the layer. */
  place(i) {
    const place = [];
    for (let axis = this.shape.length - 1; axis > 0; axis--) {
      place.unshift(i % this.shape[axis]);
      i = Math.floor(i / this.shape[axis]);
    }
    return [i, ...place];
  }

  /** What a unit is called, such as 24.157. */
  name(i) {
    return this.place(i).join(".");
  }

  /** The unit of a name. An error says what a name looks like. */
  find(name) {
    const parts = name.trim().split(".");
    const place = parts.map(Number);
    const fits = parts.length === this.shape.length && parts.every((part) => /^\d+$/.test(part));
    if (!fits) throw new Error(`a unit of ${this.site} is ${this.columns.join(".")}, such as ${this.name(0)}`);
    place.forEach((part, axis) => {
      if (part >= this.shape[axis]) throw new Error(`${this.columns[axis]} goes from 0 to ${this.shape[axis] - 1}`);
    });
    return place.reduce((number, part, axis) => number * this.shape[axis] + part, 0);
  }

  /** What is known of each unit, by the name that filters use: a function of the unit's number. */
  column(name) {
    const axis = this.columns.indexOf(name);
    if (axis === 0) return (i) => this.layer(i);
    if (axis > 0) return (i) => this.place(i)[axis];
    if (name === "rank") return (i) => this.ranks[i] + 1;
    if (name === "step") return this.steps ? (i) => (this.steps[i] < 0 ? NaN : this.steps[i]) : undefined;
    if (["forget", "retain", "score"].includes(name)) return (i) => this[name][i];
    return undefined;
  }

  /** The lowest score that a fraction of `count` units chooses. */
  threshold(count) {
    return this.score[this.order[count - 1]];
  }
}

function logarithms(values, floor) {
  const found = new Float32Array(values.length);
  for (let i = 0; i < found.length; i++) found[i] = Math.max(floor, Math.log10(values[i]));
  return found;
}

/** The range of the coordinates of some units, with some room at its ends. */
export function extent(values, test) {
  let low = Infinity,
    high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (!test(i)) continue;
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  const room = 0.03 * Math.max(high - low, 0.3);
  return low > high ? [-1, 1] : [low - room, high + room];
}
