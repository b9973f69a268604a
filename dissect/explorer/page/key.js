/** What the colours of the dots mean, and how many dots are in view. */

import { make } from "./elements.js";
import { short, whole } from "./numbers.js";

export class Key {
  element = make("ul", { class: "key" });

  show({ units, cut, nSelected }, inView, colours) {
    const threshold = `${units.approximate ? "about " : ""}score = ${short(units.threshold(cut.count))}`;
    this.element.replaceChildren(
      dot(colours.kept, "kept"),
      dot(colours.cut, "cut"),
      ...(nSelected ? [dot(colours.selected, "selected")] : []),
      make("li", {}, make("span", { class: "dash" }), threshold),
      make("li", { class: "faint" }, `${whole(inView)} of ${whole(units.total)} units in view`),
    );
  }
}

function dot(colour, text) {
  const swatch = make("span", { class: "dot" });
  swatch.style.background = colour;
  return make("li", {}, swatch, text);
}
