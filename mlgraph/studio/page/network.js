// The network on one canvas: zoom from the whole to one neuron, its edges, values of an example, maps over the plane.

import { complain, edit, get, getBytes, h, on, passes, select, store } from "./api.js";
import { short } from "./numbers.js";
import { layout, nodeAt, seen } from "./network-layout.js";
import {
  ManyLines, STATUSES, drawAtlas, drawLines, drawStatus, drawTiles, lines, palette, tileShape,
} from "./network-paint.js";

const MOST_BUTTONS = 2000; // neurons beyond are reached by the canvas alone
const MOST_LINES = 2000; // of a network whose edges are all drawn, each time
const PAUSE = 200; // milliseconds between two rounds of requests
const NETWORK_PAUSE = 2000; // while training, between two looks at what is dead or dormant
const MARGIN = { top: 46, right: 76, bottom: 44, left: 16 };

let root, box, canvas, ctx, buttons, tip, legend; // elements
let colours;
let net = null; // what `GET /api/network` answered
let world = null; // its layout
let points = null; // of the plane
let example = null;
let hovered = null; // nodes
let focused = null;
let drag = null; // a pan, or an edge being drawn
const view = { x: 0, y: 0, k: 1, w: 0, h: 0 };
let fit = { ...view };
let follows = true; // the view is that of the whole, and stays so when the size changes
const many = new ManyLines();
const all = { found: new Float32Array(0), curved: false };
let near = { key: "", found: null }; // the edges of one neuron
let beside = { in: new Map(), out: new Map() }; // edges that no layer's weights have, by neuron
let told = 0; // rises when weights arrive
const stamps = { network: "", points: "", networkTime: -1e9 };

export function begin(element) {
  root = element;
  canvas = h("canvas", { "aria-hidden": "true" });
  buttons = h("div", { class: "neurons" });
  tip = h("div", { class: "tip", role: "tooltip", hidden: true });
  legend = h("div", { class: "legend note" });
  const control = (text, label, action) => h("button", { class: "button", title: label, "aria-label": label,
    onclick: action }, text);
  const controls = h("div", { class: "zoom" },
    control("+", "Zoom in (+)", () => zoom(1.5)), control("−", "Zoom out (−)", () => zoom(1 / 1.5)),
    control("⤢", "Show the whole network (0)", showWhole));
  box = h("div", { class: "network", tabindex: 0, role: "group", "data-testid": "network",
    "aria-label": "The network. Arrow keys move the view, + and − zoom, 0 shows the whole. "
      + "On a neuron, arrow keys go to the next, Enter selects, E draws an edge to it from the selected one." },
  canvas, buttons, legend, controls, tip);
  root.append(box);
  ctx = canvas.getContext("2d");
  colours = palette(root);
  listen();
  resize();
}

function listen() {
  new ResizeObserver(resize).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  on("state", refresh);
  on("selected", (place) => {
    const node = find(place);
    if (node && !inView(node)) centre(node);
    draw();
  });
  on("example", (value) => {
    example = value?.values ? value : null;
    if (world) drawLegend();
    draw();
  });
  box.addEventListener("wheel", wheel, { passive: false });
  box.addEventListener("pointerdown", pointerDown);
  box.addEventListener("pointermove", pointerMove);
  box.addEventListener("pointerup", pointerUp);
  box.addEventListener("pointercancel", pointerUp);
  box.addEventListener("pointerleave", () => hover(null));
  box.addEventListener("click", click);
  box.addEventListener("dblclick", (event) => event.target.closest(".zoom") || showWhole());
  box.addEventListener("keydown", key);
  buttons.addEventListener("focusin", (event) => focusOn(world.at.get(Number(event.target.dataset.node))));
  buttons.addEventListener("focusout", () => focusOn(null));
}

// --- what the server knows ------------------------------------------------------------------------

let busy = false;
let last = 0;

// Asks for what is out of date and can be seen, at most five rounds a second.
async function refresh() {
  if (busy || document.hidden || !box.clientWidth || performance.now() - last < PAUSE) return;
  busy = true;
  last = performance.now();
  try {
    await refreshNetwork();
    await refreshPoints();
    await Promise.all([world.input, ...world.columns].map(refreshColumn));
  } catch (error) {
    if (!passes(error)) {
      complain(error);
      last += 2000;
    }
  }
  busy = false;
}

const versionOf = ({ version, edits, failure }) => `${version} ${edits} ${failure?.node}`;

async function refreshNetwork() {
  const { state } = store;
  const stamp = versionOf(state);
  const now = performance.now();
  const aged = now - stamps.networkTime > NETWORK_PAUSE && stamps.step !== state.step;
  if (stamp === stamps.network && !aged) return;
  const fresh = await get("network");
  const same = net && JSON.stringify([net.inputs, net.columns]) === JSON.stringify([fresh.inputs, fresh.columns]);
  Object.assign(stamps, { network: stamp, networkTime: performance.now(), step: state.step });
  net = fresh;
  if (same && world.layers === JSON.stringify(state.layers.map((layer) => layer.size))) {
    for (const column of world.columns) for (const node of column.nodes) Object.assign(node, net.neurons[node.id]);
  } else {
    place();
  }
  takeEdges();
  nameButtons();
  drawLegend();
  draw();
}

// A new layout; the view stays if it is one that a person chose.
function place() {
  const old = world;
  world = layout(net, store.state, (view.w - MARGIN.left - MARGIN.right) / (view.h - MARGIN.top - MARGIN.bottom));
  world.layers = JSON.stringify(store.state.layers.map((layer) => layer.size));
  hovered = focused = null;
  drag = null;
  makeButtons();
  if (!old || old.columns.length !== world.columns.length || old.data !== store.state.data.name) {
    follows = true;
    example = null;
  }
  world.data = store.state.data.name;
  resize();
}

// Sorts the edges that no layer has, and those of all if there are few.
function takeEdges() {
  beside = { in: new Map(), out: new Map() };
  const { source = [], target = [], weight = [] } = net.edges ?? {};
  source.forEach((from, i) => {
    const edge = [from, target[i], weight[i]];
    for (const [map, id] of [[beside.in, target[i]], [beside.out, from]]) {
      if (!map.has(id)) map.set(id, []);
      map.get(id).push(edge);
    }
  });
  if (!store.state.layers.length) for (const column of world.columns) stripes(column);
  drawnEdges();
}

// All edges, if they are drawn, as lines.
function drawnEdges() {
  told++;
  const few = store.state.n_edges <= MOST_LINES;
  const edges = [];
  if (few || !store.state.layers.length) {
    for (const { nodes } of world.columns) for (const node of nodes) edges.push(...into(node));
  }
  const found = lines(world.at, edges);
  const inMany = found.length > MOST_LINES * 5;
  all.found = inMany ? new Float32Array(0) : found;
  all.curved = found.length <= 600 * 5;
  many.replace(inMany ? found : new Float32Array(0));
}

// The incoming and outgoing edges of a node: [source, target, weight].
function into(node) {
  const found = [...(beside.in.get(node.id) ?? [])];
  const { layer, neuron } = node.place;
  const weights = layer === undefined ? null : world.columns[layer].weights;
  if (weights && neuron < weights.neurons) {
    const sources = sourcesOf(layer);
    for (let i = 0; i < weights.sources; i++) {
      const value = weights.bytes[neuron * weights.sources + i];
      if (value !== -128) found.push([sources[i], node.id, (value * weights.scales[neuron]) / 127]);
    }
  }
  return found;
}

function outOf(node) {
  const found = [...(beside.out.get(node.id) ?? [])];
  const next = node.input !== undefined ? 0 : node.place.layer === undefined ? -1 : node.place.layer + 1;
  const weights = store.state.layers.length ? world.columns[next]?.weights : null;
  if (weights && node.index < weights.sources) {
    for (let i = 0; i < weights.neurons; i++) {
      const value = weights.bytes[i * weights.sources + node.index];
      if (value !== -128) found.push([node.id, world.columns[next].ids[i], (value * weights.scales[i]) / 127]);
    }
  }
  return found;
}

const sourcesOf = (layer) => (layer === 0 ? net.inputs : world.columns[layer - 1].ids);

// Tiles of a column without a layer: the weights of each neuron in a small field.
function stripes(column) {
  if (store.state.data.plane) return;
  const rows = column.nodes.map((node) => (beside.in.get(node.id) ?? []).map(([, , weight]) => weight ?? 0));
  const length = Math.max(1, ...rows.map((row) => row.length));
  const bytes = new Int8Array(rows.length * length);
  rows.forEach((row, i) => {
    const most = row.reduce((m, v) => Math.max(m, Math.abs(v)), 0) || 1;
    row.forEach((v, j) => { bytes[i * length + j] = Math.round((v / most) * 127); });
  });
  column.repaint = () => drawAtlas(column, bytes, length, tileShape(length), colours.weights);
  column.repaint();
}

async function refreshPoints() {
  const stamp = `${store.state.version} ${store.state.data.name}`;
  if (!store.state.data.plane) points = null;
  else if (stamps.points !== stamp) points = await get("points");
  stamps.points = stamp;
}

async function refreshColumn(column) {
  const { state } = store;
  const { plane, classes } = state.data;
  const stamp = `${versionOf(state)} ${state.step}`;
  if (column.stamp === stamp || !isSeen(column)) return;
  const here = world;
  if (state.layers.length && column.number >= 0 && column.number < state.layers.length) {
    const [header, bytes] = await getBytes("weights", { layer: column.number, numbering: net.numbering });
    if (world !== here) return;
    column.weights = { ...header, bytes };
    if (!plane) {
      const first = column.number === 0;
      const before = first ? world.input : world.columns[column.number - 1];
      const shape = tileShape(header.sources, first ? net.image : null, before);
      column.repaint = () => drawAtlas(column, bytes, header.sources, shape, colours.weights);
      column.repaint();
    }
    if (state.n_edges <= MOST_LINES) drawnEdges();
    else told++;
  }
  if (plane && column.kind !== "field") await refreshMaps(column, here, classes);
  column.stamp = stamp;
  draw();
}

// Maps of a column's neurons over the plane. Those of outputs show the class that the network says.
async function refreshMaps(column, here, classes) {
  const side = column.isOutput ? 80 : column.ids.length > 100 ? 16 : 32;
  const bytes = new Int8Array(column.ids.length * side * side);
  const scales = [];
  for (let first = 0; first < column.ids.length; first += 400) {
    const nodes = column.ids.slice(first, first + 400);
    const [header, part] = await getBytes("plane", { nodes: nodes.join(), side, numbering: net.numbering });
    if (world !== here) return;
    bytes.set(part.subarray(0, nodes.length * side * side), first * side * side);
    scales.push(...header.scales);
    column.range = header;
  }
  let tables = colours.heat;
  if (column.isOutput && classes) {
    sideTaken(bytes, scales, side * side, classes.length);
    const single = column.ids.length === 1;
    column.table = (i) => colours.sides[(single ? 1 : i) % colours.sides.length];
    tables = column.table;
  }
  column.repaint = () => drawAtlas(column, bytes, side * side, [side, side], column.table ?? colours.heat);
  drawAtlas(column, bytes, side * side, [side, side], tables);
}

// Replaces sums before softmax (or a sigmoid) by 2 p - 1, which is positive where the class is likely.
function sideTaken(bytes, scales, length, n) {
  const rows = scales.length;
  if (rows > 1 && rows !== n) return;
  const z = new Float32Array(rows);
  for (let at = 0; at < length; at++) {
    for (let i = 0; i < rows; i++) z[i] = (bytes[i * length + at] * scales[i]) / 127;
    const most = Math.max(...z, rows === 1 ? 0 : -Infinity);
    const sum = z.reduce((s, v) => s + Math.exp(v - most), rows === 1 ? Math.exp(-most) : 0);
    for (let i = 0; i < rows; i++) bytes[i * length + at] = Math.round(127 * ((2 * Math.exp(z[i] - most)) / sum - 1));
  }
}

// --- the view -------------------------------------------------------------------------------------

function resize() {
  const [w, height] = [box.clientWidth, box.clientHeight];
  if (!w || !height) return;
  const ratio = Math.min(2, devicePixelRatio || 1);
  Object.assign(view, { w, h: height, ratio });
  canvas.width = w * ratio;
  canvas.height = height * ratio;
  if (world) {
    fit = whole();
    if (follows) Object.assign(view, fit);
  }
  draw();
}

function whole() {
  const names = ["dots", "plane"].includes(world.input.kind) ? 60 : 0;
  const { top, right, left } = MARGIN;
  const bottom = Math.max(MARGIN.bottom, Math.min(legend.offsetHeight + 16, view.h / 4));
  const [w, height] = [view.w - left - right - names, view.h - top - bottom];
  const k = Math.max(1e-3, Math.min(w / world.w, height / world.h));
  const x = left + names + (w - world.w * k) / 2 - world.x * k;
  return { k, x, y: top + (height - world.h * k) / 2 - world.y * k, w: view.w, h: view.h };
}

function showWhole() {
  follows = true;
  Object.assign(view, fit);
  moved();
}

function zoom(factor, px = view.w / 2, py = view.h / 2) {
  if (!world) return;
  const smallest = Math.min(...world.columns.map((column) => column.tile));
  const most = (0.8 * Math.min(view.w, view.h)) / smallest;
  const k = Math.min(Math.max(view.k * factor, fit.k * 0.5), Math.max(most, fit.k));
  view.x = px - ((px - view.x) * k) / view.k;
  view.y = py - ((py - view.y) * k) / view.k;
  view.k = k;
  follows = false;
  moved();
}

function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  follows = false;
  moved();
}

let movedAt = 0;

function moved() {
  movedAt = performance.now();
  // At the whole, a finger that goes up or down scrolls the page.
  box.style.touchAction = follows ? "pan-y" : "none";
  draw();
}

const corners = () => [-view.x / view.k, -view.y / view.k, (view.w - view.x) / view.k, (view.h - view.y) / view.k];

function isSeen({ x, y, w, h: height }) {
  const [x0, y0, x1, y1] = corners();
  return x <= x1 && x + w >= x0 && y <= y1 && y + height >= y0;
}

const inView = ({ x, y, size }) => isSeen({ x, y, w: size, h: size });

function centre({ x, y, size }) {
  pan(view.w / 2 - (x + size / 2) * view.k - view.x, view.h / 2 - (y + size / 2) * view.k - view.y);
}

// --- pointer and keys -----------------------------------------------------------------------------

const fingers = new Map();
const at = (event) => {
  const { left, top } = box.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
};
const under = ([px, py]) => world && nodeAt(world, (px - view.x) / view.k, (py - view.y) / view.k);

function wheel(event) {
  event.preventDefault();
  const unit = event.deltaMode === 1 ? 16 : 1;
  zoom(Math.exp((-event.deltaY * unit * (event.ctrlKey ? 4 : 1)) / 500), ...at(event));
}

// Where the small handle of the selected neuron is, from which an edge is drawn.
function handle() {
  const node = find(store.selected);
  return node && inView(node) ? offset(node, 9) : null;
}

function onHandle([px, py], reach) {
  const place = handle();
  return place && Math.hypot(px - place[0], py - place[1]) < reach;
}

function pointerDown(event) {
  if (event.button !== 0 || event.target.closest(".zoom, .legend") || !world) return;
  const p = at(event);
  fingers.set(event.pointerId, p);
  const reach = event.pointerType === "touch" ? 18 : 9;
  const from = onHandle(p, reach) ? find(store.selected) : event.shiftKey ? under(p) : null;
  drag = { kind: from ? "edge" : "pan", from, begin: p, p, far: false };
}

function pointerMove(event) {
  const p = at(event);
  if (!drag || !fingers.has(event.pointerId)) {
    hover(event.target.closest(".zoom, .legend") ? null : under(p), p);
    box.classList.toggle("links", Boolean(onHandle(p, 9)));
    return;
  }
  const before = fingers.get(event.pointerId);
  fingers.set(event.pointerId, p);
  if (!drag.far && Math.hypot(p[0] - drag.begin[0], p[1] - drag.begin[1]) > 4) {
    drag.far = true;
    box.setPointerCapture(event.pointerId);
  }
  if (fingers.size === 2) pinch(event.pointerId, before, p);
  else if (drag.kind === "edge") {
    drag.p = p;
    hover(under(p), p);
    draw();
  } else if (drag.far) {
    pan(p[0] - before[0], p[1] - before[1]);
    hover(null);
  }
}

function pinch(id, before, p) {
  drag.far = true;
  drag.kind = "pan";
  const [[, other]] = [...fingers].filter(([key]) => key !== id);
  const distance = (a) => Math.max(10, Math.hypot(a[0] - other[0], a[1] - other[1]));
  zoom(distance(p) / distance(before), (p[0] + other[0]) / 2, (p[1] + other[1]) / 2);
  pan((p[0] - before[0]) / 2, (p[1] - before[1]) / 2);
}

let dragged = false; // the click that ends a drag selects nothing

function pointerUp(event) {
  if (!fingers.delete(event.pointerId) || fingers.size) return;
  const { kind, from, far } = drag;
  drag = null;
  dragged = far || kind === "edge";
  setTimeout(() => { dragged = false; });
  if (kind === "edge" && far && event.type === "pointerup") {
    const to = under(at(event));
    if (to && to !== from) addEdge(from, to);
  }
  draw();
}

const addEdge = (from, to) => edit("add-edge", { source: from.id, target: to.id, weight: 0.1 }, net);

function click(event) {
  if (dragged || event.target.closest(".zoom, .legend") || !world) return;
  const byKey = event.detail === 0 && event.target.dataset.node;
  const node = byKey ? world.at.get(Number(event.target.dataset.node)) : under(at(event));
  if (node) select({ ...node.place, name: title(node) });
}

function hover(node, p) {
  if (hovered !== node) {
    hovered = node;
    draw();
  }
  tip.hidden = !node;
  if (!node || !p) return;
  tip.replaceChildren(...about(node).map((line, i) => h(i ? "div" : "strong", {}, line)));
  const left = Math.min(p[0] + 14, view.w - tip.offsetWidth - 6);
  const below = p[1] + 18 + tip.offsetHeight < view.h;
  tip.style.transform = `translate(${Math.max(4, left)}px, ${below ? p[1] + 18 : p[1] - tip.offsetHeight - 10}px)`;
}

function about(node) {
  const value = example?.values[node.id];
  const pixel = node.input === undefined ? undefined : (example?.x?.[node.input] ?? example?.pixels?.[node.input]);
  const found = [title(node)];
  if (node.status !== "ok") found.push(STATUSES[node.status]);
  if (node.activation) found.push(`activation ${node.activation}`);
  if (typeof node.bias === "number") found.push(`bias ${short(node.bias)}`);
  if (typeof (value ?? pixel) === "number") found.push(`value ${short(value ?? pixel)}`);
  return found;
}

function title(node) {
  if (node.input !== undefined) return node.name.startsWith("pixel") ? node.name : `input ${node.name}`;
  const label = labelOf(node);
  return label === null || node.name === `output ${label}` ? node.name : `${node.name}: ${label}`;
}

// The name of an output's class.
function labelOf(node) {
  const { classes } = store.state.data;
  const number = net.outputs.indexOf(node.id);
  if (number < 0) return null;
  if (!classes) return net.outputs.length > 1 ? `output ${number}` : "output";
  return net.outputs.length === 1 ? (classes.length === 2 ? classes[1] : "output") : (classes[number] ?? null);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (arrow && focused && !event.shiftKey) walk(...arrow);
  else if (arrow) pan(-60 * arrow[0], -60 * arrow[1]);
  else if (event.key === "+" || event.key === "=") zoom(1.25, ...middle());
  else if (event.key === "-") zoom(1 / 1.25, ...middle());
  else if (event.key === "0") showWhole();
  else if (event.key === "a" && focused && find(store.selected)) addEdge(find(store.selected), focused);
  else if (event.key === "Escape" && drag) drag = null;
  else return;
  event.preventDefault();
  draw();
}

// Keys zoom towards the neuron that has the focus.
function middle() {
  const node = focused ?? find(store.selected);
  return node && inView(node) ? screen(node.x + node.size / 2, node.y + node.size / 2) : [];
}

// The focus goes to the nearest neuron in a direction.
function walk(dx, dy) {
  const { column, index } = focused;
  const col = (index % column.cols) + dx;
  const inside = dy !== 0 || (col >= 0 && col < column.cols);
  let next = inside ? column.nodes[index + dx + dy * column.cols] : null;
  if (!next && dx) {
    const columns = [world.input, ...world.columns].filter((other) => other.nodes);
    const other = columns[columns.indexOf(column) + dx];
    const distance = (node) => Math.abs(node.y - focused.y) + Math.abs(node.x - focused.x);
    next = other?.nodes.reduce((best, node) => (distance(node) < distance(best) ? node : best));
  }
  next?.button?.focus();
}

function focusOn(node) {
  focused = node ?? null;
  if (node && !inView(node)) centre(node);
  for (const button of buttons.querySelectorAll('[tabindex="0"]')) if (node) button.tabIndex = -1;
  if (node?.button) node.button.tabIndex = 0;
  draw();
}

function find(place) {
  if (!place || !world) return null;
  return world.at.get(place.node ?? world.columns[place.layer]?.ids[place.neuron]) ?? null;
}

// --- the buttons over the neurons -----------------------------------------------------------------

// They lie in a layer that moves as a whole, so that a frame changes one style.
function makeButtons() {
  const nodes = world.columns.flatMap((column) => column.nodes);
  const made = nodes.length > MOST_BUTTONS ? [] : [...(world.input.nodes ?? []), ...nodes];
  for (const node of made) {
    const id = node.input === undefined ? `neuron-${node.column.number}-${node.index}` : `input-${node.input}`;
    node.button = h("button", { tabindex: node === nodes[0] ? 0 : -1, "data-testid": id, "data-node": node.id,
      style: `left:${node.x}px;top:${node.y}px;width:${node.size}px;height:${node.size}px` });
  }
  buttons.replaceChildren(...made.map((node) => node.button));
}

function nameButtons() {
  for (const node of world.at.values()) {
    if (!node.button) continue;
    const name = `${title(node)}, ${node.status}`;
    if (node.button.ariaLabel !== name) node.button.ariaLabel = name;
  }
}

function drawLegend() {
  const present = new Set(world.columns.flatMap((column) => column.nodes.map((node) => node.status)));
  const entry = (kind, text) => h("span", { class: "entry" }, h("i", { class: `swatch ${kind}` }), text);
  const { plane, classes } = store.state.data;
  const colour = (i) => colours.classes[i % colours.classes.length];
  const named = plane && classes ? classes.map((name, i) => h("span", { class: "entry" },
    h("i", { class: "swatch round", style: `background:${colour(i)}` }), `class ${name}`)) : [];
  const before = legend.offsetHeight;
  const kinds = Object.entries(STATUSES).filter(([status]) => present.has(status));
  const entries = [
    entry("positive", plane ? "positive output or weight" : "positive weight"),
    entry("negative", "negative"),
    ...named,
    ...(example ? [entry("valued", "frame: value for the example shown")] : []),
    ...kinds.map(([status, text]) => entry(status, text)),
  ];
  if (!kinds.length && !example) {
    entries.push(h("span", { class: "hint" }, "Wheel zooms, drag moves, Shift-drag between neurons adds an edge"));
  }
  legend.replaceChildren(...entries);
  if (legend.offsetHeight !== before) resize(); // the whole stands above it
}

// --- drawing --------------------------------------------------------------------------------------

let asked = false;
let frameAt = 0;

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(frame);
}

function recolour() {
  colours = palette(root);
  for (const column of world ? [world.input, ...world.columns] : []) column.repaint?.();
  many.replace(many.found);
  draw();
}

function frame(now) {
  asked = false;
  const late = now - frameAt > 24 && now - frameAt < 500;
  frameAt = now;
  ctx.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  ctx.clearRect(0, 0, view.w, view.h);
  if (!world) return;
  buttons.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.k})`;
  const one = nearNode();
  ctx.globalAlpha = one ? 0.3 : 1;
  if (many.length) many.draw(ctx, view);
  ctx.globalAlpha = 1;
  ctx.translate(view.x, view.y);
  ctx.scale(view.k, view.k);
  drawLines(ctx, all.found, view.k, colours, { curved: all.curved, ink: one ? 0.35 : 1 });
  drawInput();
  for (const column of world.columns) drawColumn(column);
  if (one) drawNear(one);
  ctx.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  drawTitles();
  drawMarks();
  const rests = now - movedAt > 150 && !drag;
  if (many.length && many.work(view, fit, view.ratio, colours, rests, late)) draw();
}

function drawColumn(column) {
  if (!isSeen(column)) return;
  const nodes = seen(column, ...corners());
  const size = column.tile * view.k;
  ctx.fillStyle = colours.panel;
  outline(nodes);
  ctx.fill();
  drawTiles(ctx, column, nodes, view.k);
  if (example) drawValues(column, nodes, size);
  if (column.isOutput && points && column.range && size > 60) for (const node of nodes) drawPoints(node, column);
  if (size > 5) {
    ctx.strokeStyle = colours.line;
    ctx.lineWidth = 1 / view.k;
    outline(nodes);
    ctx.stroke();
  }
  drawStatus(ctx, nodes, colours, view.k);
}

function outline(nodes) {
  ctx.beginPath();
  for (const { x, y, size } of nodes) ctx.rect(x, y, size, size);
}

// A frame in the colour of the value; a small tile is filled.
function drawValues(column, nodes, size) {
  let most = 0;
  for (const { id } of column.nodes) most = Math.max(most, Math.abs(example.values[id] ?? 0));
  for (const { id, x, y, size: side } of nodes) {
    const value = example.values[id];
    if (typeof value !== "number" || !most) continue;
    const rim = Math.min(side * 0.15, 8 / view.k);
    const inner = size < 24 ? 0 : side - 2 * rim;
    ctx.beginPath();
    ctx.rect(x, y, side, side);
    if (inner) ctx.rect(x + rim, y + rim, inner, inner);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colours.panel;
    ctx.fill("evenodd");
    ctx.globalAlpha = Math.abs(value) / most;
    ctx.fillStyle = value < 0 ? colours.negative : colours.positive;
    ctx.fill("evenodd");
  }
  ctx.globalAlpha = 1;
}

function drawPoints(node, { range }) {
  const { x, y, label } = points.train;
  const { classes } = store.state.data;
  const most = classes ? 1 : label.reduce((m, v) => Math.max(m, Math.abs(v)), 0) || 1;
  const groups = new Map();
  label.forEach((value, i) => {
    const group = classes ? value : Math.round((3 * value) / most);
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(i);
  });
  const radius = Math.max(1.2 / view.k, node.size / 110);
  for (const [group, members] of groups) {
    ctx.beginPath();
    for (const i of members) {
      const px = node.x + ((x[i] - range.x[0]) / (range.x[1] - range.x[0])) * node.size;
      const py = node.y + ((range.y[1] - y[i]) / (range.y[1] - range.y[0])) * node.size;
      ctx.moveTo(px + radius, py);
      ctx.arc(px, py, radius, 0, 7);
    }
    const sign = group < 0 ? colours.negative : colours.positive;
    ctx.fillStyle = classes ? colours.classes[group % colours.classes.length] : sign;
    ctx.strokeStyle = colours.paper;
    ctx.lineWidth = radius * 0.5;
    ctx.stroke();
    ctx.fill();
  }
}

function drawInput() {
  const { input } = world;
  if (!isSeen(input)) return;
  const shown = (i) => (example?.pixels ?? example?.scaled ?? example?.x)?.[i]; // columns of one size compare
  if (input.kind === "image") drawFrame(input);
  else if (input.kind === "plane" && input.atlas) {
    drawTiles(ctx, input, input.nodes, view.k);
    ctx.strokeStyle = colours.line;
    ctx.lineWidth = 1 / view.k;
    outline(input.nodes);
    ctx.stroke();
  } else {
    const values = input.ids.map((_, i) => shown(i));
    const most = values.reduce((m, v) => Math.max(m, Math.abs(v ?? 0)), 0) || 1;
    input.ids.forEach((id, i) => {
      const { x, y, size } = world.at.get(id);
      ctx.beginPath();
      ctx.arc(x + size / 2, y + size / 2, size / 2, 0, 7);
      ctx.fillStyle = values[i] === undefined ? colours.quiet : values[i] < 0 ? colours.negative : colours.positive;
      ctx.globalAlpha = values[i] === undefined ? 0.6 : 0.12 + (0.88 * Math.abs(values[i])) / most;
      ctx.fill();
    });
    ctx.globalAlpha = 1;
  }
}

// The frame of an image, with the pixels of the example shown.
function drawFrame(input) {
  ctx.fillStyle = colours.panel;
  ctx.fillRect(input.x, input.y, input.w, input.h);
  const { pixels } = example ?? {};
  if (pixels?.length === input.ids.length) {
    if (input.drawn !== pixels) {
      const image = new ImageData(input.cols, input.rows);
      pixels.forEach((value, i) => image.data.set([value, value, value, 255], i * 4));
      input.picture = Object.assign(document.createElement("canvas"), { width: input.cols, height: input.rows });
      input.picture.getContext("2d").putImageData(image, 0, 0);
      input.drawn = pixels;
    }
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(input.picture, input.x, input.y, input.w, input.h);
  }
  ctx.strokeStyle = colours.line;
  ctx.lineWidth = 1.5 / view.k;
  ctx.strokeRect(input.x, input.y, input.w, input.h);
}

// The edges of the neuron under the pointer, else of the one with the focus or the selected one.
const nearNode = () => (drag?.kind === "edge" ? drag.from : hovered) ?? focused ?? find(store.selected);

function drawNear(node) {
  if (near.key !== `${node.id} ${told}` || near.world !== world) {
    near = { key: `${node.id} ${told}`, world, found: lines(world.at, [...into(node), ...outOf(node)]) };
  }
  const bold = Math.min(1.5, Math.max(0.5, 8 / Math.sqrt(near.found.length / 5)));
  const ink = node.size * view.k > 100 ? bold * 0.7 : bold; // close by, the weights are to be seen, too
  drawLines(ctx, near.found, view.k, colours, { bold, ink, curved: all.curved && all.found.length > 0 });
}

const screen = (x, y) => [x * view.k + view.x, y * view.k + view.y];

// Names above the columns, and of inputs and outputs.
function drawTitles() {
  const { state } = store;
  const { input, columns } = world;
  ctx.font = "12px system-ui, sans-serif";
  ctx.textBaseline = "alphabetic";
  const size = net.image ? `${net.image[1]} × ${net.image[0]}` : `${input.ids.length}`;
  const texts = [[input, state.data.name === "MNIST" ? "input: a digit" : "input", size], ...columns.map((column) => {
    const layer = state.layers[column.number];
    const number = state.layers.length ? `layer ${column.number}` : `level ${column.number + 1}`;
    const name = column.isOutput ? "output" : number;
    return [column, name, layer ? `${layer.size} ${layer.activation.replaceAll("_", " ")}` : `${column.ids.length}`];
  })];
  const middles = texts.map(([column]) => screen(column.x + column.w / 2, 0)[0]);
  texts.forEach(([column, ...text], i) => {
    const room = Math.min(middles[i] - (middles[i - 1] ?? -1e9), (middles[i + 1] ?? 1e9) - middles[i]) - 6;
    const y = Math.max(16, screen(0, column.y)[1] - 22);
    ctx.textAlign = "center";
    text.forEach((line, row) => {
      const { width } = ctx.measureText(line);
      if (width > room || screen(0, column.y + column.h)[1] < y) return;
      ctx.fillStyle = colours.paper;
      ctx.globalAlpha = 0.85;
      ctx.fillRect(middles[i] - width / 2 - 4, y + row * 14 - 11, width + 8, 14);
      ctx.globalAlpha = 1;
      ctx.fillStyle = row ? colours.quiet : colours.ink;
      ctx.fillText(line, middles[i], y + row * 14);
    });
  });
  ctx.textBaseline = "middle";
  if (input.nodes && input.pitch * view.k > 9) {
    ctx.textAlign = "right";
    ctx.fillStyle = colours.quiet;
    for (const node of input.nodes) {
      const [x, y] = offset(node, -6);
      ctx.fillText(shortened(node.name, x - 4), x, y);
    }
  }
  ctx.textAlign = "left";
  for (const column of columns) if (column.isOutput && column.pitch * view.k > 9) column.nodes.forEach(drawLabel);
}

// Beside a node at half its height: so many pixels to the right, or, if negative, to the left.
function offset(node, by) {
  const [x, y] = screen(node.x + (by > 0 ? node.size : 0), node.y + node.size / 2);
  return [x + by, y];
}

// A text that takes at most so many pixels.
function shortened(text, room) {
  let end = text.length;
  while (end > 1 && ctx.measureText(text.slice(0, end)).width > room) end--;
  return end === text.length ? text : `${text.slice(0, Math.max(1, end - 1))}…`;
}

function drawLabel(node) {
  const label = labelOf(node);
  if (label === null) return;
  const [x, y] = offset(node, 8 + (find(store.selected) === node ? 12 : 0));
  const number = net.outputs.indexOf(node.id);
  const chance = net.outputs.length > 1 ? example?.probabilities?.[number] : undefined;
  if (chance !== undefined) {
    ctx.fillStyle = colours.accent;
    ctx.globalAlpha = 0.45;
    ctx.fillRect(x - 3, y - 7, Math.max(1, 60 * chance), 14);
    ctx.globalAlpha = 1;
  }
  ctx.fillStyle = colours.ink;
  ctx.fillText(label.slice(0, 16), x, y);
}

// The selected neuron with its handle, the focus, and the edge being drawn.
function drawMarks() {
  const selected = find(store.selected);
  const ring = (node, colour, width) => {
    const [x, y] = screen(node.x, node.y);
    const size = node.size * view.k;
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.strokeRect(x - 2, y - 2, size + 4, size + 4);
  };
  if (hovered && hovered !== selected) ring(hovered, colours.quiet, 1.5);
  if (selected) ring(selected, colours.accent, 3);
  if (focused?.button?.matches(":focus-visible")) ring(focused, colours.ink, 2);
  const place = handle();
  if (place) {
    ctx.beginPath();
    ctx.arc(...place, 7, 0, 7);
    ctx.fillStyle = colours.accent;
    ctx.fill();
    ctx.fillStyle = "#fff";
    ctx.fillRect(place[0] - 4, place[1] - 0.8, 8, 1.6);
    ctx.fillRect(place[0] - 0.8, place[1] - 4, 1.6, 8);
  }
  if (drag?.kind === "edge" && drag.far) {
    ctx.strokeStyle = colours.accent;
    ctx.lineWidth = 2.5;
    ctx.setLineDash([6, 4]);
    ctx.beginPath();
    ctx.moveTo(...offset(drag.from, 1));
    ctx.lineTo(...drag.p);
    ctx.stroke();
    ctx.setLineDash([]);
    if (hovered && hovered !== drag.from) ring(hovered, colours.accent, 3);
  }
}
