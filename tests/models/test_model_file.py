"""Models in files: what is saved is what comes back, all of it or nothing."""

import errno
import json
import os
import re
import stat
import subprocess
import sys

import numpy as np
import pytest
from savable import LABELS, MODELS, X, any_model, members, network, pruned_network

import mlgraph
from mlgraph.models.model_file import COLUMNS


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


# --- there and back -------------------------------------------------------------------------------


def test_round_trip(model, path):
    model.save(path)
    back = mlgraph.load(path)
    assert type(back) is type(model) and repr(back.graph) == repr(model.graph)
    for name in COLUMNS:
        # Lists that edits have left behind do not come back.
        if name not in ("start", "pool") or model.sparsity == 0:
            assert back.graph.columns_by_name()[name] == model.graph.columns_by_name()[name], name
    for a, b in zip(model.graph, back.graph, strict=True):
        assert (a.kind, a.name) == (b.kind, b.name)
        assert [node.id for node in a.sources] == [node.id for node in b.sources]
        if a.kind == "neuron":
            assert a.weights.tobytes() == b.weights.tobytes() and a.bias == b.bias
    assert back.outputs == [back.graph[node.id] for node in model.outputs] and back.loss == model.loss
    assert back.forward(X).tobytes() == model.forward(X).tobytes()
    y = () if model.loss == "node" else LABELS
    assert back.evaluate(X, y) == model.evaluate(X, y)
    assert (back.n_edges, back.n_parameters) == (model.n_edges, model.n_parameters)
    for each in (model, back):
        each.fit(X, y, epochs=2, learning_rate=0.01, seed=3)
    assert back.forward(X).tobytes() == model.forward(X).tobytes(), (
        "it goes on learning in the same way, dropout included"
    )
    assert back.history.batch_loss.tolist() == model.history.batch_loss.tolist()


def test_layers_come_back(path):
    net = network()
    net.save(path)
    back = mlgraph.load(path)
    assert repr(back) == repr(net) and [repr(layer) for layer in back.layers] == [repr(layer) for layer in net.layers]
    assert [(layer.dropout, layer.weight_dropout) for layer in back.layers] == [(0.25, 0), (0, 0.5), (0, 0)]
    assert back.predict_proba(X).tobytes() == net.predict_proba(X).tobytes()
    probabilities = back.probability_ids
    assert [node.id for node in back.add_layer(4).neurons[0].sources] == probabilities


def test_what_was_loaded_can_be_saved(model, path):
    model.save(path)
    before = members(path)
    mlgraph.load(path).save(path)
    after = members(path)
    # A vector that was no whole number of panels has become one.
    assert after.pop("parameters.npy")[128:].startswith(before.pop("parameters.npy")[128:])
    assert after == before


@pytest.mark.parametrize("name", [".", "folder"])
def test_a_folder_is_no_file_to_save_to(model, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=f"expected a file, got a folder: '{name}'"):
        model.save(name)
    assert os.listdir(tmp_path) == ["folder"] and not os.listdir("folder")


def test_another_process_reads_it(model, path):
    model.save(path)
    code = "import json, sys, mlgraph; print(mlgraph.load(sys.argv[1]).forward(json.load(sys.stdin)).tobytes().hex())"
    floats = (X / 255).astype(np.float32)
    data = json.dumps(floats.tolist())
    out = subprocess.check_output([sys.executable, "-c", code, path], input=data, text=True, timeout=300)
    assert bytes.fromhex(out) == model.forward(floats).tobytes()


def test_numbers_of_numpy_are_saved(path):
    g = mlgraph.Graph()
    neuron = g.add_neuron(g.inputs(6))
    mlgraph.Model(g, [g[i] for i in np.array([0, 3])] + neuron.sources).save(path)
    assert len(mlgraph.load(path).outputs) == 8


def test_a_parameter_that_is_not_finite_is_kept(path):
    net = network()
    net.layers[0].neurons[3].weights[:3] = [np.inf, -np.inf, np.nan]
    net.save(path)
    assert mlgraph.load(path).layers[0].weights.tobytes() == net.layers[0].weights.tobytes()


@pytest.mark.parametrize("by", ["edges", "neurons"])
def test_files_shrink_with_every_cut(path, by):
    """Light ones too, compiled or not; what comes back is the same."""
    x, sizes, compiled = np.random.default_rng(0).random((40, 200), np.float32), [], []
    for share in (0, 0.05, 0.1, 0.3, 0.6, 0.8, 0.9):
        net = mlgraph.Network(200, seed=1)
        net.add_layer(64)
        net.add_layer(32)
        net.add_layer(10, "softmax")
        if share:
            net.prune(**{"sparsity" if by == "edges" else "neurons": share}, scope="layer")
        net.save(path)
        sizes.append(path.stat().st_size)
        back = mlgraph.load(path)
        assert (back.sparsity, back.n_edges) == (net.sparsity, net.n_edges)
        assert back.forward(x).tobytes() == net.forward(x).tobytes()
        for node in net.graph:
            assert [n.id for n in back.graph[node.id].sources] == [n.id for n in node.sources]
        net.save(path)
        compiled.append(path.stat().st_size)
    whole = 4 * (200 * 64 + 64 * 32 + 32 * 10)
    for each in (sizes, compiled):
        assert each == sorted(each, reverse=True) and len(set(each)) == 7
        assert each[0] - each[-1] > 0.8 * whole


def test_edits_go_on_after_loading(path):
    net = pruned_network()
    net.save(path)
    back = mlgraph.load(path)
    with pytest.raises(ValueError, match="undo: "):
        back.undo()
    for each in (net, back):
        each.regrow(0.5, seed=1)
        each.prune(0.6)
        each.fit(X, LABELS, epochs=1)
    assert back.forward(X).tobytes() == net.forward(X).tobytes() and back.sparsity == net.sparsity
    with pytest.raises(ValueError, match=r"prune: n[0-9]+ is an output of a model"):
        back.outputs[0].prune()


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["savez", "fsync", "replace"])
@pytest.mark.parametrize("old", [b"what was there", None])
def test_writing_is_all_or_nothing(path, monkeypatch, where, old):
    if old:
        path.write_bytes(old)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np if where == "savez" else os, where, fail)
    with pytest.raises(OSError, match="No space left"):
        network().save(path)
    assert os.listdir(path.parent) == ([path.name] if old else [])
    assert not old or path.read_bytes() == old


def test_an_interrupted_write_leaves_nothing(path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        network().save(path)
    assert os.listdir(path.parent) == []


def test_a_new_file_replaces_the_old_one(path):
    path.write_text("old")
    any_model().save(path)
    assert os.listdir(path.parent) == ["model.npz"] and mlgraph.load(path).loss == "node"


def test_a_file_keeps_its_mode_and_a_link_stays_one(tmp_path):
    path, link = tmp_path / "model.npz", tmp_path / "latest.npz"
    net = network()
    before = os.umask(0o022)
    try:
        net.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o600)
    link.symlink_to("model.npz")
    net.layers[0].neurons[0].bias = 7.0
    net.save(link)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert mlgraph.load(path).layers[0].neurons[0].bias == 7.0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latest.npz", "model.npz"]


def test_what_could_not_be_read_is_not_written(path):
    """A cycle that nothing needs, which no call can make."""
    g = mlgraph.Graph()
    x = g.inputs(6)
    model = mlgraph.Model(g, [x[0] * 2])
    gone = abs(x[0])
    g._pool[-1] = gone.id
    assert model.forward(X).shape == (40, 1)
    with pytest.raises(mlgraph.CycleError, match=f"a cycle of 1 node: n{gone.id}"):
        model.save(path)
    assert not path.exists()


def test_where_nothing_can_be_written(tmp_path):
    path = tmp_path / "missing" / "model.npz"
    with pytest.raises(FileNotFoundError) as error:
        network().save(path)
    assert error.value.filename == str(path)


def test_inputs_that_came_later_are_no_part_of_the_first_layer(path):
    net = network()
    net.graph.input("extra")
    net.save(path)
    loaded = mlgraph.load(path)
    assert loaded.layers[0].weights.tobytes() == net.layers[0].weights.tobytes()
    net.regrow(1.0), loaded.regrow(1.0)
    assert loaded.n_edges == net.n_edges


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    net = mlgraph.Network(3, seed=0)
    net.add_layer(2, "softmax")
    for name, message in (("pipe", "expected a file, got a device or a pipe"), ("loop", "symbolic links")):
        with pytest.raises(OSError, match=message):
            net.save(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "loop").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_sources_in_any_order(tmp_path):
    """Of a list that is shorter as bits if it ascends."""
    g, rng = mlgraph.Graph(), np.random.default_rng(0)
    x = g.inputs(60)
    order = [0, *rng.permutation(np.arange(1, 59)), 59]
    model = mlgraph.Model(g, g.add_neuron([x[i] for i in order], weights=rng.normal(size=60)))
    model.save(tmp_path / "model.npz")
    back = mlgraph.load(tmp_path / "model.npz")
    assert [node.id for node in back.outputs[0].sources] == order
    data = rng.normal(size=(3, 60))
    assert back.forward(data).tobytes() == model.forward(data).tobytes()


def test_operations_of_the_same_arguments(tmp_path):
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    model = mlgraph.Model(g, [x * y, x - y, x / y])
    model.save(tmp_path / "model.npz")
    assert mlgraph.load(tmp_path / "model.npz").forward([[6, 2]]).tolist() == [[12, 4, 3]]


@pytest.mark.parametrize("gap", [0, 1, 5])
def test_lists_that_overlap(tmp_path, gap):
    """As those of a file may; they are written one after the other."""
    g = mlgraph.Graph()
    x = g.inputs(100)
    first, second = g.add_neuron(x[::2], weights=np.arange(50)), g.add_neuron(x[2::2], weights=np.arange(49))
    last = g.add_neuron(x[gap:100:3])
    g._start[second.id] = g._start[first.id] + 1  # the same sources
    model = mlgraph.Model(g, [first, second, last])
    data = np.random.default_rng(0).random((5, 100), np.float32)
    model.save(tmp_path / "net.npz")
    again = mlgraph.load(tmp_path / "net.npz")
    assert again.forward(data).tobytes() == model.forward(data).tobytes()
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "net.npz").read_bytes()


def test_an_error_of_writing_names_the_file(tmp_path, monkeypatch):
    """The system names none where a disk is full; what somebody else says stays as it is."""
    path = tmp_path / "net.npz"
    for error, message in (
        (OSError(28, "No space left on device"), f"[Errno 28] No space left on device: '{path}'"),
        (OSError(28, "No space left on device", "other"), "[Errno 28] No space left on device: 'other'"),
        (OSError("an encoder's"), "an encoder's"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
            network().save(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # who runs the tests may write anywhere
    with pytest.raises(PermissionError, match=rf"no permission to write into the folder: '{re.escape(str(path))}'$"):
        network().save(path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    """It cannot be brought to the disk; what stands in it is whole all the same."""

    def refuse(path, *flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    network().save(tmp_path / "model.npz")
    monkeypatch.undo()
    assert mlgraph.load(tmp_path / "model.npz").n_edges == network().n_edges and os.listdir(tmp_path) == ["model.npz"]
