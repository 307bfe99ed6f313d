// Requests to the server, the state that all parts of the page share, and what is said when something goes wrong.

const token = new URLSearchParams(location.search).get("token") ?? "";

const PATIENCE = 5000; // milliseconds that a busy studio may take to tell its state
const AGAIN = 2000; // milliseconds until the next attempt to reach it

// An error whose text is for people: the server refused something, or the page expects something else.
export class Told extends Error {
  constructor(text, status = 0) {
    super(text);
    this.status = status;
  }
}

// There is no answer. `poll` says so above the network, until there is one.
export class Lost extends Error {}

// Errors of a look at the network that the next state mends: no answer, or ids of a network that was replaced.
export const passes = (error) => error instanceof Lost || error.status === 409;

function address(path, query = {}) {
  return `api/${path}?${new URLSearchParams({ ...query, token })}`;
}

async function answer(path, query, options) {
  let response, content;
  try {
    response = await fetch(address(path, query), options);
    content = new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new Lost(error.name === "TimeoutError" ? "late" : "away");
  }
  if (response.ok) return content;
  throw new Told(refusal(content), response.status);
}

function refusal(content) {
  try {
    return JSON.parse(text(content)).error;
  } catch {
    return "The studio failed at this; its terminal says why.";
  }
}

const text = (content) => new TextDecoder().decode(content);

export const get = async (path, query, options) => JSON.parse(text(await answer(path, query, options)));

// A line of JSON, then bytes: [header, Int8Array].
export async function getBytes(path, query) {
  const content = await answer(path, query);
  const end = content.indexOf(10);
  return [JSON.parse(text(content.subarray(0, end))), new Int8Array(content.buffer, end + 1)];
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return JSON.parse(text(await answer(path, {}, { method: "POST", headers, body: JSON.stringify(body) })));
}

// A link to a file, which says why where there is none: browsers say only that the download failed.
export const fileLink = (name) => h("a", { href: address(`file/${name}`), download: name, "data-testid": name,
  onclick: (event) => {
    event.preventDefault();
    download(name);
  } }, name);

async function download(name) {
  try {
    const content = new Blob([await answer(`file/${name}`)]);
    const link = h("a", { href: URL.createObjectURL(content), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000); // when it has long been read
  } catch (error) {
    complain(error instanceof Lost ? new Told("No answer came, so there is no file.") : error);
  }
}

// The state that the server last told, and what the page itself has selected.
export const store = { state: null, selected: null, lost: false };

const listeners = {};

// Topics: "state" (each poll), "version" (the network changed: nodes, edges, data), "step" (parameters
// changed), "selected" (another neuron: {node, layer, neuron, name}), "example" (values by node, or null).
export function on(topic, listener) {
  (listeners[topic] ??= []).push(listener);
}

export function tell(topic, value) {
  for (const listener of listeners[topic] ?? []) {
    try {
      listener(value);
    } catch (error) {
      complain(error); // and the others hear of it all the same
    }
  }
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

// --- what is said ---------------------------------------------------------------------------------

const message = document.getElementById("message");
const connection = document.getElementById("connection");

message.title = "Click to close";
message.addEventListener("click", quiet);

const MISTAKE = "This page made a mistake, and may show something old. The network is not lost: reload the page to go "
  + "on. The browser's console has the details.";

// Shows an error in words; what was not meant for people goes to the console.
export function complain(error) {
  if (error instanceof Lost) return;
  if (!(error instanceof Told)) console.error(error);
  message.textContent = error instanceof Told ? error.message : MISTAKE;
  message.hidden = false;
}

addEventListener("error", ({ error }) => error && complain(error));
addEventListener("unhandledrejection", ({ reason }) => complain(reason));

function quiet() {
  message.hidden = true;
}

// What a page without its studio says, and for how long it has been so. It shows nothing else if it never had one.
function sayLost(error) {
  store.lost ||= performance.now();
  const seconds = Math.round((performance.now() - store.lost + (error.message === "late" ? PATIENCE : 0)) / 1000);
  const why = error.status === 403
    ? `The studio refuses this page: ${error.message}.`
    : error.message === "late"
      ? `The studio has not answered for ${seconds} seconds: it is very busy, was stopped, or the connection is lost. `
        + "This page keeps trying."
      : "The connection to the studio is lost: it was ended, or the network is down. This page keeps trying. If you "
        + "start the studio again, open the new address that it prints.";
  connection.textContent = `${why}${store.state ? " What you see is old." : ""}`;
  connection.hidden = false;
}

// --- changes --------------------------------------------------------------------------------------

// Takes a new state; tells what changed, or, after the connection was lost, everything.
export function take(state) {
  const before = store.lost ? null : store.state;
  store.state = state;
  store.lost = false;
  connection.hidden = true;
  document.body.classList.add("begun");
  tell("state", state);
  if (!before || before.version !== state.version || before.edits !== state.edits) tell("version", state);
  if (!before || before.step !== state.step || before.version !== state.version) tell("step", state);
}

let last = Promise.resolve(); // commands reach the server in the order of the clicks

// Runs an action that changes something; an error is shown and changes nothing.
export const act = (path, body) => queue(() => post(path, body));

export function upload(file, target) {
  const query = { name: file.name, ...(target ? { target } : {}) };
  return queue(async () => JSON.parse(text(await answer("upload", query, { method: "POST", body: file }))));
}

function queue(request) {
  last = last.then(() => send(request));
  return last;
}

async function send(request) {
  try {
    if (store.lost) throw new Told("There is no connection to the studio, so this was not done.");
    const state = await request();
    quiet();
    take(state);
    return state;
  } catch (error) {
    complain(error instanceof Lost ? new Told("No answer came, so this may not have been done.") : error);
    return null;
  }
}

// An edit. If it names nodes or layers, `shown` is the answer of the server that told them: with its numbering, the
// server refuses an edit of what is no longer there, in place of editing what has the same number now.
export const edit = (name, fields = {}, shown = {}) =>
  act("edit", { edit: name, ...fields, ...("numbering" in shown ? { numbering: shown.numbering } : {}) });

// Asks for the state until the page closes, at most eight times a second, and only while it can be seen.
export async function poll() {
  for (;;) {
    const begin = performance.now();
    if (!document.hidden) {
      try {
        take(await get("state", {}, { signal: AbortSignal.timeout(PATIENCE) }));
      } catch (error) {
        if (error instanceof Lost || error.status === 403) sayLost(error);
        else complain(error);
      }
    }
    const rest = (store.state?.status === "running" ? 125 : 400) - (performance.now() - begin);
    await new Promise((done) => setTimeout(done, Math.max(20, store.lost ? AGAIN : rest)));
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
