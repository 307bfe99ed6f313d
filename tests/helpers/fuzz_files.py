"""Damaged models and checkpoints; and how all fuzzers choose, damage bytes, and check a model."""

import contextlib
import functools
import io
import json
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
from bounds import assert_in_bounds
from savable import any_model, members, network

import mlgraph
from mlgraph.models.model_file import ARRAYS
from mlgraph.models.running import engine_of

NAN, INF = float("nan"), float("inf")
MEGABYTE = 2**20
X = np.random.default_rng(0).integers(0, 256, (37, 6), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 37)
JUNK = (None, True, -1, 0, 1, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, NAN, INF)
JUNK += ("", "relu", "softmax", "squared_error", "node", "0", "²", "\n", "\ud800", "x" * 5000)
JUNK += ([], {}, [[]], [0], [0, 1, 2], {"0": "x"}, {"x": 1}, [[6, 26, "tanh", 0, 0, []]])


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def chance(rng, probability):
    return rng.random() < probability


def one_line(error, start=""):
    text = str(error)
    assert text.startswith(start) and len(text) > len(start) and text.isprintable() and len(text) < 2000, repr(text)


# --- damage ---------------------------------------------------------------------------------------


def damage(rng, content, edges=()):
    """The bytes, some of them changed, cut, doubled or inserted; more often near the `edges`."""
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(content) + 1))
        if len(edges) and chance(rng, 0.6):
            at = min(len(content), max(0, int(pick(rng, edges) + rng.integers(-4, 12))))
        n = int(rng.integers(1, pick(rng, (2, 5, 40))))
        number = pick(rng, (0, 1, 127, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)).to_bytes(4, "little")
        end, new = pick(
            rng,
            [(n, b""), (n, rng.bytes(n)), (0, rng.bytes(n)), (0, content[at : at + n]), (1, number[:1]), (4, number)],
        )
        content[at : at + end] = new
    return bytes(content[: int(rng.integers(len(content) + 1))] if chance(rng, 0.05) else content)


def damaged_json(rng, value):
    """A JSON value, a part of which has been replaced."""
    if not (isinstance(value, dict | list) and len(value) and chance(rng, 0.8)):
        return value + int(rng.integers(-3, 4)) if type(value) is int and chance(rng, 0.6) else pick(rng, JUNK)
    out, keys = value.copy(), list(value) if isinstance(value, dict) else range(len(value))
    key, how = pick(rng, keys), rng.random()
    if how < 0.1:
        del out[key]
    elif how < 0.2 and isinstance(out, list):
        out.append(out[key])
    else:
        out[key] = out[pick(rng, keys)] if how < 0.3 else damaged_json(rng, out[key])
    return out


def damaged_array(rng, array):
    """An array with other numbers, or of another length, type or shape."""
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
    array, places = array.copy(), rng.integers(len(array), size=int(rng.integers(1, 4)))
    if how < 0.5:
        array[places] = rng.choice(array, len(places))
    elif array.dtype.kind == "f":
        array[places] = pick(rng, (0, -1, NAN, INF, -INF, 1e30, 1e-45))
    elif how < 0.8:
        limits = np.iinfo(array.dtype)
        array[places] = pick(rng, (limits.min, limits.max, -1, 0, 1, len(array), len(array) - 1, 2**15 - 1))
    else:
        with np.errstate(over="ignore"):
            array[places] += rng.integers(-3, 4, len(places)).astype(array.dtype)
    return array


# --- archives -------------------------------------------------------------------------------------


def squared():
    g = mlgraph.Graph(seed=0)
    ids = g.add_neurons(g.add_inputs(6), "sigmoid", weights=np.ones((17, 6)) / 4, biases=np.zeros(17))
    return mlgraph.Model(g, [g[i] for i in ids][3:6])


def members_of(write):
    """The contents of the archive that `write` makes."""
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder, "good.npz"))
        return members(path)


@functools.cache
def models():
    return [members_of(model.save) for model in (network(epochs=1), any_model(epochs=1), squared())]


def as_npy(array):
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


def packed(contents, compressed=(), how=zipfile.ZIP_DEFLATED):
    """An archive of these contents. A member named by a ZipInfo has no date, so the bytes are always the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, how if name in compressed else zipfile.ZIP_STORED)
    return buffer.getvalue()


def bomb(rng):
    """A small archive that claims to be large: one of its arrays is zeros without end."""
    contents = {f"{name}.npy": as_npy(np.zeros(1, dtype)) for name, dtype in {"header": "uint8", **ARRAYS}.items()}
    name = pick(rng, list(contents))
    contents[name] = as_npy(np.zeros(8 * MEGABYTE, np.uint8))
    return packed(contents, [name], pick(rng, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))


def damaged_model(rng, contents=None):
    """A damaged archive that had these contents, or was a model."""
    if chance(rng, 0.02):
        return bomb(rng)
    contents = dict(contents or pick(rng, models()))
    for _ in range(int(rng.integers(1, 3))):
        name, how = pick(rng, list(contents)), rng.random()
        if how < 0.8:
            with contextlib.suppress(Exception):  # damaged before: numpy reads headers as Python, which raises anything
                array = np.load(io.BytesIO(contents[name]))
                if how < 0.35:
                    name = "header.npy"
                    header = json.loads(np.load(io.BytesIO(contents[name])).tobytes())
                    array = np.frombuffer(json.dumps(damaged_json(rng, header)).encode(), np.uint8)
                contents[name] = as_npy(array if how < 0.35 else damaged_array(rng, array))
        elif how < 0.9:
            contents[name] = damage(rng, contents[name], [8, 60, 128])
        elif how < 0.95:
            contents[name] = contents[pick(rng, list(contents))]
        elif how < 0.97 and len(contents) > 1:
            del contents[name]
    if chance(rng, 0.1):
        contents = {str(name): contents[str(name)] for name in rng.permutation(list(contents))}
    if chance(rng, 0.03):
        contents |= {"spam/": b"", "../spam": b"spam"}
    content = packed(contents, [name for name in contents if chance(rng, 0.02)])
    if chance(rng, 0.15):
        content = damage(rng, content, [content.index(b"PK\x01\x02"), len(content) - 20])
    return content


# --- targets --------------------------------------------------------------------------------------


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
    tracemalloc.start()
    try:
        model = mlgraph.load(path)
    except mlgraph.ModelFileError as error:
        one_line(error, f"{path}: ")
        return "refused"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= MEGABYTE + 20 * len(content), f"{peak} bytes of memory"
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
            model.fit(
                X, targets(model), **RUN, optimizer=optimizer, checkpoint=path, checkpoint_every=0, callbacks=[stop]
            )

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
