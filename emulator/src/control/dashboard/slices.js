// Slices: what there is, in which state, and the buttons.

import { API, ask } from "./api.js";
import { $, el, keyed, setAttr, setText, tell } from "./dom.js";

/** The states of a sub-function as users know them, by those of the hardware. */
export const LIFE = {
  allocated: ["inactive", "detached"],
  active: ["active", "detached"],
  in_use: ["active", "attached"],
  teardown_request: ["inactive", "detaching"],
};

const STEPS = [
  ["inactive", "detached", "added, and nobody else's business"],
  ["active", "detached", "offered to the host, whose driver has not taken it yet"],
  ["active", "attached", "the host's driver runs it"],
  ["inactive", "detaching", "taken back, and the host has not let go of it yet"],
];

/** Makes a change, tells what came of it, and asks for a new picture. */
export async function act(operation, options, done, refresh) {
  try {
    const answer = await ask(operation, options);
    tell(done);
    refresh();
    return answer;
  } catch (e) {
    tell(e.message, true);
    refresh();
    return undefined;
  }
}

/** `00:11:22:33:44:55` as six numbers. */
export function address(text) {
  const parts = text.trim().split(":");
  const good = parts.length === 6 && parts.every((p) => /^[0-9a-f]{1,2}$/i.test(p));
  return good ? parts.map((p) => parseInt(p, 16)) : undefined;
}

const chip = (word) => el("span", { class: `chip ${word}` }, word);

function setChip(cell, word) {
  if (cell.firstChild?.textContent === word && cell.firstChild.className === `chip ${word}`) return;
  cell.replaceChildren(chip(word));
}

function buttons(refresh) {
  const change = (state, done) => (event) => {
    const { index } = event.target.closest("tr").dataset;
    return act(API.setSlice, { path: { index }, body: { state } }, `slice ${index} ${done}`, refresh);
  };
  const remove = (event) => {
    const { index } = event.target.closest("tr").dataset;
    return act(API.delSlice, { path: { index } }, `slice ${index} is deleted`, refresh);
  };
  return el(
    "td",
    { class: "actions" },
    el("button", { "data-act": "activate", onclick: change("active", "is active: the host is told") }, "Activate"),
    el("button", { "data-act": "deactivate", onclick: change("inactive", "is inactive: the host is asked to let go") }, "Deactivate"),
    el("button", { "data-act": "settings" }, "Settings"),
    el("button", { "data-act": "delete", class: "danger", onclick: remove }, "Delete"),
  );
}

/** The rows: slices, and in the host's mode the sub-functions that its driver made. */
function rowsOf(state) {
  const known = new Set(state.slices.map((s) => `pf${s.pfnum}sf${s.sfnum}`));
  const byPort = new Map(state.vports.map((v) => [v.port, v]));
  const rows = state.slices.map((s) => ({
    ...s,
    name: s.sfnum !== undefined ? `pf${s.pfnum}sf${s.sfnum}` : `pf${s.pfnum}`,
    ours: s.sfnum !== undefined && state.device.eswitch !== "host",
  }));
  for (const f of Object.values(state.functions)) {
    const life = LIFE[f.vhca_state];
    if (f.kind !== "sf" || !life || known.has(f.port)) continue;
    rows.push({ index: null, name: f.port, hw_addr: byPort.get(f.port)?.hw_addr ?? "", state: life[0], opstate: life[1], ours: false });
  }
  return rows;
}

function update(row, s) {
  row.dataset.index = s.index ?? "";
  const [index, name, mac, state, opstate, actions] = row.cells;
  setText(index, s.index ?? "–");
  setText(name, s.name);
  setText(mac, s.hw_addr);
  setChip(state, s.state);
  setChip(opstate, s.opstate);
  const [idle, active] = [s.state === "inactive", s.state === "active"];
  const detached = s.opstate === "detached";
  const shown = { activate: idle, deactivate: active, settings: true, delete: idle && detached };
  for (const button of actions.children) {
    const what = button.dataset.act;
    setAttr(button, "hidden", !s.ours || !shown[what]);
    button.disabled = what === "activate" && !detached;
    setAttr(button, "title", button.disabled ? "the host has not let go of it yet" : null);
    setAttr(button, "aria-label", `${button.textContent} slice ${s.index} (${s.name})`);
  }
}

function life(rows) {
  const sfs = rows.filter((r) => r.name.includes("sf"));
  keyed($("life"), STEPS, (s) => s.join(), ([state, opstate, about]) =>
    el("li", { title: about }, chip(state), chip(opstate), el("b")), (item, [state, opstate]) => {
    const n = sfs.filter((r) => r.state === state && r.opstate === opstate).length;
    setText(item.lastChild, n);
    item.classList.toggle("some", n > 0);
  });
}

/** Draws slices from the state of the page. */
export function showSlices(state, refresh) {
  const rows = rowsOf(state);
  keyed($("slices"), rows, (s) => s.name, () => {
    const row = el("tr");
    for (let i = 0; i < 5; i += 1) row.append(el("td", i < 3 ? { class: "mono" } : {}));
    row.append(buttons(refresh));
    return row;
  }, update);
  life(rows);
  const ours = state.device.eswitch !== "host";
  $("add-slice").hidden = !ours;
  $("not-ours").hidden = ours;
  const select = $("new-pf");
  keyed(select, state.resources, (r) => r.pfnum, (r) => el("option", { value: r.pfnum }, `pf${r.pfnum}`));
  const room = state.resources.map((r) => `pf${r.pfnum}: ${r.used_sfs} of ${r.max_sfs} sub-functions, ${r.used_irq_vectors} of ${r.irq_vectors} interrupt vectors`);
  setText($("room"), room.join(" · "));
  const taken = new Set(rows.map((r) => r.name));
  let free = 1;
  while (taken.has(`pf${select.value}sf${free}`)) free += 1;
  $("new-sfnum").placeholder = free;
}

/** The form that adds a slice. */
export function addForm(refresh) {
  $("add-slice").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [mac, number] = [$("new-mac").value, $("new-sfnum").value || $("new-sfnum").placeholder];
    const hw_addr = mac ? address(mac) : undefined;
    if (mac && !hw_addr) return tell(`address ${mac}: allowed is six pairs of hexadecimal digits, 00:11:22:33:44:55`, true);
    const body = { flavour: $("new-flavour").value, pfnum: Number($("new-pf").value), sfnum: Number(number) };
    const added = await act(API.addSlice, { body }, "the slice is added", refresh);
    if (!added) return undefined;
    $("new-sfnum").value = "";
    $("new-mac").value = "";
    const change = { ...(hw_addr && { hw_addr }), ...($("new-active").checked && { state: "active" }) };
    if (!Object.keys(change).length) return undefined;
    return act(API.setSlice, { path: { index: added.index }, body: change }, `slice ${added.index} is added${change.state ? " and active" : ""}`, refresh);
  });
}
