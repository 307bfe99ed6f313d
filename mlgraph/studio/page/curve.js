// The losses of all steps: a band from the lowest to the highest of each pixel column, their mean, and the tests.

import { complain, get, h, on, passes } from "./api.js";
import { percent, short, whole } from "./numbers.js";

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
    } catch (error) {
      asked = "";
      if (!passes(error)) complain(error);
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
    const name = classes ? "accuracy" : "loss";
    const points = tests.filter((test) => test[name] !== null);
    const results = points.map((test) => test[name]);
    const losses = axis([...low, ...high, ...(classes ? [] : results)]); // training and test losses compare
    const accuracies = classes ? axis(results, 1) : losses;
    const y = (v) => TOP + height * (1 - losses.at(v)), right = (v) => TOP + height * (1 - accuracies.at(v));

    c.strokeStyle = colour("line");
    c.lineWidth = 1;
    c.textAlign = "right";
    for (const v of losses.ticks) {
      line(c, [[LEFT, y(v)], [LEFT + width, y(v)]]);
      c.fillText(Math.abs(v) < 1e6 ? short(v) : v.toExponential(), LEFT - 6, y(v) + 4);
    }
    c.textAlign = "left";
    c.fillText("training loss", 6, 11);
    c.textAlign = "center";
    for (const s of steps(from, to, Math.max(1, Math.min(8, width / 90))).filter(Number.isInteger)) {
      c.fillText(`${s === 0 ? "step " : ""}${whole(s)}`, Math.max(30, x(s)), TOP + height + 17);
    }

    c.save();
    c.beginPath();
    c.rect(LEFT - 2, TOP - 2, width + 4, height + 4);
    c.clip();
    c.globalAlpha = 0.3;
    c.fillStyle = colour("positive");
    const finite = runs(step.map((_, i) => low[i] !== null && mean[i] !== null && high[i] !== null));
    for (const run of finite) {
      c.beginPath();
      for (const i of run) c.lineTo(x(step[i]), y(high[i]));
      for (const i of run.reverse()) c.lineTo(x(step[i]), y(low[i]));
      c.fill();
    }
    c.globalAlpha = 1;
    c.strokeStyle = c.fillStyle = colour("positive");
    for (const run of finite) {
      line(c, run.map((i) => [x(step[i]), y(mean[i])]));
      if (run.length < 3) for (const i of run) c.fillRect(x(step[i]) - 2, y(mean[i]) - 2, 4, 4); // too few for a line
    }
    c.strokeStyle = colour("quiet");
    c.setLineDash([3, 3]);
    for (const s of edits) line(c, [[x(s), TOP], [x(s), TOP + height]]);
    c.setLineDash([]);

    if (points.length) {
      c.strokeStyle = colour("accent");
      c.lineWidth = 2;
      line(c, points.map((test) => [x(test.step), right(test[name])]));
      c.fillStyle = colour("accent");
      if (points.length < 60) for (const test of points) c.fillRect(x(test.step) - 2, right(test[name]) - 2, 4, 4);
      c.restore();
      c.textAlign = "left";
      c.fillStyle = colour("accent");
      if (classes) {
        for (const v of accuracies.ticks) c.fillText(`${short(100 * v)} %`, LEFT + width + 5, right(v) + 4);
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
        const tested = test ? `, test ${classes ? percent(test.accuracy) : short(test.loss)}` : "";
        const band = low[i] === high[i] ? "" : ` (${short(low[i])} to ${short(high[i])})`;
        const loss = mean[i] === null ? "not finite" : `${short(mean[i])}${band}`;
        const text = `step ${whole(step[i])}: loss ${loss}${tested}`;
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

// The indices of `true`, in runs of neighbours.
function runs(flags) {
  const found = [];
  flags.forEach((flag, i) => {
    if (flag && flags[i - 1]) found.at(-1).push(i);
    else if (flag) found.push([i]);
  });
  return found;
}

const BREAK = 0.08; // share of a logarithmic axis between 0 and the lowest positive value

// An axis that holds all values, from its `least` up to `top`, if given: `at` is the height of a value from 0 to 1.
// It is logarithmic if positive values differ by a factor of 30; zeros are then below a break.
export function axis(values, top) {
  const known = values.filter((v) => v !== null);
  const least = known.reduce((a, b) => Math.min(a, b), top ?? Infinity);
  const most = top ?? known.reduce((a, b) => Math.max(a, b), -Infinity);
  if (least > most) return { at: () => 0, ticks: [] };
  const small = known.reduce((a, b) => (b > 0 ? Math.min(a, b) : a), Infinity);
  if (top === undefined && least >= 0 && most / small > 30) {
    const [low, high] = [Math.log10(small), Math.log10(most)];
    const bottom = least === 0 ? BREAK : 0;
    const at = (v) => (v > 0 ? bottom + ((1 - bottom) * (Math.log10(v) - low)) / (high - low) : 0);
    return { at, ticks: [...(bottom ? [0] : []), ...powers(low, high)] };
  }
  const room = top === undefined ? 0 : Math.max(0.02, (most - least) * 0.1);
  const low = top === undefined ? Math.min(0, least) : Math.max(0, least - room), high = Math.max(most, low + 1e-9);
  return { at: (v) => (v - low) / (high - low), ticks: steps(low, high, 5) };
}

// Powers of ten from 10 ** low to 10 ** high: not too many, and with 3, 30, ... between them if they are few.
function powers(low, high) {
  const every = Math.ceil((high - low) / 6);
  const found = [];
  for (let e = Math.floor(low / every) * every; e <= high; e += every) {
    found.push(10 ** e, ...(high - low < 3 ? [3 * 10 ** e] : []));
  }
  return found.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
}

// Round numbers from one to another, about so many apart.
function steps(low, high, n) {
  const rough = (high - low) / n, ten = 10 ** Math.floor(Math.log10(rough));
  const by = [1, 2, 5, 10].map((k) => k * ten).find((size) => size >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / by - 1e-9); i * by <= high * (1 + 1e-9); i++) found.push(i * by + 0);
  return found;
}
