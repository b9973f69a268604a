/** Numbers as readers want them. */

/** Three significant digits, and a true minus sign. */
export function short(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
}

/** How many units, in words. */
export function nUnits(count) {
  return `${whole(count)} ${count === 1 ? "unit" : "units"}`;
}

/** A whole number with separators. */
export function whole(value) {
  return value.toLocaleString("en-US");
}
