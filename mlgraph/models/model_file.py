"""Model files: one .npz of plain arrays and a JSON header. The file of a population is a .zip of model files.

Nothing is pickled, and `load` checks every number before a kernel sees it.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import stat
import struct
import sys
import textwrap
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlgraph._support import checks
from mlgraph._support.array_types import UInt8
from mlgraph._support.atomic_files import write_atomically
from mlgraph._support.checks import StrOrBytesPath
from mlgraph.engine import losses
from mlgraph.graph import ops
from mlgraph.graph.arrays import parameter_places
from mlgraph.graph.compaction import compact
from mlgraph.graph.graph import CycleError, Graph
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER, WEIGHT
from mlgraph.graph.randomness import generator_at, is_state, state_of
from mlgraph.graph.storage import FROZEN, PANEL, extend, padded
from mlgraph.graph.topology import runs, topological
from mlgraph.models.classes import checked_classes, n_classes_of
from mlgraph.models.layer import Layer
from mlgraph.models.list_coding import expand, squeeze
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.models.running import engine_of
from mlgraph.models.scaling import checked_columns, checked_scaling, to_json

FORMAT = 6
"""Version of the format, to be increased when older readers would misread a file."""

ARRAYS = {
    "code": "int16",
    "start": "int64",
    "count": "int32",
    "data": "int64",
    "pool": "int32",
    "coded": "int32",
    "bits": "uint8",
    "constants": "float64",
    "inputs": "int32",
    "weights": "int64",
    "stride": "int32",
    "bias": "int64",
    "max_sources": "int32",
    "parameters": "float32",
    "frozen": "uint8",
}

NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<>|]\w{1,7})', 'fortran_order': (?:False|True), "
    rb"'shape': \(([\d, ]{0,80})\), \} *\n",
    re.DOTALL,
)
"""Header of a .npy file as numpy writes it. Groups: length of the header, dtype, shape."""

COLUMNS = [name for name in ARRAYS if name not in ("coded", "bits", "parameters", "frozen")]
"""Arrays that are columns of a graph or of its storage."""

MEMBER = ".npz"
"""Suffix of a model's file in the file of a population, after the number of the member."""

DAMAGES = zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError
"""What reading a damaged file may raise, apart from OSError."""

T = TypeVar("T")


class ModelFileError(ValueError):
    """The file is not a model, or is damaged; the message says which file and what is wrong."""


def save(
    model: Model,
    path: StrOrBytesPath,
    *,
    more: Mapping[str, Any] = MappingProxyType({}),
    more_arrays: Mapping[str, npt.NDArray[Any]] = MappingProxyType({}),
    previous: Path | None = None,
) -> None:
    """Write a model to `path`, all of it or nothing.

    Parameters
    ----------
    more, more_arrays : mapping
        Further entries of the header, and further arrays; `load` ignores them.
    previous : Path, optional
        Where to keep the file that is now at `path`.

    Raises
    ------
    OSError
        If the file cannot be written; what was at `path` is still there.
    """
    write(path, _checked_and_packed(model, more, more_arrays), previous)


def write(path: StrOrBytesPath, made: io.BytesIO, previous: Path | None = None) -> None:
    """Write a file that was made in memory: on a full disk, a ZipFile would report the error again when collected."""
    write_atomically(path, lambda file: file.write(made.getbuffer()), previous=previous)


def content(model: Model) -> io.BytesIO:
    """The file that `Model.save` writes."""
    with model.graph.lock:
        engine_of(model)  # lays out the parameters, if edits have left any behind
        compact(model.graph, most=0.25)
        return _checked_and_packed(model)


def together(contents: Iterable[io.BytesIO]) -> io.BytesIO:
    """The file of a population whose members have these files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for i, one in enumerate(contents):
            archive.writestr(f"{i}{MEMBER}", one.getbuffer())
    return made


def size_of(model: Model) -> int:
    """The size of the file that `save` would write, in bytes."""
    return len(_packed(model).getbuffer())


def _checked_and_packed(
    model: Model,
    more: Mapping[str, Any] = MappingProxyType({}),
    more_arrays: Mapping[str, npt.NDArray[Any]] = MappingProxyType({}),
) -> io.BytesIO:
    topological(model.graph, model.graph.topology())  # this and the next line raise for what `load` would refuse
    _check_numbers(model)
    return _packed(model, more, more_arrays)


def _packed(
    model: Model,
    more: Mapping[str, Any] = MappingProxyType({}),
    more_arrays: Mapping[str, npt.NDArray[Any]] = MappingProxyType({}),
) -> io.BytesIO:
    text = np.frombuffer(json.dumps({**header_of(model), **more}).encode(), np.uint8)
    members = {"header": text, **arrays_of(model.graph), **more_arrays}
    made = io.BytesIO()
    np.savez(made, **members)  # type: ignore[arg-type]
    return made


def _check_numbers(model: Model) -> None:
    """Raise ValueError for a parameter that is NaN, which no assignment leaves there."""
    graph = model.graph
    if np.isnan(graph.get_parameters()).any():
        owners = np.flatnonzero(graph.codes >= PARAMETER)
        node = next(i for i in owners if np.isnan(graph.parameters[parameter_places(graph, np.array([i]))]).any())
        raise ValueError(f"save: {model.name_of(int(node))} has a weight, bias or value that is nan; assign a number")


def header_of(model: Model) -> dict[str, Any]:
    """The header of a model's file."""
    layers = model._layers
    return {
        "format": FORMAT,
        "kind": "network" if isinstance(model, Network) else "model",
        "loss": model.loss,
        "outputs": model.output_ids,
        "loss_nodes": model.loss_ids,
        "probabilities": model.probability_ids,
        "names": {str(node): name for node, name in model.graph.names.items()},
        "layers": [
            [_ranges(layer.ids), layer._activation, layer.dropout, layer.weight_dropout, layer.probability_ids]
            for layer in layers
        ],
        "reads": layers[0].source_ids if layers else [],
        "scaling": to_json(model.scaling),
        "columns": model.columns,
        "classes": model.classes,
        "random": state_of(model.graph.random),
        **({"differentiated": model.graph.differentiated.tolist()} if model.graph.differentiated else {}),
    }


def _ranges(ids: list[int]) -> list[int]:
    """Ascending ids as ranges: [begin, end, begin, end, ...]."""
    ends = [i for i in range(1, len(ids)) if ids[i] != ids[i - 1] + 1]
    return [ids[0], *(i for end in ends for i in (ids[end - 1] + 1, ids[end])), ids[-1] + 1]


def arrays_of(g: Graph) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a graph, as in a model file."""
    frozen = np.zeros(0) if g.storage.frozen is None else g.storage.frozen
    lists = squeeze(g)
    columns = {name: lists[name] if name in lists else np.array(g.columns_by_name()[name]) for name in COLUMNS}
    return columns | lists | {"parameters": g.parameters, "frozen": frozen.astype(np.uint8)}


def load(path: StrOrBytesPath) -> Model:
    """Read a `Model` or `Network` that `Model.save` wrote.

    Parameters
    ----------
    path : path
        A model file or a checkpoint, which contains a model.

    Raises
    ------
    ModelFileError
        If the file is not a model, is damaged, or describes an impossible graph.
    OSError
        If the file cannot be opened or read.

    Examples
    --------
    >>> net = mlgraph.Network(2, seed=0)
    >>> layer = net.add_layer(3, "softmax")
    >>> net.save("model.npz")
    >>> mlgraph.load("model.npz")
    <Network 2-3: 6 edges>
    """
    return read(path, lambda model, header, arrays: model)


def read(
    path: StrOrBytesPath,
    make: Callable[[Model, dict[str, Any], dict[str, npt.NDArray[Any]]], T],
    more_arrays: Mapping[str, str] = MappingProxyType({}),
    optional: Collection[str] = (),
) -> T:
    """Return what `make` returns for the model, the header and the arrays in a file.

    Parameters
    ----------
    more_arrays : mapping from str to str
        Dtypes of the arrays that the file must have in addition to those of the model.
    optional : collection of str
        Those of them that older files lack; they are empty then.

    Raises
    ------
    ModelFileError
        If the file is not valid, or `make` says so; the message starts with the path.
    """
    return _opened(path, partial(_from, make=make, more_arrays=more_arrays, optional=optional))


def load_population(path: StrOrBytesPath, make: Callable[[list[Model]], T]) -> T:
    """Return what `make` returns for the models in the file of a population; errors as those of `read`."""

    def read_all(file: IO[bytes]) -> T:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [info.filename for info in members]
            require("header.npy" not in names, "a single model, which mlgraph.load reads")
            require(names == [f"{i}{MEMBER}" for i in range(len(names))], "not the file of a population")
            _check_sizes(file, dict(zip(names, members, strict=True)))
            return make([_member(info.filename, archive.read(info)) for info in members])

    return _opened(path, read_all)


def _member(name: str, raw: bytes) -> Model:
    try:
        return _from(io.BytesIO(raw), lambda model, header, arrays: model)
    except DAMAGES as error:
        raise ModelFileError(f"{name}: {error}") from None


def _from(
    file: IO[bytes],
    make: Callable[[Model, dict[str, Any], dict[str, npt.NDArray[Any]]], T],
    more_arrays: Mapping[str, str] = MappingProxyType({}),
    optional: Collection[str] = (),
) -> T:
    header = _header(_read(file, {"header": "uint8"})["header"])  # other versions may have other arrays
    arrays = _read(file, {**ARRAYS, **more_arrays}, optional)
    return make(_model(header, arrays), header, arrays)


def _opened(path: StrOrBytesPath, read: Callable[[IO[bytes]], T]) -> T:
    """What `read` returns for a file; a ModelFileError that starts with the path if it finds the file damaged."""
    path = checks.path("path", path)
    # Checked before opening: opening a pipe would wait for its writer.
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ModelFileError(f"{path}: not a model file, but a device or a pipe")
    handled = sys.exc_info()[1]  # by the caller, as in `except FileNotFoundError: net = mlgraph.load(other)`
    with open(path, "rb") as file:
        try:
            return read(file)
        except (ModelFileError, CycleError) as error:
            message = str(error)
        except (*DAMAGES, OSError) as error:
            # zipfile raises BadZipFile if the disk fails at the end of the file, which it reads first.
            cause = error.__context__ if isinstance(error, zipfile.BadZipFile) else error
            cause = None if cause is handled else cause
            # EINVAL: a damaged file pointed before its beginning.
            if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            message = f"not a model file, or a damaged one ({error})"
    raise ModelFileError(f"{path}: {textwrap.shorten(message, 400, placeholder='...')}")


def require(true: Any, message: str) -> None:
    """Raise a ModelFileError unless `true`."""
    if not true:
        raise ModelFileError(message)


def _read(file: IO[bytes], types: Mapping[str, str], optional: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, types[name]) for name in optional}
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        types = {name: dtype for name, dtype in types.items() if name not in optional or f"{name}.npy" in members}
        missing = [name for name in types if f"{name}.npy" not in members]
        what = "a model, but not a checkpoint" if not {"header", *ARRAYS} & {*missing} else "not a model file"
        require(not missing or f"0{MEMBER}" not in members, "a population, which mlgraph.Population.load reads")
        require(not missing, f"{what}: it has no {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}")
        _check_sizes(file, {name: members[f"{name}.npy"] for name in types})
        for name, dtype_name in types.items():
            with archive.open(members[f"{name}.npy"]) as member:
                arrays[name] = _array(name, member.read(members[f"{name}.npy"].file_size), np.dtype(dtype_name))
    return arrays


def _check_sizes(file: IO[bytes], members: Mapping[str, zipfile.ZipInfo]) -> None:
    """Refuse to read more than the file has, which bounds the memory."""
    packed = [name for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED]
    require(not packed, f"expected arrays that are not compressed, got {', '.join(packed)}")
    claimed, there = sum(info.file_size for info in members.values()), file.seek(0, io.SEEK_END)
    require(claimed <= there, f"expected arrays of at most the {there} bytes of the file, got {claimed}")


def _array(name: str, raw: bytes, expected: np.dtype[Any]) -> npt.NDArray[Any]:
    """The array in a .npy file, without numpy's reader, whose warnings cannot be silenced for one thread alone."""
    begin = NPY.match(raw)
    if begin is None or begin.end() != 10 + int.from_bytes(begin[1], "little"):
        raise ModelFileError(f"array {name} is damaged: it begins with {raw[:60]!r}")
    kind, shape, size = begin[2].decode(), begin[3].decode(), len(raw) - begin.end()
    fits = kind == expected.str and shape == f"{size // expected.itemsize}," and size % expected.itemsize == 0
    require(
        fits, f"array {name}: expected {expected} numbers in one row, got {kind} of shape ({shape}) in {size} bytes"
    )
    return np.frombuffer(memoryview(raw)[begin.end() :], expected)


def _header(text: UInt8) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(text.tobytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"header: expected JSON ({error})") from None
    require(isinstance(header, dict) and type(header.get("format")) is int, "header: expected an object with a format")
    require(header["format"] == FORMAT, f"format: expected {FORMAT}, got {header['format']}: made by another version")
    return header


def _model(header: Any, arrays: dict[str, npt.NDArray[Any]]) -> Model:
    graph = _graph(arrays)
    n = len(graph)
    names = header.get("names")
    require(
        isinstance(names, dict)
        and all(k.isdecimal() and len(k) < 12 and int(k) < n and isinstance(v, str) for k, v in names.items()),
        "header: names: expected strings by the ids of nodes",
    )
    graph.names = {int(k): v for k, v in names.items()}
    if "random" in header:  # older files have no generator, and get a fresh one
        require(is_state(header["random"]), "header: random: expected the state of a PCG64 generator")
        graph.random = generator_at(header["random"])
    if "differentiated" in header:  # older files have no derivatives
        through = _ids(header, "differentiated", n)
        ascends = all(a < b for a, b in itertools.pairwise(through))
        require(
            ascends and bool((graph.codes[through] >= NEURON).all()),
            "header: differentiated: expected ascending ids of neurons",
        )
        extend(graph.differentiated, np.array(through))
    loss, kind = header.get("loss"), header.get("kind")
    require(loss in (*losses.NAMES, "node"), f"header: loss: expected {', '.join(losses.NAMES)} or node, got {loss!r}")
    require(kind in ("network", "model"), f"header: kind: expected network or model, got {kind!r}")
    model: Model = object.__new__(Network if kind == "network" else Model)
    outputs, loss_nodes = _ids(header, "outputs", n, 1), _ids(header, "loss_nodes", n, 1)
    probabilities = _ids(header, "probabilities", n)
    model._restore(graph, outputs, loss, loss_nodes, probabilities)
    if isinstance(model, Network):
        model._ends = reads = _ids(header, "reads", n, 1)
        are_inputs = len(set(reads)) == len(reads) and (graph.codes[reads] == INPUT).all()
        require(are_inputs, "header: reads: expected inputs, none of them twice")
        _add_layers(model, header.get("layers"))
    model._scaling = _checked(header, "scaling", checked_scaling)  # older files have none of the three
    model._columns = _checked(header, "columns", partial(checked_columns, most=graph.n_inputs))
    model._classes = _checked(header, "classes", partial(checked_classes, n=n_classes_of(loss, len(outputs))))
    require(
        losses.loss_fits(graph, loss, outputs, loss_nodes, probabilities),
        "header: probabilities or loss_nodes do not belong to the outputs",
    )
    return model


def _checked(header: dict[str, Any], name: str, check: Callable[[Any], T]) -> T:
    """What `check` returns for an entry of a header, or for None if there is none."""
    try:
        return check(header.get(name))
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"header: {error}") from None


def _ids(header: dict[str, Any], name: str, n: int, least: int = 0) -> list[int]:
    """The list of node ids called `name` in a header; it needs at least `least` ids, all below n."""
    value: Any = header.get(name)
    good = isinstance(value, list) and len(value) >= least and all(type(i) is int and 0 <= i < n for i in value)
    require(good, f"header: {name}: expected ids of nodes from 0 to {n - 1}")
    return list(value)


def _add_layers(net: Network, layers: Any) -> None:
    """Add the layers of a header to a network that has its outputs already."""
    graph, n = net.graph, len(net.graph)
    require(isinstance(layers, list) and layers, "header: layers: expected at least one")
    in_layers = np.zeros(n, bool)
    for layer in layers:
        require(isinstance(layer, list) and len(layer) == 5, "header: layers: expected lists of five")
        ranges, activation, dropout, weight_dropout, probabilities = layer
        require(
            isinstance(ranges, list)
            and len(ranges) >= 2
            and len(ranges) % 2 == 0
            and all(type(i) is int for i in ranges)
            and 0 <= ranges[0]
            and ranges[-1] <= n
            and all(a < b for a, b in itertools.pairwise(ranges)),
            "header: layers: expected ascending ranges of neurons",
        )
        members = [i for at in range(0, len(ranges), 2) for i in range(ranges[at], ranges[at + 1])]
        # Checked for each layer in turn: a header that lists one layer many times must not fill the memory.
        require(not in_layers[members].any(), "header: layers: expected each neuron in one layer at most")
        in_layers[members] = True
        require(bool((graph.codes[members] >= NEURON).all()), "header: layers: expected neurons")
        require(
            activation in (*ops.ACTIVATIONS, "softmax") or (activation is None and layer is layers[-1]),
            f"header: layers: expected an activation, got {activation!r}",
        )
        shares = all(type(v) in (int, float) and 0 <= v < 1 for v in (dropout, weight_dropout))
        require(shares, f"header: layers: expected dropout fractions, got {dropout!r} and {weight_dropout!r}")
        require(
            isinstance(probabilities, list)
            and len(probabilities) in (0, len(members))
            and all(type(i) is int and 0 <= i < n for i in probabilities)
            and (bool(probabilities) or activation != "softmax")
            and (not probabilities or activation in ("softmax", "sigmoid"))
            and (not probabilities or losses.are_probabilities(graph, activation, members, probabilities)),
            "header: layers: expected one probability node for each neuron, or none",
        )
        net._add(Layer(graph, members, activation, float(dropout), float(weight_dropout), probabilities))
    require(net.output_ids == members, "header: layers: the last layer must be the outputs")


def _graph(arrays: dict[str, npt.NDArray[Any]]) -> Graph:
    """The graph of these arrays, after a check that every index is in range."""
    code, start, count, data = (arrays[name].astype(np.int64) for name in ("code", "start", "count", "data"))
    weights, stride, bias = (arrays[name].astype(np.int64) for name in ("weights", "stride", "bias"))
    n, vector, most = len(code), arrays["parameters"], len(arrays["pool"]) + 8 * len(arrays["bits"])

    def every(good: Any, array: str, expected: str) -> None:
        bad = np.flatnonzero(~np.asarray(good))
        if len(bad):
            i = int(bad[0])
            raise ModelFileError(f"array {array}: element {i} is {arrays[array][i]}, expected {expected}")

    require(len(start) == len(count) == len(data) == n, "arrays code, start, count, data: expected one length")
    of_records = {len(column) for column in (weights, stride, bias, arrays["max_sources"])}
    require(len(of_records) == 1, "arrays weights, stride, bias, max_sources: expected one length")
    operation, trained, neuron = ops.is_operation(code), code >= PARAMETER, code >= NEURON
    known = (code >= 0) & operation | (code >= WEIGHT) & (code < NEURON) | ops.is_activation(code - NEURON)
    every(known, "code", "the code of an operation or node")
    every((count >= 0) & (count <= most), "count", f"0 to {most}")
    pool = arrays["pool"] = expand(arrays)
    every((start >= 0) & (start <= len(pool) - count), "start", "a place in the pool with room for all sources")
    every((pool >= 0) & (pool < n), "pool", f"0 to {n - 1}")
    want = np.where(neuron, -1, 0)
    want[operation] = np.array([op.arity for op in ops.BY_CODE])[code[operation]]
    want[code == WEIGHT] = 2
    every(np.where(want < 0, (count > 0) | neuron, count == want), "count", "the number of arguments of its operation")
    require(count[operation].sum() <= len(pool), "array pool: expected arguments for each operation")
    length = np.zeros(len(pool) + 1, np.int64)
    length[start[count > 0]] = count[count > 0]
    every(
        (count == 0) | (count == length[start]),
        "count",
        "equal to the count of other lists that start at the same place",
    )
    begin = np.flatnonzero(length)
    require(
        bool((begin[:-1] + length[begin[:-1]] <= begin[1:]).all()), "array start: expected lists that do not overlap"
    )
    targets = pool[start[code == WEIGHT] + 1]
    require(bool((code[targets] >= NEURON).all()), "array code: expected weights of edges into neurons")
    inputs, constants = arrays["inputs"], arrays["constants"]
    for kind, size in ((code == INPUT, len(inputs)), (code == CONSTANT, len(constants)), (trained, len(weights))):
        every(~kind | (data >= 0) & (data < size), "data", f"0 to {size - 1}")
    every((inputs >= 0) & (inputs < n), "inputs", f"0 to {n - 1}")
    of_inputs = np.full(n, -1)
    of_inputs[inputs] = np.arange(len(inputs))
    require(
        np.array_equal(of_inputs >= 0, code == INPUT) and bool((data[inputs] == np.arange(len(inputs))).all()),
        "array inputs: expected the inputs in the order of their columns",
    )
    owners = np.flatnonzero(trained)
    require(
        len(owners) == len(weights) and len(np.unique(data[owners])) == len(weights),
        "array data: expected one record for each parameter or neuron",
    )
    fan = np.ones(len(weights), np.int64)
    fan[data[owners]] = np.where(neuron[owners], count[owners], 1)
    every((stride == 1) | (stride == PANEL), "stride", f"1 or {PANEL}")
    every((weights >= 0) & (weights < len(vector) - (fan - 1) * stride), "weights", "a place in the parameters")
    every((bias >= -1) & (bias < len(vector)), "bias", "-1 or a place in the parameters")
    # After `compact`, it may exceed the number of nodes.
    every(arrays["max_sources"] >= 0, "max_sources", "at least 0")
    require(fan.sum() + (bias >= 0).sum() <= len(vector), "array parameters: expected one for each weight and bias")
    places = np.concatenate([runs(weights, stride, fan, len(vector)), bias[bias >= 0]])
    shared = np.bincount(places, minlength=1) > 1
    require(not shared.any(), f"arrays weights, stride, bias: several parameters are at place {np.argmax(shared)}")

    every(vector == vector, "parameters", "a number")

    frozen = arrays["frozen"]
    require(len(frozen) in (0, len(vector)), f"array frozen: expected {len(vector)} numbers or none, got {len(frozen)}")
    every(frozen <= 1, "frozen", "0 or 1")

    graph = Graph()
    for name, column in graph.columns_by_name().items():
        extend(column, arrays[name])
    extend(graph.born, np.full(n, -1))
    graph.has_bare = bool((count[neuron] == 0).any())
    topological(graph, graph.topology())
    # Kernels work on whole panels.
    at = graph.storage.grow(padded(len(vector)))
    graph.storage.vector[at : at + len(vector)] = vector
    if len(frozen):
        graph.storage.state_vector(FROZEN, fresh=True)[: len(frozen)] = frozen
    return graph
