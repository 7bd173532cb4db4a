// The picture: functions, their eswitch, the physical port, and what flows between them.

import { keyed, setAttr, setText, short, svg } from "./dom.js";

const HEAD = 22;
const GAP = 20;
const PAD = 6;
const between = (n, low, high) => Math.max(low, Math.min(high, n));

/** Height of a row, so that four ports are large and forty fit on a screen. */
const rowHeight = (n) => (n <= 6 ? 46 : n <= 16 ? 32 : 20);

/** What the width is divided into. In a narrow one the arrows of functions get the most. */
function columns(width) {
  const narrow = width < 480;
  const box = between(width * 0.24, 84, 190);
  const hub = between(width * 0.09, 22, 100);
  const port = between(width * 0.12, 46, 110);
  const cable = between(width * 0.05, 10, 44);
  const left = width - 2 * PAD - box - hub - port - cable;
  const first = left * (narrow ? 0.62 : 0.5);
  const hubAt = PAD + box + first;
  return { width, narrow, box, hub, port, hubAt, portAt: hubAt + hub + left - first, end: width - PAD };
}

function rate(frames, octets, bits) {
  const n = bits ? octets * 8 : frames;
  return n > 0 ? short(n) + (bits ? "b/s" : "/s") : "";
}

function arrow(way) {
  return svg("g", { class: `arrow ${way}` }, svg("path", { class: "line" }), svg("path", { class: "tip" }), svg("text"));
}

/** Draws one arrow from x to x2 at height y; its text stands above or below it. */
function aim(node, x, x2, y, frames, label, textY) {
  const [line, tip, text] = node.children;
  const back = x2 > x ? -5 : 5;
  setAttr(line, "d", `M${x} ${y}H${x2 + back / 2}`);
  setAttr(tip, "d", `M${x2 + back} ${y - 3.5}L${x2} ${y}L${x2 + back} ${y + 3.5}Z`);
  const busy = frames > 0;
  node.classList.toggle("busy", busy);
  const log = Math.log10(1 + frames);
  setAttr(line, "stroke-width", busy ? (1 + Math.min(3.5, log * 0.7)).toFixed(1) : "1");
  line.style.animationDuration = busy ? `${between(1.5 - Math.round(log) * 0.25, 0.25, 1.5)}s` : "";
  setAttr(text, "x", (x + x2) / 2);
  setAttr(text, "y", textY);
  setText(text, label);
}

/** Both arrows of a port between two columns. */
function flows(node, x, x2, y, height, p, bits) {
  const [right, left] = node.querySelectorAll(".arrow");
  const [tx, rx] = [rate(p.tx, p.txBytes, bits), rate(p.rx, p.rxBytes, bits)];
  if (height >= 30) {
    const apart = height >= 40 ? 5 : 3;
    aim(right, x + 3, x2 - 3, y - apart, p.tx, tx, y - apart - 4);
    aim(left, x2 - 3, x + 3, y + apart, p.rx, rx, y + apart + 11);
  } else {
    // One text for both, on the arrow that is drawn last.
    const both = [tx && `→${tx}`, rx && `←${rx}`].filter(Boolean).join(" ").replaceAll("/s", "");
    aim(right, x + 3, x2 - 3, y - 2.5, p.tx, "", y);
    aim(left, x2 - 3, x + 3, y + 2.5, p.rx, both, y + 3.5);
  }
}

function makeRow() {
  return svg(
    "g",
    { class: "row" },
    svg("title"),
    svg("rect", { class: "box", rx: 5 }),
    svg("circle", { class: "lamp" }),
    svg("text", { class: "name" }),
    svg("text", { class: "sub" }),
    arrow("tx"),
    arrow("rx"),
  );
}

function drawRow(node, p, at, height, c, bits) {
  const [title, box, lamp, name, sub] = node.children;
  const y = at + height / 2;
  const dense = height >= 30 ? "" : c.narrow ? " dense tight" : " dense";
  node.setAttribute("class", `row ${p.opstate}${p.up ? "" : " down"}${dense}`);
  setText(title, `${p.name}: ${p.about}\nsends ${Math.round(p.tx)} frames/s, ${short(p.txBytes * 8)}bit/s\n` +
    `gets ${Math.round(p.rx)} frames/s, ${short(p.rxBytes * 8)}bit/s`);
  const [gap, tall] = [height >= 30 ? 3 : 1.5, height >= 30];
  const place = { x: PAD, y: at + gap, width: c.box, height: height - 2 * gap };
  for (const [k, v] of Object.entries(place)) setAttr(box, k, v);
  setAttr(lamp, "cx", PAD + 11);
  setAttr(lamp, "cy", y);
  setAttr(lamp, "r", tall ? 5 : 4);
  setAttr(name, "x", PAD + 22);
  setAttr(name, "y", tall ? y - 1 : y + 4);
  setText(name, p.name);
  setAttr(sub, "x", PAD + 22);
  setAttr(sub, "y", y + 11);
  setText(sub, tall ? (c.narrow ? p.opstate : p.brief) : "");
  flows(node, PAD + c.box, c.hubAt, y, height, p, bits);
}

function makeCard() {
  const heads = ["functions", "", "port"].map((t) => svg("text", { class: "head" }, t));
  return svg(
    "g",
    { class: "card" },
    ...heads,
    svg("rect", { class: "hub", rx: 8 }),
    svg("g", { class: "rows" }),
    svg(
      "g",
      { class: "port" },
      svg("title"),
      svg("rect", { class: "box", rx: 5 }),
      svg("text", { class: "name", "text-anchor": "middle" }),
      svg("text", { class: "sub", "text-anchor": "middle" }),
      arrow("tx"),
      arrow("rx"),
    ),
  );
}

/** Draws a card below `top`; gives the height of the middle of its port, and its end. */
function drawCard(node, card, top, c, bits) {
  const [functions, eswitch, portHead, hub, rows, port] = node.children;
  const height = rowHeight(card.rows.length);
  const start = top + HEAD;
  const size = Math.max(card.rows.length * height, 46);
  const middle = start + size / 2;
  const heads = [[functions, PAD, "start"], [eswitch, c.hubAt + c.hub / 2, "middle"], [portHead, c.portAt + c.port / 2, "middle"]];
  for (const [text, x, anchor] of heads) {
    setAttr(text, "x", x);
    setAttr(text, "y", top + 14);
    setAttr(text, "text-anchor", anchor);
  }
  setText(eswitch, `eswitch ${card.pf}`);
  for (const [k, v] of Object.entries({ x: c.hubAt, y: start, width: c.hub, height: size })) setAttr(hub, k, v);
  let at = start;
  keyed(rows, card.rows, (p) => p.name, makeRow, (row, p) => {
    drawRow(row, p, at, height, c, bits);
    at += height;
  });
  const p = card.port;
  port.setAttribute("class", `port${p.up ? "" : " down"}`);
  const [title, box, name, sub] = port.children;
  setText(title, `${p.name}: the physical port, link ${p.up ? "up" : "down"}; its wire: ${card.far}`);
  for (const [k, v] of Object.entries({ x: c.portAt, y: middle - 20, width: c.port, height: 40 })) setAttr(box, k, v);
  for (const [text, y] of [[name, middle - 2], [sub, middle + 13]]) {
    setAttr(text, "x", c.portAt + c.port / 2);
    setAttr(text, "y", y);
  }
  setText(name, p.name);
  setText(sub, p.up ? "link up" : "link down");
  flows(port, c.hubAt + c.hub, c.portAt, middle, 46, p, bits);
  return { middle, end: start + size };
}

/** What a port's wire leads to: a line to the other port, or a word below it. */
function drawWire(node, card, ends, c) {
  const x = c.portAt + c.port;
  const from = ends.get(card.pf);
  const other = [...ends].find(([pf]) => `p${pf}` === card.far && pf !== card.pf);
  const [path, text] = node.children;
  let [d, word] = ["", ""];
  if (other && card.pf < other[0]) d = `M${x} ${from}H${c.end}V${other[1]}H${x}`;
  else if (card.far === "loopback") d = `M${x} ${from - 8}H${c.end}V${from + 8}H${x}`;
  else if (!other) {
    d = card.far === "none" ? "" : `M${x} ${from}H${c.end}`;
    word = card.far === "none" ? "no wire" : card.far;
  }
  setAttr(path, "d", d);
  setAttr(text, "x", c.end);
  setAttr(text, "y", from + 34);
  setText(text, word.length > 26 ? `…${word.slice(-25)}` : word);
  node.setAttribute("class", `wire${card.port.up ? "" : " down"}`);
}

/**
 * Draws cards: `{ pf, far, rows, port }`. A row and a port have name, up, rates tx, rx,
 * txBytes, rxBytes; a row has brief, about and opstate.
 */
export function draw(root, cards, bits) {
  const width = Math.max(300, Math.round(root.parentElement.clientWidth));
  const c = columns(width);
  if (!root.firstElementChild) root.append(svg("g", { class: "wires" }), svg("g", { class: "cards" }));
  const [wires, all] = root.children;
  let top = 0;
  const ends = new Map();
  keyed(all, cards, (card) => card.pf, makeCard, (node, card) => {
    const { middle, end } = drawCard(node, card, top, c, bits);
    ends.set(card.pf, middle);
    top = end + GAP;
  });
  const wire = () => svg("g", {}, svg("path"), svg("text", { "text-anchor": "end" }));
  keyed(wires, cards, (card) => card.pf, wire, (node, card) => drawWire(node, card, ends, c));
  setAttr(root, "viewBox", `0 0 ${width} ${top - GAP + PAD}`);
  setAttr(root, "width", width);
  setAttr(root, "height", top - GAP + PAD);
  const ports = cards.flatMap((card) => card.rows.map((p) => `${p.name} ${p.brief}, sends ${Math.round(p.tx)} and gets ${Math.round(p.rx)} frames a second`));
  setAttr(root, "aria-label", `${cards.length} eswitches. ${ports.join("; ")}`);
}
