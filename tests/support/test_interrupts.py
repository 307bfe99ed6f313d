"""Ctrl-C between any two lines leaves things as before or as after the work."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from editable import X, Y, everything, network
from struck import ROOM, struck

import mlgraph
from mlgraph.models import running
from mlgraph.training import loop

pytestmark = pytest.mark.usefixtures("python_handles_ctrl_c")


def trained():
    net = network()
    net.fit(X, Y, epochs=1)
    return net


EDITS = {
    "prune": lambda net: net.graph.prune([net.layers[0].neurons[3], net.layers[1].neurons[2].edges[4]]),
    "magnitude": lambda net: net.prune(0.7),
    "add_edge": lambda net: net.graph.add_edge(net.graph[0], net.layers[1].neurons[2], 0.5),
    "add_neuron": lambda net: net.graph.add_neuron([net.graph[0], net.graph[1]], weights=[1, 2]),
    "add_neurons": lambda net: net.graph.add_neurons(
        [net.graph[0], net.graph[1]], weights=[[1, 2], [3, 4]], biases=None
    ),
    "expression": lambda net: net.graph[0] * 2.0 + net.graph[1],
    "activation": lambda net: setattr(net.layers[0].neurons[3], "activation", "tanh"),
    "no bias": lambda net: setattr(net.layers[0].neurons[3], "bias", None),
    "frozen": lambda net: setattr(net.layers[0], "frozen", True),
    "undo": lambda net: net.undo(),
}


@pytest.mark.parametrize("dense", [2, pytest.param(160, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EDITS)
def test_edit_is_complete_or_not_made(name, dense):
    """Later work succeeds."""

    def fresh():
        net = trained()
        net.layers[1].neurons[4].prune()
        net.forward(X)  # so that there is a plan, which may come to be stale
        return net

    net = fresh()
    before, values = everything(net.graph), net.forward(X).tobytes()
    EDITS[name](net)
    after, changed = everything(net.graph), net.forward(X).tobytes()
    for line, net in struck(fresh, EDITS[name], dense):
        found = everything(net.graph)
        if name == "expression":  # of which some nodes may be there
            found, after = found[: len(before)], before
        assert found in (before, after), line
        assert net.forward(X).tobytes() == (values if found == before else changed), line
        net.prune(0.5)
        net.fit(X, Y, epochs=1)
    assert line > 20


@pytest.mark.slow
def test_interrupted_compilation_keeps_the_parameters():

    def fresh():
        net = trained()
        net.layers[0].neurons[3].edges[1].prune()
        return net

    values = everything(fresh().graph)
    for line, net in struck(fresh, lambda net: net.evaluate(X, Y), 20):
        assert everything(net.graph) == values, line
        net.evaluate(X, Y)
        assert everything(net.graph) == values
    assert line > 100


@pytest.mark.slow
def test_add_layer_is_complete_or_not_made(tmp_path):
    def add(net):
        net.add_layer(4, "sigmoid", loss="binary_cross_entropy")

    for line, net in struck(network, add, 300):
        assert (net.forward(X).shape[1], net.loss) in ((3, "softmax_cross_entropy"), (4, "binary_cross_entropy")), line
        assert len(net.outputs) == net.layers[-1].size, line
        net.save(tmp_path / "net.npz")
        assert mlgraph.load(tmp_path / "net.npz").forward(X).tobytes() == net.forward(X).tobytes(), line
    assert line > 100


@pytest.mark.slow
def test_interrupted_resume_keeps_layers_and_graph_consistent(tmp_path):
    path = tmp_path / "checkpoint.npz"

    def widen(progress):
        if progress.kind == "epoch":
            net.widen(net.layers[0], 2)
            raise StopIteration

    def resume(net):
        path.write_bytes(written)
        net.fit(X, Y, epochs=2, checkpoint=path, resume=True)

    net = network()
    sizes = {len(net.graph): net.layers[0].size}
    net.fit(X, Y, epochs=2, checkpoint=path, callback=widen)
    written, sizes[len(net.graph)] = path.read_bytes(), net.layers[0].size
    for line, other in struck(network, resume, 1000, ROOM / "models/network.py"):
        first, second, _ = other.layers
        assert first.size == sizes[len(other.graph)] == second.weights.shape[1], line
    assert line > 10


@pytest.mark.slow
def test_dropout_is_assigned_or_not():
    """Training uses the value that the layer shows."""
    ends = {}
    for share in (0.0, 0.5):
        net = trained()
        net.layers[0].dropout = share
        net.fit(X, Y, epochs=1, seed=3)
        ends[share] = net.graph.get_parameters().tolist()
    assert ends[0.0] != ends[0.5]
    for line, net in struck(trained, lambda net: setattr(net.layers[0], "dropout", 0.5), 1000):
        net.fit(X, Y, epochs=1, seed=3)
        assert net.graph.get_parameters().tolist() == ends[net.layers[0].dropout], line
    assert line > 5


def test_name_is_removed_with_its_node():
    for line, graph in struck(mlgraph.Graph, lambda graph: graph.input("x"), 1000):
        assert graph.input().name == f"n{len(graph) - 1}", line
    assert line > 10


def strike_at_memory():
    """Steps of many examples, which ask for more memory and are struck meanwhile, and of few again."""
    rng = np.random.default_rng(0)
    x, y = rng.random((3000, 40), np.float32), rng.integers(0, 3, 3000)

    def fit(net, batch):
        net.fit(x, y, epochs=1, batch_size=batch, momentum=0.0, n_threads=1)

    def fresh():
        net = mlgraph.Network(40, seed=0)
        net.add_layer(64, "relu")
        net.add_layer(3, "softmax")
        fit(net, 300)
        return net

    for line, net in struck(fresh, lambda net: fit(net, 3000), 1000, ROOM / "engine/engine.py"):
        fit(net, 300)
        assert np.isfinite(net.graph.parameters).all(), line
    assert line > 100


@pytest.mark.slow
def test_interrupted_reallocation_leaves_no_dangling_address():
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]
    code = f"import sys; sys.path[:0] = {folders!r}; import test_interrupts as t; t.strike_at_memory()"
    subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], env=environment, check=True, timeout=300)


@pytest.mark.slow
def test_interrupted_nonfinite_step_changes_nothing():
    x, y = np.full((8, 4), 1e19, np.float32), np.zeros((8, 1))

    def fresh():
        net = mlgraph.Network(4, seed=0)
        net.add_layer(8, "relu")
        net.add_layer(1, "identity")
        return net

    def fit(net):
        with contextlib.suppress(mlgraph.NonFiniteError):
            net.fit(x, y, epochs=1, batch_size=8, learning_rate=1e20, n_threads=1)

    before = fresh().graph.get_parameters().tolist()
    for line, net in struck(fresh, fit, 400):
        assert net.graph.get_parameters().tolist() == before, line
    assert line > 400


@pytest.mark.slow
def test_one_edit_is_complete_or_not_made():

    def several(net):
        with net.graph.one_edit(parameters=True):
            net.layers[0].neurons[3].prune()
            net.layers[0].neurons[2].bias = 9.0

    net = trained()
    before = everything(net.graph)
    several(net)
    after = everything(net.graph)
    for line, net in struck(trained, several, 40):
        assert everything(net.graph) in (before, after), line
        with net.graph.one_edit():
            net.layers[1].neurons[1].prune()
        net.undo()
        assert everything(net.graph) in (before, after), line
    assert line > 40


@pytest.mark.slow
def test_interrupted_run_leaves_a_consistent_history():
    def fit(net):
        net.fit(X, Y, epochs=2, batch_size=35, validation=(X, Y))

    everywhere, each_line = struck(network, fit, 8), struck(network, fit, 1000, ROOM / "training/loop.py")
    for line, net in itertools.chain(each_line, everywhere):
        columns = {}
        for name, column in vars(net.history).items():
            kind = name.split("_")[0]
            columns.setdefault({"learning": "batch", "validation": "epoch"}.get(kind, kind), set()).add(len(column))
        assert all(len(lengths) == 1 for lengths in columns.values()), (line, columns)
        net.fit(X, Y, epochs=1)  # nobody trains it any more
    assert line > 300


@pytest.mark.slow
def test_interrupted_run_does_not_train_the_graph():
    for line, net in struck(network, lambda net: net.fit(X, Y, epochs=1), 1000, ROOM / "_support/locks.py"):
        assert not net.graph.is_training, line
        net.fit(X, Y, epochs=1)
    assert line > 10


@pytest.mark.parametrize("number", range(8))
def test_training_may_begin_again_after_catching_ctrl_c(number):
    """At once, while the traceback is alive."""
    net, left = network(), [number]

    class Lock:
        """Ctrl-C comes when the graph's lock is let go for the n-th time."""

        def __enter__(self):
            return lock.__enter__()

        def __exit__(self, *given):
            lock.__exit__(*given)
            left[0] -= 1
            if left[0] == -1:
                signal.raise_signal(signal.SIGINT)

    lock, net.graph.lock = net.graph.lock, Lock()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            net.fit(X, Y, epochs=2, validation=(X, Y))
        except KeyboardInterrupt:
            net.fit(X, Y, epochs=1)
            raise
    assert left[0] < 0


def test_other_threads_train_without_signals():
    done = []
    thread = threading.Thread(target=lambda: done.append(trained()))
    thread.start()
    thread.join()
    assert done and np.isfinite(done[0].forward(X)).all()


INTERRUPTED = """
import faulthandler
import signal
import subprocess
import numpy as np
import mlgraph

faulthandler.dump_traceback_later(300, exit=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (200_000, 200), np.uint8), rng.integers(0, 10, 200_000)
net = mlgraph.Network(200)
net.add_layer(300)
net.add_layer(10, "softmax")
for _ in range(3):
    told = []
    tell = lambda p: told or told.append(print("begun", flush=True))
    try:
        net.fit(x, y, epochs=1000, batch_size=4, learning_rate=0.001, callback=tell)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
scores = net.evaluate(x[:1000], y[:1000])
assert np.isfinite(net.graph.parameters).all() and len(net.history.batch_loss) and scores["loss"] < 3, scores
net.fit(x[:100], y[:100], epochs=1)
print("usable", flush=True)
"""


def test_ctrl_c_ends_a_run_within_a_sweep():
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as child:
        try:
            for _ in range(3):
                assert child.stdout.readline() == "begun\n"
                time.sleep(0.1)  # until it is in the midst of a sweep
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted\n"
            assert child.stdout.readline() == "usable\n"
        finally:
            child.kill()


def test_ctrl_c_waits_at_most_a_fifth_of_a_second(monkeypatch):
    """By a clock that advances 1/128 s for each step."""
    clock, sizes, real = [0.0], [], running.execute

    def run(self, examples, nodes=None, **options):
        found = real(self, examples, nodes, **options)
        sizes.append(len(options["steps"].size))
        clock[0] += sizes[-1] / 128
        if len(sizes) == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr("mlgraph.training.fitting.execute", run)
    net = network()
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=3, batch_size=1)
    assert sizes == [4, 25, 25] and len(net.history.batch_loss) == 54
