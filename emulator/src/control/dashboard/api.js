// What the page asks of the device. The token goes into a header, never into an address.

/** Every operation that this page uses, as /v1/openapi.json has them. */
export const API = {
  device: "GET /v1/device",
  slices: "GET /v1/slices",
  addSlice: "POST /v1/slices",
  setSlice: "PATCH /v1/slices/{index}",
  delSlice: "DELETE /v1/slices/{index}",
  resources: "GET /v1/resources",
  functions: "GET /v1/functions",
  vports: "GET /v1/vports",
  tables: "GET /v1/tables",
  faults: "GET /v1/faults",
  addFault: "POST /v1/faults",
  delFault: "DELETE /v1/faults/{id}",
  recent: "GET /v1/events/recent",
  events: "GET /v1/events",
  commands: "GET /v1/commands",
};

const KEY = "sfnic-token";

/** What the device answered instead of what was asked for; status 0 is no answer at all. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Takes the token out of the link's fragment and keeps it for this tab. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return false;
  setToken(given);
  history.replaceState(null, "", location.pathname);
  return true;
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export const hasToken = () => Boolean(sessionStorage.getItem(KEY));

function request(operation, { path = {}, query = {}, body, signal } = {}) {
  const [method, template] = operation.split(" ");
  const url = new URL(template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(path[name])), location.origin);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return fetch(url, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store", credentials: "omit" });
}

async function refusal(reply) {
  const said = await reply.json().catch(() => ({}));
  return new Refusal(reply.status, said.error ?? `${reply.status} ${reply.statusText}`);
}

/** Asks once; the answer's JSON, or null where it has none. */
export async function ask(operation, options = {}) {
  let reply;
  try {
    reply = await request(operation, { signal: AbortSignal.timeout(15000), ...options });
  } catch {
    throw new Refusal(0, "the device does not answer");
  }
  if (!reply.ok) throw await refusal(reply);
  return reply.status === 204 ? null : reply.json();
}

/** Hands every item of a stream of server-sent events to `each`, until it ends or is ended. */
export async function follow(operation, options, each) {
  const reply = await request(operation, options);
  if (!reply.ok) throw await refusal(reply);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) each(JSON.parse(line.slice(5)));
    }
  }
}

/** Waits; `wake` ends it early. */
export function pause(ms, wake) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wake?.(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
