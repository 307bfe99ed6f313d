"""One network, its data and its run: what all windows of a studio share."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mlgraph.graph.views import Edge, Neuron, Node
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.studio.data import Data
from mlgraph.studio.run import OPTIONS, Run

SAMPLE = 2000
"""Number of test examples that pictures of neurons look at."""

SECONDS_BETWEEN_TESTS = 0.3
"""While a run goes on and its epochs are long, the network is tested at most this often."""

MOST_UNDO = 1000


class Session:
    """See the module. All methods may be called from any thread.

    Attributes
    ----------
    model : Model
    data : Data
    run : Run
    version : int
        It rises with each change of the network by an edit, of the data or of the network as a whole.
    """

    def __init__(self, model: Model, data: Data, options: dict[str, Any] | None = None) -> None:
        self.lock = threading.RLock()
        self.version = 0
        self._options = {**OPTIONS, **(options or {})}
        self._speed_of_epoch: deque[float] = deque(maxlen=8)
        self.replace(model, data)

    def replace(self, model: Model, data: Data) -> None:
        """Begin with another network and other data."""
        with self.lock:
            old = getattr(self, "run", None)
            if old is not None:
                old.end()
                self._options = old.options
            self.model, self.data = model, data
            self._initial = copy.deepcopy(model)
            self._begin()

    def reset(self) -> None:
        """Back to the start: the network as it was when the session began, or before the first step."""
        with self.lock:
            self.run.end()
            self._options = self.run.options
            model = copy.deepcopy(self._initial)
            if type(model) is type(self.model) and len(model.layers) == len(self.model.layers):
                self.model.become(model)  # the caller's model stays the one that the page shows
            else:
                self.model = model
            self._begin()

    def _begin(self) -> None:
        self.run = Run(self.model, self.data, self._options, self._tested_by_fit)
        self.version += 1
        self._undo: list[tuple[str, Callable[[], None], Callable[[], None]]] = []
        self._redo: list[tuple[str, Callable[[], None], Callable[[], None]]] = []
        self._test: dict[str, float] = {}
        self._test_at: tuple[Any, ...] = ()
        self._test_time = 0.0
        self.last_edit: dict[str, Any] | None = None

    def close(self) -> None:
        """End the run."""
        self.run.end()

    # --- tests ------------------------------------------------------------------------------------

    def _tested_by_fit(self, scores: dict[str, float]) -> None:
        self._test, self._test_at, self._test_time = dict(scores), self._now, time.monotonic()

    @property
    def _now(self) -> tuple[Any, ...]:
        """Changes whenever the parameters do."""
        graph = self.model.graph
        return graph.edits, graph._n_changes, self.run.steps, self.version

    def test(self, *, fresh: bool = False) -> dict[str, float]:
        """Loss and accuracy on the test examples, not older than a fraction of a second unless epochs tell."""
        now = time.monotonic()
        if not fresh:
            if self._test_at == self._now:
                return self._test
            running = self.run.status == "running"
            if running and self._test and (self.run.pace is None or now - self._test_time < SECONDS_BETWEEN_TESTS):
                return self._test  # the next epoch tests it
        at = self._now
        scores = self.model.evaluate(self.data.test_x, self.data.test_y)
        self._test, self._test_at, self._test_time = dict(scores), at, time.monotonic()
        return self._test

    # --- edits ------------------------------------------------------------------------------------

    @contextmanager
    def editing(self, what: str) -> Iterator[list[Any]]:
        """An edit of the network: tests before and after it, and remembers how to take it back.

        The block may append two functions, for undo and redo; by default they are those of the graph.
        """
        graph = self.model.graph
        with graph.lock, self.lock:
            before = self.test(fresh=True)
            edges, steps = self.model.n_edges, self.run.steps
            how: list[Any] = []
            yield how
            undo, redo = how or (self.model.undo, self.model.redo)
            self._undo = [*self._undo[-MOST_UNDO:], (what, undo, redo)]
            self._redo = []
            self._edited(what, before, edges, steps)

    def _edited(self, what: str, before: dict[str, float], edges: int, steps: int) -> None:
        self.version += 1
        after = self.test(fresh=True)
        self.last_edit = {
            "what": what,
            "step": steps,
            "before": {**before, "n_edges": edges},
            "after": {**after, "n_edges": self.model.n_edges},
        }

    def undo(self) -> None:
        """Take back the last edit."""
        self._step_back(self._undo, self._redo, "undo", 1)

    def redo(self) -> None:
        """Make the last undone edit again."""
        self._step_back(self._redo, self._undo, "redo", 2)

    def _step_back(self, taken: list[Any], given: list[Any], who: str, at: int) -> None:
        with self.model.graph.lock, self.lock:
            if not taken:
                raise ValueError(f"{who}: there is nothing to {who}")
            before, edges = self.test(fresh=True), self.model.n_edges
            taken[-1][at]()
            entry = taken.pop()
            given.append(entry)
            self._edited(f"{who}: {entry[0]}", before, edges, self.run.steps)

    @property
    def can_undo(self) -> str | None:
        """What `undo` would take back."""
        return self._undo[-1][0] if self._undo else None

    @property
    def can_redo(self) -> str | None:
        """What `redo` would make again."""
        return self._redo[-1][0] if self._redo else None

    # --- nodes ------------------------------------------------------------------------------------

    def node(self, given: Any, what: str = "node") -> Node:
        """The node of a reference: an id, {"layer": 0, "neuron": 7} or {"input": 3}."""
        graph = self.model.graph
        if isinstance(given, int) and not isinstance(given, bool):
            if not 0 <= given < len(graph):
                raise ValueError(f"{what}: there is no node {given}")
            return graph[given]
        if isinstance(given, dict) and set(given) == {"layer", "neuron"}:
            layer = self.layer(given["layer"])
            neuron = given["neuron"]
            if not isinstance(neuron, int) or isinstance(neuron, bool) or not 0 <= neuron < layer.size:
                raise ValueError(f"{what}: layer {given['layer']} has neurons 0 to {layer.size - 1}, got {neuron!r}")
            found: Neuron = layer[neuron]
            return found
        if isinstance(given, dict) and set(given) == {"input"}:
            inputs = graph.inputs
            if not isinstance(given["input"], int) or not 0 <= given["input"] < len(inputs):
                raise ValueError(f"{what}: the network has inputs 0 to {len(inputs) - 1}, got {given['input']!r}")
            return inputs[given["input"]]
        raise ValueError(f'{what}: expected an id, {{"layer": ..., "neuron": ...}} or {{"input": ...}}, got {given!r}')

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
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(layers):
            expected = f"0 to {len(layers) - 1}" if layers else "none: the network has no layers"
            raise ValueError(f"layer: expected {expected}, got {number!r}")
        return layers[number]

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What every window shows."""
        run, model, data = self.run, self.model, self.data
        with self.lock:
            graph = model.graph
            test = self.test()
            steps_per_second, examples_per_second = run.speed
            with graph.lock:
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
                n_edges = model.n_edges
                sparsity = model.sparsity
            return {
                "version": self.version,
                "edits": graph.edits,
                "status": run.status,
                "step": run.steps,
                "epoch": run.epochs,
                "examples": run.examples,
                "loss": finite(run.loss),
                "accuracy": finite(run.accuracy),
                "test_loss": finite(test.get("loss")),
                "test_accuracy": finite(test.get("accuracy")),
                "n_edges": n_edges,
                "n_parameters": model.n_parameters,
                "sparsity": sparsity,
                "layers": layers,
                "steps_per_second": steps_per_second,
                "examples_per_second": examples_per_second,
                "epoch_seconds": finite(model.history.epoch_seconds[-1]) if len(model.history.epoch_seconds) else None,
                "options": run.options,
                "pace": run.pace,
                "undo": self.can_undo,
                "redo": self.can_redo,
                "last_edit": None if self.last_edit is None else json_ready(self.last_edit),
                "failure": run.failure,
                "data": {
                    "name": data.name,
                    "n_train": len(data.x),
                    "n_test": len(data.test_x),
                    "columns": data.columns if len(data.columns) <= 64 else None,
                    "classes": data.classes,
                    "image": data.image,
                    "plane": data.is_plane,
                },
                "is_network": isinstance(model, Network),
            }


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
