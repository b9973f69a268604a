/** The page in a notebook: anywidget's messages lead to Python. */

import { openExplorer } from "./explorer.js";

export function render({ model, el }) {
  return openExplorer(new WidgetLink(model), el);
}

class WidgetLink {
  constructor(model) {
    this.model = model;
  }

  ask(content, buffers) {
    this.model.send(content, undefined, buffers);
  }

  /** Call a function with every message and its buffers; gives a function that ends this. */
  listen(call) {
    const heard = (content, buffers) => call(content, buffers);
    this.model.on("msg:custom", heard);
    return () => this.model.off("msg:custom", heard);
  }

  /** Plotly's script, which Python sends compressed. */
  plotly() {
    return new Promise((resolve, reject) => {
      const end = this.listen((content, [bytes]) => {
        if (content.kind !== "plotly") return;
        end();
        const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        new Response(unpacked).blob().then(resolve, reject);
      });
      this.ask({ do: "plotly" }, []);
    });
  }
}
