/**
 * Filters such as `score > 5 and layer >= 20`, as functions of a unit.
 *
 * expression: either { "or" either }       either: negated { "and" negated }     negated: ["not"] comparison
 * comparison: sum [ ("<"|"<="|">"|">="|"="|"=="|"!=") sum ]
 * sum: product { ("+"|"-") product }       product: signed { ("*"|"/") signed }   signed: ["-"] value
 * value: number | name | "(" expression ")"
 *
 * Nothing of the text is ever run: each rule gives a closure.
 */

const TOKEN = /\s*(?:(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)|([a-z_]+)|(<=|>=|==|!=|[-+*/()<>=])|(\S))/giy;

const OPERATORS = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "==": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
};

/**
 * The filter of a text: `test(i)` is true for the units it keeps, and `names` are the columns it asks for.
 * `column(name)` gives a function of the unit's number, a number or true or false, or undefined for an unknown name.
 * An error says what is wrong.
 */
export function parse(text, column, known) {
  const names = new Set();
  const rest = tokens(text);

  const at = (...wanted) => rest.length > 0 && wanted.includes(rest[0].toLowerCase());
  const take = () => rest.shift();

  function joined(rule, word, join) {
    let left = rule();
    while (at(word)) {
      take();
      left = join(left, rule());
    }
    return left;
  }
  const expression = () => joined(either, "or", (a, b) => (i) => Boolean(a(i) || b(i)));
  const either = () => joined(negated, "and", (a, b) => (i) => Boolean(a(i) && b(i)));
  function negated() {
    if (!at("not")) return comparison();
    take();
    const what = negated();
    return (i) => !what(i);
  }
  function binary(rule, words, once) {
    let left = rule();
    while (at(...words)) {
      const operator = OPERATORS[take()];
      const [a, b] = [left, rule()];
      left = (i) => operator(Number(a(i)), Number(b(i)));
      if (once) break;
    }
    return left;
  }
  const comparison = () => binary(sum, ["<", "<=", ">", ">=", "=", "==", "!="], true);
  const sum = () => binary(product, ["+", "-"], false);
  const product = () => binary(signed, ["*", "/"], false);
  function signed() {
    if (!at("-")) return value();
    take();
    const what = signed();
    return (i) => -what(i);
  }
  function value() {
    if (at("(")) {
      take();
      const inner = expression();
      if (!at(")")) throw new Error("a bracket is not closed");
      take();
      return inner;
    }
    const token = take();
    if (token === undefined) throw new Error("something is missing at the end");
    if (/^[\d.]/.test(token)) {
      const number = Number(token);
      return () => number;
    }
    if (!/^[a-z_]+$/i.test(token)) throw new Error(`${token} is not expected here`);
    const found = column(token.toLowerCase());
    if (!found) throw new Error(`unknown ${token}; there are ${known.join(", ")}`);
    names.add(token.toLowerCase());
    return found;
  }

  const test = expression();
  if (rest.length) throw new Error(`${rest[0]} is not expected here`);
  return { test, names };
}

function tokens(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.trimEnd().length) {
    const [, number, name, operator, other] = TOKEN.exec(text);
    if (other) throw new Error(`${other} is not expected here`);
    found.push(number ?? name ?? operator);
  }
  return found;
}
