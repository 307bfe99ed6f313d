"""Python threads that train, run, read and copy models concurrently."""

import copy
import itertools
import pickle
import sys
import threading
import time
import warnings
from functools import partial

import numpy as np
import pytest
from locks import EditedBetween
from processes import run

import mlgraph
import mlgraph_ext
from mlgraph._support.locks import cached_property

X = np.random.default_rng(0).integers(0, 256, (600, 40), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 600)


def network(seed=3, **options):
    net = mlgraph.Network(40, seed=seed)
    net.add_layer(50, "tanh", **options)
    net.add_layer(4, "softmax")
    return net


def shared():
    """A network, and of the same graph a function and another model."""
    net = network()
    neurons = net.layers[0].neurons
    return net, net.graph.compile([neurons[5], neurons[30]]), mlgraph.Model(net.graph, neurons[:10])


def together(*tasks):
    """Run each in a thread of its own, all at once; return what they return or raise."""
    start, results = threading.Barrier(len(tasks)), [None] * len(tasks)

    def work(i):
        start.wait()
        try:
            results[i] = tasks[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=work, args=[i]) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_train_separate_models(n_threads):
    def trained(seed):
        net = network(seed, dropout=0.5)
        net.fit(X, LABELS, epochs=8, batch_size=100, learning_rate=0.01, n_threads=n_threads)
        return net.graph.parameters.tobytes() + net.predict_proba(X, n_threads=n_threads).tobytes()

    expected = [trained(seed) for seed in range(4)]
    assert len(set(expected)) == 4
    assert together(*(partial(trained, seed) for seed in range(4))) == expected


def test_threads_share_a_graph():
    """Each call has its own plan, which moves the parameters."""

    def tasks():
        net, function, model = shared()
        return [
            lambda: net.predict_proba(X).tobytes(),
            lambda: function(X).tobytes(),
            lambda: model.forward(X).tobytes(),
            lambda: function.vjp(X).inputs.tobytes(),
            lambda: net.evaluate(X, LABELS)["loss"],
        ]

    expected = [task() for task in tasks()]
    for _ in range(10):
        assert together(*tasks() * 3) == expected * 3


def test_other_threads_run_a_graph_in_training():
    """The result is bitwise that of an undisturbed run."""
    options = {
        "epochs": 30,
        "batch_size": 32,
        "learning_rate": 0.01,
        "optimizer": "adam",
        "callbacks": [lambda _: None],
    }
    alone, (net, function, model), done = network(), shared(), threading.Event()
    alone.fit(X, LABELS, **options)

    def train():
        try:
            net.fit(X, LABELS, **options)
        finally:
            done.set()

    def use():
        over = False
        while not over:
            over = done.is_set()
            assert np.isfinite(function.vjp(X[:50]).inputs).all() and np.isfinite(model.forward(X)).all()
            net.graph.add_parameter(1.0)

    assert together(train, use, use) == [None] * 3
    assert net.predict_proba(X).tobytes() == alone.predict_proba(X).tobytes()


@pytest.mark.filterwarnings("ignore:y. outputs of tanh are")
def test_only_one_run_trains_a_graph():
    alone, (net, _, model) = network(), shared()
    alone.fit(X, LABELS, epochs=2)

    def refused(fit):
        with pytest.raises(RuntimeError, match=r"^fit: the graph is already being trained"):
            fit()

    def meanwhile(_):
        """Refuse a run of the same thread, and one of another thread that trains another model of the graph."""
        refused(lambda: net.fit(X, LABELS))
        assert together(lambda: refused(lambda: model.fit(X, X[:, :10]))) == [None]

    net.fit(X, LABELS, epochs=2, callbacks=[meanwhile])
    assert net.predict_proba(X).tobytes() == alone.predict_proba(X).tobytes()
    refused(lambda: net.fit(X, LABELS, callbacks=[lambda _: net.fit(X, LABELS)]))
    net.fit(X, LABELS, epochs=1)  # an error ends the run, and leaves the graph to the next


def test_copies_share_no_locks_or_memory():
    net = network()
    net.fit(X, LABELS, epochs=1)
    before = net.graph.get_parameters()
    with net.graph.lock, net.graph.in_training():
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
        assert all(c.predict_proba(X).tobytes() == net.predict_proba(X).tobytes() for c in copies)
        together(*(partial(c.fit, X, LABELS, epochs=1) for c in copies))
    np.testing.assert_array_equal(net.graph.get_parameters(), before)
    net.fit(X, LABELS, epochs=1)
    assert all(c.predict_proba(X).tobytes() == net.predict_proba(X).tobytes() for c in copies)


SPARSE_BYTES = """
import sys
import numpy as np, mlgraph

n, n_inputs, batch, epochs = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (n, n_inputs), np.uint8) * (rng.random((n, n_inputs)) < 0.2), rng.integers(0, 10, n)
for n_threads in (4, 2, 3, 1):
    net = mlgraph.Network(n_inputs, seed=0)
    net.add_layer(32)
    net.add_layer(10, "softmax")
    net.fit(x, y, epochs=epochs, batch_size=batch, n_threads=n_threads, callbacks=[lambda _: None])
    print(net.graph.get_parameters().tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "environment"),
    [
        # Workers that are late for a closed step take none of its units, or all would wait for ever.
        ((8, 784, 8, 1500), {}),
        # One thread does the work of all, so one range of columns is finished before the next begins.
        ((200, 600, 70, 3), {"OMP_THREAD_LIMIT": "1"}),
    ],
)
def test_late_and_missing_workers_do_not_change_bits(numbers, environment):
    results = run(SPARSE_BYTES, *map(str, numbers), **environment)
    assert len(results) == 4 and len(set(results)) == 1


REFUSED = """
import os, resource, sys, warnings
import numpy as np, mlgraph

def fitted(n_threads):
    net = mlgraph.Network(40, seed=0)
    net.add_layer(32)
    net.add_layer(10, "softmax")
    net.fit(x, np.arange(400) % 10, epochs=2, n_threads=n_threads)
    net.evaluate(x, np.arange(400) % 10, n_threads=n_threads + 1)
    return net.graph.get_parameters().tobytes()

x = np.random.default_rng(0).normal(size=(400, 40)).astype(np.float32)
expected = fitted(1)
if os.geteuid() == 0:  # who may start threads without limit
    os.setgid(65534)
    os.setuid(65534)
allowed = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (allowed, allowed))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert fitted(6) == expected
(warning,) = told
assert warning.category is RuntimeWarning and "of 6 threads, because the system refused more" in str(warning.message)
print("went on")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is that of Linux")
@pytest.mark.skipif(not mlgraph_ext.sweep.PARALLEL, reason="one thread needs no other")
@pytest.mark.parametrize("allowed", [1, 3])
def test_refused_threads_are_done_without(allowed):
    assert run(REFUSED, str(allowed)) == ["went", "on"]


def test_sweeps_release_the_gil():
    """While this thread sweeps, another one never waits for half of the time."""
    net, x = mlgraph.Network(400, seed=0), np.ones((4000, 400), np.float32)
    net.add_layer(800)
    net.add_layer(800)
    done = threading.Event()

    def tick():
        while not done.is_set():
            turns.append(time.perf_counter())
            time.sleep(0.0001)

    for _ in range(20):  # on a busy machine the other thread may have no turn
        done.clear()
        turns, thread = [], threading.Thread(target=tick)
        thread.start()
        begin = time.perf_counter()
        net.forward(x, n_threads=1)
        end = time.perf_counter()
        done.set()
        thread.join()
        if max(np.diff([begin, *(turn for turn in turns if begin < turn < end), end])) < (end - begin) / 2:
            break
    else:
        pytest.fail("the other thread never had a turn")


READS = {
    "n_parameters": lambda net: net.graph.n_parameters,
    "targets": lambda net: [node.id for node in net.layers[0].neurons[0].targets],
    "copy": lambda net: net.graph.copy().get_parameters().tolist(),
    "deepcopy": lambda net: copy.deepcopy(net.graph).get_parameters().tolist(),
    "pickle": lambda net: pickle.loads(pickle.dumps(net.graph)).get_parameters().tolist(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reads_are_atomic(read):
    """An edit may happen whenever the lock is free."""

    def change(net):
        """Change edges, a bias, and the places of parameters."""
        neuron = net.layers[0].neurons[0]
        neuron.in_edges[3].prune()
        neuron.out_edges[1].prune()
        neuron.bias = None
        net.graph.compile(net.layers[0].neurons[7:30])

    for n in itertools.count():
        net = network()
        net.layers[0].neurons[1].in_edges[0].prune()
        before = read(net)
        lock = net.graph.lock = EditedBetween(net.graph.lock, n, partial(change, net))
        found = read(net)
        if not lock.is_over:
            break
        assert found in (before, read(net)) and before != read(net)
    assert n > 0


def test_cached_properties_of_two_objects_share_no_lock():
    """They do in `functools` before Python 3.12."""

    class Pair:
        @cached_property
        def value(self):
            return together(lambda: second.value) if self is first else 3

    first, second = Pair(), Pair()
    assert first.value == [3]


def test_loading_does_not_change_warning_filters(monkeypatch, tmp_path):
    """The filters are global to all threads."""
    network().save(tmp_path / "model.npz")
    monkeypatch.setattr(warnings, "catch_warnings", None)
    monkeypatch.setattr(warnings, "simplefilter", None)
    assert len(mlgraph.load(tmp_path / "model.npz").layers) == 2
