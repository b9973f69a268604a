"""The page's files: as they are for a server, and as one module for a widget, which cannot import files.

The page is plain JavaScript modules, without a build step. A widget gets their sources as text; a few lines give each
an address of its own in the browser (a blob) and put these in the place of the names in their imports.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from importlib.resources import files

from plotly.offline import get_plotlyjs

PAGE = files("dissect.explorer") / "page"
IMPORT = re.compile(r'from "\./([\w.]+)"')

LOADER = """
const SOURCES = %s;
let main;
async function load() {
  const urls = {};
  for (const [name, source] of SOURCES) {
    const linked = source.replace(/from "\\.\\/([\\w.]+)"/g, (_, file) => `from "${urls[file]}"`);
    const text = `${linked}\\n//# sourceURL=dissect-explorer/${name}`;
    urls[name] = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  }
  const loaded = await import(urls["widget.js"]);
  Object.values(urls).forEach(URL.revokeObjectURL);
  return loaded;
}
export default {
  async render(context) {
    main ??= load();
    return (await main).render(context);
  },
};
"""


def page_file(name: str) -> str:
    """A file of the page."""
    return (PAGE / name).read_text(encoding="utf-8")


@cache
def widget_module() -> str:
    """The page as one ES module for anywidget."""
    sources = json.dumps([[name, page_file(name)] for name in in_order("widget.js")])
    return LOADER % sources


def in_order(name: str) -> list[str]:
    """A module's file and all that it imports, each after what it imports itself."""
    found: dict[str, None] = {}

    def visit(each: str) -> None:
        for needed in IMPORT.findall(page_file(each)):
            if needed not in found:
                visit(needed)
        found[each] = None

    visit(name)
    return list(found)


@cache
def packed_plotly() -> bytes:
    """Plotly's script, from the installed package, compressed with gzip."""
    return gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0)
