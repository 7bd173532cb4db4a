// Elements and numbers. What the device says becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

/** An element of HTML. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of SVG. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export const $ = (id) => document.getElementById(id);

/** Changes a text only where it differs, so that selections live. */
export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

/** As setText, for an attribute; null takes it away. */
export function setAttr(node, name, value) {
  if (value === null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value === true ? "" : value)) {
    node.setAttribute(name, value === true ? "" : value);
  }
}

/**
 * Makes the children of `parent` be one for each item, in order. Those that were there stay
 * the same elements, so the focus does too.
 */
export function keyed(parent, items, key, make, update) {
  const before = new Map();
  for (const child of [...parent.children]) {
    if (before.has(child.dataset.key)) child.remove();
    else before.set(child.dataset.key, child);
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = before.get(name);
    if (child) before.delete(name);
    else {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update?.(child, item);
  }
  for (const child of before.values()) child.remove();
}

/** Cells of a table's row with these texts; a cell may be an element. */
export function cells(row, texts) {
  texts.forEach((text, i) => {
    const cell = row.cells[i] ?? row.insertCell();
    if (text instanceof Node) {
      if (cell.firstChild !== text) cell.replaceChildren(text);
    } else setText(cell, text);
  });
}

/** 1234, 56.7k, 8.90M: as `sfnic top` writes numbers. */
export function short(n) {
  if (n < 1e4) return String(Math.round(n));
  if (n < 1e6) return `${(n / 1e3).toFixed(1)}k`;
  if (n < 1e9) return `${(n / 1e6).toFixed(2)}M`;
  return `${(n / 1e9).toFixed(2)}G`;
}

export const hex = (n) => `0x${Number(n).toString(16)}`;

/** 256 KiB, 32 MiB. */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (n >= 1024 && n % 1024 === 0 && unit < 3) {
    n /= 1024;
    unit += 1;
  }
  return `${n} ${units[unit]}`;
}

/** Shortest time that a rate is measured over, in milliseconds. */
const LEAST = 700;

/** Growth of numbers a second, by their names; what shrank began again. */
export class Rates {
  #samples = [];

  /** A new picture, at this time in milliseconds. */
  begin(at) {
    this.#samples.push({ at, values: new Map() });
    // The latest one that is old enough is what to compare with.
    while (this.#samples.length > 2 && this.#samples[1].at <= at - LEAST) this.#samples.shift();
  }

  of(name, value) {
    const [first, now] = [this.#samples[0], this.#samples.at(-1)];
    now.values.set(name, value);
    const before = first.values.get(name);
    if (first === now || before === undefined) return 0;
    return ((value >= before ? value - before : value) * 1000) / (now.at - first.at);
  }
}

let quiet;

/** One line for the user; what went wrong stays longer. */
export function tell(text, bad = false) {
  const line = $("said");
  line.textContent = text;
  line.className = bad ? "bad" : "";
  clearTimeout(quiet);
  quiet = setTimeout(() => {
    line.textContent = "";
  }, bad ? 12000 : 4000);
}
