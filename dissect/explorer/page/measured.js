/** What was measured, and how far the choices at value and pre_out agree. */

import { make, onceAFrame, plain } from "./elements.js";
import { layout } from "./plotly.js";

const HEIGHT = 300;
const CONFIG = { displayModeBar: false };

/** A plot with a title and a note, which waits for Plotly. */
class Plot {
  constructor(look, title, note) {
    this.look = look;
    this.heading = make("h3", {}, title);
    this.note = make("p", { class: "faint" }, note);
    this.plot = make("div");
    this.element = make("section", { "aria-label": title }, this.heading, this.note, this.plot);
  }

  open(Plotly) {
    this.Plotly = Plotly;
    this.resizing = new ResizeObserver(() => this.fit());
    this.resizing.observe(this.element);
    this.draw();
  }

  close() {
    this.resizing?.disconnect();
    if (this.ready) this.Plotly.purge(this.plot);
    this.Plotly = null;
  }

  /** As wide as there is room. */
  fit() {
    const width = this.plot.clientWidth;
    if (this.Plotly && this.ready && width > 0 && width !== this.plot._fullLayout.width) {
      this.Plotly.relayout(this.plot, { width });
    }
  }

  async react(traces, further) {
    const { colours, theme } = this.look();
    const common = layout(theme, colours);
    const { Plotly } = this;
    await Plotly.react(
      this.plot,
      traces,
      {
        ...common,
        height: HEIGHT,
        width: this.plot.clientWidth || 400,
        ...further,
        xaxis: { ...common.xaxis, ...further.xaxis },
        yaxis: { ...common.yaxis, ...further.yaxis },
        legend: { orientation: "h", y: -0.24, font: { size: 11 } },
      },
      CONFIG,
    );
    if (!this.Plotly) return void Plotly.purge(this.plot); // closed meanwhile
    this.ready = true;
    this.fit();
  }
}

export class Curves extends Plot {
  constructor(look) {
    super(look, "Drop of accuracy, as measured", "");
    this.told = null;
  }

  show(message) {
    this.told = message;
    this.draw();
  }

  draw() {
    if (!this.Plotly || !this.told) return;
    const { lines, note, titles } = this.told;
    const { colours } = this.look();
    this.note.textContent = note || "The Measure button adds a point.";
    const ends = (which) => [
      0,
      10,
      ...lines.flatMap((line) => [...line[which], ...line[`${which}_ends`].flat().filter(Number.isFinite)]),
    ];
    const [x, y] = [range(ends("x")), range(ends("y"))];
    const end = Math.min(x[1], y[1]);
    const diagonal = {
      x: [0, end],
      y: [0, end],
      mode: "lines",
      name: "no selectivity",
      hoverinfo: "skip",
      line: { dash: "dot", width: 1.5, color: colours.neutral },
    };
    const drawn = lines.map((line, at) => {
      const colour = colours.runs[at % colours.runs.length];
      return {
        x: line.x,
        y: line.y,
        text: line.text.map(plain),
        name: plain(line.name),
        mode: "lines+markers",
        hovertemplate: "%{text}<br>forget drop %{y:.1f}%, retain drop %{x:.1f}%<extra></extra>",
        line: { color: colour, width: 2 },
        marker: { size: 8, color: colour },
        error_x: whiskers(line.x, line.x_ends),
        error_y: whiskers(line.y, line.y_ends),
      };
    });
    this.react([diagonal, ...drawn], {
      showlegend: true,
      xaxis: { title: { text: titles[0] }, range: x },
      yaxis: { title: { text: titles[1] }, range: y },
    });
  }
}

export class AgreementPlot extends Plot {
  constructor(state, look) {
    super(look, "Agreement of value and pre_out", "");
    this.state = state;
    state.on("cut", () => this.soon());
  }

  soon = onceAFrame(() => this.draw());

  draw() {
    const found = this.state.cut?.agreement;
    if (!this.Plotly || !found || found === this.drawn) return;
    this.drawn = found;
    const { colours } = this.look();
    const three = [colours.runs[0], colours.runs[2], colours.runs[3]];
    this.heading.textContent = found.why
      ? "value and pre_out are not compared"
      : `Agreement of value and pre_out: Jaccard index ${found.jaccard.toFixed(2)}`;
    this.note.textContent = found.why || found.note;
    this.plot.hidden = Boolean(found.why);
    if (found.why) return;
    const bars = Object.entries(found.counts).map(([name, counts], at) => ({
      type: "bar",
      name,
      y: counts,
      marker: { color: three[at] },
      hovertemplate: "layer %{x}: %{y:,} dimensions<extra></extra>",
    }));
    this.react(bars, {
      barmode: "stack",
      xaxis: { title: { text: "layer" }, showgrid: false },
      yaxis: { title: { text: "pre-out dimensions" }, rangemode: "tozero" },
    });
  }

  redraw() {
    this.drawn = null;
    this.draw();
  }
}

/** How far the intervals reach from the points. A percentile interval may exclude the drop itself. */
function whiskers(drops, ends) {
  return {
    type: "data",
    symmetric: false,
    thickness: 1,
    width: 0,
    array: drops.map((drop, at) => (ends[at] ? Math.max(0, ends[at][1] - drop) : 0)),
    arrayminus: drops.map((drop, at) => (ends[at] ? Math.max(0, drop - ends[at][0]) : 0)),
  };
}

function range(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = 0.05 * (high - low);
  return [low - room, high + room];
}
