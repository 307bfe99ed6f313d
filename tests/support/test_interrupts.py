"""Ctrl-C between any two lines leaves things as before or as after the work."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from editable import X, Y, everything, network
from locks import EditedBetween
from struck import ROOM, struck

import mlgraph
from mlgraph.models import running
from mlgraph.training import loop

pytestmark = pytest.mark.usefixtures("python_handles_ctrl_c")


def one_edit(net):
    with net.graph.one_edit(parameters=True):
        net.layers[0].neurons[3].prune()
        net.layers[0].neurons[2].bias = 9.0


WORK = {
    "prune": lambda net: net.graph.prune([net.layers[0].neurons[3], net.layers[1].neurons[2].in_edges[4]]),
    "magnitude": lambda net: net.prune(0.7),
    "add_edge": lambda net: net.graph.add_edge(net.graph[0], net.layers[1].neurons[2], 0.5),
    "add_neurons": lambda net: net.graph.add_neurons(list(net.graph)[:2], weights=[[1, 2], [3, 4]], biases=None),
    "add_layer": lambda net: net.add_layer(4, "softmax"),
    "expression": lambda net: net.graph[0] * 2.0 + net.graph[1],
    "activation": lambda net: setattr(net.layers[0].neurons[3], "activation", "tanh"),
    "no bias": lambda net: setattr(net.layers[0].neurons[3], "bias", None),
    "frozen": lambda net: setattr(net.layers[0], "frozen", True),
    "undo": lambda net: net.undo(),
    "redo": lambda net: net.redo(),
    "one_edit": one_edit,
    "compile": lambda net: net.graph.compile(net.layers[0].neurons[::-1]),
}


@pytest.mark.parametrize("dense", [2, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WORK)
def test_work_is_complete_or_not_done(name, dense):
    """Later work succeeds."""

    def fresh():
        net = network()
        net.fit(X, Y, epochs=1)
        net.layers[1].neurons[4].prune()
        net.widen(net.layers[0], 2)
        net.undo()
        net.forward(X)  # so that there is a plan, which may come to be stale
        return net

    net = fresh()
    before, values = everything(net.graph), net.forward(X).tobytes()
    WORK[name](net)
    after, changed = everything(net.graph), net.forward(X).tobytes()
    for line, net in struck(fresh, WORK[name], dense):
        found = everything(net.graph)
        if name == "expression":  # of which some nodes may be there
            found, after = found[: len(before)], before
        assert found in (before, after), line
        assert net.forward(X).tobytes() == (values if found == before else changed), line
        net.prune(0.5)
        net.fit(X, Y, epochs=1)
    assert line > 20


def test_name_is_removed_with_its_node():
    for line, graph in struck(mlgraph.Graph, lambda graph: graph.add_input("x"), 1000):
        assert graph.add_input().name == f"n{len(graph) - 1}", line
    assert line > 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:checkpoint. the run of")
def test_interrupted_resume_keeps_layers_and_graph_consistent(tmp_path):
    path, net = tmp_path / "checkpoint.npz", network()
    sizes = {len(net.graph): net.layers[0].size}

    def widen(progress):
        if progress.kind == "epoch":
            net.widen(net.layers[0], 2)
            raise StopIteration

    def resume(net):
        path.write_bytes(written)
        net.fit(X, Y, epochs=2, checkpoint=path, resume=True)

    net.fit(X, Y, epochs=2, checkpoint=path, callbacks=[widen])
    written, sizes[len(net.graph)] = path.read_bytes(), net.layers[0].size
    for line, other in struck(network, resume, 1000, ROOM / "models/network.py"):
        first, second, _ = other.layers
        assert first.size == sizes[len(other.graph)] == second.weights.shape[1], line
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
    """Memory that was given back is unmapped here, so its use would crash the process."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]
    code = f"import sys; sys.path[:0] = {folders!r}; import test_interrupts as t; t.strike_at_memory()"
    subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], env=environment, check=True, timeout=300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_interrupted_nonfinite_step_changes_nothing():
    def fresh():
        net = mlgraph.Network(4, seed=0)
        net.add_layer(8, "relu")
        net.add_layer(1, "identity")
        return net

    def fit(net):
        with contextlib.suppress(mlgraph.NonFiniteError):
            net.fit(np.full((8, 4), 1e19), np.zeros((8, 1)), epochs=1, batch_size=8, learning_rate=1e20, n_threads=1)

    before = fresh().graph.get_parameters().tolist()
    for line, net in struck(fresh, fit, 400):
        assert net.graph.get_parameters().tolist() == before, line
    assert line > 400


@pytest.mark.slow
def test_interrupted_run_leaves_a_consistent_history():
    """The graph may be trained again."""

    def fit(net):
        net.fit(X, Y, epochs=2, batch_size=35, validation_data=(X, Y))

    places = [(8, ROOM), (1000, ROOM / "training/loop.py"), (1000, ROOM / "_support/locks.py")]
    for line, net in itertools.chain(*(struck(network, fit, *place) for place in places)):
        columns = {}
        for name, column in vars(net.history).items():
            kind = name.split("_")[0]
            columns.setdefault({"learning": "batch", "validation": "epoch"}.get(kind, kind), set()).add(len(column))
        assert all(len(lengths) == 1 for lengths in columns.values()), (line, columns)
        assert not net.graph.is_training, line
        net.fit(X, Y, epochs=1)
    assert line > 10


@pytest.mark.parametrize("number", range(8))
def test_training_may_begin_again_after_catching_ctrl_c(number):
    """At once, while the traceback is alive; Ctrl-C comes when the graph's lock is released for the n-th time."""
    net = network()
    lock = net.graph.lock = EditedBetween(net.graph.lock, number, lambda: signal.raise_signal(signal.SIGINT))
    with contextlib.suppress(KeyboardInterrupt):
        try:
            net.fit(X, Y, epochs=2, validation_data=(X, Y))
        except KeyboardInterrupt:
            net.fit(X, Y, epochs=1)
            raise
    assert lock.is_over


LONG_SWEEPS = """
import faulthandler, signal
import numpy as np
import mlgraph

faulthandler.dump_traceback_later(300, exit=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (200_000, 200), np.uint8), rng.integers(0, 10, 200_000)
net = mlgraph.Network(200, seed=0)
net.add_layer(300)
net.add_layer(10, "softmax")
told = []
tell = lambda p: told or told.append(print("begun", flush=True))
try:
    net.fit(x, y, epochs=1000, batch_size=4, learning_rate=0.001, callbacks=[tell])
except KeyboardInterrupt:
    net.fit(x[:100], y[:100], epochs=1)
    print("usable" if np.isfinite(net.graph.parameters).all() else "spoilt")
"""


def test_ctrl_c_ends_a_run_within_a_sweep():
    with subprocess.Popen([sys.executable, "-c", LONG_SWEEPS], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "begun\n"
            time.sleep(0.1)  # until it is in the midst of a sweep
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "usable\n"
        finally:
            child.kill()


def test_ctrl_c_waits_at_most_a_fifth_of_a_second(monkeypatch):
    """By a clock that advances 1/128 s for each step."""
    clock, sizes, real, net = [0.0], [], running.execute, network()

    def run(self, examples, nodes=None, **options):
        found = real(self, examples, nodes, **options)
        sizes.append(len(options["steps"].size))
        clock[0] += sizes[-1] / 128
        if len(sizes) == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr("mlgraph.training.run.execute", run)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=3, batch_size=1)
    assert sizes == [4, 25, 25] and len(net.history.batch_loss) == 54
