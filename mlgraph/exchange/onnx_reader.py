"""ONNX: models that were written by `to_onnx`, PyTorch, skl2onnx and others.

Each node is read by a function of `_READERS`. A tensor is an array, if it is the same for all examples,
or else `_Columns`: numbers of scalars. Scalars are made in blocks: neurons, operations, constants.
Blocks that form a chain of layers become a `Network`, and others a graph.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import Bool, Float32, Int64
from mlgraph._support.checks import StrOrBytesPath, shown, truth
from mlgraph.engine.losses import NAMES
from mlgraph.exchange.layers import LayerArrays, last_activation, network_of
from mlgraph.exchange.onnx import ATTRIBUTES, METADATA, NODES, PROBABILITIES, import_onnx
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import ACTIVATIONS, OPS
from mlgraph.models.model import Model
from mlgraph.models.scaling import BYTES, UNSCALED

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]

OLDEST_OPSET = 7
"""Before it, Gemm and the arithmetic operations had other attributes."""

BYTE = 255.0

ELEMENTWISE = {step: name for name, step in NODES.items() if name in OPS and OPS[name].arity in (1, 2)}
ELEMENTWISE |= {"Swish": "silu", "Sum": "add"}
"""The operation here of each node that treats all columns alike."""

REDUCTIONS = {step: name for name, step in NODES.items() if step.startswith("Reduce")}

FOLDED = ("Cast", "Concat", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Nodes that are computed while reading if all that they read is the same for all examples."""

NONE = np.zeros(0, np.float32)

MOST_SCALARS = 2**24
"""Most scalars of a model, which bounds the memory that a file may ask for."""

MOST_FOLDED = 4096
"""Most numbers that Concat and Gather may read while reading: they compute shapes."""

MANY = 2**31 - 1
"""The largest number in ONNX's table of operators: of opsets, and of inputs where any number may be."""

BATCH = -1
"""What stands for the number of examples in the shape of a tensor."""


class _Columns(NamedTuple):
    """A tensor of shape (batch, *shape): the number of the scalar of each column, flat."""

    scalars: Int64
    shape: tuple[int, ...]


class _Condition(NamedTuple):
    """Whether columns are above 0."""

    columns: _Columns


@dataclass
class _Block:
    """Scalars with consecutive numbers: "input", "constant", "parameter", "neurons", "softmax" or an operation.

    An operation has one array of scalars for each argument; neurons, a softmax and a reduction have one in all.
    """

    kind: str
    first: int
    size: int
    arguments: tuple[Int64, ...]
    weights: Float32
    values: Float32  # of constants and parameters; of neurons the biases, NaN where there is none
    activation: str = "identity"

    @property
    def scalars(self) -> Int64:
        return np.arange(self.first, self.first + self.size)


def from_onnx(model: onnx.ModelProto | StrOrBytesPath, *, loss: str | None = None, cut_zeros: bool = True) -> Model:
    """Make a model that computes what a model of ONNX computes.

    Parameters
    ----------
    model : onnx.ModelProto or path
        With one input of shape (batch, columns), or images that are flattened, and one output of
        shape (batch, outputs). It may consist of Gemm and MatMul with fixed weights; Add, Sub, Mul, Div, Pow and
        the other operations that `to_onnx` writes; Relu, LeakyRelu (alpha 0.01), Elu (alpha 1), Gelu
        (exact), Sigmoid, Tanh, Softplus, Swish, also where Silu and Gelu are written out; Softmax and, at the
        end, LogSoftmax; Gather and Concat of columns; Flatten, Reshape, Identity, Cast to 32 or 64 bits, and
        Dropout. Numbers are rounded to float32.
    loss : str, optional
        As for `Model`. By default that in the metadata of `to_onnx`, softmax_cross_entropy after a Softmax, or
        squared_error. Without a Softmax at the end, the outputs are logits for "softmax_cross_entropy"; for
        "binary_cross_entropy" they are logits if there is no Sigmoid.
    cut_zeros : bool
        Whether weights that are exactly 0 are cut edges, as in models of `to_onnx`: ONNX has no masks, so zeros
        are all that remains of a cut edge. Neurons all of whose weights are 0 keep them if they are outputs.

    Returns
    -------
    Network or Model
        A network if the neurons form layers, of which each reads the one before. An affine function of the
        inputs, such as a division by 255, becomes its `scaling`, which else is "unscaled". Initializers become
        parameters, and constants stay constants. Nothing is frozen, and there is no dropout.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as documented, the file is damaged, or a node has no counterpart; the message names it.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> net = mlgraph.Network(3, seed=0)
    >>> hidden, output = net.add_layer(4, "tanh"), net.add_layer(2, "softmax")
    >>> net.prune(0.5)
    >>> mlgraph.exchange.from_onnx(mlgraph.exchange.to_onnx(net)).n_edges, net.n_edges
    (10, 10)
    """
    onnx, cut_zeros = import_onnx("from_onnx"), truth("cut_zeros", cut_zeros)
    proto = _loaded(onnx, model)
    reader = _Reader(onnx, proto)
    about = _metadata(proto)
    given = about.get("loss")
    made = reader.model(loss if loss is not None else given if given in NAMES else None, cut_zeros)
    made.scaling = reader.scaling
    made.classes, made.columns = (about.get(name) for name in ("classes", "columns"))
    return made


# --- files ----------------------------------------------------------------------------------------


def _loaded(onnx: Any, model: Any) -> Any:
    """A ModelProto, read if it is a path, with all its arrays; a ValueError if it is damaged."""
    from google.protobuf.message import DecodeError

    if not isinstance(model, onnx.ModelProto):
        path = Path(checks.path("model", model))
        contents = path.read_bytes()
        try:
            model = onnx.load_model_from_string(contents)
        except DecodeError as error:
            raise ValueError(f"model: {path.name} is no file of ONNX, or damaged ({error})") from None
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # of several types
            text = str(error).partition("\n")[0]
            raise ValueError(f"model: the arrays that {path.name} has in other files cannot be read: {text}") from None
    for tensor in model.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            raise ValueError(f"model: the array {tensor.name} is in another file; onnx.load reads it, too")
    if not model.graph.node:
        raise ValueError("model: expected a model of ONNX, got one without nodes")
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    if not OLDEST_OPSET <= opset <= newest:
        hint = "onnx.version_converter converts it" if opset < OLDEST_OPSET else "a newer onnx may know it"
        raise ValueError(f"model: expected an opset from {OLDEST_OPSET} to {newest}, got {opset}; {hint}")
    return model


def _metadata(proto: Any) -> dict[str, Any]:
    """What `to_onnx` noted about the model."""
    for prop in proto.metadata_props:
        if prop.key == METADATA:
            try:
                found = json.loads(prop.value)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise ValueError(f"model: metadata {METADATA}: expected a JSON object, got {shown(prop.value)}")
            return found
    return {}


def _named(node: Any) -> str:
    """A node that the output needs, as an error names it."""
    return f"node {node.name or next(filter(None, node.output))} ({node.op_type})"


def _domain(of: Any) -> str:
    """The domain of an operator, or of a set of them."""
    return "" if of.domain == "ai.onnx" else str(of.domain)


def _attributes(onnx: Any, node: Any) -> dict[str, Any]:
    found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {key: value.decode(errors="replace") if isinstance(value, bytes) else value for key, value in found.items()}


# --- nodes ----------------------------------------------------------------------------------------


class _Reader:
    """Reads the nodes that the output needs, in their order, into blocks of scalars."""

    def __init__(self, onnx: Any, proto: Any) -> None:
        self.onnx, self.proto, self.graph = onnx, proto, proto.graph
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.output = _the_one("output", [value.name for value in self.graph.output])
        nodes = self._needed()
        self._check()
        self.uses = Counter([self.output, *(name for node in nodes for name in node.input)])
        self.blocks: list[_Block] = []
        self.block_at: dict[int, _Block] = {}
        self.n = 0
        self.readers: Counter[int] = Counter()  # by scalar
        self.values: dict[str, Any] = {}
        self.ends_in_logarithms = False
        self._read_input(nodes)
        for node in nodes:
            self._read(node)
        found = self.values.get(self.output)
        if not isinstance(found, _Columns) or len(found.shape) != 1:
            raise ValueError(f"model: expected an output {self.output} of shape (batch, outputs) that reads the input")
        self.outputs = found.scalars

    @property
    def scaling(self) -> Any:
        """The scaling of the input, as `Model.scaling` takes it."""
        if (self.mean == 0).all() and np.isin(self.std, (1, BYTE)).all() and np.ptp(self.std) == 0:
            return BYTES if self.std[0] == BYTE else UNSCALED
        return self.mean, self.std

    def _needed(self) -> list[Any]:
        """The nodes that the output needs, all known; a Silu or Gelu that was written out is one node."""
        needed, nodes = {self.output}, []
        opsets = {_domain(opset): min(max(opset.version, 0), MANY) for opset in self.proto.opset_import}
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                self._require_known(node, opsets.get(_domain(node), 1))
                node = self._pattern(node) or node
                nodes.append(node)
                needed.update(filter(None, node.input))
        return nodes[::-1]

    def _require_known(self, node: Any, opset: int) -> None:
        """A ValueError unless a node is of an operator that can be read, with the inputs and outputs that it has."""
        if node.op_type not in _READERS or _domain(node) not in ("", "ai.onnx.ml"):
            raise ValueError(f"{_named(node)}: expected one of {', '.join(sorted(_READERS))}")
        try:
            schema = self.onnx.defs.get_schema(node.op_type, opset, _domain(node))
        except self.onnx.defs.SchemaError:
            raise ValueError(f"{_named(node)}: opset {opset}, that of the model, does not have it") from None
        optional = schema.FormalParameterOption.Optional
        for what, names, formal, least, most in (
            ("input", node.input, schema.inputs, schema.min_input, schema.max_input),
            ("output", node.output, schema.outputs, schema.min_output, schema.max_output),
        ):
            if not least <= len(names) <= most:
                wanted = f"{least}" if least == most else f"{least} or more" if most == MANY else f"{least} to {most}"
                raise ValueError(f"{_named(node)}: expected {wanted} {what}{'s' * (wanted != '1')}, got {len(names)}")
            for i, name in enumerate(names):
                if not name and formal[min(i, len(formal) - 1)].option != optional:
                    raise ValueError(f"{_named(node)}: {what} {i + 1} of {len(names)} has no name, but is not optional")

    def _check(self) -> None:
        """A ValueError unless the model is well formed."""
        if self.graph.sparse_initializer:
            raise ValueError("model: expected dense initializers, got a sparse one")
        try:
            self.onnx.checker.check_model(self.proto)
            self.onnx.shape_inference.infer_shapes(self.proto, check_type=True)
        except Exception as error:  # of several types
            raise ValueError(f"model: {' '.join(str(error).split())}") from None

    def _pattern(self, node: Any) -> Any:
        """The Swish, Gelu or Softplus that is written out in a node and those before it; None if none is."""
        step, x = "", ""
        if node.op_type == "Where":  # PyTorch's Softplus is linear above 20
            x = node.input[1]
            compared = self._reads("Greater", node.input[0])
            if compared[:1] == [x] and self._is(20.0, compared[-1]) and self._reads("Softplus", node.input[2]) == [x]:
                step = "Softplus"
        for x, others in self._products(node) if node.op_type == "Mul" else ():
            if len(others) == 1 and self._reads("Sigmoid", others[0]) == [x]:
                step = "Swish"
            elif len(others) == 2 and any(
                self._is(0.5, half) and self._is_erf_plus_1(other, x) for half, other in (others, others[::-1])
            ):
                step = "Gelu"
            if step:
                break
        return self.onnx.helper.make_node(step, [x], node.output, node.name) if step else None

    def _products(self, node: Any) -> Iterator[tuple[str, list[str]]]:
        """Each factor of a product, maybe of a product, with the others."""
        factors = list(node.input)
        for i, name in enumerate(factors):
            if self._reads("Mul", name):
                factors[i : i + 1] = self._reads("Mul", name)
                break
        for i, factor in enumerate(factors):
            yield factor, factors[:i] + factors[i + 1 :]

    def _is_erf_plus_1(self, name: str, x: str) -> bool:
        """Whether a value is erf(x / sqrt(2)) + 1."""
        terms = self._reads("Add", name)
        for term, one in (terms, terms[::-1]) if len(terms) == 2 else ():
            for argument in self._reads("Erf", term) if self._is(1.0, one) else ():
                quotient, product = self._reads("Div", argument), self._reads("Mul", argument)
                if quotient[:1] == [x] and self._is(2**0.5, quotient[-1]):
                    return True
                if x in product and any(self._is(0.5**0.5, factor) for factor in product):
                    return True
        return False

    def _reads(self, step: str, name: str) -> list[str]:
        """What the node that makes a value reads, if it is such a node; else nothing."""
        node = self.makers.get(name)
        if node is None or (node.op_type, _domain(node)) != (step, ""):
            return []
        return list(node.input)

    def _is(self, number: float, name: str) -> bool:
        """Whether a value is this number, within rounding."""
        tensor, node = self.tensors.get(name), self.makers.get(name)
        if tensor is None and node is not None and node.op_type == "Constant":
            tensor = _attributes(self.onnx, node).get("value")
        if not isinstance(tensor, self.onnx.TensorProto):
            return False
        array = self._array(tensor)
        return array.size == 1 and bool(np.isclose(array.item(), number, rtol=1e-4, atol=0))

    def _array(self, tensor: Any) -> Array:
        try:
            array = np.asarray(self.onnx.numpy_helper.to_array(tensor))
        except Exception as error:  # of several types
            raise ValueError(f"model: the array {tensor.name} is damaged: {error}") from None
        if array.dtype.kind in "OSUc":
            raise ValueError(f"model: expected numbers in the array {tensor.name}, got strings or complex numbers")
        return array

    def _read_input(self, nodes: Sequence[Any]) -> None:
        """Begin with the scalars of the one input."""
        inputs = {value.name: value for value in self.graph.input if value.name not in self.tensors}
        name = _the_one("input", list(inputs))
        kind = inputs[name].type.tensor_type
        first, *dims = kind.shape.dim or [None]
        shape = tuple(dim.dim_value for dim in dims)
        if not shape or min(shape) < 1 or np.prod(shape, dtype=float) > MOST_SCALARS:
            expected = f"shape (batch, columns) with a fixed number of columns, at most {MOST_SCALARS}"
            raise ValueError(f"model: expected an input {name} of {expected}")
        self.batch = first.dim_value or BATCH
        if kind.elem_type not in self._floats() and any(
            name in node.input and node.op_type != "Cast" for node in nodes
        ):
            raise ValueError(f"model: expected an input {name} of floats, or a Cast of it to floats")
        n = int(np.prod(shape, dtype=np.int64))
        self.mean, self.std = np.zeros(n), np.ones(n)
        self._note(name, self._add("input", n, shape=shape), [])

    def _floats(self) -> set[int]:
        types = self.onnx.TensorProto
        return {types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16}

    def _read(self, node: Any) -> None:
        try:
            attributes, values = _attributes(self.onnx, node), [self._value(name) for name in node.input]
            arrays = [value for value in values if value is not None]
            if node.op_type in FOLDED and all(isinstance(value, np.ndarray) for value in arrays):
                made: Any = self._folded(node, arrays)
            else:
                made = _READERS[node.op_type](self, node, attributes, values)
        except ValueError as error:
            raise ValueError(f"{_named(node)}: {error}") from None
        self._note(node.output[0], made, [value for value in values if isinstance(value, _Columns)])

    def _value(self, name: str) -> Any:
        """The tensor of this name; None if there is no name, where an input may be missing."""
        if name and name not in self.values:
            if name not in self.tensors:
                raise ValueError(f"expected values that a node before it makes, got {name}")
            self.values[name] = self._array(self.tensors[name])
        return self.values.get(name)

    def _note(self, name: str, made: Any, read: Sequence[_Columns]) -> None:
        """Note a tensor, and how often its scalars are read."""
        self.values[name] = made
        if isinstance(made, _Columns):
            if any(made.scalars is columns.scalars for columns in read):  # it gives on what it reads
                self.readers.subtract(made.scalars.tolist())
            for scalar in made.scalars.tolist():
                self.readers[scalar] += self.uses[name]

    def _folded(self, node: Any, arrays: list[Array]) -> Array:
        from onnx.reference import ReferenceEvaluator

        if node.op_type in ("Concat", "Gather") and max(array.size for array in arrays) > MOST_FOLDED:
            raise ValueError(f"expected arrays of at most {MOST_FOLDED} numbers")
        opsets = {opset.domain: opset.version for opset in self.proto.opset_import}
        try:
            names = [name for name in node.input if name]
            (array,) = ReferenceEvaluator(node, opsets=opsets).run(None, dict(zip(names, arrays, strict=True)))
        except Exception as error:  # of numpy, and others
            raise ValueError(f"its arrays do not fit together: {error}") from None
        return np.asarray(array)

    # --- blocks

    def _add(
        self,
        kind: str,
        size: int,
        *arguments: Int64,
        shape: tuple[int, ...] | None = None,
        weights: Float32 = NONE,
        values: Float32 = NONE,
    ) -> _Columns:
        """Add a block; its columns, which are of one dimension unless a `shape` is given."""
        _require_few(self.n + size)
        block = _Block(kind, self.n, size, arguments, weights, values)
        self.blocks.append(block)
        self.block_at[block.first] = block
        self.n += size
        return _Columns(block.scalars, shape or (size,))

    def whole(self, scalars: Int64, kind: str) -> _Block | None:
        """The block of this kind whose scalars these are, all and in order, if nothing else reads them."""
        block = self.block_at.get(int(scalars[0]) if len(scalars) else -1)
        if block is None or block.kind != kind or not np.array_equal(block.scalars, scalars):
            return None
        return block if all(self.readers[scalar] == 1 for scalar in scalars.tolist()) else None

    def _columns(self, value: Any) -> _Columns:
        if not isinstance(value, _Columns) or len(value.shape) != 1:
            got = f"(batch, {', '.join(map(str, value.shape))})" if isinstance(value, _Columns) else "an array"
            raise ValueError(f"expected values of shape (batch, columns) that the input decides on, got {got}")
        return value

    def _scalars(self, name: str, value: Any, shape: tuple[int, ...]) -> Int64:
        """The scalars of a tensor that is broadcast to this shape; an array gets new ones."""
        if isinstance(value, np.ndarray):
            flat = _flat(value, value.shape[1:] if value.ndim == len(shape) + 1 else value.shape)
            kind = "constant" if name in self.makers else "parameter"
            value = _Columns(
                self._add(kind, len(flat), values=np.asarray(flat, np.float32)).scalars, value.shape[-len(shape) :]
            )
        if not isinstance(value, _Columns):
            raise ValueError("expected numbers, got a condition, which only Where can read")
        try:
            return np.broadcast_to(value.scalars.reshape(value.shape), shape).reshape(-1)
        except ValueError:
            raise ValueError(f"expected values for {shape} columns, got {value.shape}") from None

    def _elementwise(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> Any:
        """An activation, a bias, a part of the scaling, or an operation for each column."""
        name = ELEMENTWISE[node.op_type]
        for key, expected in ATTRIBUTES.get(node.op_type, {}).items():
            got = attributes.get(key, expected)
            if got != expected and not (isinstance(got, float) and np.isclose(got, expected, atol=0)):
                raise ValueError(f"expected {key}={expected}, got {got}")
        if not any(isinstance(value, _Columns) for value in values):
            raise ValueError("expected values that the input decides on, got arrays")
        if len(values) == 1 and name in ACTIVATIONS:
            block = self.whole(values[0].scalars, "neurons")
            if block is not None and block.activation == "identity":
                block.activation = name
                return values[0]
        at = next((i for i, value in enumerate(values) if isinstance(value, np.ndarray)), None)
        if len(values) == 2 and at is not None:
            columns = values[1 - at]
            if name == "add" and self._is_bias(columns, values[at]):
                return columns
            if (at == 1 or name in ("add", "mul")) and self._scale(name, columns, values[at]):
                return columns
        shape = np.broadcast_shapes(*(value.shape for value in values if isinstance(value, _Columns)))
        made, *others = (self._scalars(key, value, shape) for key, value in zip(node.input, values, strict=True))
        if OPS[name].arity == 1:
            return self._add(name, len(made), made, shape=shape)
        for other in others:
            made = self._add(name, len(made), made, other).scalars
        return _Columns(made, shape)

    def _is_bias(self, columns: _Columns, array: Array) -> bool:
        """Give neurons that have none these biases, if nothing else reads them; whether that could be done."""
        block = self.whole(columns.scalars, "neurons")
        if block is None or block.activation != "identity" or not np.isnan(block.values).all():
            return False
        block.values = _finite("biases", _flat(array, columns.shape))
        return True

    def _scale(self, name: str, columns: _Columns, array: Array) -> bool:
        """Make a step of the scaling of the inputs, if nothing else reads them; whether that could be done."""
        if name not in ("add", "sub", "mul", "div") or self.whole(columns.scalars, "input") is None:
            return False
        given, mean, std = _flat(array, columns.shape).astype(np.float64), self.mean, self.std
        with np.errstate(all="ignore"):
            if name in ("add", "sub"):
                mean = mean + given * std * (1 if name == "sub" else -1)
            else:
                std = std * given if name == "div" else std / given
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            return False
        self.mean, self.std = mean, std
        return True

    def _scaler(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> Any:
        offset, scale = np.array(attributes.get("offset", [0.0])), np.array(attributes.get("scale", [1.0]))
        columns = self._columns(values[0])
        if not (self._scale("sub", columns, offset) and self._scale("mul", columns, scale)):
            raise ValueError("expected a Scaler of the inputs, with finite offsets and scales above 0")
        return columns

    def _neurons(self, columns: Any, weights: Any, biases: Any = None) -> _Columns:
        columns = self._columns(columns)
        if not isinstance(weights, np.ndarray) or weights.ndim != 2:
            raise ValueError("expected weights that are a fixed array of two dimensions")
        n, m = weights.shape
        if m != len(columns.scalars):
            raise ValueError(f"expected weights for {len(columns.scalars)} columns, got {m}")
        bias = np.full(n, np.nan, np.float32) if biases is None else _finite("biases", _flat(biases, (n,)))
        return self._add("neurons", n, columns.scalars, weights=_finite("weights", weights), values=bias)

    def _gemm(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        x, weights, *biases = values
        if attributes.get("transA", 0):
            raise ValueError("expected transA=0, got 1")
        if isinstance(weights, np.ndarray):
            weights = (weights if attributes.get("transB", 0) else weights.T) * attributes.get("alpha", 1.0)
        if biases and not isinstance(biases[0], np.ndarray | type(None)):
            raise ValueError("expected biases that are a fixed array")
        biases = [b * attributes.get("beta", 1.0) for b in biases if b is not None]
        return self._neurons(x, weights, *biases)

    def _matmul(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        x, weights = values
        return self._neurons(x, weights.T if isinstance(weights, np.ndarray) else weights)

    def _softmax(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        if attributes.get("axis", 1) not in (1, -1):
            raise ValueError(f"expected axis=1, got {attributes['axis']}")
        if node.op_type == "LogSoftmax":
            self.ends_in_logarithms = True
            if node.output[0] != self.output:
                raise ValueError("expected nothing after it, because its logarithms are no neurons")
        columns = self._columns(values[0])
        return self._add("softmax", len(columns.scalars), columns.scalars)

    def _reduce(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        axes = attributes.get("axes", values[1] if len(values) > 1 else None)
        if axes is None or np.asarray(axes).tolist() not in ([1], [-1]) or not attributes.get("keepdims", 1):
            raise ValueError("expected axes=[1] and keepdims=1")
        return self._add(REDUCTIONS[node.op_type], 1, self._columns(values[0]).scalars)

    def _greater(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Condition:
        if not isinstance(values[1], np.ndarray) or values[1].any():
            raise ValueError("expected a comparison with 0")
        return _Condition(self._columns(values[0]))

    def _where(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        if not isinstance(values[0], _Condition):
            raise ValueError("expected a condition that Greater makes")
        values = [values[0].columns, *values[1:]]
        n = max(len(value.scalars) for value in values if isinstance(value, _Columns))
        arguments = [self._scalars(name, value, (n,)) for name, value in zip(node.input, values, strict=True)]
        return self._add("where", n, *arguments)

    def _gather(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        columns, indices = self._columns(values[0]), values[1]
        if attributes.get("axis", 0) not in (1, -1) or not isinstance(indices, np.ndarray) or indices.ndim != 1:
            raise ValueError("expected axis=1 and a fixed row of indices")
        n = len(columns.scalars)
        if indices.dtype.kind not in "iu" or ((indices < -n) | (indices >= n)).any():
            raise ValueError(f"expected indices of {n} columns")
        return _Columns(columns.scalars[indices], (len(indices),))

    def _concat(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        if attributes.get("axis") not in (1, -1):
            raise ValueError("expected axis=1")
        parts = [self._columns(value).scalars for value in values]
        _require_few(sum(map(len, parts)))
        scalars = np.concatenate(parts)
        return _Columns(scalars, (len(scalars),))

    def _expand(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        array, shape = values
        fixed = isinstance(array, np.ndarray) and isinstance(shape, np.ndarray) and shape.ndim == 1
        if not fixed or shape.tolist()[:1] != [BATCH]:
            raise ValueError("expected a fixed array, expanded to the number of examples")
        n = int(shape[1]) if len(shape) == 2 else 0
        if n != array.size:
            raise ValueError(f"expected the shape (batch, {array.size}), got {('batch', *shape.tolist()[1:])}")
        return _Columns(self._scalars(node.input[0], array, (n,)), (n,))

    def _shape(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> Array:
        if not isinstance(values[0], _Columns):
            raise ValueError("expected values that the input decides on")
        shape = np.array([BATCH, *values[0].shape], np.int64)
        return shape[attributes.get("start", 0) : attributes.get("end")]

    def _same(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> Any:
        types = self.onnx.TensorProto
        if node.op_type == "Cast" and attributes.get("to") not in (types.FLOAT, types.DOUBLE):
            name = types.DataType.Name(attributes["to"])
            raise ValueError(f"expected a Cast to floats of 32 or 64 bits, got {name}, which rounds in other ways")
        training = values[2] if node.op_type == "Dropout" and len(values) > 2 else None
        if training is not None and (not isinstance(training, np.ndarray) or training.any()):
            raise ValueError("expected training_mode=False")
        return values[0]

    def _reshape(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> _Columns:
        x, shape = values[0], values[1] if len(values) > 1 else None
        if not isinstance(x, _Columns) or not (shape is None or isinstance(shape, np.ndarray)):
            raise ValueError("expected a fixed shape, and values that the input decides on")
        if shape is None:  # Flatten
            if attributes.get("axis", 1) != 1:
                raise ValueError(f"expected axis=1, got {attributes['axis']}")
            return _Columns(x.scalars, (len(x.scalars),))
        batch, *wanted = shape.reshape(-1).tolist() or [None]
        if batch not in (BATCH, 0, self.batch) or (attributes.get("allowzero") and 0 in wanted):
            raise ValueError(f"expected a shape that begins with the number of examples, got {shape.tolist()}")
        wanted = [x.shape[i] if d == 0 and i < len(x.shape) else d for i, d in enumerate(wanted)]
        try:
            return _Columns(x.scalars, x.scalars.reshape(wanted).shape)
        except ValueError:
            raise ValueError(f"expected a shape for {len(x.scalars)} columns, got {shape.tolist()}") from None

    def _of_arrays(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> Any:
        raise ValueError("expected arrays that are the same for all examples")

    def _constant(self, node: Any, attributes: dict[str, Any], values: list[Any]) -> Array:
        if len(attributes) != 1:
            raise ValueError(f"expected one attribute, its value, got {', '.join(attributes) or 'none'}")
        ((name, value),) = attributes.items()
        if name == "value":
            return self._array(value)
        if name not in ("value_float", "value_floats", "value_int", "value_ints"):
            raise ValueError(f"expected a value of numbers, got {name}")
        return np.array(value, np.float32 if "float" in name else np.int64)

    # --- models

    def model(self, loss: str | None, cut_zeros: bool) -> Model:
        """A network if the blocks are layers, else a model of any graph."""
        layers = self._layers(cut_zeros)
        if layers:
            layers[-1] = layers[-1]._replace(activation=last_activation(layers[-1].activation, loss))
            hint = "give it an edge of weight 0, or read the zeros as edges by cut_zeros=False"
            return network_of(self.blocks[0].size, layers, loss, "model", hint)
        outputs, loss = self._before_probabilities(loss)
        if self.ends_in_logarithms and loss != "softmax_cross_entropy":
            raise ValueError(f"loss: expected softmax_cross_entropy after LogSoftmax, got {loss}")
        graph, ids = Graph(), np.zeros(self.n, np.int64)
        for block in self.blocks:
            ids[block.scalars] = _add_nodes(graph, block, [ids[scalars] for scalars in block.arguments], cut_zeros)
        return Model(graph, ids[outputs], loss)

    def _layers(self, cut_zeros: bool) -> list[LayerArrays]:
        """The blocks as layers; none unless each reads all of the one before and nothing else."""
        before, layers = self.blocks[0].scalars, list[LayerArrays]()
        for block in self.blocks[1:]:
            if len(block.arguments) != 1 or not np.array_equal(block.arguments[0], before):
                return []
            if block.kind == "neurons":
                layers.append(LayerArrays(block.weights, _mask(block, cut_zeros), block.values, block.activation))
            elif block.kind == "softmax" and layers and layers[-1].activation == "identity":
                layers[-1] = _keeping_zeros(layers[-1]._replace(activation="softmax"))
            else:
                return []
            before = block.scalars
        if not layers or not np.array_equal(before, self.outputs):
            return []
        layers[-1] = _keeping_zeros(layers[-1])
        return layers

    def _before_probabilities(self, loss: str | None) -> tuple[Int64, str]:
        """The outputs and the loss; for a cross-entropy the outputs before a softmax or sigmoid at the end."""
        block = self.whole(self.outputs, "softmax") or self.whole(self.outputs, "sigmoid")
        if loss is None:
            loss = "softmax_cross_entropy" if block is not None and block.kind == "softmax" else "squared_error"
        if block is not None and PROBABILITIES.get(loss) == block.kind:
            self.blocks.remove(block)
            return block.arguments[0], loss
        neurons = self.whole(self.outputs, "neurons")
        if neurons is not None and PROBABILITIES.get(loss) == neurons.activation:
            neurons.activation = "identity"
        return self.outputs, loss


_READERS: dict[str, Callable[[_Reader, Any, dict[str, Any], list[Any]], Any]] = {
    **dict.fromkeys(FOLDED, _Reader._of_arrays),
    **dict.fromkeys(ELEMENTWISE, _Reader._elementwise),
    **dict.fromkeys(REDUCTIONS, _Reader._reduce),
    **dict.fromkeys(("Cast", "Dropout", "Identity"), _Reader._same),
    **dict.fromkeys(("Flatten", "Reshape"), _Reader._reshape),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _Reader._softmax),
    "Concat": _Reader._concat,
    "Constant": _Reader._constant,
    "Expand": _Reader._expand,
    "Gather": _Reader._gather,
    "Gemm": _Reader._gemm,
    "Greater": _Reader._greater,
    "MatMul": _Reader._matmul,
    "Scaler": _Reader._scaler,
    "Shape": _Reader._shape,
    "Where": _Reader._where,
}


def _the_one(what: str, names: list[str]) -> str:
    if len(names) != 1:
        hint = f"; delete the others from model.graph.{what}" if what == "output" and names else ""
        raise ValueError(f"model: expected one {what}, got {', '.join(names) or 'none'}{hint}")
    return names[0]


def _require_few(n: int) -> None:
    if n > MOST_SCALARS:
        raise ValueError(f"expected at most {MOST_SCALARS} values in all, got {n}")


def _flat(array: Array, shape: tuple[int, ...]) -> Array:
    """An array that is the same for all examples, broadcast to this shape, as a row."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"expected numbers, got an array of {array.dtype}")
    try:
        return np.broadcast_to(array, (1, *shape)).reshape(-1)
    except ValueError:
        raise ValueError(f"expected an array for shape {shape}, got {array.shape}") from None


def _finite(what: str, array: Array) -> Float32:
    with np.errstate(over="ignore"):
        found = np.asarray(array, np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"expected finite {what}, got {found[~np.isfinite(found)][0]}")
    return found


def _mask(block: _Block, cut_zeros: bool) -> Bool:
    return block.weights != 0 if cut_zeros else np.ones(block.weights.shape, bool)


def _keeping_zeros(layer: LayerArrays) -> LayerArrays:
    """A layer whose neurons may not be cut off: those with nothing but zeros keep them."""
    return layer._replace(mask=layer.mask | ~layer.mask.any(axis=1, keepdims=True))


def _add_nodes(graph: Graph, block: _Block, arguments: list[Int64], cut_zeros: bool) -> Any:
    """Add the scalars of a block, which read these nodes; their ids."""
    if block.kind == "input":
        return [node.id for node in graph.add_inputs(block.size)]
    if block.kind in ("constant", "parameter"):
        add = graph.add_constant if block.kind == "constant" else graph.add_parameter
        return [add(value).id for value in block.values.tolist()]
    if block.kind == "neurons":
        return _add_neurons(graph, block, arguments[0], cut_zeros)
    nodes = [[graph[int(i)] for i in ids] for ids in arguments]
    if block.kind == "softmax":
        return [node.id for node in graph.add_softmax(nodes[0])]
    if OPS[block.kind].arity < 0:
        return [graph.add_operation(block.kind, *nodes[0]).id]
    return [graph.add_operation(block.kind, *each).id for each in zip(*nodes, strict=True)]


def _add_neurons(graph: Graph, block: _Block, sources: Int64, cut_zeros: bool) -> Any:
    """Add neurons; a source that is there twice is one."""
    distinct, at = np.unique(sources, return_inverse=True)
    weights = block.weights
    if len(distinct) < len(sources):
        weights = np.zeros((block.size, len(distinct)), np.float32)
        np.add.at(weights.T, at.reshape(-1), block.weights.T)
        sources = distinct
    mask = weights != 0 if cut_zeros else np.ones(weights.shape, bool)
    mask |= ~mask.any(axis=1, keepdims=True)  # neurons with nothing but zeros keep them
    has_bias = ~np.isnan(block.values)
    if mask.all() and len(set(has_bias.tolist())) == 1:
        return graph.add_neurons(
            sources, block.activation, weights=weights, biases=block.values if has_bias[0] else None
        )
    return [
        graph.add_neuron(sources[row], block.activation, weights=w[row], bias=float(bias) if has else None).id
        for row, w, bias, has in zip(mask, weights, block.values, has_bias, strict=True)
    ]
