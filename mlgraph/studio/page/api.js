// Requests to the server, and the state that all parts of the page share.

const token = new URLSearchParams(location.search).get("token") ?? "";

function address(path, query = {}) {
  return `api/${path}?${new URLSearchParams({ ...query, token })}`;
}

async function checked(response) {
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: response.statusText }));
  throw new Error(error);
}

export async function get(path, query) {
  return (await checked(await fetch(address(path, query)))).json();
}

// A line of JSON, then bytes: [header, Int8Array].
export async function getBytes(path, query) {
  const content = new Uint8Array(await (await checked(await fetch(address(path, query)))).arrayBuffer());
  const end = content.indexOf(10);
  const header = JSON.parse(new TextDecoder().decode(content.subarray(0, end)));
  return [header, new Int8Array(content.buffer, end + 1)];
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await checked(await fetch(address(path), { method: "POST", headers, body: JSON.stringify(body) }))).json();
}

export async function upload(file, target) {
  const query = { name: file.name, ...(target ? { target } : {}) };
  return (await checked(await fetch(address("upload", query), { method: "POST", body: file }))).json();
}

export const fileAddress = (name) => address(`file/${name}`);

// The state that the server last told, and what the page itself has selected.
export const store = { state: null, selected: null };

const listeners = {};

// Topics: "state" (each poll), "version" (the network changed: nodes, edges, data), "step" (parameters
// changed), "selected" (another neuron: {node, layer, neuron}), "example" (values by node, or null).
export function on(topic, listener) {
  (listeners[topic] ??= []).push(listener);
}

export function tell(topic, value) {
  for (const listener of listeners[topic] ?? []) listener(value);
}

// The address bar names the tab, the neuron and the test example, so that a reload, or a copied link, shows the same.
const place = new URLSearchParams(location.hash.slice(1));
export const remembered = Object.fromEntries(place);

export function remember(name, value) {
  if (value === null || value === undefined) place.delete(name);
  else place.set(name, value);
  history.replaceState(null, "", `#${place}`);
}

export function select(place) {
  store.selected = place;
  remember("node", place?.node);
  tell("selected", place);
}

const message = document.getElementById("message");

message.title = "Click to close";
message.addEventListener("click", quiet);

export function complain(error) {
  message.textContent = error.message ?? String(error);
  message.hidden = false;
}

function quiet() {
  message.hidden = true;
}

// Takes a new state; tells what changed.
export function take(state) {
  const before = store.state;
  store.state = state;
  tell("state", state);
  if (!before || before.version !== state.version || before.edits !== state.edits) tell("version", state);
  if (!before || before.step !== state.step || before.version !== state.version) tell("step", state);
}

// Runs an action that changes something; an error is shown and changes nothing.
export async function act(path, body) {
  try {
    const state = await post(path, body);
    quiet();
    take(state);
    return state;
  } catch (error) {
    complain(error);
    return null;
  }
}

export const edit = (name, fields = {}) => act("edit", { edit: name, ...fields });

// Asks for the state until the page closes, at most eight times a second, and only while it can be seen.
export async function poll() {
  for (;;) {
    const begin = performance.now();
    if (!document.hidden) {
      try {
        take(await get("state"));
        if (store.lost) quiet();
        store.lost = false;
      } catch (error) {
        store.lost = true;
        complain(error instanceof TypeError ? "The studio does not answer: it was closed, or is busy." : error);
      }
    }
    const rest = (store.state?.status === "running" ? 125 : 400) - (performance.now() - begin);
    await new Promise((done) => setTimeout(done, Math.max(20, store.lost ? 2000 : rest)));
  }
}

// A DOM element: h("button", {class: "big", onclick: f}, "text", child).
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
