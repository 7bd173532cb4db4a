// What happened, and what drivers said: events and commands as they come.

import { API, Refusal, ask, follow, pause } from "./api.js";
import { $, el, hex, setText } from "./dom.js";

/** Most lines that a list keeps. */
const KEPT = 200;

const seconds = (ns) => (ns / 1e9).toFixed(6);
const place = (e) => `pf${e.pf}${e.function ? `/${hex(e.function)}` : ""}`;

/** An event in words, as `sfnic ctl events` says it. */
function words(e) {
  switch (e.event) {
    case "lost": return `${e.count} events were lost: too many at a time`;
    case "vhca_state": return `pf${e.pf}sf${e.sfnum}${e.slice === undefined ? "" : ` (slice ${e.slice})`}: ${e.cause}, now ${e.state} and ${e.opstate}`;
    case "slice": return `slice ${e.index} ${e.action}`;
    case "link": return `${e.port} ${e.up ? "up" : "down"}`;
    case "command_failed": return `${place(e)} ${e.command} op_mod ${hex(e.op_mod)}: ${e.status} (${hex(e.syndrome)}): ${e.reason}`;
    case "command_undelivered": return `${place(e)}: ${e.delivery}`;
    case "reset": return `pf${e.pf} was reset`;
    case "fault": return `${e.id} ${e.action}: ${e.fault} ${e.what ?? ""}`;
    default: return JSON.stringify(e);
  }
}

const BAD = new Set(["command_failed", "command_undelivered", "lost"]);

function add(list, item) {
  list.prepend(item);
  while (list.children.length > KEPT) list.lastElementChild.remove();
}

function showEvent(e) {
  $("no-events").hidden = true;
  const mark = BAD.has(e.event) || (e.event === "fault" && e.action === "struck");
  add($("events"), el(
    "li",
    { class: mark ? "bad" : null },
    el("time", {}, e.time_ns === undefined ? "" : seconds(e.time_ns)),
    el("b", {}, e.event),
    el("span", {}, words(e)),
  ));
}

/** Shows events as long as `live` says, from those that are kept on; `news` hears of each. */
export async function followEvents(live, news) {
  for (;;) {
    const signal = await live();
    try {
      const { events } = await ask(API.recent, { signal });
      $("events").replaceChildren();
      $("no-events").hidden = events.length > 0;
      events.slice(-KEPT).forEach(showEvent);
      const since = events.at(-1)?.seq ?? 0;
      await follow(API.events, { query: { since }, signal }, (e) => {
        showEvent(e);
        news();
      });
    } catch (e) {
      if (e instanceof Refusal && e.status) setText($("event-note"), e.message);
    }
    await pause(1500);
  }
}

function fields(mark, values) {
  const all = Object.entries(values).filter(([name]) => name !== "opcode" && name !== "op_mod");
  const rows = all.map(([name, value]) => el("tr", {}, el("td", {}, name), el("td", {}, typeof value === "number" ? hex(value) : value)));
  return el("table", { class: "fields" }, el("caption", {}, mark), el("tbody", {}, ...rows));
}

/** A command in a line; its fields appear when it is opened. */
function commandItem(c) {
  const answer = c.status ?? `not delivered: ${c.delivery}`;
  const took = c.duration_ns >= 1e6 ? `${(c.duration_ns / 1e6).toFixed(1)} ms` : `${(c.duration_ns / 1e3).toFixed(0)} µs`;
  const bad = c.status !== "OK";
  const line = el(
    "summary",
    {},
    el("time", {}, seconds(c.time_ns)),
    el("b", {}, c.command),
    el("span", { class: bad ? "bad" : "note" }, bad ? `${answer} (${hex(c.syndrome)}) ${c.reason}` : answer),
    el("span", { class: "note" }, ` ${place(c)}${c.op_mod ? ` op_mod ${hex(c.op_mod)}` : ""} ${took}`),
  );
  const details = el("details", {}, line);
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    details.append(fields("sent", c.input), fields("answered", c.output));
    if (c.cut) details.append(el("p", { class: "note" }, "It was longer than what is shown."));
  });
  return el("li", {}, details);
}

/** The latest commands, as they are: what is shown of them is what fits the filter. */
let kept = [];

function wanted(c) {
  if ($("command-failed").checked && c.status === "OK") return false;
  const words = $("command-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${c.command} ${place(c)} ${c.status} ${c.reason} ${JSON.stringify(c.input)}`.toLowerCase();
  return words.every((w) => text.includes(w));
}

function again() {
  $("commands").replaceChildren();
  kept.filter(wanted).slice(-KEPT).forEach((c) => add($("commands"), commandItem(c)));
}

/** The filter of the commands. */
export function commandForm() {
  for (const id of ["command-filter", "command-failed"]) $(id).addEventListener("input", again);
  $("command-clear").addEventListener("click", () => {
    kept = [];
    again();
  });
}

/** Shows commands as long as `live` says; the device keeps none for us before that. */
export async function followCommands(live) {
  // A driver says hundreds at a time: they are drawn together.
  let waiting = [];
  const flush = () => {
    const now = waiting.splice(0).slice(-KEPT);
    kept = kept.concat(now).slice(-4 * KEPT);
    now.filter(wanted).forEach((c) => add($("commands"), commandItem(c)));
  };
  for (;;) {
    const signal = await live();
    try {
      await follow(API.commands, { signal }, (c) => {
        if (c.event === "lost") {
          setText($("command-note"), `${c.count} commands were lost: too many at a time`);
          return;
        }
        if (waiting.length === 0) setTimeout(flush, 250);
        waiting.push(c);
      });
    } catch (e) {
      if (e instanceof Refusal && e.status) setText($("command-note"), e.message);
    }
    await pause(1500);
  }
}
