// The bar above: the run, its options, its figures, the last edit, and what went wrong.

import { act, edit, h, on, select, store } from "./api.js";
import { percent, short, whole } from "./numbers.js";

const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1];
const BATCHES = [1, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
const DROPOUTS = [0, 0.1, 0.2, 0.3, 0.5, 0.7];
const PACES = [[null, "full speed"], [1000, "1,000 steps a second"], [100, "100 steps a second"],
  [10, "10 steps a second"],
  [1, "1 step a second"]];

const KEYS = [
  [" ", "Space", "play or pause", () => toggle()],
  ["s", "S", "one step", () => act("run", { do: "step" })],
  ["e", "E", "one epoch, or as many as stand beside it", () => learn()],
  ["z", "Z", "undo the last edit", () => edit("undo")],
  ["Z", "Shift + Z", "redo it", () => edit("redo")],
];

const epochs = h("input", { type: "number", min: "1", max: "10000", value: "1", "data-testid": "epochs",
  "aria-label": "number of epochs", style: "width: 4em" });
const learn = () => act("run", { do: "epoch", epochs: Number(epochs.value) });
const toggle = () => act("run", { do: store.state?.status === "running" ? "pause" : "play" });

function button(name, text, title, action, kind = "") {
  return h("button", { type: "button", "data-testid": name, class: kind, title, onclick: action }, text);
}

// A select whose value follows the state; `values` are [value, text].
function choice(label, name, values, change) {
  const options = values.map(([value, text]) => h("option", { value: String(value) }, text));
  const field = h("select", { "data-testid": name, onchange: (event) => change(event.target.value) }, ...options);
  const set = (value) => {
    if (document.activeElement === field) return;
    const text = String(value);
    if (![...field.options].some((option) => option.value === text)) {
      const after = [...field.options].find((option) => Number(option.value) > Number(value)) ?? null;
      field.insertBefore(h("option", { value: text }, short(value)), after);
    }
    field.value = text;
  };
  return [h("label", { class: "field" }, h("span", {}, label), field), set];
}

function figure(label, name, kind = "") {
  const value = h("dd", name ? { "data-testid": name } : {}, "–");
  return [h("div", { class: kind }, h("dt", {}, label), value), (text) => (value.textContent = text)];
}

export function begin(root) {
  const play = button("play", "▶ Train", "Train (space)", () => act("run", { do: "play" }), "primary");
  const pause = button("pause", "❚❚ Pause", "Pause (space)", () => act("run", { do: "pause" }), "primary");
  const step = button("step", "Step", "Take one step: learn from one batch (S)", () => act("run", { do: "step" }));
  const epoch = button("epoch", "Epoch", "", () => learn());
  const back = button("back", "Back", "", () => act("run", { do: "back" }));
  const reset = button("reset", "Start over", "The weights as they were at the beginning; the data stay",
    () => act("run", { do: "reset" }));
  const undo = button("undo", "Undo", "Undo the last edit (Z)", () => edit("undo"));
  const redo = button("redo", "Redo", "Redo (Shift + Z)", () => edit("redo"));
  const help = h("dialog", {},
    h("h2", {}, "Keys"),
    ...KEYS.map(([, key, what]) => h("p", {}, h("kbd", {}, key), ` ${what}`)),
    h("h2", {}, "In the network"),
    h("p", {}, h("kbd", {}, "Tab"), " reaches it, ", h("kbd", {}, "arrows"), " move between neurons, ",
      h("kbd", {}, "Enter"), " opens one"),
    h("p", {}, h("kbd", {}, "A"), " adds an edge from the open neuron to the one you have moved to"),
    h("p", {}, h("kbd", {}, "+"), " ", h("kbd", {}, "–"), " ", h("kbd", {}, "0"), " zoom"),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
  const keys = button("keys", "Keys", "Keyboard shortcuts", () => help.showModal());

  const option = (name) => (value) => act("options", { [name]: name === "optimizer" ? value : Number(value) });
  const [rate, setRate] = choice("learning rate", "learning-rate", RATES.map((v) => [v, v]), option("learning_rate"));
  const [batch, setBatch] = choice("batch", "batch-size", BATCHES.map((v) => [v, v]), option("batch_size"));
  const [optimizer, setOptimizer] = choice("optimizer", "optimizer", [["adam", "Adam"], ["sgd", "SGD"]],
    option("optimizer"));
  const [momentum, setMomentum] = choice("momentum", "momentum", [0, 0.5, 0.9, 0.99].map((v) => [v, v]),
    option("momentum"));
  const [dropout, setDropout] = choice("dropout", "dropout", DROPOUTS.map((v) => [v, `${100 * v} %`]),
    async (value) => {
    const shown = store.state;
    for (let layer = 0; layer < shown.layers.length - 1; layer++) {
      if (!(await edit("set-dropout", { layer, value: Number(value) }, shown))) return;
    }
  });
  const [pace, setPace] = choice("pace", "pace", PACES.map(([v, text]) => [v, text]),
    (value) => act("run", { do: "pace", steps_per_second: value === "null" ? null : Number(value) }));

  const [testBox, setTest] = figure("test accuracy", "test-accuracy", "main");
  const [testLossBox, setTestLoss] = figure("test loss", "test-loss");
  const [lossBox, setLoss] = figure("training loss", "loss");
  const [accuracyBox, setAccuracy] = figure("training accuracy", "accuracy");
  const [stepBox, setStep] = figure("step", "step-number");
  const [epochBox, setEpoch] = figure("epoch", "epoch-number");
  const [edgesBox, setEdges] = figure("edges", "n-edges");
  const [speedBox, setSpeed] = figure("examples a second", "speed");
  const [timeBox, setTime] = figure("ms an epoch", "epoch-time");
  const edited = h("div", { class: "told", role: "status", "data-testid": "last-edit" });
  const trouble = h("div", { class: "trouble", role: "alert", "data-testid": "trouble", hidden: true });

  const handled = h("div", { class: "told", role: "status", "data-testid": "handled", hidden: true });

  root.append(
    h("div", { class: "bar" }, play, pause, pace, step, epoch, epochs, reset, back, rate, batch, optimizer, momentum,
      dropout, undo, redo, keys),
    h("dl", { class: "figures" }, testBox, testLossBox, accuracyBox, lossBox, stepBox, epochBox, edgesBox, speedBox,
      timeBox),
    edited, handled, trouble, help);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey
      || event.target.closest("input, select, textarea, dialog")) return;
    const key = KEYS.find(([name]) => name === event.key);
    // Space presses a button that has the focus, but on a neuron, which Enter opens, it trains.
    if (!key || event.defaultPrevented || (event.key === " "
      && event.target.closest("button:not(#network button)"))) return;
    event.preventDefault();
    key[3]();
  });

  let shownFailure = null;
  on("state", (state) => {
    const running = state.status === "running";
    play.hidden = running;
    pause.hidden = !running;
    step.disabled = epoch.disabled = running;
    step.title = running ? "Pause first, to take one step" : "Take one step: learn from one batch (S)";
    epoch.title = running ? "Pause first, to learn by epochs"
      : "Learn from all training examples so many times (E); an epoch that has begun is finished first";
    back.hidden = state.previous === null;
    back.title = `The network before this one, as it was: ${state.previous}`;
    setRate(state.options.learning_rate);
    setBatch(state.options.batch_size);
    setOptimizer(state.options.optimizer);
    setMomentum(state.options.momentum);
    const hidden = state.layers.slice(0, -1);
    dropout.hidden = hidden.length === 0;
    setDropout(hidden[0]?.dropout ?? 0);
    setPace(state.pace);
    const classes = state.data.classes !== null;
    testBox.hidden = accuracyBox.hidden = !classes;
    testLossBox.className = classes ? "" : "main";
    setTest(percent(state.test_accuracy));
    setTestLoss(short(state.test_loss));
    setLoss(short(state.loss));
    setAccuracy(percent(state.accuracy));
    setStep(whole(state.step));
    setEpoch(whole(state.epoch));
    setEdges(String(state.n_edges));
    setSpeed(running ? whole(state.examples_per_second) : "–");
    setTime(state.epoch_seconds === null ? "–" : short(1000 * state.epoch_seconds));
    undo.disabled = state.undo === null;
    undo.title = state.undo === null ? "There is no edit to undo" : `Undo: ${plain(state.undo)} (Z)`;
    redo.disabled = state.redo === null;
    redo.title = state.redo === null ? "There is nothing to redo" : `Redo: ${plain(state.redo)} (Shift + Z)`;
    showEdit(edited, state);
    const told = [state.disconnected.length ? `disconnected: ${plain(state.disconnected.join(", "))}` : "",
      state.skipped ? `${whole(state.skipped)} examples left out` : ""].filter(Boolean).join("; ");
    handled.hidden = !told;
    handled.textContent = `Where numbers overflowed: ${told}`;
    const failure = JSON.stringify(state.failure);
    if (failure !== shownFailure) showFailure(trouble, state.failure);
    shownFailure = failure;
  });
}

// "cut <layer 0 neuron 7>" without the brackets of a repr.
const plain = (text) => text.replace(/[<>]/g, "");

function showEdit(root, { last_edit: last, data }) {
  if (last === null) {
    root.replaceChildren(h("span", { class: "note" }, "Last edit: none"));
    return;
  }
  const name = data.classes ? "accuracy" : "loss";
  const text = data.classes ? percent : short;
  const { before, after } = last;
  const worse = data.classes ? after[name] < before[name] : after[name] > before[name];
  const change = after[name] === before[name] ? "" : worse ? "worse" : "better";
  root.replaceChildren(
    h("span", { class: "note" }, "Last edit:"), h("span", {}, plain(last.what)),
    h("span", {}, `test ${name} ${text(before[name])} → `, h("b", { class: change }, text(after[name]))),
    h("span", { class: "note" },
      `${whole(before.n_edges)} → ${whole(after.n_edges)} edges`));
}

function showFailure(root, failure) {
  root.hidden = failure === null;
  if (failure === null) return;
  if (failure.node < 0 && !failure.sweep) {
    root.replaceChildren(h("p", {}, h("strong", {}, "Training stopped. "), failure.text));
    return;
  }
  const rows = [h("p", {}, h("strong", {}, "Training stopped: a number became too large for the computer. "),
    "The weights are as they were before this step."),
      h("details", {}, h("summary", {}, "Where and how"), failure.text)];
  const offer = (name, text, what, how) => h("button",
    { type: "button", "data-testid": name, title: what, onclick: how }, text);
  rows.push(h("div", { class: "offers" },
    failure.node >= 0 ?
      offer("show-neuron", "Show the neuron", "Opens the neuron or operation where it began.",
        () => select({ node: failure.node })) : null,
    offer("disconnect", "Disconnect it", "Goes on, and cuts each neuron that overflows out of the network.",
      () => act("run", { do: "play", on_nonfinite: "disconnect" })),
    offer("skip", "Skip such examples", "Goes on, and leaves out each example that makes a number overflow.",
      () => act("run", { do: "play", on_nonfinite: "skip" })),
    offer("half-rate", "Start over at half the rate", "Begins again with the first weights, at half the learning rate.",
      restartAtHalf)));
  root.replaceChildren(...rows);
}

// The weights before the failure are often huge already: half the rate alone would fail again.
async function restartAtHalf() {
  const rate = store.state.options.learning_rate / 2;
  if (await act("options", { learning_rate: rate }) && await act("run", { do: "reset" })) act("run", { do: "play" });
}
