"""Compiled functions: some nodes of a graph as a function of a batch, with exact derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support import tables
from mlgraph._support.array_types import Float32, Int64
from mlgraph._support.checks import float_array, one_of
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples, unscaled
from mlgraph.engine.losses import Objective
from mlgraph.engine.steps import Steps
from mlgraph.graph.arrays import edges, parameter_places
from mlgraph.graph.graph import Graph, checked_graph
from mlgraph.graph.ids import id_of, ids_of, ids_of_different
from mlgraph.graph.ops import INPUT, NEURON, PARAMETER
from mlgraph.graph.views import Neuron, Node, NodesLike, name_of, names_of

if TYPE_CHECKING:
    from mlgraph.engine.quantized import QuantizedFunction
    from mlgraph.engine.units import Units

MOST_NUMBERS = 10
"""Maximum size of an array whose numbers the repr of `Gradients` shows."""

CAPTION = "derivatives for each neuron's weights (their norm and largest magnitude) and bias:"
"""Text above the table in the repr of `Gradients`."""


class Places(NamedTuple):
    """The layout of the parameter vector when gradients were computed.

    It holds the places of parameters, weights and biases, and the number of sources of each neuron.
    `edits` is `Graph.edits` at that time; nodes added later have no place. `inputs` are the ids of a
    function's own inputs.
    """

    weights: Int64
    stride: Int64
    bias: Int64
    n_sources: Int64
    graph: Graph
    edits: int
    inputs: list[int] | None

    def __repr__(self) -> str:
        return f"<Places of {len(self.n_sources)} nodes>"  # the default repr of arrays would be very long


def places_in(graph: Graph, inputs: list[int] | None = None) -> Places:
    """The present layout."""
    return Places(*graph.storage.places, graph.counts.astype(np.int64), graph, graph.edits, inputs)


class Gradients(NamedTuple):
    """The result of `Function.vjp` and of `Model.gradients`. Its repr is a table with a row for each neuron.

    Attributes
    ----------
    values : float32, shape (batch, outputs)
    inputs : float32, shape (batch, inputs)
    parameters : float32, shape (len(graph.parameters),)
        Gradient summed over the batch, in the layout that the parameter vector had. For a model, whose loss
        is a mean, it is the gradient of the loss. Padding is 0, or NaN where a source is not finite; `flat` has no
        padding.
    places : Places
        The layout of `parameters`. `of` and `of_bias` use it, and keep working when the vector is reordered.
    """

    values: Float32
    inputs: Float32
    parameters: Float32
    places: Places

    def __repr__(self) -> str:
        return "\n".join([*self._summary(), *(f"{CAPTION}\n{tables.to_text(*table)}" for table in self._table())])

    def _repr_html_(self) -> str:
        html = "<br>\n".join(map(escape, self._summary()))
        return "\n".join([f"<p>{html}</p>", *(f"<p>{CAPTION}</p>\n{tables.to_html(*t)}" for t in self._table())])

    def _summary(self) -> list[str]:
        shown = [f"  {name}: {_brief(getattr(self, name))}" for name in ("values", "inputs", "parameters")]
        return ["Gradients", *shown]

    def _table(self) -> list[tuple[list[str], list[list[str]]]]:
        """A table with a row for each neuron and parameter that was there; none if there was none."""
        graph, places = self.places.graph, self.places
        with graph.lock:
            owners = np.flatnonzero((graph.codes >= PARAMETER) & (np.asarray(graph.born) < places.edits)).tolist()

            def row(i: int) -> list[object]:
                node = owners[i]
                weights = self.of(node).astype(np.float64).ravel()
                norm, largest = float(np.linalg.norm(weights)), float(np.abs(weights).max(initial=0.0))
                _, code, data = self._record("node", node)
                bias = self.of_bias(node) if code >= NEURON and places.bias[data] >= 0 else None
                return [name_of(graph, node, short=True), weights.size, norm, largest, bias]

            names = ["neuron", "weights", "norm", "largest", "bias"]
            return [(names, tables.some_rows(len(owners), row))] if owners else []

    @property
    def edges(self) -> Float32:
        """Derivative for each edge's weight, float32 in the order of `Graph.edges`; valid until the graph changes."""
        with self._graph("edges") as graph:
            return edges(graph, self.parameters, self.places[:2]).weight

    @property
    def flat(self) -> Float32:
        """Derivative for each parameter, float32 in the order of `Graph.get_parameters`; valid until the graph changes.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_input()
        >>> y = g.add_neuron([x], weights=[3.0], bias=1.0)
        >>> gradients = g.compile(y).vjp([[2.0]])
        >>> g.set_parameters(g.get_parameters() - 0.5 * gradients.flat)  # a step of gradient descent on y
        >>> float(y.weights[0]), y.bias
        (2.0, 0.5)
        """
        with self._graph("flat") as graph:
            return self.parameters[parameter_places(graph, places=self.places[:3])]

    def of(self, node: Node | int) -> Float32:
        """Derivative for an input, a parameter or a neuron's weights; 0 if no output needs the node.

        Parameters
        ----------
        node : Node or int

        Returns
        -------
        float32
            A view. Input: shape (batch,). Parameter: shape (). Neuron: shape (sources,), in the order that its
            weights had. The inputs with which a function was compiled count as inputs.

        Raises
        ------
        ValueError
            If the node is of another kind, or was added after these gradients were computed.
        """
        number, code, data = self._record("node", node)
        own = self.places.inputs
        if own is not None and number in own:
            return self.inputs[:, own.index(number)]
        if code == INPUT:
            there = own is None and data < self.inputs.shape[1]  # the data may have had fewer columns
            return self.inputs[:, data] if there else np.zeros(len(self.inputs), np.float32)
        if code < PARAMETER:
            expected = "an input, parameter or neuron; Model.trace has the adjoints of operations"
            raise ValueError(f"node: {self.places.graph[number]!r} is not {expected}")
        at, stride = self.places.weights[data], self.places.stride[data]
        if code == PARAMETER:
            return self.parameters[at : at + 1].reshape(())
        return self.parameters[at : at + self.places.n_sources[number] * stride : stride]

    def of_bias(self, neuron: Neuron | int) -> float:
        """Derivative for the bias of a neuron; 0 if no output needs the neuron.

        Parameters
        ----------
        neuron : Neuron or int

        Raises
        ------
        ValueError
            If the neuron has no bias, or was added after these gradients were computed.
        """
        number, code, data = self._record("neuron", neuron)
        if code < NEURON or self.places.bias[data] < 0:
            raise ValueError(f"neuron: {self.places.graph[number]!r} has no bias")
        return float(self.parameters[self.places.bias[data]])

    @contextmanager
    def _graph(self, what: str) -> Iterator[Graph]:
        """Hold the graph's lock for a ``with`` block; ValueError if the graph has been edited since."""
        graph = self.places.graph
        with graph.lock:
            if graph.edits != self.places.edits:
                raise ValueError(
                    f"{what}: the graph has been edited since these gradients were computed; compute them again"
                )
            yield graph

    def _record(self, what: str, node: Node | int) -> tuple[int, int, int]:
        """Number, code and record of a node."""
        graph = self.places.graph
        number = id_of(graph, node, what)
        if number >= len(self.places.n_sources) or graph.born[number] >= self.places.edits:
            raise ValueError(f"{what}: {graph[number]!r} was added after these gradients were computed")
        return number, *graph.code_and_record(number)


def _brief(array: Float32) -> str:
    """The numbers of a small array, the shape of another one."""
    if array.size > MOST_NUMBERS:
        return f"float32, shape {array.shape}"
    return " ".join(np.array2string(array, precision=4, separator=", ").split())


class Function:
    """A compiled function of a batch. It is compiled again after the graph has changed.

    Parameters
    ----------
    graph : Graph
    outputs : sequence of Node, or array of their ids
        At least one.
    inputs : sequence of Node, or array of their ids, optional
        As for `Graph.compile`.
    units : Units, optional
        Of the data that `quantize` and what `to_c` writes read; by default these are the inputs.

    Raises
    ------
    TypeError, ValueError
        If `graph` is not a graph, there is no output, a node belongs to another graph, a needed input is missing,
        or an input is given twice.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x, y = g.add_input("x"), g.add_input("y")
    >>> f = g.compile(x * x * y)
    >>> f([[3.0, 2.0], [1.0, 5.0]])  # two examples
    array([[18.],
           [ 5.]], dtype=float32)
    >>> f.vjp([[3.0, 2.0]]).inputs  # 2 x y and x^2
    array([[12.,  9.]], dtype=float32)
    >>> f.jvp([[3.0, 2.0]], [[1.0, 0.0]])
    array([[12.]], dtype=float32)
    """

    def __init__(
        self, graph: Graph, outputs: NodesLike, inputs: NodesLike | None = None, *, units: Units | None = None
    ) -> None:
        self.graph = checked_graph(graph)
        self.output_ids = ids_of(graph, "outputs", outputs, 1)
        self._nodes = [graph[i] for i in self.output_ids]
        self._inputs = None if inputs is None else ids_of_different(graph, "inputs", inputs)
        self._given = None if self._inputs is None else [graph[i] for i in self._inputs]
        self._units = units
        self._engines: dict[bool, Engine] = {}
        self._places: tuple[Engine, Places] | None = None
        self.engine(False)

    def __repr__(self) -> str:
        return f"<Function of {self.n_inputs} inputs: {', '.join(names_of(self._nodes[:10]))}>"

    @property
    def n_inputs(self) -> int:
        """Number of columns of the data: the inputs of the graph, or those that the function was compiled with."""
        return self.graph.n_inputs if self._inputs is None else len(self._inputs)

    def __call__(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> Float32:
        """Values of the outputs.

        The last bits of a value may depend on the size of the batch, but not on the number of threads.

        Parameters
        ----------
        x : array_like, shape (batch, inputs)
        n_threads : int, optional
            By default as many as the process may use and the work is worth.

        Returns
        -------
        float32, shape (batch, outputs)

        Raises
        ------
        TypeError, ValueError
            If the data are not real numbers, or not of this shape.
        """
        examples = unscaled(x, self.n_inputs)
        with self.graph.lock:
            _, values, _ = self.engine(False).compute(examples, values=self.output_ids, n_threads=n_threads)
        return values

    def vjp(
        self, x: npt.ArrayLike, cotangent: npt.ArrayLike | None = None, *, n_threads: int | None = None
    ) -> Gradients:
        """Vector-Jacobian product: derivatives of ``sum(cotangent * outputs)``, example by example.

        Parameters
        ----------
        x : array_like, shape (batch, inputs)
        cotangent : array_like, shape (batch, outputs), optional
            Ones by default.
        n_threads : int, optional
            By default as many as the process may use and the work is worth. Results are bitwise equal for any number.

        Returns
        -------
        Gradients

        Raises
        ------
        TypeError, ValueError
            If the data are not real numbers, or not of these shapes.
        """
        examples = unscaled(x, self.n_inputs)
        shape = (len(examples), len(self.output_ids))
        given = (
            np.ones(shape, np.float32) if cotangent is None else float_array("cotangent", cotangent, shape, nan=True)
        )
        weight = np.ascontiguousarray(given)
        with self.graph.lock:
            return self._vjp(examples, weight, n_threads)

    def _vjp(self, examples: Examples, weight: Float32, n_threads: int | None) -> Gradients:
        engine = self.engine(True)
        plan = engine.plan
        size = plan.examples_at_once
        first, gradient = np.arange(0, len(examples), size), self.graph.storage.zeros()
        _, values, adjoints = engine.execute(
            examples,
            steps=Steps.without_update(first, np.minimum(size, len(examples) - first)) if len(first) > 1 else None,
            objective=Objective.cotangent(self.output_ids, weight),
            gradient=gradient,
            values=self.output_ids,
            adjoints=plan.node[: len(plan.input_column)],
            n_threads=n_threads,
        )
        inputs = np.zeros(examples.array.shape, np.float32)
        inputs[:, plan.input_column] = adjoints
        return Gradients(values, inputs, gradient, self._places_for(engine))

    def jvp(self, x: npt.ArrayLike, tangent: npt.ArrayLike, *, n_threads: int | None = None) -> Float32:
        """Jacobian-vector product: derivative of each output along a tangent of the inputs, example by example.

        It calls `vjp` once for each output, since there is no forward mode; use it for functions with few outputs.

        Parameters
        ----------
        x, tangent : array_like, shape (batch, inputs)
        n_threads : int, optional
            As for `vjp`.

        Returns
        -------
        float32, shape (batch, outputs)

        Raises
        ------
        TypeError, ValueError
            If `x` or `tangent` are not real numbers, or not of this shape.
        """
        examples = unscaled(x, self.n_inputs)
        along = float_array("tangent", tangent, examples.array.shape, nan=True).astype(np.float64)
        products = np.empty((len(examples), len(self.output_ids)), np.float32)
        with self.graph.lock, np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for k, cotangent in enumerate(np.eye(len(self.output_ids), dtype=np.float32)):
                weight = np.ascontiguousarray(np.broadcast_to(cotangent, products.shape))
                products[:, k] = np.sum(self._vjp(examples, weight, n_threads).inputs * along, axis=1)
                if len(self.output_ids) > 1 and not np.isfinite(products[:, k]).all():
                    # Compute it alone: a cotangent of 0 times another output's infinite derivative is NaN.
                    alone = Function(self.graph, [self._nodes[k]], self._given)
                    products[:, k] = alone.jvp(examples.array, tangent, n_threads=n_threads)[:, 0]
        return products

    def quantize(self, calibrate: npt.ArrayLike) -> QuantizedFunction:
        """The function in 8-bit integers, as ``to_c(dtype="int8")`` writes it: how accurate will it be?

        Parameters
        ----------
        calibrate : array_like, shape (examples, inputs)
            Typical inputs, a few hundred or more. The ranges of their values decide on the scales; what later exceeds
            a range is clipped. All inputs share a range, so standardize columns of different sizes.

        Returns
        -------
        QuantizedFunction
            A function of a batch, with `to_c`. It has the present parameters and does not follow the graph.

        Raises
        ------
        TypeError
            If the data are not real numbers.
        ValueError
            If a node that the outputs need is an operation other than an activation, a sum may exceed 32 bits, or a
            value is not finite. If the data are of another shape, there are none, or they are bytes above 1, which a
            model divides by 255 but a function does not: pass ``x / 255``.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> y = g.add_neuron(g.add_inputs(2), "tanh", weights=[0.5, -1.0], bias=0.25)
        >>> x = np.random.default_rng(0).normal(size=(1000, 2))
        >>> f = g.compile(y)
        >>> q = f.quantize(x)
        >>> float(np.abs(f(x) - q(x)).max()) < 0.05
        True
        """
        from mlgraph.engine.quantized import QuantizedFunction, numbers

        units = self._units
        examples = units.read(calibrate, "calibrate") if units else numbers("calibrate", calibrate, self.n_inputs)
        examples.check_trainable()
        with self.graph.lock:
            plan = self.engine(False).plan
            return QuantizedFunction(plan, self.graph, plan.slot[self.output_ids].tolist(), examples, units)

    def to_c(self, name: str = "function", *, dtype: str = "float32", calibrate: npt.ArrayLike | None = None) -> str:
        """Write the function as C99, for use without Python: ``void name(const float *x, float *y)``, for one example.

        The text is a complete file. Compile it as C, not as C++; it needs only the mathematics library. It contains
        the present parameters and only the nodes that the outputs need, so cut edges take no space. Neurons with the
        same sources share one list of them. Values are on the stack: four bytes for each needed node and each input.

        Parameters
        ----------
        name : str
            Name of the function in C.
        dtype : {"float32", "int8"}
            With "int8", the function computes in integers and reads bytes: ``void name(const uint8_t *x, int32_t *y)``.
            See `quantize` and `QuantizedFunction.to_c`.
        calibrate : array_like, shape (examples, inputs)
            With "int8", as for `quantize`.

        Returns
        -------
        str
            ``x`` has the inputs in their order, as a model's scaling gives them, ``y`` the outputs. Results equal
            those of a call up to rounding, because sums are added in another order.

        Raises
        ------
        ValueError
            If `name` is not an identifier of C, or is used by math.h or in the file; with "int8", as for `quantize`.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x, y = g.add_inputs(2)
        >>> print(g.compile(mlgraph.exp(x) / y).to_c("ratio"))
        /* inputs: 2, outputs: 1, weights: 0 */
        #include <math.h>
        <BLANKLINE>
        void ratio(const float *x, float *y);
        <BLANKLINE>
        void ratio(const float *x, float *y)
        {
            float v[4];
            for (int i = 0; i < 2; i++)
                v[i] = x[i];
            v[2] = expf(v[0]);
            v[3] = v[2] / v[1];
            y[0] = v[3];
        }
        <BLANKLINE>
        """
        from mlgraph.engine.c_source import c_source, checked_name

        name = checked_name(name)
        if one_of("dtype", dtype, ("float32", "int8")) == "int8":
            if calibrate is None:
                raise ValueError("calibrate: integers need scales; pass typical inputs, for example the training data")
            return self.quantize(calibrate).to_c(name)
        if calibrate is not None:
            raise ValueError('calibrate: only dtype="int8" takes examples')
        with self.graph.lock:
            plan = self.engine(False).plan
            return c_source(plan, self.graph.parameters, plan.slot[self.output_ids], name, self._units)

    def _places_for(self, engine: Engine) -> Places:
        # Places change only when the graph is compiled.
        if self._places is None or self._places[0] is not engine:
            self._places = engine, places_in(self.graph, self._inputs)
        return self._places[1]

    def engine(self, want_inputs: bool) -> Engine:
        """The engine for values, or with `want_inputs` for derivatives; recompiled if the graph has changed."""
        with self.graph.lock:
            engine = self._engines.get(want_inputs)
            if engine is None or engine.plan.is_stale(self.graph):
                ids_of(self.graph, "outputs", self._nodes)  # `undo` may have removed one of them
                ids_of(self.graph, "inputs", self._given or [])
                given = None if self._inputs is None else np.array(self._inputs, np.int32)
                engine = Engine(self.graph, Plan(self.graph, self.output_ids, want_inputs=want_inputs, given=given))
                self._engines[want_inputs] = engine
        return engine
