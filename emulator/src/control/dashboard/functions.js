// Functions and the windows through which their drivers reach them.

import { $, bytes, cells, el, hex, keyed, setAttr, setText } from "./dom.js";
import { LIFE } from "./slices.js";

/** What a function's driver is doing. */
export function lifeOf(f, vport) {
  const life = LIFE[f.vhca_state];
  if (life) return { state: life[0], opstate: life[1] };
  return { state: "active", opstate: vport?.driver ? "attached" : "detached" };
}

/** BAR 2: a cell for each window that there can be. */
function windows(list, sfs, max) {
  const used = new Map(sfs.map((f) => [Math.round(f.window.offset / f.window.size), f]));
  const all = Array.from({ length: max }, (_, i) => i);
  keyed(list, all, (i) => i, () => el("li"), (cell, i) => {
    const f = used.get(i);
    const life = f && lifeOf(f);
    setAttr(cell, "class", life ? life.opstate : null);
    setText(cell, f ? f.port.replace(/^pf\d+sf/, "") : "");
    setAttr(cell, "title", f ? `${f.port}: BAR 2 + ${hex(f.window.offset)}, ${bytes(f.window.size)}, ${life.state}, ${life.opstate}` : `window ${i}: free`);
  });
}

function bars(state) {
  keyed($("bars"), state.resources, (r) => r.pfnum, (r) => el(
    "div",
    {},
    el("h3"),
    el("p", { class: "note" }),
    el("ol", { class: "windows", "aria-label": `windows of pf${r.pfnum}` }),
  ), (node, r) => {
    const [title, note, list] = node.children;
    const mine = Object.entries(state.functions).filter(([name]) => name.startsWith(`pf${r.pfnum}/`)).map(([, f]) => f);
    const pf = mine.find((f) => f.kind === "pf");
    const sfs = mine.filter((f) => f.kind === "sf");
    setText(title, `pf${r.pfnum}`);
    const size = sfs[0]?.window.size;
    setText(note, `BAR 0, ${bytes(pf?.window.size ?? 0)}: its own registers and doorbells. BAR 2: ${r.max_sfs} windows for sub-functions` +
      (size ? ` of ${bytes(size)}, ${sfs.length} in use.` : ", all free."));
    windows(list, sfs, r.max_sfs);
  });
}

/** Draws functions from the state of the page. */
export function showFunctions(state) {
  bars(state);
  const byPort = new Map(state.vports.map((v) => [v.port, v]));
  const all = Object.entries(state.functions);
  keyed($("functions"), all, ([name]) => name, () => el("tr"), (row, [name, f]) => {
    const objects = Object.entries(f.objects).filter(([, n]) => n > 0);
    const { state: admin, opstate } = lifeOf(f, byPort.get(f.port));
    cells(row, [
      f.port,
      name,
      f.window ? `BAR ${f.window.bar} + ${hex(f.window.offset)}, ${bytes(f.window.size)}` : "–",
      f.kind !== "pf" ? `${admin}, ${opstate}` : opstate,
      f.driver || "–",
      f.commands.executed,
      f.commands.refused,
      f.commands.undelivered,
      objects.reduce((sum, [, n]) => sum + n, 0),
    ]);
    setAttr(row.cells[8], "title", objects.map(([kind, n]) => `${n} ${kind}`).join(", "));
    row.cells[6].classList.toggle("bad", f.commands.refused > 0);
    row.cells[7].classList.toggle("bad", f.commands.undelivered > 0);
    for (const i of [5, 6, 7, 8]) row.cells[i].classList.add("number");
    for (const i of [0, 1, 2]) row.cells[i].classList.add("mono");
  });
}
