"""Damaged files: data, models, checkpoints; and how all fuzzers choose, damage, and check a model."""

import contextlib
import functools
import gzip
import io
import json
import math
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
from bounds import assert_in_bounds
from savable import any_model, network

import mlgraph
from mlgraph import datasets
from mlgraph.models.model_file import ARRAYS
from mlgraph.models.running import engine_of

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


# --- data -----------------------------------------------------------------------------------------


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
            (data / (f"{name}.gz" if compressed else name)).write_bytes(
                gzip.compress(content) if compressed else content
            )
    try:
        with Bound(4 * MEGABYTE):
            found = datasets.load_mnist(data)
    except datasets.DataError as error:
        one_line(error, str(data))
        return "refused"
    assert (
        found.train_x.shape == (len(found.train_y), np.prod(found.image_shape))
        and found.train_y.max() < found.n_classes
    )
    assert (
        found.test_x.shape == (len(found.test_y), np.prod(found.image_shape)) and found.test_y.max() < found.n_classes
    )
    return "read"


# --- model files ----------------------------------------------------------------------------------

X = np.random.default_rng(0).integers(0, 256, (37, 6), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 37)


def squared():
    g = mlgraph.Graph()
    ids = g.add_neurons(g.inputs(6), "sigmoid", weights=np.ones((17, 6)) / 4, biases=np.zeros(17))
    return mlgraph.Model(g, [g[i] for i in ids][3:6])


def members_of(write):
    """What is in the archive that `write` makes."""
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder, "good.npz"))
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


@functools.cache
def models():
    return [members_of(model.save) for model in (network(epochs=1), any_model(epochs=1), squared())]


JUNK = (
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.5,
    -0.0,
    1e308,
    NAN,
    INF,
    "",
    "spam",
    "relu",
    "softmax",
    "model",
    "squared_error",
    "softmax_cross_entropy",
    "binary_cross_entropy",
    "node",
    "0",
    "²",
    "\n",
    "\ud800",
    "x" * 5000,
    [],
    {},
    [[]],
    [0],
    [0, 1, 2],
    {"0": "x"},
    {"x": 1},
    [[6, 26, "tanh", 0, 0, []]],
)


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


def check_model(model, folder):
    """It runs, and saved and loaded again it runs to the same bits; it trains, or says why not."""
    for nodes in (model.output_ids, None):
        assert_in_bounds(engine_of(model, nodes).plan, len(model.graph.parameters))
    x = np.resize(X, (37, model.graph.n_inputs))
    values = model.forward(x)
    assert values.shape == (37, len(model.outputs))
    model.save(folder / "again.npz")
    assert mlgraph.load(folder / "again.npz").forward(x).tobytes() == values.tobytes()
    n_outputs = len(model.outputs)
    y = {"softmax_cross_entropy": np.zeros(37, int), "node": ()}.get(model.loss, np.zeros((37, n_outputs)))
    try:
        model.fit(x, y, epochs=1, learning_rate=1e-3, batch_size=20)
    except mlgraph.NonFiniteError:
        pass
    except ValueError as error:
        one_line(error, "fit: the loss depends on no weight or parameter")


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
    for nodes in (model.output_ids, None):
        assert_in_bounds(engine_of(model, nodes).plan, len(model.graph.parameters))
    return "read"
