/**
 * All units as dots on a canvas: where dots overlap, the more there are the stronger the colour.
 *
 * A plain 2D canvas, without WebGL: half a million dots are drawn in some ten milliseconds, and a page runs out of no
 * contexts. Every dot is in the picture at every zoom; the fewer are in view, the larger they are.
 */

import { HIDDEN, CUT } from "./state.js";

const RADII = [
  [300, 4.5],
  [2_000, 3],
  [8_000, 2.2],
  [40_000, 1.5],
  [Infinity, 1],
]; // by dots of a colour, CSS pixels
const CROWD = 8_000; // of more dots a single one is fainter
const CELL = 12; // CSS pixels of a cell in which dots are looked for

export class Cloud {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.flags = new Uint8Array(0);
    this.setPoints(new Float32Array(0), new Float32Array(0));
  }

  /** Where the dots are, in the coordinates of the axes. */
  setPoints(x, y) {
    Object.assign(this, {
      x,
      y,
      px: new Float32Array(x.length),
      py: new Float32Array(x.length),
      inView: [],
      cells: null,
    });
  }

  /** Look at a part of the plane, on a canvas of `width` times `height` CSS pixels. */
  look([x0, x1], [y0, y1], width, height) {
    const ratio = globalThis.devicePixelRatio || 1;
    const [ax, ay] = [width / (x1 - x0), height / (y1 - y0)];
    const at = (x, y) => [(x - x0) * ax, height - (y - y0) * ay];
    Object.assign(this, { width, height, ratio, at, cells: null });
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    const { x, y, px, py } = this;
    const inView = new Uint32Array(x.length),
      pixels = new Int32Array(x.length);
    const { width: columns, height: rows } = this.canvas;
    let n = 0;
    for (let i = 0; i < x.length; i++) {
      const across = (px[i] = (x[i] - x0) * ax);
      const down = (py[i] = height - (y[i] - y0) * ay);
      if (!(across >= 0 && across <= width && down >= 0 && down <= height)) continue;
      pixels[n] = clamp(Math.floor(down * ratio), rows) * columns + clamp(Math.floor(across * ratio), columns);
      inView[n++] = i;
    }
    this.inView = inView.subarray(0, n);
    this.pixels = pixels.subarray(0, n);
    this.planes = [1, 2, 3].map(() => ({
      counts: new Uint32Array(columns * rows),
      ink: new Float32Array(columns * rows),
    }));
  }

  /** Draw each dot as its flag says; `colours` are of kept, cut and selected ones, as [red, green, blue]. */
  paint(flags, colours) {
    this.flags = flags;
    this.cells = null;
    const {
      canvas: { width, height },
      inView,
      pixels,
      planes,
      ratio,
    } = this;
    planes.forEach(({ counts }) => counts.fill(0));
    const of = [null, ...planes.map(({ counts }) => counts)];
    const shown = [0, 0, 0];
    for (let at = 0; at < inView.length; at++) {
      const flag = flags[inView[at]];
      if (flag === HIDDEN) continue;
      of[flag][pixels[at]] += 1;
      shown[flag - 1] += 1;
    }
    planes.forEach((plane, which) => {
      const stamp = disc(RADII.find(([most]) => shown[which] <= most)[1] * ratio);
      plane.opacity = opacities(spread(plane, stamp, width, height), shown[which] > CROWD ? 0.3 : 0.7);
    });
    this.context.putImageData(blended(planes, colours, width, height), 0, 0);
    this.shown = shown.reduce((sum, count) => sum + count);
  }

  /** A dashed line through places, over what is painted. */
  line(places, colour) {
    this.stroke(colour, 1.5, [6, 5], (pen) => places.forEach(([x, y]) => pen.lineTo(...this.at(x, y))));
  }

  /** A ring around a dot, over what is painted. */
  ring(i, colour) {
    this.stroke(colour, 2.5, [], (pen) => pen.arc(this.px[i], this.py[i], 8, 0, 2 * Math.PI));
  }

  stroke(colour, width, dashes, draw) {
    const { context: pen, ratio } = this;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.beginPath();
    draw(pen);
    Object.assign(pen, { strokeStyle: colour, lineWidth: width });
    pen.setLineDash(dashes);
    pen.stroke();
  }

  /** The shown dot next to a place, at most `within` CSS pixels from it, or -1. Cut dots go before kept ones. */
  nearest(left, top, within = 8) {
    this.cells ??= this.intoCells();
    const { starts, members, columns, rows } = this.cells;
    const [column, row] = [Math.floor(left / CELL), Math.floor(top / CELL)];
    let best = -1,
      least = within * within;
    for (let r = Math.max(0, row - 1); r <= Math.min(rows - 1, row + 1); r++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(columns - 1, column + 1); c++) {
        for (let at = starts[r * columns + c]; at < starts[r * columns + c + 1]; at++) {
          const i = members[at];
          const far = (this.px[i] - left) ** 2 + (this.py[i] - top) ** 2 - (this.flags[i] >= CUT ? 1 : 0);
          if (far < least) [best, least] = [i, far];
        }
      }
    }
    return best;
  }

  /** The shown dots, sorted by the cell they are in. */
  intoCells() {
    const { inView, px, py, flags, width, height } = this;
    const [columns, rows] = [Math.ceil(width / CELL) + 1, Math.ceil(height / CELL) + 1];
    const starts = new Uint32Array(columns * rows + 1);
    const seen = inView.filter((i) => flags[i] !== HIDDEN);
    const cell = (i) => clamp(Math.floor(py[i] / CELL), rows) * columns + clamp(Math.floor(px[i] / CELL), columns);
    for (const i of seen) starts[cell(i) + 1] += 1;
    for (let at = 1; at < starts.length; at++) starts[at] += starts[at - 1];
    const next = starts.slice(),
      members = new Uint32Array(seen.length);
    for (const i of seen) members[next[cell(i)]++] = i;
    return { starts, members, columns, rows };
  }
}

/** Whether a place is in a polygon, by how often a ray from it crosses the sides. */
export function inPolygon(x, y, xs, ys) {
  let inside = false;
  for (let i = 0, j = xs.length - 1; i < xs.length; j = i++) {
    if (ys[i] > y !== ys[j] > y && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i]) inside = !inside;
  }
  return inside;
}

function clamp(value, length) {
  return Math.min(length - 1, Math.max(0, value));
}

/** The pixels of a disc around 0, 0 and how much of each it covers. */
function disc(radius) {
  const pixels = [],
    reach = Math.ceil(radius);
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const covered = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
      if (covered > 0.05) pixels.push([dx, dy, covered]);
    }
  }
  return pixels;
}

/** Turn the dots that each pixel counts into ink on and around it; gives the most ink of a pixel. */
function spread({ counts, ink }, stamp, width, height) {
  ink.fill(0);
  let most = 0;
  for (let at = 0; at < counts.length; at++) {
    const dots = counts[at];
    if (dots === 0) continue;
    const x = at % width,
      y = (at - x) / width;
    for (let k = 0; k < stamp.length; k++) {
      const pixel = stamp[k],
        left = x + pixel[0],
        top = y + pixel[1];
      if (left < 0 || left >= width || top < 0 || top >= height) continue;
      const there = (ink[top * width + left] += dots * pixel[2]);
      if (there > most) most = there;
    }
  }
  return most;
}

const STEPS = 8; // entries of the table of opacities for each dot of ink
const ENTRIES = 4_096; // ink of more has the last one's

/** The opacity of ink: of a single dot `single`, of many dots the more of it, by the logarithm of their number. */
function opacities(most, single) {
  const scale = (0.96 - single) / Math.log1p(Math.max(8, Math.min(most, ENTRIES / STEPS) - 1));
  return Float32Array.from({ length: ENTRIES }, (_, at) => {
    const dots = at / STEPS;
    return Math.min(1, dots) * (single + scale * Math.log1p(Math.max(0, dots - 1)));
  });
}

/** The planes over each other. */
function blended(planes, colours, width, height) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // ABGR: all browsers' machines are little-endian
  planes.forEach(({ ink, opacity }, which) => {
    const [red, green, blue] = colours[which];
    for (let at = 0; at < ink.length; at++) {
      if (ink[at] === 0) continue;
      const over = opacity[Math.min(ENTRIES - 1, (ink[at] * STEPS + 0.5) | 0)];
      const below = pixels[at],
        under = ((below >>> 24) / 255) * (1 - over),
        alpha = over + under;
      if (alpha === 0) continue;
      const [a, b] = [over / alpha, under / alpha];
      pixels[at] =
        ((Math.round(255 * alpha) << 24) |
          ((blue * a + ((below >> 16) & 255) * b) << 16) |
          ((green * a + ((below >> 8) & 255) * b) << 8) |
          (red * a + (below & 255) * b)) >>>
        0;
    }
  });
  return image;
}
