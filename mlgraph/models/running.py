"""How a model is run: its data are checked, and given to the engine for the nodes that are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float32
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import Objective, are_none, empty_answers, read_targets, with_targets
from mlgraph.graph.graph import Graph
from mlgraph.models.part import Part


class Running(Part):
    """A part of a graph with an engine for all nodes that it has been asked for at once. A base of `Model`."""

    _loss: str

    def _begin(self, graph: Graph) -> None:
        super()._begin(graph)
        self._engines: dict[tuple[int, ...], Engine] = {}

    @property
    def loss(self) -> str:
        """Name of the loss that `fit` lowers; "node" if that is a node."""
        return self._loss

    def _engine(self, nodes: list[int] | None = None) -> Engine:
        """An engine for these nodes, by default for all that training needs; its plan is of the graph as it is now."""
        with self._require_outputs():
            # Each node once: the squared error reads the outputs alone, and predictions then have the same engine.
            key = tuple(dict.fromkeys(self._sinks) if nodes is None else nodes)
            engine = self._engines.get(key)
            if engine is None or engine.plan.is_stale(self.graph):
                loss = self._loss_nodes if set(self._loss_nodes) <= set(key) else None
                engine = self._engines[key] = Engine(self.graph, Plan(self.graph, key, self._dropout, loss=loss))
        return engine

    def _run(self, examples: Examples, nodes: list[int] | None = None, **options: Any) -> tuple[int, Float32, Float32]:
        """Run the engine for these nodes, by default for all that training needs, when no other thread does."""
        with self.graph.lock:
            engine = self._engine(nodes)
            return (engine.filled(examples).run if options.get("limit") else engine.compute)(examples, **options)

    def _examples(self, x: npt.ArrayLike, nodes: list[int], what: str = "x") -> Examples:
        """Data for these nodes. Columns past the last that they read may be missing: all, or some that operations read."""
        try:
            return Examples(x, self.graph.n_inputs, what)
        except ValueError:
            with self.graph.lock:  # another thread may add nodes
                n, width = np.shape(x)[1] if np.ndim(x) == 2 else -1, self._engine(nodes).plan.width
                # After a cut nothing may read the last columns of the data: these do not count as missing targets.
                if not width <= n < self.graph.n_inputs or (
                    n > width and not self.graph._read_by_operations()[n:].all()
                ):
                    raise
            return Examples(x, n, what)

    def _values(self, x: npt.ArrayLike, nodes: list[int], n_threads: int | None) -> Float32:
        return self._run(self._examples_to_predict(x, nodes), nodes, values=nodes, n_threads=n_threads)[1]

    def _examples_to_predict(self, x: npt.ArrayLike, nodes: list[int]) -> Examples:
        examples = self._examples(x, nodes)
        if len(examples) > 1:  # for a single one it would cost as much as the sweep
            examples.warn_of_units()
        return examples

    def _evaluate(
        self, examples: Examples, objective: Objective, n_threads: int | None, engine: Engine | None = None
    ) -> dict[str, float]:
        examples.check_any()
        losses = np.zeros(len(examples), np.float32)
        correct = empty_answers(objective, len(examples))
        run = engine.compute if engine else self._run
        run(examples, objective=objective, losses=losses, correct=correct, n_threads=n_threads)
        with np.errstate(invalid="ignore"):  # infinities of both signs
            scores = {"loss": float(losses.mean(dtype=np.float64))}
        if correct is not None:
            scores["accuracy"] = float(correct.mean())
        return scores

    def _examples_and_objective(self, x: npt.ArrayLike, y: npt.ArrayLike, what: str = "") -> tuple[Examples, Objective]:
        """Data, and the loss over them; errors name x and y with `what` before."""
        with self._require_outputs():
            if self.loss != "node":
                examples = self._examples(x, self._sinks, f"{what}x")
                label, target = read_targets(self.loss, y, len(examples), len(self._outputs), f"{what}y")
                return examples, Objective(self.loss, self._loss_nodes, label, target)
            if not are_none(y):
                examples = self._examples(with_targets(x, y, what), self._sinks, f"{what}x and y")
                examples.given = f"{what}x", np.asarray(x)
                return examples, Objective(self.loss, self._loss_nodes)
            try:
                return self._examples(x, self._sinks, f"{what}x"), Objective(self.loss, self._loss_nodes)
            except ValueError as error:
                if np.ndim(x) != 2 or np.shape(x)[1] > self.graph.n_inputs:
                    raise
                raise ValueError(f"{error}; what the loss compares with may be {what}y") from None
