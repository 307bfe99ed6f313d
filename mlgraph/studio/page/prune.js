// Cutting edges: at once by a slider, or while the network trains on.

import { act, edit, h, on, store } from "./api.js";
import { percent, short, whole } from "./numbers.js";

const METHODS = [
  ["gradual", "Gradual", "Cuts more and more edges, in the order chosen above (Zhu and Gupta 2017)."],
  ["SET", "SET", "Is sparse from the first step; drops weak edges and tries random new ones (Mocanu et al. 2018)."],
  ["RigL", "RigL", "As SET, but new edges are those with the largest gradients (Evci et al. 2020)."],
];
const CRITERIA = [["path", "weakest paths"], ["magnitude", "smallest weights"],
  ["saliency", "smallest weight × gradient"], ["random", "at random"]];

export function begin(root) {
  const slider = h("input", { type: "range", min: "0", max: "99.5", step: "0.5", value: "0", "data-testid": "sparsity",
    "aria-label": "sparsity in percent", style: "flex: 1" });
  const number = h("input", { type: "number", min: "0", max: "99.9", step: "any", value: "0",
    "aria-label": "sparsity in percent" });
  const by = h("select", { "aria-label": "what to cut first" },
    ...CRITERIA.map(([value, text]) => h("option", { value }, text)));
  const figures = h("table", { class: "edges", "data-testid": "before-after" });
  const plot = h("canvas", { class: "trade", role: "img", "aria-label": "test result against the number of edges" });
  // Not the slider's number: that one cuts at once, and would leave nothing to cut gradually.
  const goal = h("input", { type: "number", min: "0", max: "99.9", step: "any", value: "95",
    "data-testid": "goal", "aria-label": "sparsity at the end" });
  const epochs = h("input", { type: "number", min: "1", max: "1000", value: "10", "aria-label": "epochs" });
  const progress = h("p", { role: "status", "data-testid": "progress", hidden: true });
  const share = (value, label) => h("input", { type: "number", min: "1", max: "99", step: "any", value,
    "aria-label": label });
  const until = share("75", "percent of training after which the edges stay");
  const moved = share("30", "percent of the edges that SET and RigL move at first");
  let busy = false, next = null, points = [];

  async function cut() {
    if (busy) {
      next = true;
      return;
    }
    busy = true;
    await edit("prune", { sparsity: Number(number.value) / 100, by: by.value });
    busy = false;
    if (next) {
      next = null;
      cut();
    }
  }
  // The network as it was, beside the one in the middle of the page.
  const earlier = h("figure", { class: "before", hidden: true, "data-testid": "network-before" });
  function keepPicture() {
    const seen = document.querySelector("#network canvas");
    const width = 2 * 360, height = Math.round((width * seen.height) / seen.width);
    const canvas = h("canvas", { width, height, role: "img", "aria-label": "the network before it was pruned" });
    canvas.getContext("2d").drawImage(seen, 0, 0, width, height);
    const { test_accuracy: accuracy, n_edges: edges } = store.state;
    earlier.replaceChildren(canvas, h("figcaption", { class: "note" },
      `Before: ${whole(edges)} edges${accuracy === null ? "" : `, test accuracy ${percent(accuracy)}`}`));
    earlier.hidden = false;
  }

  let dragged = false;
  // While it is dragged, the network follows at most three times a second. During a run only its end counts:
  // each cut is an edit of its own there, because steps were taken since the last.
  let cutAt = 0;
  slider.addEventListener("input", () => {
    if (!dragged) keepPicture();
    dragged = true;
    number.value = slider.value;
    if (store.state?.status === "running" || busy || performance.now() - cutAt < 333) return;
    cutAt = performance.now();
    cut();
  });
  slider.addEventListener("change", () => {
    dragged = false;
    cut();
  });
  // Another criterion applies at once to what the slider has just cut.
  by.addEventListener("change", () => {
    if (store.state?.last_edit?.what.startsWith("sparsity")) cut();
  });
  number.addEventListener("change", () => {
    keepPicture();
    slider.value = number.value;
    cut();
  });

  root.append(
    h("h2", {}, "Cut edges"),
    h("p", { class: "note" }, "Sparsity is the share of edges that are cut. Moved back, the slider returns them. "
      + "Many at once hurt the network; cut while it trains, below, and it adapts."),
    h("div", { class: "row" }, slider, number, h("span", {}, "%")),
    h("label", { class: "field" }, h("span", {}, "cut first"), by),
    figures, earlier,
    h("h2", {}, "Cut while it trains"),
    h("p", { class: "note" }, "The network adapts as it loses edges. Gradual keeps most of the accuracy."), progress,
    h("div", { class: "row" }, h("label", { class: "field" }, h("span", {}, "sparsity at the end"), goal,
      h("span", {}, "%")),
      h("label", { class: "field" }, h("span", {}, "epochs"), epochs)),
    h("details", {}, h("summary", {}, "Options"), h("div", { class: "row" },
      h("label", { class: "field" }, h("span", {}, "edges stay after"), until, h("span", {}, "% of the training")),
      h("label", { class: "field" }, h("span", {}, "SET and RigL move at first"), moved,
        h("span", {}, "% of the edges")))),
    ...METHODS.map(([method, text, what]) => h("div", { class: "row" },
      h("button", { "data-testid": `method-${method}`, onclick: () => {
        const options = method === "gradual" ? { by: by.value } : { fraction: Number(moved.value) / 100 };
        const sparsify = { method, sparsity: Number(goal.value) / 100, until: Number(until.value) / 100, ...options };
        keepPicture();
        act("run", { do: "play", sparsify, epochs: Number(epochs.value) });
      } }, text),
      h("span", { class: "note", style: "flex: 1; min-width: 180px" }, what))),
    h("h2", {}, "How little is enough"),
    h("p", { class: "note" }, "Each point is the network after an epoch or an edit: test result against edges."),
    plot);

  function show(state) {
    const classes = state.data.classes !== null;
    const last = state.last_edit;
    progress.hidden = state.schedule === null;
    if (state.schedule) {
      const { what, epoch, of } = state.schedule;
      progress.textContent = `Now: ${what}, epoch ${epoch} of ${of}.`;
    }
    const row = (name, ...cells) => h("tr", {}, h("td", { class: "note" }, name),
      ...cells.map((text) => h("td", { class: "number" }, text)));
    const before = last?.before;
    figures.replaceChildren(
      h("tr", {}, h("td"), h("td", { class: "note" }, before ? "before" : ""),
        h("td", { class: "note" }, before ? "now" : "")),
      row(classes ? "test accuracy" : "test loss", before
        ? (classes ? percent(before.accuracy) : short(before.loss)) : "",
        classes ? percent(state.test_accuracy) : short(state.test_loss)),
      row("edges", before ? whole(before.n_edges) : "", whole(state.n_edges)),
      row("sparsity", "", percent(state.sparsity)),
      row("ms an epoch", "", state.epoch_seconds === null ? "–" : short(1000 * state.epoch_seconds)),
      row("file", "", state.file_bytes ? `${whole(state.file_bytes / 1000)} kB` : "–"));
    if (document.activeElement !== slider && document.activeElement !== number && !busy) {
      slider.value = number.value = (100 * state.sparsity).toFixed(1);
    }
  }

  function collect(state) {
    const value = state.data.classes ? state.test_accuracy : state.test_loss;
    if (value === null || state.step === 0) return;
    const last = points.at(-1);
    if (last && last.edges === state.n_edges && last.value === value) return;
    points.push({ edges: state.n_edges, value });
    if (points.length > 500) points = points.filter((_, i) => i % 2 === 0);
  }

  function draw() {
    const scale = devicePixelRatio, width = plot.clientWidth, height = plot.clientHeight;
    if (!width || !points.length) return;
    plot.width = width * scale;
    plot.height = height * scale;
    const c = plot.getContext("2d");
    c.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    c.fillStyle = style.getPropertyValue("--quiet");
    c.font = "12px system-ui, sans-serif";
    const edges = points.map((p) => Math.log10(Math.max(1, p.edges))), values = points.map((p) => p.value);
    const [e0, e1] = [Math.min(...edges) - 0.1, Math.max(...edges) + 0.1];
    const [v0, v1] = [Math.min(...values), Math.max(...values)];
    const gap = (v1 - v0) * 0.1 || 0.01;
    const x = (e) => 48 + ((width - 60) * (e - e0)) / (e1 - e0),
      y = (v) => 10 + (height - 36) * (1 - (v - v0 + gap) / (v1 - v0 + 2 * gap));
    const text = store.state.data.classes ? (v) => `${(100 * v).toFixed(1)} %` : short;
    c.textAlign = "right";
    for (const v of [v0, v1]) c.fillText(text(v), 44, y(v) + 4);
    c.textAlign = "center";
    for (const e of [e0 + 0.1, e1 - 0.1]) c.fillText(`${whole(10 ** e)}`, x(e), height - 8);
    c.fillText("edges", width / 2 + 20, height - 8);
    points.forEach((p, i) => {
      c.fillStyle = style.getPropertyValue(i === points.length - 1 ? "--accent" : "--positive");
      c.globalAlpha = i === points.length - 1 ? 1 : 0.5;
      c.beginPath();
      c.arc(x(edges[i]), y(p.value), i === points.length - 1 ? 5 : 3, 0, 7);
      c.fill();
    });
    c.globalAlpha = 1;
  }

  on("state", (state) => {
    collect(state);
    if (root.hidden) return;
    show(state);
    draw();
  });
  let name = "";
  on("version", (state) => {
    const now = `${state.data.name} ${state.data.n_train} ${state.layers.length}`;
    if (now !== name) { // points before "Start over" stay, to be compared
      points = [];
      earlier.hidden = true;
    }
    name = now;
  });
  new MutationObserver(() => { if (!root.hidden && store.state) { show(store.state); draw(); } }).observe(root,
    { attributeFilter: ["hidden"] });
}
