"""The engine: it runs a plan over data.

It owns the working memory, describes plan, memory and parameters to the kernels, and calls the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import is_
from typing import Any, NamedTuple, TypeVar

import numpy as np

import mlgraph_ext
from mlgraph._support.array_types import Float32, Int32, Int64, UInt8
from mlgraph._support.interrupts import uninterrupted
from mlgraph._support.locks import cached_property
from mlgraph.compiler.holes import Candidate, HoleMap, candidates, pays_off, with_holes, worth_holes
from mlgraph.compiler.plan import Plan
from mlgraph.compiler.units import units_of
from mlgraph.engine.choice import FEW, Choice, choose, skips_zeros, threads_worth
from mlgraph.engine.examples import Examples
from mlgraph.engine.losses import LOSSES, Objective
from mlgraph.engine.steps import Steps
from mlgraph.graph.graph import Graph
from mlgraph.graph.storage import aligned

Nodes = Sequence[int] | Int32

Arrays = tuple[Float32, Float32 | None, Float32 | None, Float32 | None]
"""Vectors of parameters, first moments, second moments and frozen flags."""

Later = list["mlgraph_ext.Call"]
"""Calls of the kernels that are not made yet."""

Found = TypeVar("Found", tuple[int, Float32], tuple[int, Float32, Float32])

NOTHING = Objective("none", ())
"""The objective of calls that compute values only."""

OPTIMIZERS = {"accumulate": 0, "sgd": 1, "momentum": 2, "adam": 3}
"""Codes, in the kernels, of what is done with a gradient."""

STATE = {"sgd": (), "momentum": ("first",), "adam": ("first", "second")}
"""The vectors of `graph.storage.state` that each optimizer keeps."""

MAX_CACHED = 64
"""Maximum number of requested nodes whose slots are cached and, if data do not matter, the decision how to sweep."""

_NO_SLOTS = np.zeros(0, np.int32)


@lru_cache(64)
def _one_size(n: int) -> Int64:
    """The sizes of the steps of a call with one step."""
    return np.array([n], np.int64)


class _Prepared(NamedTuple):
    """A sweep, and what it was prepared for.

    Attributes
    ----------
    key : tuple
        What decided, apart from the arrays, how to sweep.
    arrays : tuple
        The vectors that the sweep reads and writes.
    how : Choice
    may_skip : bool
        Whether dense blocks skip zeros of the data if their weights are finite.
    sweep : mlgraph_ext.sweep.Sweep
    """

    key: tuple[Any, ...]
    arrays: Arrays
    how: Choice
    may_skip: bool
    sweep: mlgraph_ext.Sweep


class Engine:
    """Executes one plan, and keeps the working memory between calls.

    Parameters
    ----------
    graph : Graph
    plan : Plan
    holes : HoleMap, optional
        For a plan with holes: the places of its parameters in the graph.
    rows : Plan, optional
        For a plan with holes: the plan that it was made from.
    """

    def __init__(self, graph: Graph, plan: Plan, holes: HoleMap | None = None, rows: Plan | None = None) -> None:
        self.graph, self.plan, self._holes, self._rows = graph, plan, holes, rows or plan
        self._copies: dict[int, Float32] = {}
        # Engines with holes, by the rows that became blocks; None stands for this engine, to avoid a reference cycle.
        self._with_holes: dict[tuple[int, ...], Engine | None] = {(): None}
        self._program = mlgraph_ext.sweep.Program(plan, holes and holes.edges)
        self._buffers = mlgraph_ext.sweep.Buffers()
        self._units: dict[tuple[bool, int], Int64] = {}
        self._slots: dict[tuple[int, ...], tuple[Int32, int]] = {(): (_NO_SLOTS, plan.n_slots)}
        self._prepared: _Prepared | None = None
        self._asked: tuple[Any, ...] | None = None
        """What the last call asked for, if any examples are swept alike."""

    def __reduce__(self) -> tuple[type[Engine], tuple[Graph, Plan, HoleMap | None, Plan]]:
        return Engine, (self.graph, self.plan, self._holes, self._rows)

    @cached_property
    def _reading(self) -> Int64:
        return self.plan.ranges_of_data

    @cached_property
    def _candidates(self) -> list[Candidate]:
        return candidates(self.plan)

    def filled(self, examples: Examples, n: int | None = None) -> Engine:
        """The engine that computes the same nodes fastest for these data: lightly pruned rows become blocks with holes.

        `n` is the number of examples of the call; by default the engine is assumed to be called many times.
        """
        if not self._candidates:
            return self
        numbers = worth_holes(self._candidates, examples.density, n)
        if numbers not in self._with_holes:
            plan, holes = with_holes(self.plan, numbers)
            self._with_holes[numbers] = None if holes is None else Engine(self.graph, plan, holes, self.plan)
        return self._with_holes[numbers] or self

    def compute(self, examples: Examples, **options: Any) -> tuple[int, Float32, Float32]:
        """As `execute`, for calls that do not change parameters; many examples are computed by blocks with holes."""
        if not pays_off(len(examples)) or not self._candidates:  # a shortcut: for small graphs, each Python call counts
            return self.execute(examples, **options)
        return self._through_holes(Engine.execute, examples, **options)

    def _through_holes(self, run: Callable[..., Found], examples: Examples, **options: Any) -> Found:
        """Call `run` on the engine with holes if that pays off; use the rows if a value is not finite.

        `run` is a method of `Engine`. The first item of its result is -1, or tells what was not finite.
        """
        n = len(examples)
        filled = self.filled(examples, n) if pays_off(n) else self
        if filled is not self and np.isfinite(examples.largest):
            found = run(filled, examples, **options | {"later": None} if "later" in options else options)
            if found[0] < 0:
                return found
        return run(self, examples, **options)

    def execute(
        self,
        examples: Examples,
        *,
        steps: Steps | None = None,
        objective: Objective = NOTHING,
        optimizer: str | None = None,
        hyper: tuple[float, float, float] = (0.0, 0.0, 0.0),
        gradient: Float32 | None = None,
        seed: int | None = None,
        limit: float = 0.0,
        few: bool | None = None,
        losses: Float32 | None = None,
        correct: UInt8 | None = None,
        values: Nodes = (),
        adjoints: Nodes = (),
        highest: Int64 | None = None,
        n_threads: int | None = None,
        clip_norm: float | None = None,
        later: Later | None = None,
    ) -> tuple[int, Float32, Float32]:
        """Execute steps of the plan.

        Parameters
        ----------
        examples : Examples
        steps : Steps, optional
            By default one step of all examples.
        objective : Objective, optional
            By default there is no loss.
        optimizer : str, optional
            A key of `STATE`. Without an optimizer and `gradient` there is no second phase.
        hyper : (float, float, float)
            Momentum or beta1, beta2, epsilon.
        gradient : float32, optional
            In place of an update: a vector as long as the parameters, to which gradients are added, those
            of frozen parameters only without an optimizer.
        seed : int, optional
            Set in training: neurons and edges are dropped, and values that are not finite end the call
            if there is an optimizer or `gradient`.
        limit : float
            In training, a step is taken only if all its gradients are certain to stay below this limit;
            0 for no limit.
        few : bool, optional
            Whether steps are so small that zeros are skipped whatever the data; by default the largest
            step decides. Skipping changes the order of sums, so all calls of one training run must agree.
        losses, correct : float32 and uint8, shape (examples,), optional
            Receive, in the order of `steps`, the loss of each example times its weight, and whether it
            is classified correctly: its highest output is that of its label or highest target or, for the binary
            cross-entropy, each output is on the side of 0 that its target says.
        values, adjoints : sequence of int
            Nodes whose values or adjoints are returned. There is a backward sweep if gradients or
            adjoints are requested.
        highest : int64, shape (examples,), optional
            Receives the index in `values` of the highest value, -1 where one is NaN. The values are
            then not returned.
        n_threads : int, optional
        clip_norm : float, optional
            Maximum norm of a step's gradient, if there is an optimizer. No values are then returned.
        later : list, optional
            The call is appended to it instead of being made, if it is of one thread and changes nothing.
            The returned arrays, `losses`, `correct` and `highest` are filled by `execute_later`. Until
            then the graph and this engine must not be used.

        Returns
        -------
        bad : int
            -1; or the number of the step that was not taken, because a value is not finite (in training,
            or where it passes through holes) or a gradient may exceed the limit; or the first example
            without a highest value.
        values, adjoints : float32, shape (examples, nodes)
            Values and adjoints of the requested nodes, in the order of `steps`.

        Raises
        ------
        ValueError
            If the data have too few columns, one of several steps is empty, or `gradient` has another length.
        RuntimeError
            If the plan does not have a requested node.
        """
        whole = clip_norm is not None or (steps is not None and steps.shrink is not None)
        if whole and optimizer is not None and steps is not None and gradient is None:
            options = {"objective": objective, "seed": seed, "limit": limit, "few": few, "n_threads": n_threads}
            most = math.inf if clip_norm is None else clip_norm
            return self._clipped(examples, steps, most, optimizer, hyper, losses=losses, correct=correct, **options)
        plan, n = self.plan, len(examples)
        if examples.array.shape[1] < plan.width:
            # A callback of `fit` may have added inputs since the data were checked.
            raise ValueError(f"x: expected {plan.width} columns, one for each input, got {examples.array.shape[1]}")
        size, order, most = (_one_size(n), None, n) if steps is None else (steps.size, steps.order, steps.largest)
        update = optimizer
        if gradient is not None:
            update = "accumulate"
            if len(gradient) != self.graph.storage.used:
                raise ValueError(f"gradient: expected {self.graph.storage.used} numbers, got {len(gradient)}")
        n_threads = threads_worth(plan, n_threads, size, most, update)
        if most == 0:
            return -1, np.zeros((0, len(values)), np.float32), np.zeros((0, len(adjoints)), np.float32)
        vectors = arrays = self._vectors(optimizer)
        total = gradient
        if self._holes is not None:
            arrays, total = self._copied(self._holes, vectors, gradient, n_threads)
        training, key = seed is not None, None
        # For more examples, what they contain may decide how dense blocks and bytes are swept.
        alike = n <= FEW or (examples.floats is not None and not plan.dense_read_data)
        is_plain = steps is None and optimizer is None and not training and few is None and alike
        if is_plain and len(objective.nodes) + len(values) + len(adjoints) <= MAX_CACHED:
            nodes = tuple(objective.nodes), tuple(values), tuple(adjoints)
            key = max(n, FEW), examples.array.dtype, update, n_threads, objective.loss, *nodes
        prepared = self._as_before(key, arrays) if key else None
        if prepared is None:
            self._asked = None  # a signal may separate the next two lines
            prepared = self._prepare(
                examples, size, most, few, update, hyper, training, n_threads, arrays, objective, values, adjoints
            )
            self._asked = key
        if prepared.how.narrow:
            examples = examples.narrowed(plan.input_column, n_threads)
        n = n if order is None else len(order)
        value_out = adjoint_out = np.empty((n, 0), np.float32)
        if len(values) and highest is None:
            value_out = np.empty((n, len(values)), np.float32)
        if len(adjoints):
            adjoint_out = np.empty((n, len(adjoints)), np.float32)
        label, target, weight = objective.label, objective.target, objective.weight
        reach = examples.largest if limit else 1.0
        call = mlgraph_ext.sweep.Call(
            prepared.sweep,
            mlgraph_ext.sweep.Batch(examples.bytes, examples.floats, label, target, weight, reach),
            steps,
            seed=seed,
            limit=limit / plan.edge_scale,
            gradient=total,
            losses=losses,
            correct=correct,
            values=None if highest is not None else value_out,
            highest=highest,
            adjoints=adjoint_out if len(adjoints) else None,
        )
        if later is not None and update is None and steps is None and n_threads == 1 and not prepared.how.narrow:
            later.append(call)
            return -1, value_out, adjoint_out
        if update is None or self._holes is None:
            return call.run(), value_out, adjoint_out
        # While gradients are added, another thread may write parameters: copy back the gradient only.
        changed = zip(vectors[:3], arrays[:3], strict=True) if gradient is None else [(gradient, total)]
        # A signal must not separate the parameters from the moments of the same step.
        with uninterrupted():
            bad = call.run()
            for vector, copy in changed:
                if vector is not None and copy is not None:
                    self._holes.from_blocks(copy, vector, n_threads)
        return bad, value_out, adjoint_out

    def _clipped(
        self,
        examples: Examples,
        steps: Steps,
        clip_norm: float,
        optimizer: str,
        hyper: tuple[float, float, float],
        **options: Any,
    ) -> tuple[int, Float32, Float32]:
        """`execute` with `clip_norm` or L1: each step adds up its whole gradient, whose norm decides how it updates."""
        gradient, none = self.graph.storage.zeros(), np.zeros((0, 0), np.float32)
        parameters, first, second, frozen = self._vectors(optimizer)
        code, rounded, ranges = OPTIMIZERS[optimizer], np.array(hyper, np.float32), self._rows.updated_ranges
        with uninterrupted():  # as in one call of the kernels: a signal waits until the caller has the losses
            for i in range(len(steps.size)):
                gradient.fill(0)
                step = steps.of(slice(i, i + 1))
                # Any optimizer's name leaves out frozen parameters; that of SGD copies no moments into blocks.
                options |= {"steps": step._replace(decay=None, shrink=None), "optimizer": "sgd", "gradient": gradient}
                if self.execute(examples, **options)[0] >= 0:
                    return i, none, none
                decay, shrink = (0.0 if column is None else column[0] for column in (step.decay, step.shrink))
                vectors = parameters, first, second, frozen
                mlgraph_ext.sweep.update_clipped(
                    ranges, gradient, clip_norm, code, rounded, *vectors, step.rate[0], decay, shrink
                )
        return -1, none, none

    def _as_before(self, asked: tuple[Any, ...], arrays: Arrays) -> _Prepared | None:
        """What the last call prepared, if it also fits a call that asks for this."""
        prepared = self._prepared
        if self._asked != asked or prepared is None or not all(map(is_, prepared.arrays, arrays)):
            return None
        same = not prepared.may_skip or prepared.how.sparse == self._weights_are_finite(arrays[0])
        return prepared if same else None

    def _prepare(
        self,
        examples: Examples,
        size: Int64,
        most: int,
        few: bool | None,
        update: str | None,
        hyper: tuple[float, float, float],
        training: bool,
        n_threads: int,
        arrays: Arrays,
        objective: Objective,
        values: Nodes,
        adjoints: Nodes,
    ) -> _Prepared:
        """Decide how to sweep, and prepare a sweep unless the last one will do."""
        plan, n_in = self.plan, len(self.plan.input_column)
        value_slots, lowest_value = self._slots_of(values)
        adjoint_slots, lowest_adjoint = self._slots_of(adjoints)
        loss_slots, lowest_loss = self._slots_of(objective.nodes)
        # Whether neurons may read the inputs in the data, instead of in slots.
        direct = plan.reads_directly and not plan.want_inputs and min(lowest_value, lowest_adjoint, lowest_loss) >= n_in
        may_skip = direct and plan.dense_read_data and skips_zeros(plan, examples, most, few)
        sparse = may_skip and self._weights_are_finite(arrays[0])
        how = choose(plan, examples, size, most, direct, sparse, update, training, n_threads)
        slots = value_slots, adjoint_slots, loss_slots
        key = how, hyper, objective.loss, *map(id, slots)
        last = self._prepared
        if last and last.key == key and all(map(is_, last.arrays, arrays)):
            return last
        sweep = mlgraph_ext.sweep.Sweep(
            self._program,
            arrays,
            self._buffers,
            units=self._units_for(sparse, n_threads if how.ahead else 0) if update else None,
            optimizer=OPTIMIZERS[update or "sgd"],
            hyper=hyper,
            n_workers=n_threads,
            n_tiles=how.n_tiles,
            wide=how.wide,
            at_once=how.at_once,
            sparse=sparse,
            ahead=how.ahead,
            as_bytes=how.as_bytes,
            in_packs=how.in_packs,
            columns=np.arange(n_in, dtype=np.int32) if how.narrow else None,
            backward=update is not None or len(adjoints) > 0,
            first_zeroed=min(plan.first_zeroed, lowest_loss),  # the loss adds to the adjoints of its nodes
            loss=LOSSES[objective.loss],
            loss_slots=loss_slots,
            value_slots=value_slots,
            adjoint_slots=adjoint_slots,
        )
        self._prepared = _Prepared(key, arrays, how, may_skip, sweep)
        return self._prepared

    def gradient(self, examples: Examples, objective: Objective, n_threads: int | None) -> Float32:
        """Gradient of the mean loss over the examples (of the sum, for cotangents), in steps of bounded memory.

        It has the layout of the parameter vector. In padding it is zero, or NaN where a source is not finite.
        """
        return self._through_holes(Engine._sum_gradients, examples, objective=objective, n_threads=n_threads)[1]

    def _sum_gradients(self, examples: Examples, objective: Objective, n_threads: int | None) -> tuple[int, Float32]:
        """-1 and the gradient; or a number of at least 0 if a value that passes through holes is not finite."""
        n, storage = len(examples), self.graph.storage
        size = min(n, self.plan.examples_at_once)
        full = n // size
        total: Float32 | None = None
        for first, n_steps, length in ((0, full, size), (full * size, 1, n - full * size)):
            if length:
                steps = Steps.without_update(first + size * np.arange(n_steps), np.full(n_steps, length))
                gradient = storage.zeros()
                bad, _, _ = self.execute(
                    examples,
                    steps=steps if length < n else None,
                    objective=objective,
                    gradient=gradient,
                    n_threads=n_threads,
                )
                if bad >= 0:
                    return bad, gradient
                with np.errstate(under="ignore"):
                    if objective.loss != "cotangent" and length < n:
                        gradient *= np.float32(length / n)
                    total = gradient if total is None else np.add(total, gradient, out=total)
        assert total is not None  # there is at least one example
        return -1, total

    def _slots_of(self, nodes: Nodes) -> tuple[Int32, int]:
        """Slots of nodes, and the lowest of them."""
        key = tuple(nodes) if len(nodes) <= MAX_CACHED else None
        found = self._slots.get(key) if key is not None else None
        if found is None:
            slots = self.plan.slot[np.array(nodes, np.int32)]
            found = slots, min(slots.tolist())
            if found[1] < 0:  # kernels do not check again
                raise RuntimeError("nodes: the plan does not have all of the requested nodes")
            if key is not None:
                self._slots[key] = found
        return found

    def _units_for(self, sparse: bool, ahead: int) -> Int64:
        if (sparse, ahead) not in self._units:
            self._units[sparse, ahead] = units_of(self.plan, sparse, ahead)
        return self._units[sparse, ahead]

    def _vectors(self, optimizer: str | None) -> Arrays:
        """The vectors of the graph that this optimizer reads and writes."""
        storage = self.graph.storage
        if not optimizer:
            return storage.vector, None, None, None
        first, second, *_ = *(storage.state_vector(name, fresh=False) for name in STATE[optimizer]), None, None
        return storage.vector, first, second, storage.frozen

    def _copied(
        self, holes: HoleMap, vectors: Arrays, gradient: Float32 | None, n_threads: int
    ) -> tuple[Arrays, Float32 | None]:
        """Copy the vectors into the layout of a plan with holes."""
        copies: list[Float32 | None] = [None] * 5
        for i, vector in enumerate((*vectors, gradient)):
            if vector is not None:
                copies[i] = copy = self._copies[i] if i in self._copies else aligned(holes.size)
                self._copies[i] = copy
                holes.to_blocks(vector, copy, n_threads)
        parameters, first, second, frozen, total = copies
        assert parameters is not None
        return (parameters, first, second, frozen), total

    def _weights_are_finite(self, parameters: Float32) -> bool:
        # Zeros may be skipped only if the weights are finite: 0 * inf is NaN.
        return mlgraph_ext.sweep.are_finite(parameters, self._reading)


def execute_later(calls: Later, n_threads: int) -> None:
    """Make calls of different engines, so many at the same time."""
    mlgraph_ext.sweep.run_each(calls, n_threads)
