// The selected neuron: its weights, values, votes and what its absence costs; and what may be changed.

import { Told, complain, edit, get, h, on, passes, select, store, tell } from "./api.js";
import { listed, percent, short, typed } from "./numbers.js";

const ACTIVATIONS = ["identity", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid"];
const MOST_EDGES = 40;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Numbers as an image, blue where positive and red where negative.
export function picture(values, [height, width], size) {
  const canvas = h("canvas",
    { width, height, style: `width: ${size}px; height: ${(size * height) / width}px; image-rendering: pixelated` });
  const c = canvas.getContext("2d");
  const image = c.createImageData(width, height);
  const most = Math.max(...values.map(Math.abs)) || 1;
  const [positive, negative] = [rgb(colour("positive")), rgb(colour("negative"))];
  values.forEach((v, i) => {
    const [r, g, b] = v > 0 ? positive : negative;
    image.data.set([r, g, b, 255 * Math.min(1, Math.abs(v) / most)], 4 * i);
  });
  c.putImageData(image, 0, 0);
  return canvas;
}

// Bytes as a grey image: dark ink on light paper, as one writes.
export function thumbnail(pixels, [height, width], size = 56) {
  const canvas = h("canvas",
    { width, height, class: "paper",
      style: `width: ${size}px; height: ${(size * height) / width}px; image-rendering: pixelated` });
  const c = canvas.getContext("2d");
  const image = c.createImageData(width, height);
  pixels.forEach((v, i) => image.data.set([20, 24, 28, v], 4 * i));
  c.putImageData(image, 0, 0);
  return canvas;
}

export function rgb(text) {
  const hex = text.replace("#", "");
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// Bars to the right (positive) and the left (negative) of a middle line, one for each name.
export function bars(names, values, title, text = short) {
  const most = Math.max(...values.map((v) => Math.abs(v ?? 0))) || 1;
  const negative = values.some((v) => v < 0);
  return h("div", { class: "bars", role: "img",
    "aria-label": `${title}: ${names.map((n, i) => `${n} ${text(values[i])}`).join(", ")}` },
    ...names.flatMap((name, i) => {
      const v = values[i] ?? 0;
      const width = (Math.abs(v) / most) * (negative ? 50 : 100);
      const left = negative ? (v < 0 ? 50 - width : 50) : 0;
      const style = `left: ${left}%; width: ${width}%; background: var(--${v < 0 ? "negative" : "positive"})`;
      return [h("span", {}, name), h("div", {}, h("i", { style })), h("span", { class: "number" }, text(values[i]))];
    }));
}

// Which examples a figure is of: the server looks at the first 2,000 test examples.
const sample = () => {
  const n = store.state.data.n_test;
  return n > 2000 ? " (the first 2,000 test examples)" : "";
};

export const nameOf = (place) => place.name;

export function begin(root) {
  let shown = null, timer = null;
  let busy = false, again = false; // one request at a time; what changed meanwhile asks again
  let pressed = 0, focus = null; // commands without an answer, and the button that had the focus
  let skipped = false; // an answer that was not shown, because someone was typing or pressing a button

  // Another neuron was selected: what the panel shows of the one before goes at once, with its buttons.
  function turn(place) {
    if (!place) showNothing();
    else if (shown?.node !== place.node) {
      shown = null;
      root.replaceChildren(h("h2", { "data-testid": "neuron-name" }, place.name ?? "A neuron"),
        h("p", { class: "note" }, "One moment …"));
    }
    refresh();
  }

  async function refresh() {
    clearTimeout(timer);
    timer = null;
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      await look();
    }
    busy = false;
    root.inert = pressed > 0;
    if (shown && store.state?.status === "running") timer = setTimeout(refresh, 500);
  }

  async function look() {
    const place = store.selected;
    if (!place || root.hidden || document.hidden) return;
    try {
      const found = await get("neuron", { node: place.node });
      if (store.selected?.node !== place.node || pressed) return; // another request follows
      again ||= found.version < store.state.version;
      skipped = shown !== null && isUsed();
      if (!skipped && !again) show(found);
    } catch (error) {
      if (passes(error) || store.selected?.node !== place.node) return;
      store.selected = null; // it is not in the network any more
      showNothing();
      if (error.status !== 422) complain(error);
    }
  }

  // What is being typed stays, also while the focus is on the button of its form, and what is being pressed.
  const isUsed = () => root.matches(":active")
    || (root.contains(document.activeElement) && document.activeElement.matches("input, select, form *"));

  const used = () => setTimeout(() => skipped && refresh());
  document.addEventListener("pointerup", used);
  root.addEventListener("focusout", used);

  // A command about the neuron that the panel shows. The panel takes no other until it shows what this one changed.
  async function press(name, fields) {
    focus = document.activeElement?.dataset.testid;
    document.activeElement?.blur();
    root.inert = true;
    pressed += 1;
    await edit(name, fields, shown);
    pressed -= 1;
    refresh();
  }

  function showNothing() {
    shown = null;
    const layer = h("input", { type: "number", min: "0", value: "0", "aria-label": "layer" });
    const index = h("input", { type: "number", min: "0", value: "0", "aria-label": "neuron" });
    root.replaceChildren(
      h("h2", {}, "A neuron"),
      h("p", {}, "Click a neuron in the network to look into it: "
        + "what it sees, what excites it, and what is lost without it."),
      h("p", { class: "note" }, "Its tile shows its weights: a square for each node that it reads, placed as these "
        + "nodes are if they form an image or a grid, else row by row. For points of the plane it shows the output at "
        + "each point."),
      h("form", { class: "row", onsubmit: async (event) => {
        event.preventDefault();
        try {
          const place = await get("neuron", { layer: layer.value, neuron: index.value });
          select({ node: place.node, layer: place.layer, neuron: place.neuron, name: place.name });
        } catch (error) {
          complain(error);
        }
      } }, h("label", { class: "field" }, h("span", {}, "layer"), layer),
        h("label", { class: "field" }, h("span", {}, "neuron"), index),
        h("button", {}, "Open")));
  }

  function show(place) {
    const active = root.contains(document.activeElement) ? document.activeElement.dataset.testid : focus;
    const scroll = root.parentElement.scrollTop;
    const opened = shown?.node === place.node
      ? new Map([...root.querySelectorAll("details")].map((one) => [one.dataset.testid, one.open])) : new Map();
    shown = place;
    root.replaceChildren(...[
      heading(place), controls(place, press), ofLayer(place, press), sees(place), values(place), excites(place),
        votes(place), edges(place, press), more(place, press),
    ].flat().filter(Boolean));
    for (const one of root.querySelectorAll("details")) one.open = opened.get(one.dataset.testid) ?? one.open;
    root.inert = false;
    if (active && [document.body, null].includes(document.activeElement)) {
      root.querySelector(`[data-testid="${active}"]`)?.focus();
    }
    focus = null;
    root.parentElement.scrollTop = scroll;
  }

  on("selected", turn);
  on("version", refresh);
  on("state", (state) => { if (state.status === "running" && shown && !timer && !busy) refresh(); });
  on("step", () => { if (store.state.status !== "running") refresh(); });
  new MutationObserver(refresh).observe(root, { attributeFilter: ["hidden"] });
  showNothing();
}

function heading(place) {
  const status = !place.alive ? "cut" : place.frozen ? "frozen" : "";
  return h("h2", { "data-testid": "neuron-name" }, nameOf(place),
    status && h("span", { class: "note" }, ` (${status})`));
}

function controls(place, press) {
  if (place.kind !== "neuron") {
    return h("p", { class: "note" }, place.kind === "input" ? "An input: its value is the data." : place.formula ?? "");
  }
  const { node } = place;
  if (!place.alive) return h("p", {}, "It is cut: no edge leads through it. Undo returns it.");
  const bias = h("input", { type: "number", step: "any", value: typed(place.bias), "data-testid": "bias",
    "aria-label": "bias", onchange: (event) => edit("set-bias",
      { node, value: event.target.value === "" ? null : Number(event.target.value) }, place) });
  const activation = h("select", { "data-testid": "activation", "aria-label": "activation",
    onchange: (event) => edit("set-activation", { node, value: event.target.value }, place) },
    ...[...new Set([...ACTIVATIONS, place.activation])].map((name) =>
      h("option", { selected: name === place.activation }, name)));
  const loss = place.ablation;
  const cost = loss?.accuracy
    ? `Accuracy ${percent(loss.accuracy.with)} with it, ${percent(loss.accuracy.without)} without it${sample()}.`
    : loss?.loss ? `Loss ${short(loss.loss.with)} with it, ${short(loss.loss.without)} without it${sample()}.`
    : "It cannot be cut: an output needs it.";
  return [
    h("p", { "data-testid": "ablation" }, cost),
    h("div", { class: "row" },
      h("button", { class: "cut", "data-testid": "cut-neuron", disabled: !loss,
        title: loss ? "Cut all its edges" : cost,
        onclick: () => press("cut-neuron", { node }) }, "Cut"),
      h("button", { "data-testid": "freeze-neuron", title: place.frozen ? "Let it learn again"
        : "Its weights and bias no longer learn",
        onclick: () => press("freeze", { node, value: !place.frozen }) }, place.frozen ? "Thaw" : "Freeze")),
    h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "bias"), bias),
      h("label", { class: "field" }, h("span", {}, "activation"), activation)),
  ];
}

// What may be changed in the whole layer of the neuron.
function ofLayer(place, press) {
  const { layer } = place;
  const one = store.state.layers[layer];
  if (!one) return null;
  const last = layer === store.state.layers.length - 1;
  const n = h("input", { type: "number", min: "1", max: "1000", value: "1", "aria-label": "how many neurons more" });
  const dropout = h("input", { type: "number", min: "0", max: "0.99", step: "0.05", value: one.dropout ?? 0,
    "data-testid": "layer-dropout",
    "aria-label": `dropout of layer ${layer}`, onchange: (event) =>
      edit("set-dropout", { layer, value: Number(event.target.value) }, place) });
  return h("details", { "data-testid": "layer-controls" },
    h("summary", {}, `Layer ${layer}: freeze${last ? "" : ", dropout, widen"}`),
    h("div", { class: "row" },
      h("button", { "data-testid": "freeze-layer", onclick: () => press("freeze", { layer, value: true }) },
        "Freeze all"),
      h("button", { "data-testid": "thaw-layer", onclick: () => press("freeze", { layer, value: false }) }, "Thaw all"),
      last ? null : h("label", { class: "field" }, h("span", {}, "dropout"), dropout)),
    last ? h("p", { class: "note" }, "The outputs can neither be widened nor dropped.")
      : h("form", { class: "row", onsubmit: (event) => {
        event.preventDefault();
        press("widen", { layer, n: Number(n.value) });
      } }, h("span", { class: "note" }, "add"), n, h("span", { class: "note" }, "neurons"),
        h("button", { "data-testid": "widen" }, "Widen")));
}

function sees(place) {
  const image = store.state.data.image;
  if (!image || !place.picture) return null;
  return [
    h("h2", {}, place.picture_is_weights ? "What it looks for" : "What it looks for, through the layers before"),
    h("div", { class: "row" }, picture(place.picture, image, 140),
      h("p", { class: "note", style: "flex: 1; min-width: 120px" },
        place.picture_is_weights ? "Its weights: ink on blue excites it, ink on red inhibits it."
          : "Derivatives of its value, averaged over examples: more ink on blue excites it, on red inhibits it.")),
  ];
}

function values(place) {
  if (!place.histogram) return null;
  const { counts, from, to } = place.histogram;
  store.reach = Math.max(Math.abs(from), Math.abs(to));
  const most = Math.max(...counts);
  return [
    h("h2", {}, "Its values"),
    h("div", { class: "histogram", role: "img",
      "aria-label": `values from ${short(from)} to ${short(to)}, mean ${short(place.mean)}` },
      ...counts.map((n) => h("i", { style: `height: ${(100 * n) / most}%` }))),
    h("div", { class: "row note", style: "justify-content: space-between; margin: 0" },
      h("span", {}, short(from)), h("span", {}, `mean ${short(place.mean)} over test examples`),
        h("span", {}, short(to))),
  ];
}

function excites(place) {
  if (!place.excites) return null;
  const image = store.state.data.image;
  return [
    h("h2", {}, "What excites it most"),
    h("div", { class: image ? "grid" : "row" }, ...place.excites.map((one) => h("button", {
      class: "example", title: `test example ${one.index}, ${listed(one.label)}: value ${short(one.value)}`,
      "aria-label": `test example ${one.index}, ${listed(one.label)}, value ${short(one.value)}`,
      onclick: () => tell("open-example", { index: one.index, numbering: place.numbering }),
    }, one.pixels ? thumbnail(one.pixels, image) : `${listed(one.label)}: ${short(one.value)}`))),
  ];
}

function votes(place) {
  const classes = store.state.data.classes;
  if (!place.votes || !classes || place.votes.length !== classes.length || classes.length > 60) return null;
  return [
    h("h2", {}, "Its vote for each class"),
    h("p", { class: "note" }, "How much a unit of its value adds to the score of each class."),
    bars(classes, place.votes, "votes"),
  ];
}

function edges(place, press) {
  const list = (title, found, source) => {
    if (!found?.length) return null;
    const strongest = [...found].sort((a, b) => Math.abs(b.weight ?? 0) - Math.abs(a.weight ?? 0)).slice(0, MOST_EDGES);
    return h("details", { open: found.length <= 12, "data-testid": `edges-${title}` },
      h("summary", {}, `${title}: ${found.length}${found.length > MOST_EDGES ? `, the strongest ${MOST_EDGES}` : ""}`),
      h("table", { class: "edges" }, ...strongest.map((one) => {
        const ends = source ? { source: one.node, target: place.node } : { source: place.node, target: one.node };
        const weight = one.weight === null ? "" : h("input",
          { type: "number", step: "any", value: typed(one.weight),
          "aria-label": `weight of the edge ${source ? "from" : "to"} ${nameOf(one)}`,
          onchange: (event) => edit("set-weight", { ...ends, value: Number(event.target.value) }, place) });
        return h("tr", {},
          h("td", {}, h("button", { class: "link", onclick: () =>
            select({ node: one.node, layer: one.layer, neuron: one.neuron, name: one.name }) }, nameOf(one))),
          h("td", {}, weight),
          h("td", {}, one.weight === null ? "" : h("button",
            { title: "Cut this edge", "aria-label": `cut the edge ${source ? "from" : "to"} ${nameOf(one)}`,
            onclick: () => press("cut-edge", ends) }, "✂")));
      })));
  };
  return [h("h2", {}, "Edges"), list("in", place.in, true), list("out", place.out, false)].filter(Boolean);
}

// "0.3", "layer 0 neuron 3", "input 5" or an id.
export function reference(text) {
  const numbers = text.match(/\d+/g)?.map(Number) ?? [];
  if (/^\s*i/i.test(text) && numbers.length === 1) return { input: numbers[0] };
  if (numbers.length === 2) return { layer: numbers[0], neuron: numbers[1] };
  if (numbers.length === 1) return numbers[0];
  throw new Told(`${text || "nothing"}: write 0.3 for neuron 3 of layer 0, or input 5`);
}

function more(place, press) {
  if (place.kind !== "neuron" || !place.alive) return null;
  const from = h("input", { size: "8", placeholder: "input 5", "aria-label": "source of the new edge" });
  const weight = h("input", { type: "number", step: "any", value: "0.1", "aria-label": "weight of the new edge" });
  return [
    h("form", { class: "row", onsubmit: (event) => {
      event.preventDefault();
      try {
        press("add-edge", { source: reference(from.value), target: place.node, weight: Number(weight.value) });
      } catch (error) {
        complain(error);
      }
    } }, h("span", { class: "note" }, "new edge from"), from, h("span", { class: "note" }, "weight"), weight,
      h("button", {}, "Add")),
  ];
}
