"""Files that are no model, or a damaged one: each is refused in one clear line, or gives a model that runs."""

import io
import json
import os
import re
import zipfile

import numpy as np
import pytest
from bounds import assert_in_bounds
from savable import MODELS, X, members, network

import mlgraph
from mlgraph.models import model_file as modelfile
from mlgraph.models.model_file import ARRAYS, ModelFileError
from mlgraph.models.running import engine_of

RNG = np.random.default_rng(0)
HUGE = {name: np.iinfo(dtype).max for name, dtype in ARRAYS.items() if dtype.startswith("int")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


@pytest.fixture(scope="session", params=["network", pytest.param("moved", marks=pytest.mark.slow), "pruned"])
def saved(request, tmp_path_factory):
    """A model and its file, which nobody may change."""
    model, path = MODELS[request.param](), tmp_path_factory.mktemp("saved") / "model.npz"
    model.save(path)
    return model, path


def rewrite(source, target, **changes):
    """Write the file anew, with these members instead: arrays, bytes, or None for nothing."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in {**members(source), **{f"{name}.npy": change for name, change in changes.items()}}.items():
            if isinstance(content, np.ndarray):
                np.save(buffer := io.BytesIO(), content)
                content = buffer.getvalue()
            if content is not None:
                archive.writestr(name, content)
    return target


def header_of(path):
    with np.load(path) as arrays:
        return json.loads(arrays["header"].tobytes())


def as_array(header):
    return np.frombuffer(json.dumps(header).encode(), np.uint8)


def refuse(path, message=""):
    """Loading fails with one line that begins with the file."""
    with pytest.raises(ModelFileError) as error:
        mlgraph.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and text.isprintable() and re.search(message, text), text


def try_damaged(path):
    """Refused; or a model that runs, and no kernel of which leaves its memory."""
    try:
        model = mlgraph.load(path)
    except ModelFileError:
        refuse(path)
        return None
    for nodes in (model.output_ids, None):
        assert_in_bounds(engine_of(model, nodes).plan, len(model.graph.parameters))
    if model.graph.n_inputs == 6:
        with np.errstate(all="ignore"):
            values = model.forward(X, n_threads=1)
        assert values.shape == (40, len(model.outputs))
        return values
    return None


# --- reading what is no model ---------------------------------------------------------------------


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        mlgraph.load(tmp_path / "missing.npz")
    with pytest.raises(OSError, match="directory"):
        mlgraph.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(100), bytes(10**5), b"\x93NUMPY"]
)
def test_other_files(path, content):
    path.write_bytes(content)
    refuse(path, "not a model file")


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices that are files here")
def test_what_never_ends_is_not_read(tmp_path):
    """Of /dev/zero a reader of archives would look for the end; to open a pipe is to wait for whoever writes it."""
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refuse(tmp_path / "pipe", "not a model file, but a device or a pipe")
    with pytest.raises(ModelFileError, match=r"^/dev/null: not a model file, but a device or a pipe"):
        mlgraph.load("/dev/null")


def test_other_archives(path):
    np.savez(path, x=np.zeros(3))
    refuse(path, r"not a model file: it has no header$")
    np.savez(path, header=as_array({"format": modelfile.FORMAT}))
    refuse(path, r"not a model file: it has no code, start, count, \.\.\.$")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"loss": "hinge"},
            "loss: expected softmax_cross_entropy, binary_cross_entropy, squared_error or node, got 'hinge'",
        ),
        ({"dropout": 1.5}, "header: layers: expected dropout fractions, got 1.5 and 0.0"),
        ({"activation": "swish"}, "header: layers: expected an activation, got 'swish'"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_odd_losses_and_layers(path, change, message):
    network().save(path)
    header = header_of(path)
    for place, name in ((1, "activation"), (2, "dropout")):
        header["layers"][0][place] = change.get(name, header["layers"][0][place])
    header["loss"] = change.get("loss", header["loss"])
    rewrite(path, path.with_name("changed"), header=as_array(header))
    refuse(path.with_name("changed"), message)


def test_compressed_arrays(saved, path):
    """A few bytes could claim gigabytes."""
    with np.load(saved[1]) as arrays:
        np.savez_compressed(path, **arrays)
    refuse(path, "expected arrays that are not compressed, got header$")


def test_truncated_files(saved, path):
    content = saved[1].read_bytes()
    for length in [*range(0, len(content), 97), *range(len(content) - 40, len(content))]:
        path.write_bytes(content[:length])
        refuse(path, "not a model file")


def test_flipped_bytes(saved, path):
    """What a checksum covers is noticed; what it does not cover is nothing that a model is made of."""
    content, rng = saved[1].read_bytes(), np.random.default_rng(0)
    expected, survivors = saved[0].forward(X).tobytes(), 0
    for k in range(400):
        damaged = bytearray(content)
        # Half of them where the archive says what it holds.
        first = 0 if k % 2 else content.index(b"PK\x01\x02")
        for at in rng.integers(first, len(content), 1 + k % 3):
            damaged[at] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        values = try_damaged(path)
        survivors += values is not None
        assert values is None or values.tobytes() == expected
    assert survivors < 200


# --- reading damaged arrays -----------------------------------------------------------------------


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("value", [pytest.param(-2, marks=pytest.mark.slow), "huge"])
def test_numbers_out_of_range(saved, path, name, value):
    """Bad numbers are refused anywhere in any array, except where a node has no use for them."""
    value = HUGE[name] if value == "huge" else value
    with np.load(saved[1]) as arrays:
        array, code = arrays[name], arrays["code"]
    assert len(array) or name == "coded"
    for at in {*range(0, len(array), 1 + len(array) // 40), *range(len(array))[-1:]}:
        changed = array.copy()
        changed[at] = value
        rewrite(saved[1], path, **{name: changed})
        if (name == "data" and code[at] < 100) or (name == "max_sources" and value > 0):
            assert try_damaged(path).tobytes() == saved[0].forward(X).tobytes()
        else:
            refuse(path, f"array {name}: ")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_numbers_in_range_at_wrong_places(saved, path, seed):
    rng = np.random.default_rng(seed)
    with np.load(saved[1]) as arrays:
        arrays = dict(arrays)
    survivors = 0
    for _ in range(100):
        changes = {}
        for name in rng.choice(list(HUGE), rng.integers(1, 3)):
            changes[name] = arrays[name].copy()
            if not len(arrays[name]):
                continue
            at = rng.integers(len(arrays[name]), size=rng.integers(1, 4))
            changes[name][at] = rng.choice(arrays[name], len(at)) + rng.integers(-1, 2, len(at)).astype(
                arrays[name].dtype
            )
        survivors += try_damaged(rewrite(saved[1], path, **changes)) is not None
    assert 0 < survivors < 100


@pytest.mark.parametrize("name", ["header", *ARRAYS])
def test_arrays_of_wrong_length(saved, path, name):
    with np.load(saved[1]) as arrays:
        array = arrays[name]
    for changed in (array[:0], array[1:], array[:-1], np.append(array, array[:1]), np.append(array, array)):
        assert (
            len(changed) == len(array)
            or try_damaged(rewrite(saved[1], path, **{name: changed})) is None
            or name in ("parameters", "pool", "constants")
        )
    refuse(rewrite(saved[1], path, **{name: None}), f"not a model file: it has no {name}$")


def test_parameters_that_end_within_a_panel(path):
    """Kernels work on whole panels, also where a file has only part of the last one."""
    net = mlgraph.Network(6)
    net.add_layer(9, "relu")
    net.save(path)
    with np.load(path) as arrays:
        parameters = arrays["parameters"]
    assert len(parameters) == 6 * 16 + 16
    for cut in (0, 7, 8):
        rewrite(path, path.with_name("cut"), parameters=parameters[: len(parameters) - cut])
        values = try_damaged(path.with_name("cut"))
        assert (values is None) if cut == 8 else values.tobytes() == net.forward(X).tobytes()


def test_parameters_for_all(saved, path):
    """Weights that stand on each other would let a small file claim any number of edges."""
    n = saved[0].graph.n_parameters - 1
    with np.load(saved[1]) as arrays:
        zeros, ones = np.zeros_like(arrays["weights"]), np.ones_like(arrays["stride"])
        bias = np.minimum(arrays["bias"], 0)
        rewrite(saved[1], path, weights=zeros, stride=ones, bias=bias, parameters=arrays["parameters"][:n])
    refuse(path, "array parameters: expected one for each weight and bias")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_cycles(path, length):
    g = mlgraph.Graph()
    x = g.inputs(6)
    nodes = [mlgraph.exp(x[0])]
    for _ in range(length - 1):
        nodes.append(g.operation("identity", nodes[-1]))
    model = mlgraph.Model(g, [x[0] * 2])
    model.save(path)
    with np.load(path) as arrays:
        pool, start = arrays["pool"].copy(), arrays["start"]
    pool[start[nodes[0].id]] = nodes[-1].id
    rewrite(path, path.with_name("cycle.npz"), pool=pool)
    refuse(path.with_name("cycle.npz"), rf"the edges form a cycle of {length} nodes?: (n\d+ -> ){{{length - 1}}}n6$")


def test_lists_that_begin_together_must_end_together(path):
    """Plans walk a list once for all who read it."""
    g = mlgraph.Graph()
    x = g.inputs(6)
    a = g.add_neuron(x[:3])
    b = g.add_neuron([*x[3:], a])
    mlgraph.Model(g, [b]).save(path)
    with np.load(path) as arrays:
        start = arrays["start"]
    start[a.id] = start[b.id]
    refuse(rewrite(path, path.with_name("cut"), start=start), "array count: element 7 is 4|array count: element 6 is 3")


def test_lists_that_overlap(path):
    """A plan goes through the sources of `where` without the condition: these may not be another's list as well."""
    g = mlgraph.Graph()
    a, b, c = g.inputs(3)
    chosen, total = mlgraph.where(a, b, c), mlgraph.sum(b, c, a)
    model = mlgraph.Model(g, [chosen * total])
    model.save(path)
    with np.load(path) as arrays:
        start, pool = arrays["start"].copy(), arrays["pool"].copy()
    place = start[chosen.id]
    pool[place : place + 4] = a.id, b.id, c.id, a.id
    start[total.id] = place + 1
    refuse(rewrite(path, path.with_name("overlapping.npz"), start=start, pool=pool), "array start: expected lists that")


def npy(header, data=b"", version=(1, 0)):
    text = header if isinstance(header, bytes) else header.encode("latin1")
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + data


def described(shape="(1,)", descr="'<i2'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


BAD_ARRAYS = {
    "nothing": b"",
    "no array": b"hello",
    "huge shape": npy(described(f"({10**18},)"), bytes(2)),
    "huge product": npy(described(f"({2**62}, {2**62})"), bytes(2)),
    "negative shape": npy(described("(-1,)")),
    "shape of a truth value": npy(described("(True,)"), bytes(2)) + b"x",
    "no dimension": npy(described("()"), bytes(2)),
    "two dimensions": npy(described("(1, 1)"), bytes(2)),
    "shape of text": npy(described("('1',)"), bytes(2)),
    "too little data": npy(described("(2,)"), bytes(2)),
    "too much data": npy(described(), bytes(4)),
    "other type": npy(described(descr="'<f2'"), bytes(2)),
    "other order of bytes": npy(described(descr="'>i2'"), bytes(2)),
    "old name of a type": npy(described(descr="'|a2'"), bytes(2)),
    "no type": npy(described(descr="'spam'"), bytes(2)),
    "fields": npy(described(descr="[('a', '<i2')]"), bytes(2)),
    "objects": npy(described(descr="'|O'"), b"cos\nsystem\n(S'false'\ntR."),
    "unknown version": npy(described(), bytes(2), (9, 9)),
    "newer version": npy(described(), bytes(2), (3, 0)),
    "no dictionary": npy("[1, 2]\n"),
    "other keys": npy("{'descr': '<i2'}\n"),
    "a call": npy("{'descr': open('spam', 'w'), 'fortran_order': False, 'shape': (1,)}\n"),
    "no Python": npy("{'descr': \n"),
    "half a text": npy("{'descr': 'x\n"),
    "a bad escape": npy(described(descr=r"'\d'"), bytes(2)),
    "a null": npy("\0\n"),
    "deep": npy("(" * 5000 + "\n"),
    "long": npy(described() + " " * 20000, bytes(2)),
    "header of another length": npy(described(), bytes(2))[:30],
    "no text": npy(b"\xff\xfe{}\n", version=(2, 0)),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.filterwarnings("always")
def test_bad_arrays(saved, path, name):
    refuse(rewrite(saved[1], path, code=BAD_ARRAYS[name]), "array code")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_nothing_is_unpickled(saved, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    np.save(buffer := io.BytesIO(), np.array([Bomb()], object), allow_pickle=True)
    for name in ("header", *ARRAYS):
        refuse(
            rewrite(saved[1], path, **{name: buffer.getvalue()}),
            f"array {name}: expected .* numbers .*, got .O of shape",
        )
    assert os.listdir() == [path.name]


# --- reading damaged headers ----------------------------------------------------------------------


def test_format_of_another_version(saved, path):
    for version in (0, 1, 10**30):
        rewrite(saved[1], path, header=as_array({**header_of(saved[1]), "format": version}), max_sources=None)
        refuse(path, f"format: expected {modelfile.FORMAT}, got {version}: made by another version")
    for version in (1.0, True, "1", None):
        refuse(rewrite(saved[1], path, header=as_array({**header_of(saved[1]), "format": version})), "header")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff", b"1", b"[" * 10**5, b'{"format": 1' + b"0" * 5000 + b"}", b'{"format": 2}'],
    ids=range(9),
)
def test_headers_of_nothing(saved, path, text):
    refuse(rewrite(saved[1], path, header=np.frombuffer(text, np.uint8)), "header")


ODD = [
    None,
    True,
    -1,
    0,
    0.5,
    10**30,
    float("nan"),
    "",
    "spam",
    [],
    {},
    [None],
    [-1],
    [0.5],
    [10**30],
    [[]],
    ["x"],
    {"": ""},
    {"x": "y"},
    {"0": 1},
    {"-1": "x"},
    {"1" * 5000: "x"},
    {"²": "x"},
    [[[0, 1], "relu", 0, 0, []]],
    [[[6, 7], "relu", 0, 0]],
    [[["0", 1], "relu", 0, 0, []]],
    [[[6, 7], "relu", 1, 0, []]],
    [[[6, 7], "relu", "x", 0, []]],
    [[[6, 7], ["relu"], 0, 0, []]],
    [[[7, 6], "relu", 0, 0, []]],
    [[[6, 7, 7, 8], "relu", 0, 0, []]],
    [[[6, 7, 8], "relu", 0, 0, []]],
    [[7, "relu", 0, 0, []]],
    [[[6, 10**9], "relu", 0, 0, []]],
]


@pytest.mark.parametrize(
    "field", ["kind", "loss", "outputs", "loss_nodes", "probabilities", "names", "layers", "reads"]
)
def test_odd_headers(saved, path, field):
    header = header_of(saved[1])
    refused = 0
    for value in [*ODD, ...]:
        changed = {k: v for k, v in header.items() if k != field} if value is ... else {**header, field: value}
        refused += try_damaged(rewrite(saved[1], path, header=as_array(changed))) is None
    assert refused > 20 or (field in ("layers", "reads") and header["kind"] == "model")


@pytest.mark.parametrize("junk", [None, 3, [0, 1], ["x"] * 3, [-1, 0, 1], [0, 1, 10**6], [0.0, 1.0, 2.0]])
def test_probabilities_of_a_layer_that_are_none(path, junk):
    network().save(path)
    header = json.loads(members(path)["header.npy"][128:])
    header["layers"][-1][4] = junk
    rewrite(path, path.with_name("changed"), header=np.frombuffer(json.dumps(header).encode(), np.uint8))
    refuse(path.with_name("changed"), "header: layers: expected one probability node for each neuron, or none")


def test_outputs_that_are_not_the_last_layer(path):
    """Who asks a network for its classes asks its last layer how many they are."""
    network().save(path)
    header = header_of(path)
    first, last = header["layers"][1][0]
    for outputs in ([*header["outputs"], first], header["outputs"][:-1], list(range(first, last))):
        changed = {"outputs": outputs, "loss_nodes": [header["loss_nodes"][0], *outputs], "probabilities": outputs}
        rewrite(path, path.with_name("changed"), header=as_array({**header, **changed}))
        refuse(path.with_name("changed"), "header: layers: the last layer must be the outputs")


@pytest.mark.parametrize(
    "runs", [[-3, -1], [14, 12], [12, 16, 14, 18], [12, 14, 16], [12, 10**9], [0, 12], 12, ["12", 14]], ids=str
)
def test_runs_of_a_layer_that_are_none(path, runs):
    net = mlgraph.Network(12, seed=0)
    net.add_layer(4, "tanh")
    net.add_layer(3, "identity")  # no node comes after its neurons
    net.save(path)
    header = header_of(path)
    header["layers"][0][0] = runs
    refuse(
        rewrite(path, path.with_name("changed"), header=as_array(header)),
        "header: layers: expected (ascending ranges of )?neurons",
    )


def test_more_bytes_than_the_file_has(saved, path):
    content = bytearray(saved[1].read_bytes())
    at = content.index(b"PK\x01\x02") + 24  # where the directory has the size of the first member
    content[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    refuse(path, f"expected arrays of at most the {len(content)} bytes of the file, got ")


@pytest.mark.parametrize("last", ["softmax", "identity"])
def test_nodes_of_a_loss_that_are_not_the_outputs(path, last):
    """By their number the kernels would go through the targets, past the end of these."""
    net = mlgraph.Network(X.shape[1], seed=0)
    net.add_layer(3, last)
    net.save(path)
    header = header_of(path)
    begin, *outputs = header["loss_nodes"]
    for wrong in ([begin, *outputs[:-1]], [begin, *outputs, outputs[0]], [begin, *outputs[::-1]], [begin]):
        rewrite(path, path.with_name("changed"), header=as_array({**header, "loss_nodes": wrong}))
        refuse(path.with_name("changed"), "header: loss_nodes do not belong to the outputs")
