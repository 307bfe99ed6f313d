// What is learnt, by which network, and what to take away.

import { act, complain, fileAddress, h, on, take, upload } from "./api.js";

const TOYS = ["circle", "xor", "spiral", "two groups"];
const PRESETS = [["none", []], ["8-8", [8, 8]], ["32", [32]], ["300-100", [300, 100]]];
const ACTIVATIONS = ["leaky_relu", "relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid", "identity"];
const FILES = [
  ["model.npz", "the network; python -m mlgraph.studio model.npz opens it again, and mlgraph.load reads it"],
  ["model.c", "a function in C without dependencies"],
  ["network.svg", "a picture of the graph"],
];

export function begin(root) {
  const now = h("p", { "data-testid": "data-name" });
  const pick = (text, data, title) => h("button", { "data-testid": `data-${data.replace(" ", "-")}`, title, onclick: () => act("new", { data }) }, text);
  const file = h("input", { type: "file", accept: ".csv,.npz,.tsv,.txt", "aria-label": "a .csv or .npz file", onchange: () => file.files[0] && choose(file.files[0]) });
  const target = h("div", {});
  const hidden = h("input", { size: "14", "aria-label": "sizes of the hidden layers", "data-testid": "hidden" });
  const activation = h("select", { "aria-label": "activation" }, ...ACTIVATIONS.map((name) => h("option", {}, name)));
  const seed = h("input", { type: "number", min: "0", value: "0", "aria-label": "seed" });

  const build = () => {
    const sizes = hidden.value.match(/\d+/g)?.map(Number) ?? [];
    act("new", { data: "keep", hidden: sizes, activation: activation.value, seed: Number(seed.value) });
  };

  root.append(
    h("h2", {}, "What it learns"), now,
    h("div", { class: "row" }, pick("MNIST", "mnist", "Handwritten digits"),
      ...TOYS.map((name) => pick(name[0].toUpperCase() + name.slice(1), name, "Points of the plane in two classes")),
      pick("A neuron that overflows", "overflow", "A number grows beyond float32: see what the studio does about it")),
    h("h2", {}, "Your own data"),
    h("p", { class: "note" }, "A .csv with a header (numbers, and a column to learn), or an .npz with x and y. Drop it anywhere on the page."),
    h("div", { class: "row" }, file), target,
    h("details", {}, h("summary", {}, "Your own points"), points()),
    h("h2", {}, "The network"),
    h("p", { class: "note" }, "Building begins anew: what was learnt is gone. Save it first if you need it."),
    h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "hidden layers"), hidden),
      ...PRESETS.map(([text, sizes]) => h("button", { onclick: () => (hidden.value = sizes.join("-")) }, text))),
    h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "activation"), activation),
      h("label", { class: "field" }, h("span", {}, "seed"), seed),
      h("button", { class: "primary", "data-testid": "build", onclick: build }, "Build")),
    h("h2", {}, "Take away"),
    ...FILES.map(([name, what]) => h("p", {}, h("a", { href: fileAddress(name), download: name, "data-testid": name }, name), h("span", { class: "note" }, ` ${what}`))));

  async function choose(chosen) {
    const header = (await chosen.slice(0, 65536).text()).split(/\r?\n/)[0];
    if (chosen.name.toLowerCase().endsWith(".npz")) {
      send(chosen);
      return;
    }
    const separator = [",", ";", "\t"].reduce((a, b) => (header.split(a).length >= header.split(b).length ? a : b));
    const names = header.split(separator).map((name) => name.trim().replace(/^"|"$/g, ""));
    const column = h("select", { "aria-label": "the column to learn" }, ...names.map((name, i) => h("option", { selected: i === names.length - 1 }, name)));
    target.replaceChildren(h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "learn the column"), column),
      h("button", { class: "primary", onclick: () => send(chosen, column.value) }, "Learn it")));
    document.getElementById("tab-data").click();
  }

  async function send(chosen, column) {
    try {
      take(await upload(chosen, column));
      target.replaceChildren();
    } catch (error) {
      complain(error);
    }
  }

  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
  });

  on("version", (state) => {
    const { data, layers } = state;
    const classes = data.classes ? `${data.classes.length} classes` : "numbers to predict";
    now.textContent = `${data.name}: ${data.n_train.toLocaleString("en")} training and ${data.n_test.toLocaleString("en")} test examples, ${classes}.`;
    if (document.activeElement !== hidden) hidden.value = layers.slice(0, -1).map((layer) => layer.size).join("-");
    if (layers.length > 1) activation.value = layers[0].activation;
  });
}

// A plane to click points on.
function points() {
  const canvas = h("canvas", { width: 280, height: 280, class: "plane", tabindex: "0", "aria-label": "Click to add a point", "data-testid": "own-points" });
  const c = canvas.getContext("2d");
  const kind = h("select", { "aria-label": "class of new points" }, h("option", { value: "0" }, "blue"), h("option", { value: "1" }, "orange"));
  let found = [];
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    c.clearRect(0, 0, 280, 280);
    for (const [x, y, label] of found) {
      c.fillStyle = style.getPropertyValue(label ? "--accent" : "--positive");
      c.beginPath();
      c.arc(140 + 140 * x, 140 - 140 * y, 4, 0, 7);
      c.fill();
    }
  };
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (2 * (event.clientX - box.left)) / box.width - 1, y = 1 - (2 * (event.clientY - box.top)) / box.height;
    found.push([x, y, event.shiftKey ? 1 - Number(kind.value) : Number(kind.value)]);
    draw();
  });
  return h("div", {}, h("p", { class: "note" }, "Click to add points; with Shift, of the other class."), canvas,
    h("div", { class: "row" }, kind, h("button", { onclick: () => { found = []; draw(); } }, "Clear"),
      h("button", { class: "primary", "data-testid": "use-points", onclick: () => act("new", { points: found }) }, "Learn these")));
}
