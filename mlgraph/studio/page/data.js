// What is learnt, by which network, and what to take away.

import { Told, act, complain, fileLink, get, h, on, upload } from "./api.js";
import { whole } from "./numbers.js";

const TOYS = ["circle", "xor", "spiral", "two groups"];
const PRESETS = [["none", []], ["8-8", [8, 8]], ["32", [32]], ["300-100", [300, 100]]];
const ACTIVATIONS = ["leaky_relu", "relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid", "identity"];
const FILES = [
  ["session.npz", "all of it: network, data, options and curve. Drop it on this page, or start "
    + "python -m mlgraph.studio session.npz, and go on from here"],
  ["model.npz", "the network alone, for mlgraph.load"],
  ["model.c", "the network as a function in C, for any program or microcontroller"],
  ["network.svg", "a picture of the graph, for the browser or a document"],
];

export function begin(root) {
  const now = h("p", { "data-testid": "data-name" });
  const pick = (text, data, title, ...before) => h("button", { "data-testid": `data-${data.replace(" ", "-")}`, title,
    onclick: () => act("new", { data }) }, ...before, text);
  const file = h("input", { type: "file", hidden: true, accept: ".csv,.npz,.npy,.tsv,.txt",
    "aria-label": "a .csv, .npz or .npy file",
    onchange: () => {
      if (file.files[0]) choose(file.files[0]);
      file.value = ""; // so that the same file can be chosen again
    } });
  const target = h("div", {});
  const hidden = h("input", { size: "14", placeholder: "none", title: "From the input to the output, such as 300-100",
    "aria-label": "sizes of the hidden layers", "data-testid": "hidden" });
  const activation = h("select", { "aria-label": "activation" }, ...ACTIVATIONS.map((name) => h("option", {}, name)));
  const seed = h("input", { type: "number", min: "0", value: "0", "aria-label": "seed" });

  const build = () => {
    const text = hidden.value.trim();
    if (text && !/^\d+([-, ]+\d+)*$/.test(text)) {
      complain(new Told("hidden layers: expected sizes such as 300-100, or nothing"));
      return;
    }
    const sizes = text ? text.split(/[-, ]+/).map(Number) : [];
    act("new", { data: "keep", hidden: sizes, activation: activation.value, seed: Number(seed.value) });
  };

  root.append(
    h("h2", {}, "What it learns"), now,
    h("div", { class: "row" }, pick("MNIST", "mnist", "Handwritten digits"),
      ...TOYS.map((name) => pick(name[0].toUpperCase() + name.slice(1), name, "Points of the plane in two classes",
        thumbnail(name))),
      pick("A neuron that overflows", "overflow", "A number grows beyond float32: see what the studio does about it")),
    h("h2", {}, "Your own data"),
    h("p", { class: "note" }, "A .csv with a header (numbers and words, and a column to learn), an .npz with x and y, or an .npy "
      + "whose last column is to learn. Drop it anywhere on the page, as well as a session.npz from below."),
    h("div", { class: "row" }, h("button", { onclick: () => file.click() }, "Choose a file"), file), target,
    h("details", {}, h("summary", {}, "Your own points"), points()),
    h("h2", {}, "The network"),
    h("p", { class: "note" }, "Building begins anew. Back, above, returns to the network before."),
    h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "hidden layers"), hidden),
      ...PRESETS.map(([text, sizes]) => h("button", {
        title: sizes.length ? `hidden layers of ${sizes.join(" and ")} neurons` : "no hidden layer",
        onclick: () => (hidden.value = sizes.join("-")),
      }, text))),
    h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "activation"), activation),
      h("label", { class: "field" }, h("span", {}, "seed"), seed),
      h("button", { class: "primary", "data-testid": "build", onclick: build }, "Build")),
    h("h2", {}, "Take away"),
    ...FILES.map(([name, what]) => h("p", {}, fileLink(name), h("span", { class: "note" }, ` ${what}`))));

  async function choose(chosen) {
    document.getElementById("tab-data").click();
    if (/\.np[yz]$/i.test(chosen.name)) {
      target.replaceChildren();
      send(chosen);
      return;
    }
    const names = columnsOf((await textOf(chosen.slice(0, 2 ** 22))).trimStart().split(/\r?\n/)[0]);
    const column = h("select", { "aria-label": "the column to learn", "data-testid": "target" },
      ...names.map((name, i) => h("option", { value: name, selected: i === names.length - 1 }, name)));
    target.replaceChildren(
      h("p", { class: "note" },
        `${chosen.name}: choose what to learn. It learns from all other columns, which must be numbers.`),
      h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "column to learn"), column),
        h("button", { class: "primary", "data-testid": "learn", onclick: () => send(chosen, column.value) },
          "Learn it")));
    column.focus();
  }

  async function send(chosen, column) {
    if (await upload(chosen, column)) target.replaceChildren();
  }

  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  });

  on("version", (state) => {
    const { data, layers } = state;
    const classes = data.classes ? `${data.classes.length} classes` : "numbers to predict";
    const columns = data.columns && !data.image ? `${data.columns.length} columns, ` : "";
    const [train, test] = [data.n_train, data.n_test].map(whole);
    now.textContent = `${data.name}: ${train} training and ${test} test examples, ${columns}${classes}.`
      + (data.target ? ` It learns ${data.target}.` : "");
    if (document.activeElement !== hidden) hidden.value = layers.slice(0, -1).map((layer) => layer.size).join("-");
    if (layers.length > 1) activation.value = layers[0].activation;
  });
}

// The text of the beginning of a file, in the encodings that the server reads.
async function textOf(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  const text = new TextDecoder().decode(bytes);
  return text.split("\n")[0].includes("\ufffd") ? new TextDecoder("windows-1252").decode(bytes) : text;
}

// The cells of a line of a table; a separator in quotes does not separate.
function cellsOf(line, separator) {
  const cells = [""];
  let quoted = false;
  for (let i = 0; i < line.length; i++) {
    if (line[i] === '"' && quoted && line[i + 1] === '"') cells[cells.length - 1] += line[++i];
    else if (line[i] === '"') quoted = !quoted;
    else if (line[i] === separator && !quoted) cells.push("");
    else cells[cells.length - 1] += line[i];
  }
  return cells;
}

// The names of columns, as the server finds them: a first one without a name is the number of the row.
function columnsOf(header) {
  const cells = [",", ";", "\t"].map((separator) => cellsOf(header, separator))
    .reduce((a, b) => (a.length >= b.length ? a : b));
  return cells
    .map((cell, i) => cell.trim() || (i ? `column ${i + 1}` : ""))
    .filter((name) => name);
}

// Twice 40 points of a toy, as the server makes them, but without chance.
const PLACES = {
  circle: (t, k, turn) => [turn(t * 17), turn(t * 17 + 0.25)].map((v) => v * (k ? 0.4 * Math.sqrt(t) : 0.85)),
  xor: (t, k) => [(t * 13.1) % 1, (t * 7.7 + 0.1) % 1]
    .map((v, i) => (0.12 + 0.8 * v) * ((t * 20) % 1 < 0.5 ? 1 : -1) * (i && !k ? -1 : 1)),
  spiral: (t, k, turn) => [0.92 * t * turn(1.25 * t + k / 2), 0.92 * t * turn(1.25 * t + k / 2 + 0.25)],
  "two groups": (t, k, turn) => [turn(t * 17), turn(t * 17 + 0.25)].map((v) => v * 0.4 * t + (k ? 0.45 : -0.45)),
};

function thumbnail(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1 -1 2 2");
  svg.setAttribute("class", "thumbnail");
  svg.setAttribute("aria-hidden", "true");
  const turn = (v) => Math.sin(2 * Math.PI * v);
  for (let i = 0; i < 80; i++) {
    const [x, y] = PLACES[name]((Math.floor(i / 2) + 0.5) / 40, i % 2, turn);
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    dot.setAttribute("cx", x.toFixed(3));
    dot.setAttribute("cy", (-y).toFixed(3));
    dot.setAttribute("r", "0.07");
    dot.setAttribute("class", i % 2 ? "orange" : "blue");
    svg.append(dot);
  }
  return svg;
}

// A plane to put points on, by the pointer or by the keyboard.
function points() {
  const canvas = h("canvas", { width: 440, height: 440, class: "plane", tabindex: "0", role: "application",
    "data-testid": "own-points",
    "aria-label": "A plane: click to add a point, or move by arrow keys and press Enter" });
  const c = canvas.getContext("2d");
  const kind = h("select", { "aria-label": "class of new points" },
    h("option", { value: "0" }, "blue"), h("option", { value: "1" }, "orange"));
  const use = h("button", { class: "primary", "data-testid": "use-points",
    onclick: () => act("new", { points: found }) }, "Learn these");
  let found = [], at = [0, 0];
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    c.clearRect(0, 0, 440, 440);
    for (const [x, y, label] of found) {
      c.fillStyle = style.getPropertyValue(label ? "--accent" : "--positive");
      c.beginPath();
      c.arc(220 + 220 * x, 220 - 220 * y, 7, 0, 7);
      c.fill();
    }
    if (document.activeElement === canvas) {
      c.strokeStyle = style.getPropertyValue("--quiet");
      c.strokeRect(213 + 220 * at[0], 213 - 220 * at[1], 14, 14);
    }
    use.disabled = found.length < 2;
    use.title = use.disabled ? "Add at least two points first" : "Begins with a new network";
  };
  const add = (other) => {
    found.push([...at, other ? 1 - Number(kind.value) : Number(kind.value)]);
    draw();
  };
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    at = [(2 * (event.clientX - box.left)) / box.width - 1, 1 - (2 * (event.clientY - box.top)) / box.height];
    add(event.shiftKey);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (move) at = at.map((v, i) => Math.max(-1, Math.min(1, v + move[i])));
    else if (event.key === "Enter") add(event.shiftKey);
    else return;
    event.preventDefault();
    draw();
  });
  for (const event of ["focus", "blur"]) canvas.addEventListener(event, draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // Begins with the points that are learnt now.
  on("version", async ({ data: { plane } }) => {
    if (!plane || found.length) return;
    const { train, test } = await get("points").catch(() => ({}));
    if (!train || found.length) return;
    for (const { x, y, label } of [train, test]) found.push(...x.map((v, i) => [v, y[i], label[i]]));
    draw();
  });
  draw();
  return h("div", {}, h("p", { class: "note" },
    "Click to add points; with Shift, of the other class. Clear begins with none."), canvas,
    h("div", { class: "row" }, kind, h("button", { onclick: () => { found = []; draw(); } }, "Clear"), use));
}
