"""Ctrl-C may strike between any two lines: what it strikes is then as it was before, or as it is afterwards."""

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


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_whole_or_not(name):
    """And nothing that follows has to do with it."""

    def fresh():
        net = trained()
        net.layers[1].neurons[4].prune()
        net.forward(X)  # so that there is a plan, which may come to be stale
        return net

    net = fresh()
    before, values = everything(net.graph), net.forward(X).tobytes()
    EDITS[name](net)
    after, changed = everything(net.graph), net.forward(X).tobytes()
    for line, net in struck(fresh, EDITS[name], 160):
        found = everything(net.graph)
        if name == "expression":  # of which some nodes may be there
            found, after = found[: len(before)], before
        assert found in (before, after), line
        assert net.forward(X).tobytes() == (values if found == before else changed), line
        net.prune(0.5)
        net.fit(X, Y, epochs=1)
    assert line > 20


def test_what_was_taken_back_is_no_edit():
    """Ctrl-C amid `undo` waits until it is done, and the next one then finds none."""

    def fresh():
        net = network()
        with net.graph.one_edit():
            net.layers[0].neurons[1].prune()
            net.layers[0].neurons[2].activation = "tanh"
        return net

    before, done = everything(network().graph), 0
    for line, net in struck(fresh, lambda net: net.undo(), 300):
        with contextlib.suppress(ValueError):
            net.undo()
            done += 1
        assert everything(net.graph) == before, line
    assert 0 < done < line


def test_a_compilation_is_whole_or_not():
    """It moves the parameters."""

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


def test_a_layer_is_there_or_not(tmp_path):
    def add(net):
        net.add_layer(4, "sigmoid", loss="binary_cross_entropy")

    for line, net in struck(network, add, 300):
        assert (net.forward(X).shape[1], net.loss) in ((3, "softmax_cross_entropy"), (4, "binary_cross_entropy")), line
        assert len(net.outputs) == net.layers[-1].size, line
        net.save(tmp_path / "net.npz")
        assert mlgraph.load(tmp_path / "net.npz").forward(X).tobytes() == net.forward(X).tobytes(), line
    assert line > 100


def test_a_run_is_resumed_whole_or_not(tmp_path):
    """Of a network that was widened in it: its layers belong to its graph."""
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
    for line, other in struck(network, resume, 1000, ROOM / "network.py"):
        first, second, _ = other.layers
        assert first.size == sizes[len(other.graph)] == second.weights.shape[1], line
    assert line > 10


@pytest.mark.parametrize("kind", [mlgraph.SET, mlgraph.RigL])
def test_edges_move_or_not(kind):
    """Those that are cut and those that grow; what was cut and grows again with what it was."""
    schedule = kind(0.5, fraction=0.9)

    def fresh():
        net = trained()
        schedule.act(net, 0.0, 0, 0, lambda n: (X[:n], Y[:n]), 1)
        net.fit(X, Y, epochs=1)
        return net

    def act(net):
        schedule.act(net, 0.1, 5, 0, lambda n: (X[:n], Y[:n]), 1)

    net = fresh()
    before = everything(net.graph)
    act(net)
    after = everything(net.graph)
    assert before != after
    for line, net in struck(fresh, act, 20):
        assert everything(net.graph) in (before, after), line
    assert line > 400


def test_a_dropout_is_assigned_or_not():
    """What a layer says is what training does."""
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


def test_a_name_goes_with_its_node():
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

    for line, net in struck(fresh, lambda net: fit(net, 3000), 1000, ROOM / "engine.py"):
        fit(net, 300)
        assert np.isfinite(net.graph.parameters).all(), line
    assert line > 100


def test_memory_that_is_asked_for_anew():
    """What was asked for before may be gone: nothing goes on with its address, which is no memory any more."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_interrupts as t; t.strike_at_memory()"
    subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], env=environment, check=True, timeout=300)


def test_a_step_that_overflows_leaves_nothing():
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


def test_several_edits_are_whole_or_not():
    """And over, wherever Ctrl-C strikes."""

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


def test_a_history_grows_in_all_columns_or_none():
    new = {"epoch_loss": 0.5, "epoch_accuracy": 0.9, "epoch_edges": 7}
    for line, history in struck(mlgraph.History, lambda history: history.add(**new), 1000):
        assert len({len(getattr(history, name)) for name in new}) == 1, line
    assert line > 20


def test_a_run_that_is_struck_leaves_a_whole_history():
    def fit(net):
        net.fit(X, Y, epochs=2, batch_size=35, validation=(X, Y))

    everywhere, each_line = struck(network, fit, 8), struck(network, fit, 1000, ROOM / "training" / "loop.py")
    for line, net in itertools.chain(each_line, everywhere):
        columns = {}
        for name, column in vars(net.history).items():
            kind = name.split("_")[0]
            columns.setdefault({"learning": "batch", "validation": "epoch"}.get(kind, kind), set()).add(len(column))
        assert all(len(lengths) == 1 for lengths in columns.values()), (line, columns)
        net.fit(X, Y, epochs=1)  # nobody trains it any more
    assert line > 300


def test_nobody_trains_a_graph_whose_run_was_struck():
    for line, net in struck(network, lambda net: net.fit(X, Y, epochs=1), 1000, ROOM / "turns.py"):
        assert not net.graph.is_training, line
        net.fit(X, Y, epochs=1)
    assert line > 10


@pytest.mark.parametrize("number", range(8))
def test_who_catches_ctrl_c_may_train_again(number):
    """At once, while its traceback is alive: wherever within the run it strikes, but for its very end."""
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


def test_other_threads_have_no_signals():
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


def test_interruption():
    """Ctrl-C ends a run in the midst of a sweep, as often as it comes."""
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


def test_ctrl_c_waits_for_a_fifth_of_a_second_at_most(monkeypatch):
    """By a clock that each step moves on by 1/128 s: for the steps of one call, which the history then has."""
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
