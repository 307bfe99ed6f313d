// The losses of all steps: a band from the lowest to the highest of each pixel column, their mean, and the tests.

import { get, h, on } from "./api.js";

const LEFT = 56, RIGHT = 56, TOP = 24, BOTTOM = 24;

export function begin(root) {
  const canvas = h("canvas", { role: "img", "aria-label": "Training loss of every step, and test results",
    tabindex: "0",
    title: "Drag to zoom, double click to see all" });
  root.append(canvas);
  let shown = null; // the answer of the server
  let range = null; // steps, or null for all
  let pointer = null, drag = null;
  let asked = "", busy = false, classes = true;
  let edits = [], edit = ""; // the steps at which someone changed the network, and the last edit

  const plot = () => ({ width: canvas.clientWidth - LEFT - RIGHT, height: canvas.clientHeight - TOP - BOTTOM });

  async function refresh(state) {
    classes = state.data.classes !== null;
    if (edits.at(-1) > state.step) edits = []; // the run began again
    const last = state.last_edit && JSON.stringify(state.last_edit);
    if (last && last !== edit && edits.at(-1) !== state.last_edit.step) edits = [...edits.slice(-200),
      state.last_edit.step];
    edit = last;
    const key = `${state.step} ${state.version} ${range} ${canvas.clientWidth} ${canvas.clientHeight}`;
    if (busy || key === asked || document.hidden || plot().width < 20) return;
    busy = true;
    asked = key;
    try {
      const [from, to] = range ?? [0, -1];
      shown = await get("curve", { from, to, pixels: Math.min(2000, plot().width) });
      draw();
    } catch {
      asked = ""; // the poll of the state tells why
    } finally {
      busy = false;
    }
  }

  function draw() {
    const scale = devicePixelRatio;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    const c = canvas.getContext("2d");
    c.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { width, height } = plot();
    c.font = "12px system-ui, sans-serif";
    c.fillStyle = colour("quiet");
    if (!shown || shown.step.length === 0) {
      c.textAlign = "center";
      c.fillText("Press Train: the loss of every batch is drawn here.", LEFT + width / 2, TOP + height / 2);
      return;
    }
    const { step, low, mean, high, tests } = shown;
    const from = shown.from, to = Math.max(shown.to, from + 1);
    const x = (s) => LEFT + (width * (s - from)) / (to - from);
    const finite = (values) => values.filter((v) => v !== null && v > 0);
    const most = Math.max(...finite(high), 1e-9);
    const least = Math.max(Math.min(...finite(low)), most / 1e5);
    const logarithmic = most / least > 30;
    const bottom = logarithmic ? Math.log10(least) : 0, top = logarithmic ? Math.log10(most) : most;
    const y = (v) => {
      const at = logarithmic ? Math.log10(Math.max(v ?? most, least)) : v ?? most;
      return TOP + height * (1 - (at - bottom) / (top - bottom || 1));
    };

    c.strokeStyle = colour("line");
    c.lineWidth = 1;
    c.textAlign = "right";
    for (const v of ticks(least, most, logarithmic)) {
      line(c, [[LEFT, y(v)], [LEFT + width, y(v)]]);
      c.fillText(label(v), LEFT - 6, y(v) + 4);
    }
    c.textAlign = "left";
    c.fillText("training loss", 6, 11);
    c.textAlign = "center";
    const parts = Math.min(4, to - from);
    for (let i = 0; i <= parts; i++) {
      const s = Math.round(from + ((to - from) * i) / parts);
      c.fillText(`${i === 0 ? "step " : ""}${s.toLocaleString("en")}`, Math.max(30, x(s)), TOP + height + 17);
    }

    c.save();
    c.beginPath();
    c.rect(LEFT, TOP - 2, width, height + 4);
    c.clip();
    c.globalAlpha = 0.3;
    c.fillStyle = colour("positive");
    c.beginPath();
    step.forEach((s, i) => c.lineTo(x(s), y(high[i])));
    for (let i = step.length - 1; i >= 0; i--) c.lineTo(x(step[i]), y(low[i]));
    c.fill();
    c.globalAlpha = 1;
    c.strokeStyle = colour("positive");
    line(c, step.map((s, i) => [x(s), y(mean[i])]));
    if (step.length < 3) { // too few for a line
      c.fillStyle = colour("positive");
      step.forEach((s, i) => c.fillRect(x(s) - 2, y(mean[i]) - 2, 4, 4));
    }
    c.strokeStyle = colour("quiet");
    c.setLineDash([3, 3]);
    for (const s of edits) line(c, [[x(s), TOP], [x(s), TOP + height]]);
    c.setLineDash([]);

    const name = classes ? "accuracy" : "loss";
    const points = tests.filter((test) => test[name] !== null);
    if (points.length) {
      // Accuracies near 1 are told apart on an axis that ends where the lowest of the later ones is.
      const later = points.slice(Math.floor(points.length / 4)).map((test) => test[name]);
      const lowest = classes ? Math.max(0, Math.min(...later) - 0.02) : 0;
      const highest = classes ? 1 : Math.max(...later) * 1.1;
      const right = (v) => TOP + height * (1 - (Math.max(v, lowest) - lowest) / (highest - lowest || 1));
      c.strokeStyle = colour("accent");
      c.lineWidth = 2;
      line(c, points.map((test) => [x(test.step), right(test[name])]));
      c.fillStyle = colour("accent");
      if (points.length < 60) for (const test of points) c.fillRect(x(test.step) - 2, right(test[name]) - 2, 4, 4);
      c.restore();
      c.textAlign = "left";
      c.fillStyle = colour("accent");
      for (const v of [lowest, (lowest + highest) / 2, highest]) {
        c.fillText(classes ? `${(100 * v).toFixed(1)} %` : label(v), LEFT + width + 5, right(v) + 4);
      }
      c.textAlign = "right";
      c.fillText(classes ? "test accuracy" : "test loss", LEFT + width + RIGHT - 4, 11);
    } else c.restore();

    if (drag) {
      c.fillStyle = colour("quiet");
      c.globalAlpha = 0.2;
      c.fillRect(Math.min(drag, pointer), TOP, Math.abs(pointer - drag), height);
      c.globalAlpha = 1;
    } else if (pointer !== null && pointer > LEFT && pointer < LEFT + width) {
      const s = from + ((pointer - LEFT) / width) * (to - from);
      let i = step.findIndex((v) => v > s);
      i = (i < 0 ? step.length : i) - 1;
      c.strokeStyle = colour("quiet");
      line(c, [[pointer, TOP], [pointer, TOP + height]]);
      if (i >= 0) {
        const test = points.filter((one) => one.step <= s).at(-1);
        const tested = test ? `, test ${classes ? `${(100 * test.accuracy).toFixed(2)} %` : label(test.loss)}` : "";
        const loss = `${label(mean[i])} (${label(low[i])} to ${label(high[i])})`;
        const text = `step ${step[i].toLocaleString("en")}: loss ${loss}${tested}`;
        c.fillStyle = colour("panel");
        const wide = c.measureText(text).width + 12;
        const left = Math.min(pointer + 8, canvas.clientWidth - wide - 4);
        c.fillRect(left, TOP, wide, 20);
        c.fillStyle = colour("ink");
        c.textAlign = "left";
        c.fillText(text, left + 6, TOP + 14);
      }
    }
  }

  const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
  canvas.addEventListener("pointermove", (event) => { pointer = at(event); draw(); });
  canvas.addEventListener("pointerleave", () => { pointer = drag = null; draw(); });
  canvas.addEventListener("pointerdown",
    (event) => { drag = pointer = at(event); canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => {
    if (shown && drag !== null && Math.abs(pointer - drag) > 8) {
      const { width } = plot();
      const back = (px) => Math.round(shown.from + ((Math.min(Math.max(px, LEFT),
        LEFT + width) - LEFT) / width) * (shown.to - shown.from));
      range = [back(Math.min(drag, pointer)), Math.max(back(Math.max(drag, pointer)),
        back(Math.min(drag, pointer)) + 2)];
    }
    drag = null;
    draw();
  });
  canvas.addEventListener("dblclick", () => { range = null; });
  canvas.addEventListener("keydown", (event) => { if (event.key === "Escape" || event.key === "0") range = null; });
  on("state", refresh);
  on("version", () => { if (range && shown && shown.steps < range[0]) range = null; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => draw()).observe(root);
}

function line(c, points) {
  c.beginPath();
  for (const [x, y] of points) c.lineTo(x, y);
  c.stroke();
}

function ticks(least, most, logarithmic) {
  if (!logarithmic) return [0, 0.25, 0.5, 0.75, 1].map((share) => share * most);
  const found = [];
  for (let e = Math.ceil(Math.log10(least)); e <= Math.log10(most); e++) found.push(10 ** e);
  return found;
}

const label = (v) => (v === null || v === undefined ? "–" : Number(v.toPrecision(3)).toString());
