"""ONNX: models as graphs of tensors, for onnxruntime and other engines. `onnx_reader` reads such graphs.

Layers become Gemm nodes, with zeros where edges are cut. In other models all nodes of one level that
do the same become one node of ONNX, which gathers the columns that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.checks import StrOrBytesPath
from mlgraph._support.installation import install_command
from mlgraph.exchange.layers import arrays_of, estimator_hint
from mlgraph.graph import ops
from mlgraph.graph.arrays import biases, wiring
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import CONSTANT, NEURON, PARAMETER, WEIGHT
from mlgraph.graph.topology import ancestors, topological
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.models.scaling import BYTES, Standardization

if TYPE_CHECKING:
    import onnx

Ids = npt.NDArray[Any]

OPSET, GELU_OPSET = 18, 20
"""The opset of models, and of those that contain gelu."""

METADATA = "mlgraph"
"""The key of the metadata, a JSON object with some of `loss`, `classes` and `columns`."""

NODES = dict(
    pair.split(":")
    for pair in """
    identity:Identity relu:Relu leaky_relu:LeakyRelu elu:Elu gelu:Gelu sigmoid:Sigmoid tanh:Tanh softplus:Softplus
    neg:Neg abs:Abs sign:Sign floor:Floor exp:Exp log:Log sqrt:Sqrt sin:Sin cos:Cos sinh:Sinh cosh:Cosh
    arcsin:Asin arccos:Acos arctan:Atan erf:Erf
    add:Add sub:Sub mul:Mul div:Div pow:Pow maximum:Max minimum:Min
    sum:ReduceSum prod:ReduceProd max:ReduceMax logsumexp:ReduceLogSumExp softmax:Softmax
    """.split()  # noqa: SIM905
)
"""The node of ONNX for each operation. Others are composed of several: silu, where, expm1 and log1p."""

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "LeakyRelu": {"alpha": ops.LEAK},
    "Elu": {"alpha": 1.0},
    "Gelu": {"approximate": "none"},
    "Swish": {"alpha": 1.0},
    "Softmax": {"axis": 1},
    "Gemm": {"transB": 1},
}
"""Attributes of nodes as they are written. The activations have no others here."""

PROBABILITIES = {"softmax_cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}
"""What makes probabilities of logits, by loss."""

MOST_BYTES = 2**31 - 2**20
"""Most bytes of weights: a file of ONNX holds less than 2 GB."""


def to_onnx(model: Model, path: StrOrBytesPath | None = None) -> onnx.ModelProto:
    """Make a model of ONNX that computes what a model predicts, and maybe write it to a file.

    Its input is ``x``, float32 of shape (batch, columns), for any number of examples. Its output, of
    shape (batch, outputs), is ``probabilities``, the values of `predict_proba`, if the loss is a cross-entropy, and
    else ``outputs``, those of `forward`. The scaling of the data is part of it: a network that learnt from bytes takes
    numbers from 0 to 255, converted to float32.

    Parameters
    ----------
    model : Model
        Any. A network with `is_layered` becomes a chain of Gemm nodes, in which cut edges are zeros. In
        another model, all neurons of one level and activation become one Gemm node, and all operations of one kind
        one node; a reduction, such as ``sum``, becomes a node of its own. expm1 and log1p, which ONNX lacks, become
        several nodes each; they are accurate to 8 units in the last place, also near 0. Dropout has no part in
        predicting.
    path : path, optional
        Where to write it, all of it or nothing.

    Returns
    -------
    onnx.ModelProto
        Of opset 18, or 20 if it contains gelu. Its metadata `mlgraph` holds loss, classes and names of columns for
        `from_onnx`. Trained parameters are initializers, and constants are nodes.

    Raises
    ------
    TypeError, ValueError
        If `model` is no model, has no outputs, or needs more than 2 GB.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> net = mlgraph.Network(3, seed=0)
    >>> hidden, output = net.add_layer(4, "tanh"), net.add_layer(2, "softmax")
    >>> net.prune(0.5)
    >>> model = mlgraph.exchange.to_onnx(net)
    >>> [node.op_type for node in model.graph.node]
    ['Gemm', 'Tanh', 'Gemm', 'Softmax']
    >>> from onnx.reference import ReferenceEvaluator
    >>> x = np.eye(3, dtype=np.float32)
    >>> (probabilities,) = ReferenceEvaluator(model).run(None, {"x": x})
    >>> bool(np.allclose(probabilities, net.predict_proba(x)))
    True
    """
    onnx = import_onnx("to_onnx")
    if not isinstance(model, Model):
        hint = "; Model(graph, outputs) makes one" if isinstance(model, Graph) else estimator_hint(model)
        raise TypeError(f"to_onnx: expected a Model, got {type(model).__name__}{hint}")
    with model.require_outputs():
        writer = _Writer(onnx)
        n = _columns_read(model)
        x = _scaled(writer, model, n)
        is_layered = isinstance(model, Network) and model.is_layered
        value = _layers(writer, model, x) if is_layered else _levels(writer, model, x, n)
        name = "outputs"
        if model.loss in PROBABILITIES:
            value, name = writer.operation(PROBABILITIES[model.loss], value), "probabilities"
        writer.rename(value, name)
        about = {"loss": model.loss, "classes": model.classes, "columns": model.columns}
        n_outputs = len(model.output_ids)
    made = writer.model(("x", n), (name, n_outputs), {key: value for key, value in about.items() if value is not None})
    if path is not None:
        write_atomically(path, lambda file: file.write(made.SerializeToString()))
    return made  # type: ignore[no-any-return,unused-ignore]


class _Writer:
    """Collects the nodes and initializers of a graph of ONNX, and where the values of mlgraph's nodes are in it."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.bytes = 0
        self._tensors: list[tuple[str, int]] = []
        self._at: dict[int, tuple[int, int]] = {}
        self._gathered: dict[tuple[int, ...], str] = {}

    def node(self, step: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        name, attributes = f"{step.lower()}_{len(self.nodes)}", {**ATTRIBUTES.get(step, {}), **attributes}
        self.nodes.append(self.onnx.helper.make_node(step, inputs, [name], name, **attributes))
        return name

    def array(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an initializer; its name."""
        self.require(array.nbytes)
        name = f"{name}_{len(self.initializers)}"
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, array: npt.NDArray[Any]) -> str:
        """Add a node whose output is always `array`."""
        return self.node("Constant", value=self.onnx.numpy_helper.from_array(array))

    def number(self, value: float) -> str:
        """A constant for all columns."""
        return self.constant(np.array([value], np.float32))

    def require(self, n_bytes: int) -> None:
        """A ValueError if so many more bytes of arrays do not fit into a file."""
        self.bytes += n_bytes
        if self.bytes > MOST_BYTES:
            raise ValueError(
                f"to_onnx: the model needs {self.bytes / 1e9:.3g} GB, and a file of ONNX holds 2; zeros count as well"
            )

    def rename(self, value: str, name: str) -> None:
        """Give the output of the last node, or a copy of another value, a name."""
        if not self.nodes or self.nodes[-1].output[0] != value:
            self.node("Identity", value)
        self.nodes[-1].output[0] = name

    def put(self, value: str, nodes: Ids) -> None:
        """Note that the columns of a value are the values of these nodes."""
        self._at.update((int(node), (len(self._tensors), column)) for column, node in enumerate(nodes))
        self._tensors.append((value, len(nodes)))

    def gather(self, nodes: Ids) -> str:
        """A value whose columns are those of these nodes."""
        key = tuple(nodes.tolist())
        if key not in self._gathered:
            tensor, column = np.array([self._at[node] for node in key]).T
            pieces, place, n = [], np.empty(len(key), np.int64), 0
            for i in np.unique(tensor):
                here = tensor == i
                wanted, inverse = np.unique(column[here], return_inverse=True)
                place[here] = n + inverse.reshape(-1)
                n += len(wanted)
                pieces.append((i, wanted))
            if len(pieces) == 1:
                self._gathered[key] = self._take(self._tensors[tensor[0]], column)
            else:
                parts = [self._take(self._tensors[i], wanted) for i, wanted in pieces]
                self._gathered[key] = self._take((self.node("Concat", *parts, axis=1), n), place)
        return self._gathered[key]

    def _take(self, tensor: tuple[str, int], columns: Ids) -> str:
        value, width = tensor
        if np.array_equal(columns, np.arange(width)):
            return value
        return self.node("Gather", value, self.array("columns", columns.astype(np.int64)), axis=1)

    def linear(self, value: str, weights: Float32, bias: Float32) -> str:
        """Add neurons without activation; biases that are NaN are missing."""
        inputs = [value, self.array("weights", weights)]
        if not np.isnan(bias).all():
            inputs.append(self.array("biases", np.nan_to_num(bias, posinf=np.inf, neginf=-np.inf)))
        return self.node("Gemm", *inputs)

    def operation(self, name: str, *values: str) -> str:
        """Add an operation of mlgraph on whole values, or a reduction over the columns of one."""
        if name == "silu":
            return self.node("Mul", *values, self.node("Sigmoid", *values))
        if name == "where":
            return self.node("Where", self.node("Greater", values[0], self.number(0)), *values[1:])
        if name == "expm1":  # exp(x) - 1 would be 0 for small x; it is tanh(x / 2) (exp(x) + 1)
            tanh = self.node("Tanh", self.node("Mul", *values, self.number(0.5)))
            return self.node("Mul", tanh, self.node("Add", self.node("Exp", *values), self.number(1)))
        if name == "log1p":
            # log(1 + x) would be 0 for small x. With u = 1 + x as it was rounded, x - (u - 1) is exactly what was lost,
            # and log1p(x) = log(u) + (x - (u - 1)) / u. Below -1/2 nothing is lost, and above 1 too little to matter.
            one = self.number(1)
            x = self.node("Max", self.node("Min", *values, one), self.number(-0.5))
            u = self.node("Add", x, one)
            lost = self.node("Div", self.node("Sub", x, self.node("Sub", u, one)), u)
            return self.node("Add", self.node("Log", self.node("Add", *values, one)), lost)
        if NODES[name].startswith("Reduce"):
            return self.node(NODES[name], *values, self.constant(np.ones(1, np.int64)), keepdims=1)
        return self.node(NODES[name], *values)

    def model(self, x: tuple[str, int], outputs: tuple[str, int], about: dict[str, Any]) -> Any:
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        ends = [[helper.make_tensor_value_info(name, float32, ["batch", n])] for name, n in (x, outputs)]
        graph = helper.make_graph(self.nodes, "mlgraph", *ends, self.initializers)
        opset = GELU_OPSET if any(node.op_type == "Gelu" for node in self.nodes) else OPSET
        opsets = [helper.make_opsetid("", opset)]
        made = helper.make_model(
            graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets), producer_name="mlgraph"
        )
        helper.set_model_props(made, {METADATA: json.dumps(about)})
        return made


def _columns_read(model: Model) -> int:
    """Number of columns of the data: those at the end that only a loss reads, which are targets, do not count."""
    graph, n = model.graph, model.graph.n_inputs
    if model.loss == "node":
        topology = graph.topology()
        read, of_loss = (ancestors(graph, topology, nodes) for nodes in (model.output_ids, model.loss_ids))
        while n > 1 and of_loss[graph.input_ids[n - 1]] and not read[graph.input_ids[n - 1]]:
            n -= 1
    return n


def _scaled(writer: _Writer, model: Model, n: int) -> str:
    """The data as the model reads it."""
    scaling = model.scaling
    if scaling == BYTES:
        return writer.node("Div", "x", writer.number(255))
    if not isinstance(scaling, Standardization):
        return "x"
    mean, std = np.zeros(n), np.ones(n)
    width = min(n, len(scaling.mean))
    mean[:width], std[:width] = scaling.mean[:width], scaling.std[:width]
    types = writer.onnx.TensorProto
    x = writer.node("Cast", "x", to=types.DOUBLE)  # numbers far from 0 would lose digits
    x = writer.node("Div", writer.node("Sub", x, writer.array("mean", mean)), writer.array("std", std))
    return writer.node("Cast", x, to=types.FLOAT)


def _layers(writer: _Writer, net: Model, value: str) -> str:
    """The outputs of the last layer of a network that its layers describe whole, before a softmax or sigmoid."""
    live = net.graph.live()
    layers = arrays_of(net, "to_onnx")
    for layer, arrays in zip(net.layers, layers, strict=True):
        # A neuron that is cut off is 0, whatever its bias and activation.
        there = live[layer.ids], live[layer.source_ids]
        weights = np.where(np.outer(*there), arrays.weights, np.float32(0))
        value = writer.linear(value, weights, np.where(there[0], arrays.biases, np.float32(0)))
        gives_logits = arrays is layers[-1] and net.loss in PROBABILITIES
        if arrays.activation != "identity" and not gives_logits:
            value = writer.operation(arrays.activation, value)
    return value


def _levels(writer: _Writer, model: Model, x: str, n: int) -> str:
    """The outputs of any model, level by level."""
    graph = model.graph
    topology, codes = graph.topology(), graph.codes
    dead = ~graph.live() & (codes >= NEURON)
    leaf = dead | (codes == WEIGHT)
    topology.counts[leaf], codes[leaf] = 0, CONSTANT
    level, order = topological(graph, topology, model.output_ids)
    writer.put(x, np.array(graph.input_ids[:n]))
    for code in (CONSTANT, PARAMETER):
        nodes = np.sort(order[codes[order] == code])
        if len(nodes):
            values = np.array([0.0 if dead[i] else graph[i].value for i in nodes.tolist()], np.float32)[None]
            value = writer.constant(values) if code == CONSTANT else writer.array("parameters", values)
            rows = writer.node("Shape", "x", start=0, end=1)
            shape = writer.node("Concat", rows, writer.constant(np.array([len(nodes)])), axis=0)
            writer.put(writer.node("Expand", value, shape), nodes)
    for nodes in _groups(codes, level, order):
        code = int(codes[nodes[0]])
        if code >= NEURON:
            value = _neurons(writer, graph, nodes, dead)
            name = ops.BY_CODE[code - NEURON].name
            writer.put(value if name == "identity" else writer.operation(name, value), nodes)
            continue
        op, sources = ops.BY_CODE[code], topology.sources_of(nodes)
        if op.arity < 0:
            writer.put(writer.operation(op.name, writer.gather(sources)), nodes)
        else:
            columns = sources.reshape(len(nodes), op.arity).T
            writer.put(writer.operation(op.name, *(writer.gather(column) for column in columns)), nodes)
    return writer.gather(np.array(model.output_ids))


def _groups(codes: npt.NDArray[np.int16], level: Int32, order: Int32) -> Iterator[Int32]:
    """The neurons and operations, sources first: all of one level and kind together, but each reduction alone."""
    nodes = order[ops.is_operation(codes[order]) | (codes[order] >= NEURON)]
    arity = np.array([op.arity for op in ops.BY_CODE])
    is_reduction = ops.is_operation(codes[nodes]) & (arity[codes[nodes] % NEURON % len(arity)] < 0)
    alone = np.where(is_reduction, nodes + 1, 0)
    keys = np.column_stack([level[nodes], codes[nodes], alone])
    at = np.lexsort((nodes, *keys.T[::-1]))
    nodes, keys = nodes[at], keys[at]
    begin = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
    yield from np.split(nodes, begin[1:]) if len(nodes) else ()


def _neurons(writer: _Writer, graph: Graph, nodes: Int32, dead: Bool) -> str:
    """The weighted sums of neurons."""
    edges = wiring(graph, nodes)
    there = ~dead[edges.source]  # neurons that are cut off are 0
    sources, column = np.unique(edges.source[there], return_inverse=True)
    writer.require(0 if len(nodes) * len(sources) * 4 < MOST_BYTES else MOST_BYTES + 1)
    weights = np.zeros((len(nodes), len(sources)), np.float32)
    row = np.repeat(np.arange(len(nodes)), edges.counts)[there]
    weights[row, column.reshape(-1)] = graph.parameters[edges.place[there]]
    return writer.linear(writer.gather(sources), weights, biases(graph, nodes, missing=np.nan))


def import_onnx(function: str) -> Any:
    """The package of this name."""
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        command = install_command("onnx", extra="exchange")
        raise ImportError(f"{function} needs ONNX ({error}): {command}") from None
    return onnx
