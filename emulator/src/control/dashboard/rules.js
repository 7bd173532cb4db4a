// Flow rules with what they counted.

import { $, Rates, cells, el, hex, keyed, setText, short } from "./dom.js";

/** Most rules that are drawn; a filter finds the others. */
const MOST = 300;

const rates = new Rates();

function match(rule, group) {
  const masks = new Map(group.mask.map((m) => [m.field, m.value]));
  const words = rule.value.map(({ field, value }) => {
    const mask = masks.get(field) ?? 0xffffffff;
    // A mask of low ones is a whole field.
    const whole = (BigInt(mask) & (BigInt(mask) + 1n)) === 0n;
    return `${field}=${hex(value)}${whole ? "" : `/${hex(mask)}`}`;
  });
  return words.join(" ") || "everything";
}

function target(d) {
  if (d.to === "vport") return `vport ${hex(d.num)}`;
  if (d.to === "vhca_rx") return `receive side of ${d.vhca_id}`;
  return d.id === undefined ? d.to : `${d.to} ${hex(d.id)}`;
}

function* rulesOf(tables) {
  for (const set of tables) {
    for (const table of set.tables) {
      for (const group of table.groups) {
        for (const rule of group.rules) yield { set, table, group, rule };
      }
    }
  }
}

/** One line for a rule: what is filtered and drawn. */
function view({ set, table, group, rule }) {
  const doing = [...rule.actions];
  if (rule.modify_header !== null) doing.push(`modify ${hex(rule.modify_header)}`);
  if (rule.reformat !== null) doing.push(`reformat ${hex(rule.reformat)}`);
  const to = rule.dests.map(target).join(", ");
  const sum = (key) => rule.counters.reduce((n, c) => n + c[key], 0);
  return {
    key: `${set.pf}/${set.function}/${table.kind}/${table.id}/${rule.index}`,
    port: set.port,
    table: `${table.kind} ${hex(table.id)} level ${table.level}`,
    index: rule.index,
    match: match(rule, group),
    doing: `${doing.join(" ")}${to ? ` → ${to}` : ""}`,
    counted: rule.counters.length > 0,
    packets: sum("packets"),
    octets: sum("octets"),
  };
}

/** Draws rules from the state of the page. */
export function showRules(tables, at) {
  rates.begin(at);
  const words = $("rule-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const counted = $("rule-counted").checked;
  let [total, hidden] = [0, 0];
  for (const set of tables) {
    for (const t of set.tables) {
      for (const g of t.groups) {
        total += g.count;
        hidden += g.count - g.rules.length;
      }
    }
  }
  const wanted = [];
  let fit = 0;
  for (const one of rulesOf(tables)) {
    const v = view(one);
    v.rate = rates.of(v.key, v.packets);
    const text = `${v.port} ${v.table} ${v.match} ${v.doing}`.toLowerCase();
    if ((counted && !v.counted) || !words.every((w) => text.includes(w))) continue;
    fit += 1;
    if (wanted.length < MOST) wanted.push(v);
  }
  keyed($("rules"), wanted, (v) => v.key, () => el("tr"), (row, v) => {
    cells(row, [v.port, v.table, v.index, v.match, v.doing, v.counted ? v.packets : "–", v.counted ? v.octets : "–", v.rate > 0 ? `${short(v.rate)}/s` : ""]);
    for (const i of [2, 5, 6, 7]) row.cells[i].classList.add("number");
    for (const i of [3, 4]) row.cells[i].classList.add("mono", "wrap");
    row.classList.toggle("hit", v.rate > 0);
  });
  const more = hidden ? `, ${hidden} in large groups are not fetched` : "";
  setText($("rule-count"), `${wanted.length} of ${fit} shown; ${total} rules in all${more}`);
}
