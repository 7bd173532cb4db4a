// Faults: switches for the common ones, a line for all others, and what is in force.

import { API } from "./api.js";
import { $, el, keyed, setAttr, setText } from "./dom.js";
import { act } from "./slices.js";

let inForce = [];

/** A switch's fault where the user wants it. */
function textOf(button) {
  const where = $("fault-where").value;
  return button.dataset.fault + (where === "" ? "" : ` pf=${where}`);
}

function showSwitches() {
  for (const button of document.querySelectorAll("[data-fault]")) {
    setAttr(button, "aria-pressed", String(inForce.some((f) => f.fault === textOf(button))));
  }
}

/** Draws faults from the state of the page. */
export function showFaults(state, refresh) {
  inForce = state.faults;
  const all = [{ value: "", text: "everywhere" }, ...state.resources.map((r) => ({ value: r.pfnum, text: `pf${r.pfnum} alone` }))];
  keyed($("fault-where"), all, (o) => o.value, (o) => el("option", { value: o.value }, o.text));
  showSwitches();
  keyed($("faults"), inForce, (f) => f.id, (f) => el(
    "tr",
    {},
    el("td", { class: "number" }, f.id),
    el("td", { class: "mono wrap" }, f.fault),
    el("td", { class: "number" }),
    el("td", { class: "number" }),
    el("td", { class: "actions" }, el("button", {
      "aria-label": `Take out fault ${f.id}: ${f.fault}`,
      onclick: () => act(API.delFault, { path: { id: f.id } }, `fault ${f.id} is taken out`, refresh),
    }, "Take out")),
  ), (row, f) => {
    setText(row.cells[2], f.struck);
    setText(row.cells[3], f.occasions);
    row.classList.toggle("hit", f.struck > 0);
  });
  $("no-faults").hidden = inForce.length > 0;
}

/** The switches and the line. */
export function faultForm(refresh) {
  $("fault-where").addEventListener("change", showSwitches);
  for (const button of document.querySelectorAll("[data-fault]")) {
    button.title = button.dataset.fault;
    button.addEventListener("click", () => {
      const text = textOf(button);
      const there = inForce.find((f) => f.fault === text);
      if (there) return act(API.delFault, { path: { id: there.id } }, `off: ${text}`, refresh);
      return act(API.addFault, { body: { fault: text } }, `on: ${text}`, refresh);
    });
  }
  $("fault-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = $("fault-text").value.trim();
    const added = await act(API.addFault, { body: { fault: text } }, `on: ${text}`, refresh);
    if (added) $("fault-text").value = "";
  });
}
