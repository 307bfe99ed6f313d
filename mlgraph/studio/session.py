"""One network, its data and its run: what all windows of a studio share.

Locks are acquired in this order: that of the session, that of the graph, then one of the run or of its
curve, never two of these. The training thread never acquires that of the session, so a thread that holds it
may wait until training ends. A thread that holds the lock of the graph must not.

To replace the network, a thread holds the session's lock and those of both graphs, the old one's first. So
whoever holds the session's lock, or that of the present graph (`looking`), keeps the network in place.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mlgraph._support.checks import shown, whole
from mlgraph.graph.views import Edge, Neuron, Node
from mlgraph.models.classes import Classes, n_classes_of
from mlgraph.models.model import Model
from mlgraph.models.model_file import size_of
from mlgraph.models.network import Network
from mlgraph.studio.data import Data
from mlgraph.studio.run import OPTIONS, Run

SAMPLE = 2000
"""Number of test examples that pictures of neurons look at."""

SECONDS_BETWEEN_TESTS = 0.3
"""While a run goes on and its epochs are long, the network is tested at most this often."""

MOST_UNDO = 1000

BY_OTHERS = "edits by the run or from Python"


class Stale(ValueError):
    """A command about nodes of a network that is no longer there."""


class Entry(NamedTuple):
    """An edit that can be taken back; n is the number of edits of the graph in it, `step` when it was made."""

    what: str
    undo: Callable[[], None]
    redo: Callable[[], None]
    n: int = 0
    step: int = 0


class Kept(NamedTuple):
    """A network that another has replaced; `model` is its content, `owner` the object that the page showed."""

    owner: Model
    model: Model
    initial: Model
    data: Data
    run: Run


class Session:
    """See the module. All methods may be called from any thread.

    Attributes
    ----------
    model : Model
    initial : Model
        To which `reset` returns.
    data : Data
    run : Run
    version : int
        It rises with each change of the network by an edit, of the data or of the network as a whole.
    numbering : int
        It rises whenever the id of a node may come to mean another node: when another network comes, or
        when nodes that were added are taken back.
    """

    def __init__(self, model: Model, data: Data, options: dict[str, Any] | None = None) -> None:
        self.lock = threading.RLock()
        self.version = self.numbering = 0
        self.is_closed = False
        self._options = {**OPTIONS, **(options or {})}
        before = model.classes
        self.model: Model = model
        self._given, self._classes = model, before
        self._kept: Kept | None = None
        if model.classes is not None:
            data = _as_numbered_by(data, [str(name) for name in model.classes])
            model.classes = None  # while the studio is open, labels are numbers; it has the names
        else:
            self._classes = _classes_of(data)
        try:
            self.replace(model, data)
        except BaseException:
            model.classes = before
            raise

    def replace(self, model: Model, data: Data, initial: Model | None = None) -> None:
        """Begin with another network and other data; `reset` returns to `initial`, by default a copy of it."""
        # Before anything changes, an error if they do not fit each other.
        data, models = data.in_order(model.columns), (model,) if initial is None else (model, initial)
        for one in models:
            one.evaluate(data.test_x[:SAMPLE], data.test_y[:SAMPLE])
        for one in models:
            if data.named and one.columns is None:  # as the first `fit` on a frame
                one.columns = data.columns
        initial = copy.deepcopy(model) if initial is None else initial
        with self.lock:
            self.require_open()
            old: Run | None = getattr(self, "run", None)
            if old is not None:
                old.end()
                self._options = old.options
                self._keep(self.model)
            with self.model.graph.lock, model.graph.lock:
                self.model, self.data, self.initial = model, data, initial
                self._begin()

    def reset(self) -> None:
        """Back to the start: the network as it was when the session began, or before the first step."""
        with self.lock:
            self.require_open()
            self.run.end()
            self._options = self.run.options
            self._keep(copy.deepcopy(self.model))
            model = copy.deepcopy(self.initial)
            with self.model.graph.lock, model.graph.lock:
                self._become(model)
                self._begin()

    def back(self) -> None:
        """The network before the last `replace` or `reset` again, with its data and its curve."""
        with self.lock:
            self.require_open()
            kept = self._kept
            if kept is None:
                raise ValueError("back: there is no network before this one")
            self.run.end()
            same = kept.owner is self.model
            self._keep(copy.deepcopy(self.model) if same else self.model)
            with self.model.graph.lock, kept.model.graph.lock:
                if same:
                    self._become(kept.model)
                else:
                    self.model = kept.model
                self.initial, self.data, self._options = kept.initial, kept.data, kept.run.options
                self._begin()
            self.run.go_on_from(kept.run.curve, kept.run.epoch_curve, kept.run.epochs, kept.run.examples)

    def _keep(self, model: Model) -> None:
        """Keep the present network, whose content is or will be that of `model`, for `back`."""
        self._kept = Kept(self.model, model, self.initial, self.data, self.run)

    def _become(self, model: Model) -> None:
        """The page's model gets the content of another; the caller's model stays the one that the page shows.

        The caller holds the locks of both graphs.
        """
        if type(model) is not type(self.model) or len(model.layers) != len(self.model.layers):
            self.model = model
            return
        self.model.become(model)
        for mine, theirs in zip(self.model.layers, model.layers, strict=True):
            mine.dropout, mine.weight_dropout = theirs.dropout, theirs.weight_dropout
        self.model.history = model.history

    def _begin(self) -> None:
        before: Run | None = getattr(self, "run", None)
        self.run = Run(self.model, self.data, self._options, self._tested_by_fit)
        if before is not None:
            self.run.set_pace(before.pace)
        self.version += 1
        self.numbering += 1
        self._size = len(self.model.graph)
        self._undo: list[Entry] = []
        self._redo: list[Entry] = []
        self._known = self.model.graph.last_edit
        self._shape: tuple[tuple[int, int], dict[str, Any]] | None = None
        self._file: tuple[tuple[int, int], int, int] | None = None
        self._tested: tuple[dict[str, float], tuple[Any, ...], float] = {}, (), 0.0
        self.last_edit: dict[str, Any] | None = None
        self._scheduled: dict[str, Any] | None = None  # the last edit while a schedule makes it

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Hold the lock of the graph; nobody replaces the network, the data or the run during the block.

        The block must not acquire the lock of the session.
        """
        while True:
            model = self.model
            with model.graph.lock:
                if model is self.model:  # else another came while this thread waited
                    yield
                    return

    def schedule(self, what: str | None, epochs: int = 0) -> None:
        """From now on, what the run edits is one edit of this name; None: no longer."""
        with self.lock:
            self.notice()
            self._scheduled = None
            if what is not None:
                before = {**self.test(fresh=True), "n_edges": self.model.n_edges}
                run = {"until": self.run.epochs + epochs, "of": epochs}
                self._scheduled = {"what": what, "step": self.run.steps, "before": before, "after": before, "run": run}
                self.last_edit = self._scheduled

    def require_numbering(self, given: Any) -> None:
        """Stale if ids that a page has learnt under this `numbering` may mean other nodes by now."""
        if whole("numbering", given, 0) != self.numbering:
            raise Stale("the network was replaced, or new nodes were taken back, since this was shown: look again")

    def require_open(self) -> None:
        """RuntimeError if the studio has been closed: nothing may begin to train any more."""
        if self.is_closed:
            raise RuntimeError("the studio was closed")

    def close(self) -> None:
        """End the run; none begins after it."""
        with self.lock:
            self.is_closed = True
            self.run.end()
            model = self._given
            if self._classes is not None and n_classes_of(model.loss, len(model.outputs)) == len(self._classes):
                model.classes = self._classes

    @property
    def classes(self) -> Classes | None:
        """What `Model.classes` of the present network is outside of the studio."""
        return self._classes if self.model is self._given else _classes_of(self.data)

    # --- tests ------------------------------------------------------------------------------------

    def _tested_by_fit(self, scores: dict[str, float]) -> None:
        # An edit may have come since, so these may not be the results of the present network.
        self._tested = dict(scores), (), time.monotonic()

    @property
    def _now(self) -> tuple[Any, ...]:
        """Changes whenever the parameters do."""
        graph = self.model.graph
        return graph.edits, graph._n_changes, self.run.steps, self.version

    def test(self, *, fresh: bool = False) -> dict[str, float]:
        """Loss and accuracy on the test examples, not older than a fraction of a second unless epochs tell."""
        scores, at, when = self._tested
        if not fresh:
            if at == self._now:
                return scores
            running = self.run.status == "running"
            if running and scores and (self.run.pace is None or time.monotonic() - when < SECONDS_BETWEEN_TESTS):
                return scores  # the next epoch tests it
        at = self._now
        scores = self.model.evaluate(self.data.test_x, self.data.test_y)
        self._tested = scores, at, time.monotonic()
        return scores

    # --- edits ------------------------------------------------------------------------------------

    @contextmanager
    def editing(self, what: str) -> Iterator[list[Any]]:
        """An edit of the network: tests before and after it, and remembers how to take it back.

        The block may append two functions, for undo and redo; by default they are those of the graph.
        """
        with self.lock, self.model.graph.lock:
            self.notice()
            before = self.test(fresh=True)
            edges, steps = self.model.n_edges, self.run.steps
            how: list[Any] = []
            yield how
            n = self._n_new_edits()
            if how or n:
                self._add(Entry(what, how[0], how[1], step=steps) if how else self._of_graph(what, n))
            self._edited(what, before, edges, steps)

    def _edited(self, what: str, before: dict[str, float], edges: int, steps: int) -> None:
        self._notice_edit()
        self.version += 1
        after = self.test(fresh=True)
        self.last_edit = {
            "what": what,
            "step": steps,
            "before": {**before, "n_edges": edges},
            "after": {**after, "n_edges": self.model.n_edges},
        }

    def _of_graph(self, what: str, n: int) -> Entry:
        """The entry of the graph's last n edits."""
        graph = self.model.graph
        return Entry(
            what,
            lambda: _repeat(n, graph.undo, graph.redo),
            lambda: _repeat(n, graph.redo, graph.undo),
            n,
            self.run.steps,
        )

    def _add(self, entry: Entry) -> None:
        self._undo = [*self._undo[-MOST_UNDO:], entry]
        self._redo = []

    def _n_new_edits(self) -> int:
        """Number of edits of the graph since the last known one. What the graph cannot undo any more is forgotten."""
        n, edit = 0, self.model.graph.last_edit
        while edit is not self._known and edit is not None:
            n, edit = n + 1, edit.previous
        if edit is self._known:
            return n
        # Python has undone it, or nodes were added since, or the graph has forgotten it to save memory.
        self._undo, self._redo = [], []
        before, edit = set(), self._known
        while edit is not None:
            before.add(id(edit))
            edit = edit.previous
        n, edit = 0, self.model.graph.last_edit
        while edit is not None and id(edit) not in before:
            n, edit = n + 1, edit.previous
        return n

    def notice(self) -> None:
        """Remember the edits that others made since the last one: a schedule, `on_nonfinite`, or Python.

        They come before what is undone next, as the graph itself can only undo its last edit.
        """
        n = self._n_new_edits()
        if n:
            scheduled = self._scheduled
            what, step = (BY_OTHERS, self.run.steps) if scheduled is None else (scheduled["what"], scheduled["step"])
            if self._undo and self._undo[-1].what == what:
                n += self._undo.pop().n
            self._add(self._of_graph(what, n)._replace(step=step))
        self._notice_edit()

    def _notice_edit(self) -> None:
        graph = self.model.graph
        self._known = graph.last_edit
        if len(graph) < self._size:
            self.numbering += 1
        self._size = len(graph)

    def undo(self) -> None:
        """Take back the last edit."""
        self._step_back("undo")

    def redo(self) -> None:
        """Make the last undone edit again."""
        self._step_back("redo")

    def _step_back(self, who: str) -> None:
        with self.lock, self.model.graph.lock:
            self.notice()
            taken, given = (self._undo, self._redo) if who == "undo" else (self._redo, self._undo)
            if not taken:
                raise ValueError(f"{who}: there is nothing to {who}")
            before, edges = self.test(fresh=True), self.model.n_edges
            entry = taken[-1]
            (entry.undo if who == "undo" else entry.redo)()
            given.append(taken.pop())
            since = "" if entry.step == self.run.steps else " (what was learnt since stays)"
            self._edited(f"{who}: {entry.what}{since}", before, edges, self.run.steps)

    @property
    def can_undo(self) -> str | None:
        """What `undo` would take back."""
        return self._undo[-1].what if self._undo else None

    @property
    def can_redo(self) -> str | None:
        """What `redo` would make again."""
        return self._redo[-1].what if self._redo else None

    # --- nodes ------------------------------------------------------------------------------------

    def node(self, given: Any, what: str = "node") -> Node:
        """The node of a reference: an id, {"layer": 0, "neuron": 7} or {"input": 3}."""
        graph = self.model.graph
        if isinstance(given, int):
            return graph[whole(what, given, 0, len(graph) - 1)]
        if isinstance(given, dict) and set(given) == {"layer", "neuron"}:
            layer = self.layer(given["layer"])
            found: Neuron = layer[whole(f"{what}: neuron", given["neuron"], 0, layer.size - 1)]
            return found
        if isinstance(given, dict) and set(given) == {"input"}:
            return graph.inputs[whole(f"{what}: input", given["input"], 0, graph.n_inputs - 1)]
        expected = 'an id, {"layer": ..., "neuron": ...} or {"input": ...}'
        raise ValueError(f"{what}: expected {expected}, got {shown(given)}")

    def neuron(self, given: Any, what: str = "neuron") -> Neuron:
        """The neuron of a reference."""
        node = self.node(given, what)
        if not isinstance(node, Neuron):
            raise ValueError(f"{what}: {node!r} is no neuron")
        return node

    def edge(self, source: Any, target: Any) -> Edge:
        """The edge between two references."""
        return self.model.graph.edge(self.node(source, "source"), self.neuron(target, "target"))

    def layer(self, number: Any) -> Any:
        """A layer by its number."""
        layers = self.model.layers
        if not layers:
            raise ValueError("layer: the network has no layers")
        return layers[whole("layer", number, 0, len(layers) - 1)]

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What every window shows."""
        with self.lock:
            run, model, data = self.run, self.model, self.data
            graph = model.graph
            test = self.test()
            steps_per_second, examples_per_second = run.speed
            if self._scheduled is not None:
                self._scheduled["after"] = {**test, "n_edges": model.n_edges}
                if not run.is_alive:
                    self.schedule(None)
            shape = self._shape_of(running=run.status == "running")
            return {
                "version": self.version,
                "numbering": self.numbering,
                "edits": graph.edits,
                "status": run.status,
                "step": run.steps,
                "epoch": run.epochs,
                "examples": run.examples,
                "loss": finite(run.loss),
                "accuracy": finite(run.accuracy),
                "test_loss": finite(test.get("loss")),
                "test_accuracy": finite(test.get("accuracy")),
                **shape,
                "steps_per_second": steps_per_second,
                "examples_per_second": examples_per_second,
                "epoch_seconds": finite(model.history.epoch_seconds[-1]) if len(model.history.epoch_seconds) else None,
                "options": run.options,
                "pace": run.pace,
                "undo": self.can_undo,
                "redo": self.can_redo,
                "last_edit": None if self.last_edit is None else json_ready(self.last_edit),
                "schedule": self._progress(),
                "previous": None if self._kept is None else f"{self._kept.data.name}, step {self._kept.run.steps:,}",
                "failure": run.failure,
                "skipped": run.skipped,
                "disconnected": [model.name_of(node) for node in run.disconnected[:20]],
                "data": {
                    "name": data.name,
                    "target": data.target,
                    "n_train": len(data.x),
                    "n_test": len(data.test_x),
                    "columns": data.columns if len(data.columns) <= 64 else None,
                    "classes": data.classes,
                    "image": data.image,
                    "plane": data.is_plane,
                },
                "is_network": isinstance(model, Network),
            }

    def _progress(self) -> dict[str, Any] | None:
        """The schedule that goes on, and its epoch."""
        if self._scheduled is None or not self.run.is_alive:
            return None
        until, of = self._scheduled["run"].values()
        return {"what": self._scheduled["what"], "epoch": min(of, of - (until - self.run.epochs) + 1), "of": of}

    def _shape_of(self, *, running: bool) -> dict[str, Any]:
        """What edits change; while training goes on it is kept until then, and the lock of the graph is left alone."""
        model, graph = self.model, self.model.graph
        if running and self._shape is not None and self._shape[0] == (graph.edits, self.version):
            return self._shape[1]
        with graph.lock:
            self.notice()
            alive = graph.alive()
            layers = [
                {
                    "size": layer.size,
                    "activation": layer.activation,
                    "dropout": layer.dropout,
                    "alive": int(np.count_nonzero(alive[layer.ids])),
                    "frozen": layer.frozen,
                }
                for layer in model.layers
            ]
            counts = {
                "n_edges": model.n_edges,
                "n_parameters": model.n_parameters,
                "sparsity": model.sparsity,
                "file_bytes": self._file_bytes(running=running),
            }
            self._shape = (graph.edits, self.version), {**counts, "layers": layers}
        return self._shape[1]

    def _file_bytes(self, *, running: bool) -> int:
        """Size of model.npz. While training goes on, it follows the number of parameters, at four bytes each."""
        n, now = self.model.n_parameters, (self.model.graph.edits, self.version)
        if self._file is None or (not running and self._file[0] != now):
            self._file = now, n, size_of(self.model)
        return self._file[2] + 4 * (n - self._file[1])


def _repeat(n: int, step: Callable[[], None], back: Callable[[], None]) -> None:
    """Take n steps or, if one raises an error, none."""
    for done in range(n):
        try:
            step()
        except Exception:
            for _ in range(done):
                back()
            raise


def _classes_of(data: Data) -> Classes | None:
    """The labels of the data, if they are not the numbers of the outputs."""
    names = data.classes
    if names is None or names == [str(i) for i in range(len(names))]:
        return None
    return tuple(map(int, names)) if all(name.lstrip("-").isdecimal() for name in names) else tuple(names)


def _as_numbered_by(data: Data, names: list[str]) -> Data:
    """Data whose labels are the numbers of these names; ValueError if one is not among them."""
    if data.classes is None:
        return data
    numbers = [names.index(name) if name in names else -1 for name in data.classes]
    y, test_y = np.array(numbers)[data.y], np.array(numbers)[data.test_y]
    if min(y.min(), test_y.min(initial=0)) < 0:
        raise ValueError(f"labels: expected classes of the model, {shown(names)}, got {shown(data.classes)}")
    return replace(data, y=y, test_y=test_y, classes=names)


def finite(value: Any) -> float | None:
    """A number for JSON; None if it is missing or not finite."""
    return None if value is None or not np.isfinite(value) else float(value)


def json_ready(value: Any) -> Any:
    """A structure of dicts and lists whose numbers JSON can hold."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, float | np.floating):
        return finite(value)
    if isinstance(value, np.integer):
        return int(value)
    return value
