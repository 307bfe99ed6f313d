"""A saved model loads with the same bits; a file is written completely or not at all."""

import errno
import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from savable import LABELS, MODELS, X, members, network, pruned_network

import mlgraph
from mlgraph.models.model_file import COLUMNS


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


# --- save and load --------------------------------------------------------------------------------


def test_loaded_model_equals_the_saved_one_and_learns_the_same(model, path):
    model.save(path)
    back = mlgraph.load(path)
    assert type(back) is type(model) and repr(back) == repr(model) and repr(back.graph) == repr(model.graph)
    for name in COLUMNS:
        if name not in ("start", "pool") or model.sparsity == 0:  # lists that edits have left behind are not saved
            assert back.graph.columns_by_name()[name] == model.graph.columns_by_name()[name], name
    for a, b in zip(model.graph, back.graph, strict=True):
        assert (a.kind, a.name) == (b.kind, b.name)
        assert [node.id for node in a.sources] == [node.id for node in b.sources]
        if a.kind == "neuron":
            assert a.weights.tobytes() == b.weights.tobytes() and a.bias == b.bias
    assert back.outputs == [back.graph[node.id] for node in model.outputs] and back.loss == model.loss
    y = () if model.loss == "node" else LABELS
    assert back.evaluate(X, y) == model.evaluate(X, y)
    assert (back.n_edges, back.n_parameters) == (model.n_edges, model.n_parameters)
    for each in (model, back):
        each.fit(X, y, epochs=2, learning_rate=0.01, seed=3)
    assert back.forward(X).tobytes() == model.forward(X).tobytes()
    assert back.history.batch_loss.tolist() == model.history.batch_loss.tolist()


def test_loaded_network_has_its_layers(path):
    net = network()
    net.graph.add_input("extra")  # which the first layer does not read
    net.layers[0].neurons[3].weights[:3] = [np.inf, -np.inf, -0.0]
    net.save(path)
    back = mlgraph.load(path)
    assert [repr(layer) for layer in back.layers] == [repr(layer) for layer in net.layers]
    assert [(layer.dropout, layer.weight_dropout) for layer in back.layers] == [(0.25, 0), (0, 0.5), (0, 0)]
    for mine, theirs in zip(back.layers, net.layers, strict=True):
        assert mine.weights.tobytes() == theirs.weights.tobytes()
    assert [node.id for node in back.add_layer(4)[0].sources] == net.probability_ids


def test_loaded_network_can_be_edited(path):
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
    with pytest.raises(ValueError, match=r"prune: layer 2 neuron 0 is an output of a model"):
        back.outputs[0].prune()


@pytest.mark.parametrize("last", ["softmax", "sigmoid", "identity"])
def test_widened_pruned_and_compact_networks_load(path, last):
    net = mlgraph.Network(6, seed=0)
    net.add_layer(5, "relu")
    net.add_layer(4, "softmax")
    net.add_layer(3, last, loss="binary_cross_entropy" if last == "sigmoid" else None)
    net.widen(net.layers[0], 2)
    net.prune(neurons=0.3)
    for model in (net, net.compact()):
        model.save(path)
        assert mlgraph.load(path).forward(X).tobytes() == model.forward(X).tobytes()


def test_loaded_model_saves_to_the_same_bytes(model, path):
    model.save(path)
    before = members(path)
    mlgraph.load(path).save(path)
    after = members(path)
    # The parameters are padded to whole panels.
    assert after.pop("parameters.npy")[128:].startswith(before.pop("parameters.npy")[128:])
    assert after == before


def test_another_process_loads_the_same_bits(path):
    net, floats = network(), X.astype(np.float32)
    net.save(path)
    code = "import json, sys, mlgraph; print(mlgraph.load(sys.argv[1]).forward(json.load(sys.stdin)).tobytes().hex())"
    data = json.dumps(floats.tolist())
    out = subprocess.check_output([sys.executable, "-c", code, path], input=data, text=True, timeout=300)
    assert bytes.fromhex(out) == net.forward(floats).tobytes()


def test_sources_keep_their_order(path):
    """Long ascending lists are saved as bits; others must not be."""
    g, rng = mlgraph.Graph(seed=0), np.random.default_rng(0)
    x = g.add_inputs(60)
    order = [0, *rng.permutation(np.arange(1, 59)), 59]
    neuron = g.add_neuron([x[i] for i in order], weights=rng.normal(size=60))
    model = mlgraph.Model(g, [neuron, x[0] * x[1], x[0] - x[1], *(g[i] for i in np.array([0, 3]))])
    model.save(path)
    back = mlgraph.load(path)
    assert [node.id for node in back.outputs[0].sources] == order
    data = rng.normal(size=(3, 60))
    assert back.forward(data).tobytes() == model.forward(data).tobytes()


@pytest.mark.parametrize("what", ["sparsity", "neurons"])
def test_files_shrink_with_every_cut(path, what):
    """An edge costs 4 bytes and a bit, a cut edge a bit."""
    sizes = []
    for fraction in (0, 0.05, 0.3, 0.9):
        net = mlgraph.Network(200, seed=1)
        net.add_layer(64)
        net.add_layer(10, "softmax")
        if fraction:
            net.prune(**{what: fraction}, scope="layer")
        net.save(path)
        sizes.append(path.stat().st_size)
        back = mlgraph.load(path)
        assert (back.sparsity, back.n_edges) == (net.sparsity, net.n_edges)
        for node in net.graph:
            assert back.graph.sources_of(node.id).tolist() == net.graph.sources_of(node.id).tolist()
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    assert sizes[0] - sizes[-1] > 0.8 * 4 * (200 * 64 + 64 * 10)


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("where", ["savez", "fsync", "replace"])
@pytest.mark.parametrize("old", [b"old content", None])
def test_failed_write_leaves_the_folder_as_it_was(path, monkeypatch, old, where, error):
    if old:
        path.write_bytes(old)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(np if where == "savez" else os, where, fail)
    with pytest.raises(type(error)):
        network(epochs=0).save(path)
    assert os.listdir(path.parent) == ([path.name] if old else [])
    assert not old or path.read_bytes() == old


@pytest.mark.parametrize("given", [[], ["other"]])
def test_error_of_a_full_disk_names_the_file_unless_it_names_another(path, monkeypatch, given):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", *given)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as error:
        network(epochs=0).save(path)
    assert error.value.filename == (given[0] if given else str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize(
    ("name", "message"),
    {
        "folder": "expected a file, got a folder",
        ".": "expected a file, got a folder",
        "pipe": "expected a file, got a device or a pipe",
        "loop": "symbolic links",
        "missing/model.npz": "no such folder",
        "read-only": "no permission to write into the folder",
    }.items(),
)
def test_only_regular_files_are_replaced(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    if name == "read-only":  # as root, any folder is writable
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match=message) as error:
        network(epochs=0).save(name)
    assert error.value.filename == name
    assert sorted(os.listdir()) == ["folder", "loop", "pipe"] and not os.listdir("folder")


def test_replaced_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path):
    path, link, net = tmp_path / "model.npz", tmp_path / "latest.npz", network(epochs=0)
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
    assert sorted(os.listdir(tmp_path)) == ["latest.npz", "model.npz"]


def test_parts_that_killed_saves_left_are_removed_after_an_hour(path):
    """A newer one may be the work of another process."""
    names = f"{path.name}.0123abcd", f"{path.name}.89abcdef", "other.npz.0123abcd"
    old, new, other = (path.with_name(f".{name}.mlgraph-part") for name in names)
    for part in (old, new, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (time.time() - 4000,) * 2)
    network().save(path)
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


def test_save_into_an_unreadable_folder(path, monkeypatch):
    """The folder cannot be flushed to the disk, but the file is whole."""

    def refuse(folder, *flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "open", refuse)
    network(epochs=0).save(path)
    monkeypatch.undo()
    assert repr(mlgraph.load(path)) == repr(network(epochs=0))
