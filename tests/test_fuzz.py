"""Fuzzing: damaged files, random graphs, random command lines. Each case is made from its number alone.

The suite runs a few; `--fuzz-cases N` runs N of each target, `--fuzz-first K` begins with case K:

    python -m pytest tests/test_fuzz.py --fuzz-cases 25000
    python -m pytest tests/test_fuzz.py -k model --fuzz-first 1234 --fuzz-cases 1

A case passes if nothing comes out but a right answer or an error that is documented, in one line; if memory stays within a
bound; and if what went in is as it was. Where a case ends the process, the file `case` of the test's folder has its number.
"""

import contextlib
import functools
import gzip
import io
import json
import math
import operator
import os
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import mlgraph
from mlgraph import datasets, mnist, ops
from mlgraph.modelfile import ARRAYS
from mlgraph.plan import KINDS

NAN, INF = float("nan"), float("inf")
MEGABYTE = 2**20
LEVELS = (0, 1, 255, 127, 128)


class Bound:
    """That what is done within it takes no more memory than this at any time."""

    def __init__(self, limit):
        self.limit = limit

    def __enter__(self):
        tracemalloc.reset_peak()
        self.before = tracemalloc.get_traced_memory()[0]

    def __exit__(self, *_):
        taken = tracemalloc.get_traced_memory()[1] - self.before
        assert taken <= self.limit, f"{taken} bytes were taken, at most {self.limit} expected"


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def chance(rng, probability):
    return rng.random() < probability


def one_line(error, start=""):
    text = str(error)
    assert text.startswith(start) and len(text) > len(start) and text.isprintable() and len(text) < 2000, repr(text)


def damage(rng, content, edges=()):
    """The bytes with some of them changed, cut, moved, doubled or put in; more often near the `edges`."""
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(content) + 1))
        if len(edges) and chance(rng, 0.6):
            at = min(len(content), max(0, int(pick(rng, edges) + rng.integers(-4, 12))))
        how, n = rng.integers(7), int(rng.integers(1, pick(rng, (2, 5, 40))))
        if how == 0:
            content[at : at + 1] = bytes([pick(rng, LEVELS)])
        elif how == 1:
            content[at : at + 1] = rng.bytes(1)
        elif how == 2:
            number = pick(rng, (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16))
            content[at : at + 4] = number.to_bytes(4, pick(rng, ("big", "little")))
        elif how == 3:
            del content[at : at + n]
        elif how == 4:
            content[at:at] = content[at : at + n]
        elif how == 5:
            content[at:at] = rng.bytes(n)
        elif chance(rng, 0.3):
            del content[at:]
    return bytes(content)


# --- data ---------------------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def fuzz_idx(rng, folder):
    """An IDX file, raw or compressed or both or with a wrong claim."""
    shape = rng.integers(1, 5, rng.integers(1, 5)).tolist()
    content = idx(rng.integers(0, 256, shape, np.uint8))
    bound = 4 * MEGABYTE
    if chance(rng, 0.05):  # a bomb: it may claim less than it holds, or more
        claim = rng.integers(0, pick(rng, (2**5, 2**20)), len(shape))
        content = gzip.compress(content[:4] + claim.astype(">u4").tobytes() + bytes(4 * MEGABYTE), 6, mtime=0)
        bound += 2 * min(4 * MEGABYTE, math.prod(claim.tolist()))  # with the room that a growing buffer takes
    else:
        if chance(rng, 0.7):
            content = damage(rng, content, [4])
        if chance(rng, 0.5):
            content = gzip.compress(content, int(rng.integers(10)), mtime=0)
            if chance(rng, 0.6):
                content = damage(rng, content, [0, len(content) - 8])
    path = folder / "a"
    path.write_bytes(content)
    ndim = None if chance(rng, 0.7) else int(rng.integers(1, 5))
    try:
        with Bound(bound):
            array = datasets.read_idx(path, ndim=ndim)
    except datasets.DataError as error:
        one_line(error, f"{path}: ")
        return "refused"
    assert array.dtype == np.uint8 and array.flags.c_contiguous and array.flags.writeable and ndim in (None, array.ndim)
    assert idx(array) == (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return "read"


def fuzz_dataset(rng, folder):
    """Four files that may not fit together."""
    shape, classes = rng.integers(1, 4, 2), int(rng.integers(1, 5))
    arrays = {}
    for prefix in ("train", "t10k"):
        n = int(rng.integers(1, 6))
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (n, *shape), np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = rng.integers(0, classes, n).astype(np.uint8)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for name, array in arrays.items():
        if chance(rng, 0.05):
            array = array[..., :-1]
        if chance(rng, 0.03):
            array = array[None]
        content = idx(array)
        if chance(rng, 0.07):
            content = damage(rng, content, [4])
        compressed = chance(rng, 0.2)
        (data / f"{name}.gz").unlink(missing_ok=True)
        (data / name).unlink(missing_ok=True)
        if not chance(rng, 0.02):
            (data / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(content) if compressed else content)
    try:
        with Bound(4 * MEGABYTE):
            found = datasets.load_mnist(data)
    except datasets.DataError as error:
        one_line(error, str(data))
        return "refused"
    assert found.train_x.shape == (len(found.train_y), np.prod(found.image_shape)) and found.train_y.max() < found.n_classes
    assert found.test_x.shape == (len(found.test_y), np.prod(found.image_shape)) and found.test_y.max() < found.n_classes
    return "read"


# --- model files --------------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).integers(0, 256, (37, 6), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 37)


def network(epochs=1):
    net = mlgraph.Network(6, seed=1)
    net.add_layer(20, "tanh", dropout=0.25)
    net.add_layer(9, "leaky_relu", weight_dropout=0.5, bias=False)
    net.add_layer(3, "softmax")
    if epochs:
        net.fit(X, LABELS, epochs=epochs)
    return net


def any_model():
    g = mlgraph.Graph()
    x = [g.input(name) for name in ("a", "b", "ü", "\n", "", "a")]
    scale = g.parameter(0.5, "scale")
    shared = [g.add_neuron(x, "tanh", weights=np.arange(6) / 8, bias=None) for _ in range(10)]
    own = [g.add_neuron([*x[k:], shared[k]], "relu", weights=np.ones(7 - k), bias=k) for k in range(5)]
    total = mlgraph.sum(*own, *shared[:3]) * scale + 1.5
    model = mlgraph.Model(g, [total, own[2], x[1]], loss=abs(total - x[0]))
    model.fit(X, epochs=1, learning_rate=0.01)
    return model


def squared():
    g = mlgraph.Graph()
    ids = g.add_neurons(g.inputs(6), np.ones((17, 6)) / 4, np.zeros(17), "sigmoid")
    return mlgraph.Model(g, [g[i] for i in ids][3:6])


def members_of(write):
    """What is in the archive that `write` makes."""
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder, "good.npz"))
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


@functools.cache
def models():
    return [members_of(make().save) for make in (network, any_model, squared)]


JUNK = (
    None, True, False, -1, 0, 1, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, NAN, INF, "", "spam", "relu", "softmax",
    "model", "squared_error", "softmax_cross_entropy", "node", "0", "²", "\n", "\ud800", "x" * 5000, [], {}, [[]], [0],
    [0, 1, 2], {"0": "x"}, {"x": 1}, [[6, 26, "tanh", 0, 0]],
)  # fmt: skip


def damaged_json(rng, value):
    """A JSON value of which something has become another."""
    if isinstance(value, dict | list) and len(value) and chance(rng, 0.8):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = pick(rng, keys)
        how = rng.random()
        out = dict(value) if isinstance(value, dict) else list(value)
        if how < 0.1:
            del out[key]
        elif how < 0.2 and isinstance(out, list):
            out.append(out[key])
        elif how < 0.3:
            out[key] = out[pick(rng, keys)]
        else:
            out[key] = damaged_json(rng, out[key])
        return out
    if type(value) is int and chance(rng, 0.6):
        return value + int(rng.integers(-3, 4))
    return pick(rng, JUNK)


def damaged_array(rng, array):
    """An array of which some numbers are others, or of another length or type."""
    how = rng.random()
    if how < 0.1 or not len(array):
        return np.resize(array, int(rng.integers(0, 2 * len(array) + 2)))
    if how < 0.15:
        # What a float beyond an integer's range becomes depends on where in memory it stands.
        others = ("float64", "float16", "complex64", ">f4", "bool", "S3")
        with np.errstate(over="ignore"):
            return array.astype(pick(rng, others if array.dtype.kind == "f" else (*others, "int8", ">i4", "M8[s]")))
    if how < 0.2:
        return array.reshape(pick(rng, ((1, -1), (-1, 1), (1, 1, -1))))
    array = array.copy()
    places = rng.integers(len(array), size=int(rng.integers(1, 4)))
    if array.dtype.kind == "f":
        array[places] = pick(rng, (0, -1, NAN, INF, -INF, 1e30, 1e-45))
    elif how < 0.5:
        limits = np.iinfo(array.dtype)
        array[places] = pick(rng, (limits.min, limits.max, -1, 0, 1, len(array), len(array) - 1, 2**15 - 1))
    elif how < 0.8:
        array[places] = rng.choice(array, len(places))
    else:
        with np.errstate(over="ignore"):
            array[places] += rng.integers(-3, 4, len(places)).astype(array.dtype)
    return array


def as_npy(array):
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


def packed(rng, members):
    """The members as an archive, which may be odd."""
    buffer = io.BytesIO()
    odd = chance(rng, 0.2)
    names = [str(name) for name in rng.permutation(list(members))] if odd else list(members)
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            method = zipfile.ZIP_DEFLATED if odd and chance(rng, 0.1) else zipfile.ZIP_STORED
            # A ZipInfo of its own has no date; by its name alone a member would have the time of day.
            archive.writestr(zipfile.ZipInfo(name), members[name], method)
        if odd and chance(rng, 0.3):
            archive.writestr(zipfile.ZipInfo("spam/"), b"")
            archive.writestr(zipfile.ZipInfo("../spam"), b"spam")
    return buffer.getvalue()


def bomb(rng):
    """An archive that is small, and says that it is large: a good directory, arrays that are zeros without end."""
    members = {f"{name}.npy": as_npy(np.zeros(1, dtype)) for name, dtype in {"header": "uint8", **ARRAYS}.items()}
    name = pick(rng, list(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            if member != name:
                archive.writestr(zipfile.ZipInfo(member), content)
        large = as_npy(np.zeros(8 * MEGABYTE, np.uint8))
        archive.writestr(zipfile.ZipInfo(name), large, pick(rng, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)), 9)
    return buffer.getvalue()


def damaged_model(rng, members=None):
    """The content of a file that had these members, or was a model."""
    if chance(rng, 0.02):
        return bomb(rng)
    members = dict(members or pick(rng, models()))
    for _ in range(int(rng.integers(1, 3))):
        name = pick(rng, list(members))
        how = rng.random()
        if how < 0.35:
            with contextlib.suppress(Exception):  # damaged before: numpy reads headers as Python, which raises anything
                header = json.loads(np.load(io.BytesIO(members["header.npy"])).tobytes())
                text = json.dumps(damaged_json(rng, header)).encode()
                if chance(rng, 0.1):
                    text = damage(rng, text)
                members["header.npy"] = as_npy(np.frombuffer(text, np.uint8))
        elif how < 0.8:
            name = pick(rng, [name for name in members if name != "header.npy"])
            with contextlib.suppress(Exception):
                members[name] = as_npy(damaged_array(rng, np.load(io.BytesIO(members[name]))))
        elif how < 0.9:
            members[name] = damage(rng, members[name], [8, 60, 128])
        elif how < 0.95:
            members[name] = members[pick(rng, list(members))]
        elif how < 0.97 and len(members) > 1:
            del members[name]
    content = packed(rng, members)
    if chance(rng, 0.15):
        content = damage(rng, content, [content.index(b"PK\x01\x02"), len(content) - 20])
    return content


def check_places(model, what):
    """No instruction of the plan reads or writes outside its arrays."""
    plan, n = model._engine(what).plan, len(model.graph.parameters)
    for ins in plan.instructions:
        if ins.kind in (KINDS["parameter"], KINDS["dense"], KINDS["rows"]):
            width = -(-ins.size // 16) * 16 if ins.kind == KINDS["dense"] else ins.size
            assert 0 <= ins.weights <= n - ins.n_weights and -1 <= ins.bias <= n - width
        if ins.kind == KINDS["operation"]:
            arguments = plan.index[ins.args : ins.args + ins.size * ins.arity]
            assert len(arguments) == ins.size * ins.arity and 0 <= arguments.min() and arguments.max() < ins.dst


def check_model(model, folder):
    """It runs, and saved and loaded again it runs to the same bits; it trains, or says why not."""
    for what in ("outputs", "loss"):
        check_places(model, what)
    x = np.resize(X, (37, model.graph.n_inputs))
    values = model.forward(x)
    assert values.shape == (37, len(model.outputs))
    model.save(folder / "again.npz")
    assert mlgraph.load(folder / "again.npz").forward(x).tobytes() == values.tobytes()
    n_outputs = len(model.outputs)
    y = np.zeros(37, int) if model.loss == "softmax_cross_entropy" else np.zeros((37, n_outputs))
    with contextlib.suppress(mlgraph.NonFiniteError):
        model.fit(x, y, epochs=1, learning_rate=1e-3, batch_size=20)


def fuzz_model(rng, folder):
    """A model file."""
    content = damaged_model(rng)
    path = folder / "model.npz"
    path.write_bytes(content)
    try:
        with Bound(MEGABYTE + 20 * len(content)):
            model = mlgraph.load(path)
    except mlgraph.ModelFileError as error:
        one_line(error, f"{path}: ")
        return "refused"
    finally:
        assert path.read_bytes() == content
    check_model(model, folder)
    return "read"


class Stop(Exception):
    pass


RUNS = {"network": lambda: network(epochs=0), "squared": squared}
RUN = {"epochs": 3, "batch_size": 10, "learning_rate": 0.01}


def targets(model):
    return LABELS if model.loss == "softmax_cross_entropy" else np.ones((37, len(model.outputs)))


@functools.cache
def broken_off(run, optimizer):
    """The members of the checkpoint of a run that an error has ended in its second epoch."""
    def stop(event):
        if event.epoch == 1:
            raise Stop

    def write(path):
        model = RUNS[run]()
        with contextlib.suppress(Stop):
            model.fit(X, targets(model), **RUN, optimizer=optimizer, checkpoint=path, checkpoint_every=0, callback=stop)

    return members_of(write)


def fuzz_checkpoint(rng, folder):
    """A checkpoint, from which a run goes on."""
    run, optimizer = pick(rng, list(RUNS)), pick(rng, ("sgd", "adam"))
    content = damaged_model(rng, broken_off(run, optimizer))
    path = folder / "checkpoint.npz"
    path.write_bytes(content)
    path.with_name("checkpoint.npz.previous").unlink(missing_ok=True)  # which a run before has left
    model = RUNS[run]()
    model.evaluate(X, targets(model))  # which compiles it, and so moves parameters
    before = model.graph.parameters.tobytes()
    try:
        model.fit(X, targets(model), **RUN, optimizer=optimizer, checkpoint=path, resume=True)
    except (mlgraph.ModelFileError, mlgraph.CheckpointError) as error:
        one_line(error)
        assert model.graph.parameters.tobytes() == before
        assert path.read_bytes() == content
        return "refused"
    except mlgraph.NonFiniteError as error:
        one_line(error)
    else:
        assert len(model.history.epoch_loss) == 3
    for what in ("outputs", "loss"):
        check_places(model, what)
    return "read"


# --- graphs -------------------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, -1, 2, 0.5, -3.25, 1e-40, 1e30, 3e38, INF, -INF, NAN, np.float32(0.1), np.int64(7), True)
MISTAKES = (
    None, "x", "", b"x", [], [None], {}, object(), 1j, 1e39, 10**400, -(2**31), 2**31, NAN, float, np.ones(3), np.array("x"),
    np.zeros(0), lambda: 1,
)  # fmt: skip


class Builder:
    """A graph that grows by random calls, right ones and mistakes."""

    def __init__(self, rng):
        self.rng = rng
        self.g = mlgraph.Graph()
        self.other = mlgraph.Graph().input()
        self.nodes = self.g.inputs(int(rng.integers(1, 5)))

    def node(self):
        """Mostly a late one, so that graphs are deep."""
        if chance(self.rng, 0.02):
            return self.other if chance(self.rng, 0.5) else self.mistake()
        back = int(self.rng.geometric(0.15)) if chance(self.rng, 0.6) else int(self.rng.integers(1, len(self.nodes) + 1))
        return self.nodes[max(0, len(self.nodes) - back)]

    def some(self, most=6):
        nodes = [self.node() for _ in range(int(self.rng.integers(0 if chance(self.rng, 0.03) else 1, most)))]
        try:
            return list(dict.fromkeys(nodes)) if chance(self.rng, 0.95) else nodes
        except TypeError:
            return nodes

    def number(self):
        return self.mistake() if chance(self.rng, 0.03) else pick(self.rng, NUMBERS)

    def small(self):
        return float(self.rng.integers(-8, 9)) / 8

    def mistake(self):
        return pick(self.rng, MISTAKES)

    def name(self, names):
        return self.mistake() if chance(self.rng, 0.02) else pick(self.rng, names)

    def matrix(self, *shape):
        if chance(self.rng, 0.03):
            return self.mistake()
        if chance(self.rng, 0.03):
            shape = (*shape[:-1], shape[-1] + 1)
        array = self.rng.integers(-8, 9, shape) / 8
        return pick(self.rng, (np.asarray, np.asfortranarray, np.float32, list, lambda a: a[::-1]))(array)

    # What may be done; each gives the new nodes.

    def add_input(self):
        return [self.g.input(pick(self.rng, (None, "x", "\n", 3)))]

    def add_constant(self):
        return [self.g.constant(self.number())]

    def add_parameter(self):
        return [self.g.parameter(self.small() if chance(self.rng, 0.9) else self.number())]

    def add_operation(self):
        name = self.name(tuple(ops.OPS))
        arity = ops.OPS[name].arity if isinstance(name, str) and name in ops.OPS else 1
        n = int(self.rng.integers(1, 6)) if arity < 0 or chance(self.rng, 0.02) else arity
        return [self.g.operation(name, *(self.node() if chance(self.rng, 0.9) else self.number() for _ in range(n)))]

    def add_by_operator(self):
        a, b = self.node(), self.node() if chance(self.rng, 0.7) else self.number()
        if not isinstance(a, mlgraph.Node):
            return []
        if chance(self.rng, 0.5):
            a, b = b, a
        how = (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, lambda a, _: -a, lambda a, _: abs(a))
        out = pick(self.rng, how)(a, b)
        return [out] if isinstance(out, mlgraph.Node) else []

    def add_softmax(self):
        return self.g.softmax(self.some())

    def add_neuron(self):
        sources = self.some(12)
        bias = None if chance(self.rng, 0.3) else self.small() if chance(self.rng, 0.9) else self.number()
        weights = None if chance(self.rng, 0.1) else self.matrix(len(sources))
        return [self.g.add_neuron(sources, self.name(ops.ACTIVATIONS), weights=weights, bias=bias)]

    def add_neurons(self):
        sources, n = self.some(20), int(self.rng.integers(1, 20))
        biases = None if chance(self.rng, 0.3) else self.matrix(n)
        given = sources
        if chance(self.rng, 0.3):
            ids = [getattr(node, "id", 0) for node in sources]
            given = np.array(ids, pick(self.rng, ("int32", "int64", "uint16", "float64")))
        ids = self.g.add_neurons(given, self.matrix(n, len(sources)), biases, self.name(ops.ACTIVATIONS))
        return [self.g[i] for i in ids]

    def add_written_neuron(self):
        """A sum of products with parameters, which the plan finds."""
        terms = [self.g.parameter(self.small()) * node for node in self.some()]
        out = terms[0]
        for term in terms[1:]:
            out = out + term
        return [mlgraph.tanh(out + self.g.parameter(self.small()))]

    def add_edge(self):
        self.g.add_edge(self.node(), self.node(), self.small() if chance(self.rng, 0.9) else self.number())

    def cut(self):
        self.g.prune(self.some())

    def cut_edges(self):
        neuron = self.node()
        self.g.prune([(source, neuron) for source in neuron.sources if chance(self.rng, 0.5)])

    def undo(self):
        self.g.undo()
        self.nodes = [node for node in self.nodes if node.id < len(self.g)]

    def set_weights(self):
        neuron = self.node()
        neuron.weights = self.matrix(len(neuron.sources))

    def set_bias(self):
        self.node().bias = self.number()

    def set_value(self):
        self.node().value = self.number()

    def look(self):
        node = self.node()
        assert isinstance(repr(node), str) and isinstance(str(node), str)
        self.g[self.rng.integers(len(self.g)) if chance(self.rng, 0.9) else self.mistake()]

    def compile(self):
        self.g.compile(self.some())(self.rows(3))

    def rows(self, n):
        shape = n, self.g.n_inputs
        x = self.rng.integers(-8, 9, shape) / 4 * (self.rng.random(shape) < pick(self.rng, (0.2, 1)))
        return pick(self.rng, (np.asarray, np.float32, np.asfortranarray, lambda x: np.uint8(np.abs(x) * 9)))(x)

    def state(self):
        g = self.g
        columns = [column.tobytes() for name, column in sorted(vars(g).items()) if isinstance(column, type(g._code))]
        return len(g), g.edits, columns, g.parameters.tobytes(), list(g.state), dict(g._names)


ACTIONS = ["add_operation"] * 6 + ["add_by_operator"] * 6 + ["add_neuron"] * 3 + ["add_neurons"] * 2 + [
    "add_constant", "add_parameter", "add_softmax", "add_written_neuron", "add_input", "set_weights", "set_bias", "set_value",
    "look", "compile", "add_edge", "add_edge", "cut", "cut_edges", "undo",
]  # fmt: skip


def fuzz_graph(rng, folder):
    """Random calls; what they built is run, trained and saved, and held against the reference."""
    builder = Builder(rng)
    g = builder.g
    mistakes = 0
    for _ in range(int(rng.integers(1, 30))):
        action = pick(rng, ACTIONS)
        before = builder.state() if action not in ("compile", "add_written_neuron") else None
        try:
            new = getattr(builder, action)() or []
            builder.nodes += [node for node in new if node.graph is g]
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            one_line(error)
            mistakes += 1
            if before is not None and builder.state() != before:
                raise AssertionError(f"{action} changed something, and failed") from error
    outputs = [node for node in builder.some(4) if isinstance(node, mlgraph.Node) and node.graph is g]
    outputs = outputs or [builder.nodes[-1]]
    f = g.compile(outputs)
    x = builder.rows(int(pick(rng, (1, 2, 31, 32, 33, 70))))
    mlgraph.testing.check_against_reference(f, x, seed=int(rng.integers(100)), n_threads=1)
    assert f(x, n_threads=3).tobytes() == f(x, n_threads=1).tobytes()

    loss = pick(rng, ("squared_error", "softmax_cross_entropy", outputs[0]))
    model = mlgraph.Model(g, outputs, loss)
    y = rng.integers(0, len(outputs), len(x)) if loss == "softmax_cross_entropy" else rng.random((len(x), len(outputs)))
    trained = g.parameters.copy()
    try:
        model.fit(x, y, epochs=2, batch_size=int(rng.integers(1, 80)), learning_rate=1e-3, n_threads=int(rng.integers(1, 4)),
                  optimizer=pick(rng, ("sgd", "adam")), momentum=pick(rng, (0, 0.5)))  # fmt: skip
    except (mlgraph.NonFiniteError, ValueError) as error:
        one_line(error)
    if np.isfinite(trained).all():
        assert np.isfinite(g.parameters).all()
    check_model(model, folder)
    if chance(rng, 0.5):
        with contextlib.suppress(ValueError):  # too much, or a graph without edges
            model.prune(rng.random(), by=pick(rng, ("magnitude", "random")), seed=1)
        mlgraph.testing.check_against_reference(g.compile(model.outputs), x)
        check_model(model, folder)
    return "mistakes" if mistakes else "none"


# --- the command line ---------------------------------------------------------------------------------------------------

BAD = (
    "", "x", "-1", "0", "1.5", "nan", "inf", "1:", ":", "1:2:3", ",", "None", "none", "-", "--", "1e400", "9" * 5000, "\n",
    "\udcff", "ü", "١", "1000000001", "0x10", "=", "'", "a b", "1_", "+",
)  # fmt: skip
OPTIONS = {
    "--preset": ("default", "ml-rust"), "--hidden": ("1", "5", "3,4", "none", ""), "--activation": ops.ACTIVATIONS,
    "--epochs": ("1", "2", "1_0"), "--batch-size": ("1", "8", "30:4", "1000000000"), "--momentum": ("0", "0.5", "1e-9"),
    "--learning-rate": ("0.1", "0.1:0.001", "1e30"), "--dropout": ("0", "0.5"), "--weight-dropout": ("0.5", "0.999999"),
    "--sparsity": ("0", "0.5", "0.9", "0.999999"), "--method": ("gradual", "set", "rigl"), "--seed": ("0", "7"),
    "--threads": ("1", "2"), "--checkpoint-every": ("0", "1e9"), "--neuron": ("0.0", "1.3", "9.9", "0.-1", "1"),
    "--layer": ("0", "1", "2", "1000000000"),
    "--out": ("out", "out/deeper", "data", "data/train-images-idx3-ubyte/x", "out/\n", "", "file"),
}  # fmt: skip
FLAGS = ("--json", "--quiet", "--live", "--resume", "--no-plot")
LOOKING = {"evaluate": ["--threads"], "inspect": ["--threads", "--neuron", "--layer"]}
NEW = {"--preset", "--hidden", "--activation", "--dropout", "--weight-dropout", "--method"}  # of a network that is made
TRAINING = {"train": set(OPTIONS) - {"--neuron", "--layer"}, "prune": set(OPTIONS) - {"--neuron", "--layer"} - NEW}
TAKES = {command: sorted(names) for command, names in {**LOOKING, **TRAINING}.items()}
DATA = ("data", "none", "file", "bad", "")
GIVEN = ("good.npz", "good.npz", "other.npz", "damaged.npz", "damaged.npz", "none.npz", "../file", "../data")


def prepare(folder):
    """A folder to work in: data, good and bad, a model, another, and a file that is none."""
    rng = np.random.default_rng(0)
    for name in ("data", "bad", "models"):
        (folder / name).mkdir()
    for name in ("data", "bad"):
        for prefix in ("train", "t10k"):
            (folder / name / f"{prefix}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (20, 2, 3), np.uint8)))
            (folder / name / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(rng.integers(0, 3, 20).astype(np.uint8)))
    (folder / "bad" / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14")
    (folder / "file").write_bytes(b"spam\n")
    network().save(folder / "models" / "good.npz")
    any_model().save(folder / "models" / "other.npz")


def inputs_of(folder):
    """Content of what the program only reads."""
    paths = [*folder.glob("*/*-ubyte"), folder / "file", folder / "models" / "good.npz", folder / "models" / "other.npz"]
    return {path: path.read_bytes() for path in paths}


def words(rng, folder):
    command = pick(rng, ("train", "train", "train", "evaluate", "evaluate", "inspect", "prune"))
    out = [] if command == "train" and chance(rng, 0.8) else [command]
    if command != "train":
        if chance(rng, 0.3):
            (folder / "models" / "damaged.npz").write_bytes(damaged_model(rng))
        out.append(f"models/{pick(rng, GIVEN)}")
    if command == "prune" and chance(rng, 0.9):
        out.append("--sparsity=0.5")
    names = TAKES[command] if chance(rng, 0.95) else list(OPTIONS)
    for name in [pick(rng, names) for _ in range(int(rng.integers(0, 2 if command in LOOKING else 5)))]:
        value = pick(rng, BAD) if chance(rng, 0.15) else pick(rng, OPTIONS[name])
        if (name, value) == ("--epochs", "1000000001"):
            value = "0"
        out += pick(rng, ([name, value], [f"{name}={value}"]))
    out += [flag for flag in FLAGS[: 1 if command in LOOKING and chance(rng, 0.9) else 4] if chance(rng, 0.3)]
    if command != "evaluate" and (command == "inspect" or chance(rng, 0.97)):
        out.append("--no-plot")
    checkpoint = folder / "out" / "checkpoint.npz"
    if checkpoint.exists() and chance(rng, 0.1):
        checkpoint.write_bytes(damage(rng, checkpoint.read_bytes()))
    out += ["--data", pick(rng, DATA) if chance(rng, 0.2) else "data"]
    if chance(rng, 0.05):
        out[int(rng.integers(len(out)))] = pick(rng, (*BAD, "--help", "--nonsense", "evaluate"))
    if "--data" not in out or not any(word == "data" for word in out):  # MNIST itself takes longer
        out += ["--data", "data"]
    return out


def fuzz_command_line(rng, folder):
    """Words of which most are options of the program."""
    work = folder / "work"
    if not work.exists():
        work.mkdir()
        prepare(work)
    before = inputs_of(work)
    arguments = words(rng, work)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    here = os.getcwd()
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = mnist.main(arguments)
    except SystemExit as done:
        status = done.code if {"--help", "-h"}.isdisjoint(arguments) else 0
    finally:
        os.chdir(here)
    for stream in (out, err):
        stream.flush()
    printed, complaint = (stream.buffer.getvalue().decode() for stream in (out, err))
    complaint = complaint.removeprefix("no live picture: neither DISPLAY nor WAYLAND_DISPLAY is set\n")
    complaints = [line for line in complaint.split("\n") if not line.startswith("mlgraph.mnist: checkpoint: ")]  # warnings
    if status:
        assert status in (1, 2) and len(complaints) == 2 and complaints[0].startswith("mlgraph.mnist: error: "), complaint
    else:
        assert "Traceback" not in printed and complaints == [""], complaint
    assert inputs_of(work) == before, arguments
    return f"status {status}"


# --- the run ------------------------------------------------------------------------------------------------------------

TARGETS = {"idx": (fuzz_idx, {"refused", "read"}), "dataset": (fuzz_dataset, {"refused", "read"}),
           "model": (fuzz_model, {"refused", "read"}), "checkpoint": (fuzz_checkpoint, {"refused", "read"}),
           "graph": (fuzz_graph, {"mistakes", "none"}),
           "command_line": (fuzz_command_line, {"status 0", "status 2"})}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target, tmp_path, monkeypatch, request, record_property):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    fuzz, outcomes = TARGETS[target]
    first, cases = (request.config.getoption(f"--fuzz-{name}") for name in ("first", "cases"))
    counts = dict.fromkeys(outcomes, 0)
    progress = os.open(tmp_path / "case", os.O_CREAT | os.O_WRONLY)
    traced = target in ("idx", "dataset", "model")
    if traced:
        tracemalloc.start()
    try:
        for case in range(first, first + cases):
            os.pwrite(progress, f"{case:9}\n".encode(), 0)
            try:
                outcome = fuzz(np.random.default_rng([zlib.crc32(target.encode()), case]), tmp_path)
            except Exception as error:
                raise AssertionError(f"{target}: case {case}: {type(error).__name__}: {error}") from error
            counts[outcome] = counts.get(outcome, 0) + 1
    finally:
        os.close(progress)
        if traced:
            tracemalloc.stop()
    record_property("outcomes", counts)
    print(f"\n{target}: {cases} cases from {first}: {counts}")
    assert cases < 100 or all(counts[outcome] > cases // 50 for outcome in outcomes), counts


def test_a_case_is_made_from_its_number_alone():
    contents = [damaged_model(np.random.default_rng([1, case])) for case in range(20)]
    assert contents == [damaged_model(np.random.default_rng([1, case])) for case in range(20)]
    assert len(set(contents)) > 15
