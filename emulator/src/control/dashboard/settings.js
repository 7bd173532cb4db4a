// What can be set of a slice: one form for the slice that was chosen.

import { API } from "./api.js";
import { $, setText, tell } from "./dom.js";
import { act, address } from "./slices.js";

const MBIT = 1e6;

/** Fields by their names in the API: whether they are settable only before a driver looks. */
const EARLY = { hw_addr: true, link: false, trust: false, spoof_check: false, vlan: false, qos: false, tx_share: false, tx_max: false, mtu: true, max_io_eqs: true };
const NAMES = Object.keys(EARLY);
const isRate = (name) => name.startsWith("tx_");

/** The slice whose settings are shown, and what the fields said when they were filled in. */
let chosen = null;
let filled = {};

const input = (name) => $(`set-${name.replaceAll("_", "-")}`);

function read(name) {
  const field = input(name);
  return field.type === "checkbox" ? field.checked : field.value;
}

function write(name, slice) {
  const field = input(name);
  const value = isRate(name) ? slice[name] / MBIT : slice[name];
  if (field.type === "checkbox") field.checked = value;
  else field.value = value;
  filled[name] = read(name);
}

/** A field's value as the API wants it; undefined for none. */
function wanted(name) {
  const value = read(name);
  if (name === "hw_addr") return address(value);
  if (typeof value === "boolean" || name === "link") return value;
  if (value === "") return undefined;
  return isRate(name) ? Math.round(Number(value) * MBIT) : Number(value);
}

/** Fills in what nobody has changed meanwhile. */
export function showSettings(state) {
  const slice = state.slices.find((s) => s.index === chosen);
  $("set-slice").hidden = !slice;
  if (!slice) {
    chosen = null;
    return;
  }
  setText($("set-title"), `Settings of slice ${slice.index} (pf${slice.pfnum}sf${slice.sfnum})`);
  const idle = slice.state === "inactive" && slice.opstate === "detached";
  setText($("set-note"), idle ? "" : "Address, MTU and event queues can be set while it is inactive and detached.");
  for (const name of NAMES) {
    input(name).disabled = EARLY[name] && !idle;
    if (!(name in filled) || read(name) === filled[name]) write(name, slice);
  }
}

/** The form, and the buttons that open it. */
export function settingsForm(state, refresh) {
  const choose = (index) => {
    chosen = index;
    filled = {};
    showSettings(state);
  };
  $("slices").addEventListener("click", (event) => {
    const button = event.target.closest("[data-act=settings]");
    if (!button) return;
    choose(Number(button.closest("tr").dataset.index));
    $("set-link").focus();
  });
  $("set-close").addEventListener("click", () => choose(null));
  $("set-slice").addEventListener("submit", async (event) => {
    event.preventDefault();
    const changed = NAMES.filter((name) => read(name) !== filled[name]);
    const body = {};
    for (const name of changed) {
      body[name] = wanted(name);
      if (body[name] === undefined) {
        const allowed = name === "hw_addr" ? "six pairs of hexadecimal digits, 00:11:22:33:44:55" : "a number";
        tell(`${name} ${read(name)}: allowed is ${allowed}`, true);
        return;
      }
    }
    if (!changed.length) {
      tell("nothing is changed");
      return;
    }
    const index = chosen;
    const done = await act(API.setSlice, { path: { index }, body }, `slice ${index}: ${changed.join(", ")} set`, refresh);
    if (done && chosen === index) for (const name of changed) write(name, done);
  });
}
