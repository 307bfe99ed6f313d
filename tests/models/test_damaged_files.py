"""A file that is not a model, or a damaged one, is refused in one clear line or gives a model that runs."""

import io
import json
import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from bounds import assert_in_bounds
from savable import MODELS, X, members, network

import mlgraph
from mlgraph.models.model_file import ARRAYS, FORMAT, ModelFileError
from mlgraph.models.running import engine_of

HUGE = {name: np.iinfo(dtype).max for name, dtype in ARRAYS.items() if dtype.startswith("int")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


slow_kinds = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("network", "moved")]


@pytest.fixture(scope="module", params=["pruned", *slow_kinds])
def saved(request, tmp_path_factory):
    """A model and its file, which no test changes."""
    model, path = MODELS[request.param](), tmp_path_factory.mktemp("saved") / "model.npz"
    model.save(path)
    return model, path


def arrays_in(path):
    with np.load(path) as arrays:
        return {name: array.copy() for name, array in arrays.items()}


def header_in(path):
    return json.loads(arrays_in(path)["header"].tobytes())


def as_array(header):
    return np.frombuffer(json.dumps(header).encode(), np.uint8)


def rewrite(source, target, **changes):
    """Write the file with these members replaced: by arrays, by bytes, or by None for a missing member."""
    contents = members(source) | {f"{name}.npy": change for name, change in changes.items()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            if isinstance(content, np.ndarray):
                np.save(buffer := io.BytesIO(), content)
                content = buffer.getvalue()
            if content is not None:
                archive.writestr(name, content)
    return target


def assert_refused(path, message=""):
    """Loading fails with one line that begins with the path."""
    with pytest.raises(ModelFileError) as error:
        mlgraph.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and text.isprintable() and re.search(message, text), text


def load_damaged(path):
    """The outputs of the model in a file, or None if it is refused; its kernels must stay within their arrays."""
    try:
        model = mlgraph.load(path)
    except ModelFileError:
        assert_refused(path)
        return None
    for nodes in (model.output_ids, None):
        assert_in_bounds(engine_of(model, nodes).plan, len(model.graph.parameters))
    with np.errstate(all="ignore"):
        return model.forward(X, n_threads=1)


# --- files ----------------------------------------------------------------------------------------


def test_missing_files_and_folders_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        mlgraph.load(tmp_path / "missing.npz")
    with pytest.raises(OSError, match="directory"):
        mlgraph.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(100), bytes(10**5)])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    assert_refused(path, "not a model file")


def test_other_archives_are_refused(path):
    np.savez(path, x=np.zeros(3))
    assert_refused(path, r"not a model file: it has no header$")
    np.savez(path, header=as_array({"format": FORMAT}))
    assert_refused(path, r"not a model file: it has no code, start, count, \.\.\.$")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_devices_and_pipes_are_not_opened(path):
    """/dev/zero has no end, and opening a pipe waits for its writer."""
    os.mkfifo(path)
    assert_refused(path, "not a model file, but a device or a pipe")
    assert_refused("/dev/zero", "not a model file, but a device or a pipe")


@pytest.mark.parametrize("version", [0, 1, 10**30])
def test_other_versions_are_refused_even_without_arrays_of_this_one(path, version):
    network(epochs=0).save(path)
    rewrite(path, path, header=as_array({**header_in(path), "format": version}), max_sources=None)
    assert_refused(path, f"format: expected {FORMAT}, got {version}: made by another version")


def test_compressed_arrays_are_refused(path):
    """A few bytes could claim gigabytes."""
    network(epochs=0).save(path)
    np.savez_compressed(path, **arrays_in(path))
    assert_refused(path, "expected arrays that are not compressed, got header$")


def test_arrays_larger_than_the_file_are_refused(path):
    network(epochs=0).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24  # the size of the first member, in the directory of the archive
    content[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    assert_refused(path, f"expected arrays of at most the {len(content)} bytes of the file, got ")


def test_truncated_files_are_refused(saved, path):
    content = saved[1].read_bytes()
    for length in [*range(0, len(content), 199), *range(len(content) - 40, len(content))]:
        path.write_bytes(content[:length])
        assert_refused(path, "not a model file")


def test_a_truncated_file_is_one_while_another_error_is_handled(saved, path):
    """Such as that of the file tried before; a disk's error has another type."""
    path.write_bytes(saved[1].read_bytes()[:1000])
    try:
        mlgraph.load(path.with_name("missing"))
    except FileNotFoundError:
        with pytest.raises(ModelFileError, match="not a model file, or a damaged one"):
            mlgraph.load(path)


def test_changed_bytes_never_change_the_model(saved, path):
    """A checksum covers every byte that a model is made of."""
    content, rng = saved[1].read_bytes(), np.random.default_rng(0)
    expected, survivors = saved[0].forward(X).tobytes(), 0
    for k in range(150):
        damaged = bytearray(content)
        first = 0 if k % 2 else content.index(b"PK\x01\x02")  # half of them in the directory of the archive
        for at in rng.integers(first, len(content), 1 + k % 3):
            damaged[at] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        values = load_damaged(path)
        survivors += values is not None
        assert values is None or values.tobytes() == expected
    assert survivors < 75


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HUGE)
def test_numbers_out_of_range_are_refused(saved, path, name):
    """Nodes without sources, and a maximum that is too high, have no use for some numbers."""
    arrays = arrays_in(saved[1])
    for value in (-2, HUGE[name]):
        for at in np.unique(np.linspace(0, len(arrays[name]) - 1, 12, dtype=int)) if len(arrays[name]) else []:
            changed = arrays[name].copy()
            changed[at] = value
            rewrite(saved[1], path, **{name: changed})
            if (name == "data" and arrays["code"][at] < 100) or (name == "max_sources" and value > 0):
                assert load_damaged(path).tobytes() == saved[0].forward(X).tobytes()
            else:
                assert_refused(path, f"array {name}: ")


def test_swapped_numbers_leave_kernels_within_their_arrays(saved, path):
    rng, arrays, survivors = np.random.default_rng(0), arrays_in(saved[1]), 0
    for _ in range(60):
        changes = {name: arrays[name].copy() for name in rng.choice(list(HUGE), rng.integers(1, 3))}
        for array in changes.values():
            if len(array):
                at = rng.integers(len(array), size=rng.integers(1, 4))
                array[at] = rng.choice(array, len(at)) + rng.integers(-1, 2, len(at)).astype(array.dtype)
        survivors += load_damaged(rewrite(saved[1], path, **changes)) is not None
    assert 0 < survivors < 60


@pytest.mark.parametrize("name", ["header", *ARRAYS])
def test_arrays_of_wrong_length_are_refused(saved, path, name):
    array = arrays_in(saved[1])[name]
    may_be_longer = name in ("parameters", "pool", "constants")
    for changed in (array[:0], array[1:], array[:-1], np.append(array, array[:1])):
        if len(changed) != len(array):
            assert load_damaged(rewrite(saved[1], path, **{name: changed})) is None or may_be_longer
    assert_refused(rewrite(saved[1], path, **{name: None}), f"not a model file: it has no {name}$")


def test_parameters_may_end_within_a_panel(path):
    """Kernels work on whole panels of eight."""
    net = mlgraph.Network(6, seed=0)
    net.add_layer(9, "relu")
    net.save(path)
    parameters = arrays_in(path)["parameters"]
    assert load_damaged(rewrite(path, path, parameters=parameters[:-7])).tobytes() == net.forward(X).tobytes()
    assert load_damaged(rewrite(path, path, parameters=parameters[:-8])) is None


def test_shared_parameters_are_refused(saved, path):
    """If weights could share a place, a small file could claim any number of edges."""
    arrays = arrays_in(saved[1])
    same = {"weights": np.zeros_like(arrays["weights"]), "stride": np.ones_like(arrays["stride"])}
    fewer = arrays["parameters"][: saved[0].graph.n_parameters - 1]
    rewrite(saved[1], path, **same, bias=np.minimum(arrays["bias"], 0), parameters=fewer)
    assert_refused(path, "array parameters: expected one for each weight and bias")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_cycles_are_refused(path, length):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(6)
    nodes = [mlgraph.exp(x[0])]
    for _ in range(length - 1):
        nodes.append(g.add_operation("identity", nodes[-1]))
    mlgraph.Model(g, [x[0] * 2]).save(path)
    arrays = arrays_in(path)
    arrays["pool"][arrays["start"][nodes[0].id]] = nodes[-1].id
    rewrite(path, path, pool=arrays["pool"])
    assert_refused(path, rf"the edges form a cycle of {length} nodes?: (n\d+ -> ){{{length - 1}}}n6$")


def test_overlapping_lists_of_sources_are_refused(path):
    """A plan walks a list once for all nodes that read it, and skips the condition of a `where`."""
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(6)
    a, b = g.add_neuron(x[:3]), g.add_neuron(x[2:])
    chosen, total = mlgraph.where(a, b, x[2]), mlgraph.sum(b, x[2], a)
    mlgraph.Model(g, [chosen * total]).save(path)
    before = arrays_in(path)
    start = before["start"].copy()
    start[a.id] = start[b.id]
    assert_refused(rewrite(path, path, start=start), "array count: element [67] is [34]")
    start, pool = before["start"].copy(), before["pool"].copy()
    start[total.id] = start[chosen.id] + 1
    pool[start[chosen.id] :][:4] = a.id, b.id, x[2].id, a.id
    assert_refused(rewrite(path, path, start=start, pool=pool), "array start: expected lists that do not overlap")


def test_arrays_that_contradict_each_other_are_refused(path):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(2)
    a, b = g.add_neuron(x), g.add_neuron(x)
    mlgraph.Model(g, [mlgraph.exp(a) * b]).save(path)
    arrays, exp = arrays_in(path), len(g) - 2
    for name, at, value, message in (
        ("count", exp, 2, f"array count: element {exp} is 2, expected the number of arguments of its operation"),
        ("data", b.id, arrays["data"][a.id], "array data: expected one record for each parameter or neuron"),
        ("inputs", 0, 1, "array inputs: expected the inputs in the order of their columns"),
        ("weights", 1, arrays["weights"][0], "arrays weights, stride, bias: several parameters are at place"),
        ("bias", 1, arrays["bias"][0], "arrays weights, stride, bias: several parameters are at place"),
    ):
        changed = arrays[name].copy()
        changed[at] = value
        assert_refused(rewrite(path, path.with_name(name), **{name: changed}), message)


def test_bits_that_contradict_the_counts_are_refused(path):
    """Long lists of sources are saved as one bit for each possible source."""
    net = mlgraph.Network(60, seed=0)
    net.add_layer(3, "relu")
    net.prune(0.3)
    net.save(path)
    bits = arrays_in(path)["bits"]
    bits[1] ^= 4
    assert_refused(rewrite(path, path, bits=bits), "array bits: expected as many as the lists have sources")


def npy(shape="(1,)", descr="'<i2'", data=bytes(2), version=1, header=None):
    text = (header or f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n").encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "huge shape": npy(f"({10**18},)"),
        "negative shape": npy("(-1,)"),
        "two dimensions": npy("(1, 1)"),
        "too little data": npy("(2,)"),
        "other type": npy(descr="'<f2'"),
        "other byte order": npy(descr="'>i2'"),
        "objects": npy(descr="'|O'", data=b"cos\nsystem\n(S'false'\ntR."),
        "other version": npy(version=3),
        "a call": npy(header="{'descr': open('spam', 'w'), 'fortran_order': False, 'shape': (1,)}\n"),
        "deeply nested": npy(header="(" * 5000 + "\n"),
        "header of another length": npy()[:30],
    }.items(),
    ids=lambda item: item[0],
)
def test_invalid_arrays_are_refused_and_nothing_is_executed(path, monkeypatch, content):
    monkeypatch.chdir(path.parent)
    network(epochs=0).save(path)
    assert_refused(rewrite(path, path, code=content[1]), "array code")
    assert os.listdir() == [path.name]


# --- headers --------------------------------------------------------------------------------------


NO_HEADERS = [b"", b"{", b"[]", b"\xff", b"[" * 10**5, b'{"format": 1' + b"0" * 5000 + b"}", b'{"format": true}']


@pytest.mark.parametrize("text", NO_HEADERS, ids=range(len(NO_HEADERS)))
def test_headers_that_are_no_objects_with_a_format_are_refused(path, text):
    network(epochs=0).save(path)
    assert_refused(rewrite(path, path, header=np.frombuffer(text, np.uint8)), "header")


IDS = "expected ids of nodes from 0 to"
NEURONS = "layers: expected (ascending ranges of )?neurons"
OUTPUTS = "probabilities or loss_nodes do not belong to the outputs"
PROBABILITIES = "layers: expected one probability node for each neuron, or none"
HEADERS = [
    (["kind"], None, "kind: expected network or model, got None"),  # as if it were missing
    (["loss"], "hinge", "loss: expected softmax_cross_entropy, .* or node, got 'hinge'"),
    (["loss"], [], "loss: expected"),
    *((["names"], junk, "names: expected strings by the ids of nodes") for junk in (None, [], {"0": 1}, {"x": "y"})),
    *((["names"], {junk: "x"}, "names: expected strings by") for junk in ("-1", "²", "1" * 5000, "999999")),
    *((["outputs"], junk, f"outputs: {IDS}") for junk in (None, [], [-1], [0.5], [True], [10**30], ["0"])),
    *((["loss_nodes"], junk, f"loss_nodes: {IDS}") for junk in (None, [], [-1])),
    (["loss_nodes"], lambda ids: ids[:-1], OUTPUTS),
    (["loss_nodes"], lambda ids: [*ids, ids[-1]], OUTPUTS),
    (["loss_nodes"], lambda ids: [ids[0], *ids[:0:-1]], OUTPUTS),
    (["probabilities"], [0.5], f"probabilities: {IDS}"),
    *((["probabilities"], junk, OUTPUTS) for junk in ([], [0, 1, 2], lambda ids: ids[:1] * 3, lambda ids: ids[::-1])),
    (["loss"], "binary_cross_entropy", OUTPUTS),
    (["reads"], None, f"reads: {IDS}"),
    (["reads"], [], f"reads: {IDS}"),
    *((["reads"], junk, "reads: expected inputs, none of them twice") for junk in ([0] * 6, [6, 7])),
    *((["layers"], junk, "layers: expected at least one") for junk in (None, {}, [])),
    *((["layers"], junk, "layers: expected lists of five") for junk in ([0], [[[6, 7], "relu", 0, 0]])),
    *((["layers", 0, 0], junk, NEURONS) for junk in ([], 12, ["6", 8], [-3, -1], [14, 12], [6, 12, 10, 14], [6, 8, 9])),
    *((["layers", 0, 0], junk, NEURONS) for junk in ([6, 10**9], [0, 8])),
    (["layers", 0, 1], "swish", "layers: expected an activation, got 'swish'"),
    (["layers", 0, 1], ["relu"], "layers: expected an activation"),
    (["layers", 0, 2], 1.5, r"layers: expected dropout fractions, got 1\.5 and 0"),
    (["layers", 0, 3], "x", "layers: expected dropout fractions"),
    *((["layers", -1, 4], junk, PROBABILITIES) for junk in (None, [0, 1], ["x"] * 3, [-1, 0, 1], [0, 1, 10**6])),
    *((["layers", 1, 4], junk, PROBABILITIES) for junk in ([], [0, 1, 2, 3])),
    (["layers", 1, 1], "tanh", PROBABILITIES),
    (["layers", 1, 0], lambda ranges: [6, ranges[1]], "layers: expected each neuron in one layer at most"),
    (["layers"], lambda layers: [layers[0], *layers], "layers: expected each neuron in one layer at most"),
    (["layers"], lambda layers: layers[:-1], "layers: the last layer must be the outputs"),
    (["layers"], lambda layers: layers[::-1], "layers: the last layer must be the outputs"),
]


@pytest.mark.parametrize(("place", "value", "message"), HEADERS)
def test_invalid_headers_are_refused(path, place, value, message):
    net = mlgraph.Network(6, seed=0)
    for size, activation in ((5, "relu"), (4, "softmax"), (3, "softmax")):
        net.add_layer(size, activation)
    net.save(path)
    header = part = header_in(path)
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value(part[place[-1]]) if callable(value) else value
    assert_refused(rewrite(path, path, header=as_array(header)), f"header: {message}")


def test_a_header_that_repeats_a_layer_needs_no_more_memory_than_the_file(path):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(20_000, "relu")
    net.add_layer(2, "softmax")
    net.save(path)
    header = header_in(path)
    header["layers"][:1] *= 5000
    rewrite(path, path, header=as_array(header))
    tracemalloc.start()
    assert_refused(path, "expected each neuron in one layer at most")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * path.stat().st_size
