/** Plotly, from the installed Python package, once for all explorers of a page. */

const LOADED = Symbol.for("dissect.plotly");

/** Plotly; `load` gives its script as a blob where no explorer of the page has it yet. */
export function plotly(load) {
  globalThis[LOADED] ??= load()
    .then(run)
    .catch((error) => {
      globalThis[LOADED] = undefined;
      throw error;
    });
  return globalThis[LOADED];
}

/** What a script of the older kind exports; run as a module, so that a page's RequireJS does not take it. */
async function run(script) {
  const before = "const module = { exports: {} }; const exports = module.exports; const define = undefined;\n";
  const blob = new Blob([before, script, "\nexport default module.exports;"], { type: "text/javascript" });
  const url = URL.createObjectURL(blob);
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** What all plots have in common. */
export function layout(look, colours) {
  const axis = { gridcolor: look.grid, linecolor: look.units, zeroline: false, automargin: true, color: look.text };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colours.font, size: 12, color: look.text },
    margin: { l: 56, r: 12, t: 10, b: 44 },
    xaxis: { ...axis },
    yaxis: { ...axis },
    hoverlabel: { font: { family: colours.font, size: 12 } },
  };
}
