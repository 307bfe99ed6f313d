// One example: draw a digit, pick a test example or type numbers; the answer, why, and what a patched neuron changes.

import { complain, get, h, on, passes, post, remember, select, store, tell } from "./api.js";
import { bars, nameOf, picture, thumbnail } from "./neuron.js";
import { listed, percent, short, typed, whole } from "./numbers.js";

const SIZE = 224; // of the canvas to draw on, in CSS pixels
const PAGE = 12; // thumbnails at a time

// Strokes on a canvas become an image as MNIST's are: the ink fits into 20 x 20, its centre of mass is the middle.
export function centred(canvas, [height, width]) {
  const c = canvas.getContext("2d");
  const { data } = c.getImageData(0, 0, canvas.width, canvas.height);
  const ink = (x, y) => data[4 * (y * canvas.width + x) + 3];
  let left = canvas.width, right = -1, top = canvas.height, bottom = -1;
  for (let y = 0; y < canvas.height; y++) for (let x = 0; x < canvas.width; x++) {
    if (ink(x, y) < 32) continue;
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
  }
  if (right < 0) return null;
  const [w, k] = [right - left + 1, bottom - top + 1];
  const scale = Math.min((width * 20) / 28 / w, (height * 20) / 28 / k);
  const small = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const place = (dx, dy) => {
    small.clearRect(0, 0, width, height);
    small.imageSmoothingQuality = "high";
    small.drawImage(canvas, left, top, w, k, dx, dy, w * scale, k * scale);
    return Array.from(small.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 3));
  };
  const first = place((width - w * scale) / 2, (height - k * scale) / 2);
  let mass = 0, sx = 0, sy = 0;
  first.forEach((v, i) => { mass += v; sx += v * (i % width); sy += v * Math.floor(i / width); });
  return place((width - w * scale) / 2 + (width - 1) / 2 - sx / mass,
    (height - k * scale) / 2 + (height - 1) / 2 - sy / mass);
}

export function begin(root) {
  let given = null; // {x} or {index}: what is shown
  let label = null; // the class to ask why for
  let patch = null; // {node, value, name, from, to}
  let busy = false, again = false, first = 0, wrong = false;

  const source = h("div", {});
  const answer = h("div", { "aria-live": "polite" });
  const choice = h("div", {});
  root.append(h("h2", {}, "One example"), source, answer, choice);

  async function ask() {
    if (!given) return;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    const [asked, { numbering }] = [given, store.state];
    try {
      const body = { ...asked, numbering, ...(label === null ? {} : { label }) };
      const plain = await post("example", body);
      const patched = patch
        ? await post("example", { ...asked, numbering, patch: { [patch.node]: patch.value } }) : null;
      if (numbering !== store.state.numbering || !given) return; // of data that are no longer there
      if (asked === given && plain.x) fill(plain.x);
      show(plain, patched);
    } catch (error) {
      if (!passes(error) && asked === given) complain(error);
    } finally {
      await new Promise((done) => setTimeout(done, 80));
      busy = false;
      if (again) {
        again = false;
        ask();
      }
    }
  }

  function clear() {
    given = null;
    remember("example", null);
    label = null;
    answer.replaceChildren();
    tell("example", null);
  }

  function show(found, patched) {
    const { data, layers } = store.state;
    const shown = patched ?? found;
    tell("example", shown);
    const parts = [];
    parts.push(h("p", {}, "The network says ",
      h("b", { "data-testid": "prediction", class: "said" }, listed(shown.answer)),
      patched ? h("span", { class: "note" }, ` with the patch, ${listed(found.answer)} without`) : ""));
    if (found.probabilities && data.classes && data.classes.length <= 60) {
      const names = shown.probabilities.length === data.classes.length ? data.classes : [data.classes[1] ?? "yes"];
      parts.push(bars(names, shown.probabilities, "probabilities", (p) => `${(100 * p).toFixed(1)} %`));
    }
    if (data.classes) {
      const why = h("select", { "aria-label": "why", onchange: (event) => {
        label = event.target.value === "" ? null : event.target.value;
        ask();
      } }, h("option", { value: "" }, "–"), ...data.classes.map((name) =>
        h("option", { selected: name === label }, name)));
      parts.push(h("label", { class: "field", style: "margin-top: 8px" },
        h("span", {}, "What would make it say"), why));
    }
    if (found.adjoints) {
      if (data.image) {
        const size = data.image;
        parts.push(h("div", { class: "row" }, h("div", { class: "over" }, thumbnail(found.pixels, size, 168),
          picture(found.input_adjoints.map((v) => -(v ?? 0)), size, 168)),
          h("p", { class: "note", style: "flex: 1; min-width: 120px" },
            `More ink on blue, less on red would make it say ${label}.`)));
      }
      // The adjoint of the loss: where it is negative, more of the value makes the answer more likely.
      const sides = (kind, adjoints, element) => {
        const some = adjoints.filter(([, v]) => v).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 8);
        for (const [what, sign] of [["for", -1], ["against", 1]]) {
          const of = some.filter(([, v]) => v * sign > 0);
          if (of.length) parts.push(h("p", { class: "note" },
            `More of these ${kind} speaks ${what} ${label}, the first most:`),
            h("div", { class: "row" }, ...of.map(([key, v]) => element(key, `derivative of the loss: ${short(v)}`))));
        }
      };
      // By the scaled columns: in standard deviations, which compare, rather than in units of their own.
      if (data.columns && !data.image) sides("columns", data.columns.map((name, i) => [name, found.input_adjoints[i]]),
        (name, title) => h("span", { class: "example", title }, name));
      sides("neurons", Object.entries(found.adjoints).filter(([node]) => names[node] && !outputs.has(Number(node))),
        (node, title) => h("button", { title, onclick: () => select({ node: Number(node) }) },
          nameOfNode(Number(node))));
    }
    const neuron = store.selected;
    if (layers.length && neuron) parts.push(patcher(found, neuron));
    if (root.contains(document.activeElement) && document.activeElement.type === "range") {
      // Keep the slider that is being dragged.
      const old = answer.querySelector(".patch");
      const fresh = parts.at(-1);
      if (old && fresh?.classList?.contains("patch")) {
        for (const node of [...answer.children]) if (node !== old) node.remove();
        for (const part of parts.slice(0, -1)) answer.insertBefore(part, old);
        old.querySelector("output").textContent = patch ? short(patch.value) : "";
        old.querySelector("button").disabled = !patch;
        return;
      }
    }
    answer.replaceChildren(...parts);
  }

  function patcher(found, place) {
    const value = found.values[place.node];
    if (value === undefined) return h("span", {});
    if (patch && patch.node !== place.node) patch = null;
    const reach = Math.max(1, store.reach ?? 0, 2 * Math.abs(value), Math.abs(patch?.value ?? 0));
    const slider = h("input", { type: "range", min: -reach, max: reach, step: reach / 200,
      value: patch?.value ?? value, "data-testid": "patch",
      "aria-label": `value of ${nameOf(place)}`, style: "flex: 1",
      oninput: (event) => {
        patch = { node: place.node, value: Number(event.target.value) };
        ask();
      } });
    return h("div", { class: "patch" },
      h("p", { class: "note" }, `What if ${nameOfNode(place.node)} had another value than ${short(value)}?`),
      h("div", { class: "row" }, slider, h("output", { class: "number" }, patch ? short(patch.value) : ""),
        h("button", { disabled: !patch, onclick: () => { patch = null; document.activeElement.blur(); ask(); } },
          "As it is")));
  }

  function nameOfNode(node) {
    return names[node] ?? `node ${node}`;
  }
  let names = {}, outputs = new Set();

  async function rename() {
    try {
      const { neurons, outputs: last } = await get("network");
      outputs = new Set(last);
      names = Object.fromEntries(Object.entries(neurons).map(([id, { name }]) => [id, name]));
    } catch {
      names = {};
    }
  }

  // --- where the example comes from ---------------------------------------------------------------

  function drawing(image) {
    const canvas = h("canvas", { width: SIZE, height: SIZE, class: "draw", "data-testid": "draw-canvas", tabindex: "0",
      "aria-label": "Draw a digit here" });
    const c = canvas.getContext("2d", { willReadFrequently: true });
    c.lineCap = c.lineJoin = "round";
    c.lineWidth = SIZE / 13;
    c.strokeStyle = c.fillStyle = "#14181c";
    let last = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
    };
    const stroke = (event) => {
      const now = at(event);
      c.beginPath();
      c.moveTo(...(last ?? now));
      c.lineTo(now[0] + 0.01, now[1]);
      c.stroke();
      last = now;
      const x = centred(canvas, image);
      if (!x) return;
      given = { x };
      ask();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (!given?.x || canvas.dataset.empty) label = null;
      delete canvas.dataset.empty;
      last = null;
      stroke(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (last) stroke(event); });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (last = null));
    const wipe = () => {
      c.clearRect(0, 0, SIZE, SIZE);
      canvas.dataset.empty = "1";
    };
    wipe();
    return [h("div", { class: "row" }, canvas,
      h("div", {}, h("p", { class: "note" }, "Draw, and watch the answer."),
        h("button", { "data-testid": "clear", onclick: () => { wipe(); clear(); } }, "Clear"))), wipe];
  }

  // The fields of a row: those that nobody has typed into keep all digits of the example, of which they show four.
  function numbers(columns) {
    let row = columns.map(() => 0), told = row.map(String);
    const fields = columns.map((name) => h("input", { type: "number", step: "any", value: "0", "aria-label": name,
      oninput: () => {
        const x = fields.map((field, i) => (field.value === told[i] ? row[i] : Number(field.value || NaN)));
        if (!x.every(Number.isFinite)) return;
        given = { x };
        ask();
      } }));
    const fillFields = (x) => {
      row = x;
      told = x.map((v) => (Number.isInteger(v) && Math.abs(v) < 1e9 ? String(v) : typed(v)));
      fields.forEach((field, i) => { if (document.activeElement !== field) field.value = told[i]; });
    };
    return [h("details", { open: columns.length <= 12 }, h("summary", {}, "Type the numbers"),
      h("div", { class: "numbers" }, ...columns.map((name, i) =>
        h("label", { class: "field" }, h("span", {}, name), fields[i])))), fillFields];
  }

  // Of the data that are learnt now: empties the canvas, and shows a row in the fields.
  let wipe = () => {}, fill = () => {};
  function build(state) {
    clear();
    first = 0;
    const { image, columns } = state.data;
    source.replaceChildren();
    wipe = fill = () => {};
    let part = "";
    if (image) [part, wipe] = drawing(image);
    else if (columns) [part, fill] = numbers(columns);
    source.append(part);
    page();
    rename();
  }

  async function page() {
    if (root.hidden) return;
    let found;
    try {
      found = await get("examples", { first, count: PAGE, wrong: wrong ? 1 : 0 });
    } catch (error) {
      if (!passes(error)) complain(error);
      return;
    }
    if (found.numbering !== store.state.numbering) return; // of data that the page does not know yet, or no more
    const { image, classes } = store.state.data;
    if (!given && !image && found.examples.length) { // fields of a table begin with typical numbers
      given = { index: found.examples[0].index };
      ask();
    }
    const only = h("label", { class: "field" },
      h("input", { type: "checkbox", checked: wrong,
        onchange: (event) => { wrong = event.target.checked; first = 0; page(); } }), "wrong answers only");
    choice.replaceChildren(
      h("h2", {}, "Test examples"),
      h("div", { class: "row" },
        h("button", { disabled: first === 0, onclick: () => { first = Math.max(0, first - PAGE); page(); } }, "←"),
        h("span", { class: "number note" },
          found.of ? `${first + 1} to ${Math.min(first + PAGE, found.of)} of ${whole(found.of)}`
          : "none"),
        h("button", { disabled: first + PAGE >= found.of, onclick: () => { first += PAGE; page(); } }, "→"),
        classes && only),
      h("div", { class: image ? "grid" : "row" }, ...found.examples.map((one) => h("button", {
        class: "example",
        "aria-label": `test example ${one.index}: ${listed(one.label)}, the network says ${listed(one.says)}`,
        title: `${listed(one.label)}; the network says ${listed(one.says)}`,
        onclick: () => open({ index: one.index, numbering: found.numbering }),
      }, one.pixels ? thumbnail(one.pixels, image) : listed(one.label),
        h("span", { class: classes && one.says !== one.label ? "worse caption" : "caption" },
          captionOf(one, classes))))));
  }

  // Right: the answer; wrong: the answer and what it should be.
  function captionOf({ says, label: truth, pixels }, classes) {
    const text = listed(says);
    if (!classes || !pixels) return `says ${text}`;
    return says === truth ? text : `${text}, is ${truth}`;
  }

  async function open({ index, numbering }) {
    if (numbering !== store.state.numbering) return; // it is one of other data
    wipe();
    given = { index };
    remember("example", index);
    label = null;
    document.getElementById("tab-example").click();
    await ask();
    root.parentElement.scrollTop = 0;
  }

  on("open-example", open);
  on("selected", () => { patch = null; });
  let known = "", numbered = null;
  on("version", (state) => {
    const key = JSON.stringify([state.data.name, state.data.n_test, state.data.image, state.data.columns,
      state.data.classes]);
    if (key !== known) build(state);
    else {
      rename();
      if (state.numbering !== numbered) page();
    }
    if (state.numbering !== numbered) patch = null;
    [known, numbered] = [key, state.numbering];
    ask();
  });
  on("step", ask);
  new MutationObserver(() => {
    if (!root.hidden) {
      page();
      ask();
    }
  }).observe(root, { attributeFilter: ["hidden"] });
}
