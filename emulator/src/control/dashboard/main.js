// The page: asks the device for its state once a second, and draws it.

import { API, ask, hasToken, pause, setToken, takeToken } from "./api.js";
import { $, Rates, setAttr, setText, short, tell } from "./dom.js";
import { faultForm, showFaults } from "./faults.js";
import { lifeOf, showFunctions } from "./functions.js";
import { draw } from "./picture.js";
import { showRules } from "./rules.js";
import { commandForm, followCommands, followEvents } from "./said.js";
import { settingsForm, showSettings } from "./settings.js";
import { addForm, showSlices } from "./slices.js";

const INTERVAL = 1000;

const rates = new Rates();
const state = { device: null };
let held = false;
let wake = () => {};
let wakeRules = () => {};
let locked = false;
let streams = new AbortController();

/** Draws again soon: something happened. */
let soon = 0;
function refresh() {
  soon ||= setTimeout(() => {
    soon = 0;
    wake();
  }, 150);
}

const asleep = () => held || locked || document.hidden;

/** Whether the device is there, in the head of the page. */
function status(word, text) {
  setAttr(document.body, "data-status", word);
  setText($("status"), text);
}

/** The cards as the picture wants them. */
function cards() {
  const functions = new Map(Object.values(state.functions).map((f) => [f.port, f]));
  const of = (v) => {
    const per = (key) => rates.of(`${v.port} ${key}`, v[`${key}_packets`]);
    const octets = (key) => rates.of(`${v.port} ${key} bytes`, v[`${key}_bytes`]);
    return { name: v.port, up: v.up, tx: per("tx"), rx: per("rx"), txBytes: octets("tx"), rxBytes: octets("rx") };
  };
  return state.resources.map(({ pfnum }) => {
    const mine = state.vports.filter((v) => v.pf === pfnum);
    const port = mine.find((v) => v.port === `p${pfnum}`);
    const rows = mine.filter((v) => v !== port).map((v) => {
      const f = functions.get(v.port);
      const life = f ? lifeOf(f, v) : { state: "", opstate: "detached" };
      const brief = f?.kind === "sf" ? `${life.state}, ${life.opstate}` : `driver ${life.opstate}`;
      return { ...of(v), brief, about: `${brief}, ${v.hw_addr}, link ${v.up ? "up" : "down"}`, opstate: life.opstate };
    });
    return { pf: pfnum, far: state.device.wires[pfnum] ?? "none", rows, port: of(port) };
  });
}

function summary() {
  const d = state.device;
  setText($("handle"), d.handle);
  document.title = `${d.handle} · sfnic`;
  setText($("model"), `${d.profile}, firmware ${d.firmware}, sfnic ${d.version}`);
  const who = { host: "the host's driver", embedded: "this device (embedded)", none: "nobody" };
  setText($("manager"), who[d.eswitch]);
  const sum = (key) => Object.values(state.functions).reduce((n, f) => n + f.commands[key], 0);
  setText($("commands-rate"), `${short(rates.of("commands", sum("executed")))}/s`);
  setText($("refused"), sum("refused"));
  setAttr($("refused"), "class", sum("refused") ? "bad" : "");
  setText($("fault-count"), state.faults.length);
  setAttr($("fault-count"), "class", state.faults.length ? "warn" : "");
}

function show() {
  summary();
  draw($("picture"), cards(), $("bits").checked);
  showSlices(state, refresh);
  showSettings(state);
  showFunctions(state);
  showFaults(state, refresh);
}

/** All that is drawn every time. */
async function sample() {
  const names = ["device", "functions", "vports", "slices", "resources", "faults"];
  const got = await Promise.all(names.map((name) => ask(API[name])));
  names.forEach((name, i) => {
    state[name] = got[i];
  });
}

/** Asks for the token, and waits for it. */
function askToken() {
  locked = true;
  status("locked", "wants its token");
  setText($("token-why"), hasToken() ? "The token that it was given is not this device's." : "");
  $("token-form").hidden = false;
  $("board").hidden = true;
  $("token").focus();
}

function unlock() {
  locked = false;
  $("token-form").hidden = true;
  $("board").hidden = false;
  refresh();
}

/** Waits until the next picture is due; news and the user end it early. */
async function rest(took) {
  await pause(Math.max(INTERVAL, took * 4), (now) => {
    wake = now;
  });
  while (asleep()) {
    await pause(3600000, (now) => {
      wake = now;
    });
  }
}

async function live() {
  for (;;) {
    const begun = performance.now();
    try {
      await sample();
      rates.begin(begun);
      show();
      status("live", "live");
    } catch (e) {
      if (e.status === 401) askToken();
      else if (e.status === undefined) throw e;
      else status("lost", `${e.message}; trying again`);
    }
    await rest(performance.now() - begun);
  }
}

/** Rules are many: they are asked for only while they are open, and more rarely. */
async function rules() {
  for (;;) {
    const begun = performance.now();
    if ($("rules-part").open && !asleep() && state.device) {
      try {
        showRules(await ask(API.tables), begun);
      } catch (e) {
        setText($("rule-count"), e.message);
      }
    }
    await pause(Math.max(2 * INTERVAL, (performance.now() - begun) * 5), (now) => {
      wakeRules = now;
    });
  }
}

/** For streams: waits until the page is awake; gives what ends them when it sleeps. */
async function awake() {
  while (asleep() || !state.device) await pause(200);
  if (streams.signal.aborted) streams = new AbortController();
  return streams.signal;
}

function sleepChanged() {
  if (asleep()) {
    streams.abort();
    if (held) status("held", "held: nothing is asked of the device");
  } else refresh();
}

/** Colours: as the system says, or as the user does. */
function theme() {
  const order = ["auto", "light", "dark"];
  const set = (name) => {
    setAttr(document.documentElement, "data-theme", name === "auto" ? null : name);
    setText($("theme"), `Colours: ${name}`);
    localStorage.setItem("sfnic-theme", name);
  };
  const kept = localStorage.getItem("sfnic-theme");
  set(order.includes(kept) ? kept : "auto");
  $("theme").addEventListener("click", () => set(order[(order.indexOf(localStorage.getItem("sfnic-theme")) + 1) % 3]));
}

function controls() {
  theme();
  addForm(refresh);
  settingsForm(state, refresh);
  faultForm(refresh);
  commandForm();
  $("hold").addEventListener("click", () => {
    held = !held;
    setAttr($("hold"), "aria-pressed", String(held));
    sleepChanged();
  });
  $("explain").addEventListener("click", () => {
    const on = $("explain").getAttribute("aria-pressed") !== "true";
    setAttr($("explain"), "aria-pressed", String(on));
    for (const details of document.querySelectorAll("details.explain")) details.open = on;
  });
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken($("token").value.trim());
    $("token").value = "";
    unlock();
  });
  // A new link in the same tab changes the fragment alone.
  addEventListener("hashchange", () => {
    if (takeToken()) unlock();
  });
  document.addEventListener("visibilitychange", sleepChanged);
  $("bits").addEventListener("change", refresh);
  $("rules-part").addEventListener("toggle", () => wakeRules());
  for (const id of ["rule-filter", "rule-counted"]) $(id).addEventListener("input", () => wakeRules());
  new ResizeObserver(() => state.resources && refresh()).observe($("picture").parentElement);
}

takeToken();
controls();
followEvents(awake, refresh);
followCommands(awake);
rules();
live().catch((e) => {
  status("lost", `this page failed: ${e.message}`);
  tell(String(e.stack ?? e), true);
  throw e;
});
