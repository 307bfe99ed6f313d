// The details beside the network, one tab at a time.

import { get, h, on, remember, remembered, select, tell } from "./api.js";
import * as neuron from "./neuron.js";
import * as example from "./example.js";
import * as prune from "./prune.js";
import * as data from "./data.js";

// Each tab module has `begin(panel)`.
const TABS = [
  ["neuron", "Neuron", neuron],
  ["example", "Example", example],
  ["prune", "Prune", prune],
  ["data", "Data", data],
];

export function begin(root) {
  const bar = h("div", { role: "tablist", class: "tabs" });
  const panels = [];
  const show = (name) => {
    for (const [i, [id]] of TABS.entries()) {
      panels[i].hidden = id !== name;
      bar.children[i].setAttribute("aria-selected", id === name);
      bar.children[i].tabIndex = id === name ? 0 : -1;
    }
    root.scrollTop = 0;
    remember("tab", name);
  };
  for (const [id, title, part] of TABS) {
    const tab = h("button", { role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}`, "data-testid": `tab-${id}`,
      onclick: () => show(id) }, title);
    const panel = h("div", { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, hidden: true });
    bar.append(tab);
    panels.push(panel);
    part.begin(panel);
  }
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([id]) => document.activeElement.id === `tab-${id}`);
    const next = (at + step + TABS.length) % TABS.length;
    show(TABS[next][0]);
    bar.children[next].focus();
  });
  root.append(bar, ...panels);
  on("selected", (place) => place && show("neuron"));
  show("neuron");
  let opened = false;
  on("version", (state) => {
    if (!opened) reopen(state, show);
    opened = true;
  });
}

// What the address bar named when the page was opened, if it is still there.
async function reopen({ data, numbering }, show) {
  const { tab, node, example: index } = remembered;
  if (node && await get("neuron", { node }).catch(() => null)) select({ node: Number(node) });
  if (Number(index) < data.n_test) tell("open-example", { index: Number(index), numbering });
  if (TABS.some(([id]) => id === tab)) show(tab);
}
