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
from locks import EditedBetween, waiting
from processes import run

import mlgraph

X = np.random.default_rng(0).integers(0, 256, (600, 40), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 600)


def trained(seed, **options):
    """The parameters of a network after some epochs, in bits."""
    net = mlgraph.Network(40, seed=seed)
    net.add_layer(50, "tanh", dropout=0.5)
    net.add_layer(4, "softmax")
    net.fit(X, LABELS, epochs=8, batch_size=100, learning_rate=0.01, **options)
    return net.graph.parameters.tobytes() + net.predict_proba(X, **options).tobytes()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_train_separate_models(n_threads):
    seeds = range(4)
    expected = [trained(seed, n_threads=n_threads) for seed in seeds]
    assert len(set(expected)) == len(seeds)
    together, start = {}, threading.Barrier(len(seeds))

    def work(seed):
        start.wait()
        together[seed] = trained(seed, n_threads=n_threads)

    threads = [threading.Thread(target=work, args=[seed]) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together.get(seed) for seed in seeds] == expected


def together(*tasks):
    """Run each in a thread of its own, all at once; what they return or raise."""
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


def shared():
    """A network, and of the same graph a function and another model."""
    net = mlgraph.Network(40, seed=3)
    net.add_layer(50, "tanh")
    net.add_layer(4, "softmax")
    neurons = net.layers[0].neurons
    return net, net.graph.compile([neurons[5], neurons[30]]), mlgraph.Model(net.graph, neurons[:10])


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
        many = tasks()
        assert together(*many * 3) == expected * 3


def test_other_threads_run_a_graph_in_training():
    """The result is bitwise that of an undisturbed run."""
    options = {"epochs": 30, "batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"}
    alone = shared()[0]
    alone.fit(X, LABELS, **options)
    net, function, model = shared()
    begun, done, turns = threading.Event(), threading.Event(), [threading.Event() for _ in range(2)]

    def meanwhile(_):
        """Both of the others have a turn between two steps, and more as the run goes on."""
        begun.set()
        assert all(turn.wait(300) for turn in turns)

    def train():
        try:
            net.fit(X, LABELS, callback=meanwhile, **options)
        finally:
            begun.set()
            done.set()

    def use(turn):
        assert begun.wait(300)
        while not (done.is_set() and turn.is_set()):
            assert np.isfinite(function.vjp(X[:50]).inputs).all() and np.isfinite(model.forward(X)).all()
            net.graph.parameter(1.0)
            turn.set()

    assert together(train, *(partial(use, turn) for turn in turns)) == [None] * 3
    assert net.predict_proba(X).tobytes() == alone.predict_proba(X).tobytes()


def test_only_one_thread_trains_a_graph():
    alone = shared()[0]
    alone.fit(X, LABELS, epochs=2)
    net, _, model = shared()
    running, refused = threading.Event(), threading.Event()

    def meanwhile(_):
        with pytest.raises(RuntimeError, match=r"^fit: the graph is already being trained"):
            net.fit(X, LABELS)
        running.set()
        assert refused.wait(300)

    def train_too():
        assert running.wait(300)
        try:
            model.fit(X, X[:, :10])
        finally:
            refused.set()

    trained, error = together(lambda: net.fit(X, LABELS, epochs=2, callback=meanwhile) and None, train_too)
    assert trained is None and isinstance(error, RuntimeError)
    assert net.predict_proba(X).tobytes() == alone.predict_proba(X).tobytes()
    with pytest.raises(RuntimeError, match="fit: the graph is already being trained"):
        net.fit(X, LABELS, callback=lambda _: model.fit(X, X[:, :10]))
    net.fit(X, LABELS, epochs=1)  # an error ends the run, and leaves the graph to the next


def test_copies_share_no_locks_or_memory():
    net = shared()[0]
    net.fit(X, LABELS, epochs=1)
    before, probabilities = net.graph.parameters.copy(), net.predict_proba(X)
    with net.graph.lock, net.graph.in_training():
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
        assert [c.predict_proba(X).tobytes() for c in copies] == [probabilities.tobytes()] * 2
        assert together(*(lambda c=c: c.fit(X, LABELS, epochs=1) and None for c in copies)) == [None, None]
    assert net.graph.parameters.tobytes() == before.tobytes()
    assert all(c.predict_proba(X).tobytes() != probabilities.tobytes() for c in copies)
    net.fit(X, LABELS, epochs=1)
    assert [c.predict_proba(X).tobytes() for c in copies] == [net.predict_proba(X).tobytes()] * 2


LATE = """
import numpy as np, mlgraph
rng = np.random.default_rng(0)
x, y = (rng.integers(0, 256, (8, 784)) * (rng.random((8, 784)) < 0.2)).astype(np.uint8), rng.integers(0, 10, 8)
for n_threads, bias in ((4, True), (2, False), (3, True)):
    net = mlgraph.Network(784, seed=0)
    net.add_layer(32)
    net.add_layer(10, "softmax", bias=bias)
    net.fit(x, y, epochs=1500, batch_size=8, callback=lambda _: None, n_threads=n_threads)
    print(np.isfinite(net.history.epoch_loss).sum())
"""


@pytest.mark.slow
def test_late_worker_takes_no_unit_of_a_closed_step():
    """Otherwise all workers would wait for ever."""
    assert run(LATE) == ["1500"] * 3


HALVES = """
import numpy as np, mlgraph
rng = np.random.default_rng(0)
x, y = (rng.integers(0, 256, (200, 600)) * (rng.random((200, 600)) < 0.2)).astype(np.uint8), rng.integers(0, 10, 200)
for n_threads in (1, 2, 3, 4):
    net = mlgraph.Network(600, seed=0)
    net.add_layer(40)
    net.add_layer(10, "softmax")
    net.fit(x, y, epochs=3, batch_size=70, n_threads=n_threads)
    print(net.graph.get_parameters().tobytes().hex())
"""


@pytest.mark.slow
def test_column_ranges_use_their_own_copy_of_the_deltas():
    """One thread does the work of all, so one range is finished before the next begins."""
    assert len(set(run(HALVES, OMP_THREAD_LIMIT="1"))) == 1


def test_sweeps_release_the_gil():
    net = mlgraph.Network(400)
    net.add_layer(800)
    net.add_layer(800)
    x, running, spans = np.ones((4000, 400), np.float32), threading.Event(), []
    net.forward(x[:1])

    def sweep():
        begin = time.perf_counter()
        running.set()
        net.forward(x, n_threads=1)
        spans.append((begin, time.perf_counter()))
        running.clear()

    longest = []
    for _ in range(20):  # on a busy machine this thread may have no turn
        thread = threading.Thread(target=sweep)
        thread.start()
        running.wait()
        turns = []
        while running.is_set():
            turns.append(time.perf_counter())
        thread.join()
        begin, end = spans[-1]
        within = [begin, *(turn for turn in turns if begin < turn < end), end]
        longest.append(max(np.diff(within)) / (end - begin))
        if longest[-1] < 0.5:
            break
    assert min(longest) < 0.5


@pytest.fixture
def hasty():
    """Threads that take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_graph_is_read_while_another_thread_edits_it(hasty):
    """Reading exports buffers, during which columns cannot grow."""
    net = mlgraph.Network(784, seed=0)
    net.add_layer(100)
    net.add_layer(10, "softmax")
    done, neuron = threading.Event(), net.layers[0].neurons[0]

    def edit():
        try:
            for _ in range(15):
                net.prune(0.5)
                net.regrow(1.0)
        finally:
            done.set()

    def look():
        over = False
        while not over:
            over = done.is_set()
            assert net.graph.n_parameters >= 110 and all(node.id >= 884 for node in neuron.targets)

    assert together(edit, look) == [None, None]


def test_copy_is_consistent_while_parameters_move(hasty):
    g, rng = mlgraph.Graph(), np.random.default_rng(0)
    x = g.inputs(24)
    first = [g[i] for i in g.add_neurons(x, activation="tanh", weights=rng.normal(size=(20, 24)), biases=None)]
    second = [g[i] for i in g.add_neurons(first, activation="tanh", weights=rng.normal(size=(20, 20)), biases=None)]
    given, done = g.get_parameters(), threading.Event()

    def move():
        try:
            for k in range(400):
                g.compile(second[: 1 + k % 20])
                g.compile(first[: 1 + k % 7])
        finally:
            done.set()

    def copies():
        over = False
        while not over:
            over = done.is_set()
            np.testing.assert_array_equal(copy.deepcopy(g).get_parameters(), given)

    assert together(move, copies) == [None, None]


READS = {
    "n_parameters": lambda net: net.graph.n_parameters,
    "targets": lambda net: [node.id for node in net.layers[0].neurons[0].targets],
    "copy": lambda net: net.graph.copy().get_parameters().tolist(),
    "deepcopy": lambda net: taken_back(copy.deepcopy(net.graph)),
    "pickle": lambda net: taken_back(pickle.loads(pickle.dumps(net.graph))),
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


def edited():
    net = shared()[0]
    net.layers[0].neurons[1].edges[0].prune()
    return net


def taken_back(graph):
    """What it holds without its last edit, which belongs to that moment, too."""
    graph.undo()
    return graph.get_parameters().tolist()


def change(net):
    """Edges, a bias, and where the parameters are."""
    neuron = net.layers[0].neurons[0]
    neuron.edges[3].prune()
    neuron.out_edges[1].prune()
    neuron.bias = None
    net.graph.compile(net.layers[0].neurons[7:30])


@every_read
def test_readers_wait_for_an_edit(read):
    net = edited()
    before = read(net)
    with net.graph.lock:
        thread, found = waiting(net.graph, lambda: read(net))
        change(net)
        assert not found
    thread.join()
    assert found == [read(net)] != [before]


@every_read
def test_reads_are_atomic(read):
    """An edit may happen whenever the lock is free."""
    for n in itertools.count():
        net = edited()
        before = read(net)
        lock = net.graph.lock = EditedBetween(net.graph.lock, n, partial(change, net))
        found = read(net)
        if not lock.is_over:
            break
        assert found in (before, read(net)) and before != read(net)
    assert n > 0


def test_loading_does_not_change_warning_filters(tmp_path):
    """The filters are global to all threads."""
    shared()[0].save(tmp_path / "model.npz")
    before, switches = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        done = together(*[lambda: sum(len(mlgraph.load(tmp_path / "model.npz").layers) for _ in range(100))] * 2)
    finally:
        sys.setswitchinterval(switches)
    assert list(warnings.filters) == before and done == [200, 200]


@pytest.mark.slow
def test_adding_nodes_while_another_thread_predicts(hasty):
    g = mlgraph.Graph()
    x, target = g.inputs(4), g.input()
    out = g.add_neuron(x, weights=[1.0, 2.0, 0.2, 0.1])
    model = mlgraph.Model(g, out, loss=(out - target) ** 2)
    model.prune(0.5)
    done = threading.Event()

    def add():
        while not done.is_set() and len(g) < 50000:
            mlgraph.exp(x[0])

    def forward():
        try:
            return [model.forward(np.ones((3, 4))).tolist() for _ in range(3000)]
        finally:
            done.set()

    assert together(add, forward) == [None, [[[3], [3], [3]]] * 3000]
