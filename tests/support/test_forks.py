"""Forked children, and the graphs that threads of the parent were using."""

import os

import pytest
from processes import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORK = """
import os, warnings
import numpy as np
import mlgraph

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: a fork of a process that has threads
rng = np.random.default_rng(0)
x, y = rng.random((512, 64), np.float32), rng.integers(0, 4, 512)


def train():
    net = mlgraph.Network(64, seed=1)
    net.add_layer(64)
    net.add_layer(4, "softmax")
    net.fit(x, y, epochs=3, batch_size=256, n_threads=2)
    return net.predict_proba(x, n_threads=2).tobytes()


expected = train()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    same = train() == expected
    if grandchild:
        same = same and os.waitpid(grandchild, 0)[1] == 0
    os._exit(0 if same else 1)
print("child", os.waitpid(child, 0)[1], "parent", train() == expected)
"""


def test_child_trains_after_threads_have_run():
    """It must not wait for OpenMP threads, which do not exist in a child."""
    assert run(FORK) == ["child", "0", "parent", "True"]


def test_child_repeats_a_call_of_two_threads():
    """A repeated small call reuses its description, except for the number of threads."""
    code = (
        FORK.partition("expected")[0]
        + """
net = mlgraph.Network(64, seed=1)
net.add_layer(64)
net.add_layer(4, "softmax")
expected = net.gradients(x[:32], y[:32], n_threads=2).parameters.tobytes()
if os.fork() == 0:
    os._exit(net.gradients(x[:32], y[:32], n_threads=2).parameters.tobytes() != expected)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    )
    assert run(code) == ["0"]


def test_child_runs_on_one_thread():
    code = """
import os, sys
from mlgraph._support.threads import threads_for
if os.fork() == 0:
    os._exit(threads_for(7, 1e12) * 16 + threads_for(None, 1e12))
print(os.waitstatus_to_exitcode(os.wait()[1]), threads_for(7, 1e12))
"""
    assert run(code) == ["17", "7"]


FORK_WITHIN = """
import os, threading, warnings
import numpy as np
import mlgraph

warnings.simplefilter("ignore", DeprecationWarning)
rng = np.random.default_rng(0)
x, y = rng.random((512, 64), np.float32), rng.integers(0, 4, 512)
net = mlgraph.Network(64, seed=1)
net.add_layer(64)
net.add_layer(4, "softmax")
stop, trains = threading.Event(), threading.Event()


def note(_):
    trains.set()
    if stop.is_set():
        raise StopIteration


thread = threading.Thread(target=lambda: net.fit(x, y, epochs=10**6, callback=note, n_threads=2))
thread.start()
trains.wait()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        net.predict(x)
        net.fit(x, y, epochs=1)
        net.graph.parameter(1.0)
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
stop.set()
thread.join()
print(*codes)
"""


def test_fork_while_a_thread_trains():
    """Locks held by that thread do not stay locked in the child."""
    assert run(FORK_WITHIN) == ["0"] * 20


FORK_BESIDE_EDITS = """
import os, threading
import numpy as np
import mlgraph

net = mlgraph.Network(3, seed=1)
layer = net.add_layer(5, "tanh")
net.add_layer(2, "softmax")
graph, within, over = net.graph, threading.Event(), threading.Event()
before, n_nodes = net.predict_proba(np.eye(3)).tobytes(), len(graph)


def edit():
    with graph.one_edit():
        views = [memoryview(column) for column in graph._columns()]  # as numpy has them for a moment
        within.set()
        over.wait(300)


thread = threading.Thread(target=edit)
thread.start()
within.wait()
child = os.fork()
if child == 0:
    same = net.predict_proba(np.eye(3)).tobytes() == before
    x = graph.input()
    graph.parameter(1.0)
    x * 2.0
    net.widen(layer, 2)
    net.undo()
    os._exit(0 if same and len(graph) == n_nodes + 4 else 1)
code = os.waitpid(child, 0)[1]
over.set()
thread.join()
print(code)
"""


def test_fork_while_a_thread_edits():
    """The child releases the lock, the open edit and the views of columns."""
    assert run(FORK_BESIDE_EDITS) == ["0"]


FORK_WITHIN_AN_EDIT = """
import os, threading
import numpy as np
import mlgraph

net = mlgraph.Network(3, seed=1)
net.add_layer(5, "tanh")
net.add_layer(2, "softmax")
x, y, codes = np.eye(3), [0, 1, 0], []
before = net.graph.get_parameters().tolist()


def others_may_take_it():
    thread = threading.Thread(target=net.predict, args=[x], daemon=True)
    thread.start()
    thread.join(60)
    return not thread.is_alive()


def trains(_=None):
    net.fit(x, y, epochs=1)
    return True


def ends(good):
    child = os.fork()
    if child == 0:
        os._exit(0 if good() else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


try:
    with net.graph.one_edit(parameters=True):
        net.layers[0].neurons[1].prune()
        child = os.fork()
        if child:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        net.layers[0].neurons[2].prune()
        raise KeyError
except KeyError:
    if not child:
        os._exit(0 if net.graph.get_parameters().tolist() == before else 1)
ends(others_may_take_it)
net.fit(x, y, epochs=1, callback=lambda _: ends(trains))
print(len(codes) >= 3, *set(codes))
"""


def test_child_continues_the_edit_of_its_own_thread():
    """It does not continue the training run."""
    assert run(FORK_WITHIN_AN_EDIT) == ["True", "0"]


FORK_AT_EACH_LINE = """
import os, sys, threading
import numpy as np
import mlgraph

adds = {
    "inputs": lambda: graph.inputs(2),
    "expression": lambda: graph[0] * 2.0 + graph[1],
    "parameter": lambda: graph.parameter(1.0, "p"),
    "neuron": lambda: graph.add_neuron([graph[0], graph[4]], weights=[1.0, 2.0]),
    "neurons": lambda: graph.add_neurons([graph[0], graph[4]], weights=np.ones((20, 2))),
    "subgraph": lambda: graph.add_subgraph(
        mlgraph.Neurons(np.array([100, 101]), np.array(["tanh", "tanh"]), np.zeros(2)),
        mlgraph.Edges(np.array([0, 100]), np.array([100, 101]), np.ones(2)),
    ),
    "undo": lambda: net.undo(),
}
folder, codes, over = os.path.dirname(mlgraph.__file__), [], threading.Event()
lines, forked = threading.Semaphore(0), threading.Semaphore(0)


def at_each_line(frame, event, _):
    if event == "line":
        lines.release()
        forked.acquire()
    return at_each_line


def work():
    sys.settrace(lambda frame, *_: at_each_line if frame.f_code.co_filename.startswith(folder) else None)
    adds[sys.argv[1]]()
    sys.settrace(None)
    over.set()
    lines.release()


def usable():
    whole = all(graph._start[i] + graph._count[i] <= len(graph._pool) for i in range(len(graph)))
    same = net.predict_proba(x).tobytes() == before
    columns = {len(column) for column in graph._of_nodes}, {len(column) for column in graph.storage.columns}
    known = len(graph.alive()) == len(graph)
    known = known and all(node in target.sources for node in graph for target in node.targets)
    known = known and all(neuron.sources for layer in net.layers for neuron in layer.neurons)
    new = graph.add_neuron([graph.input(), graph.parameter(2.0) * graph[0]], weights=[1.0, 1.0], bias=0.0)
    found = graph.compile(new)(np.ones((1, graph.n_inputs)))[0, 0] == 3
    graph.undo()
    net.prune(0.5)
    net.undo()
    ordinary = graph[len(graph) - 1].name.startswith("n")
    return all((whole, same, known, found, ordinary, [len(c) for c in columns] == [1, 1]))


net = mlgraph.Network(3, seed=1)
net.add_layer(5, "tanh")
net.add_layer(2, "softmax")
graph, x = net.graph, np.eye(3)
if sys.argv[1] == "undo":
    net.widen(net.layers[0], 2)
before = net.predict_proba(x).tobytes()
graph.alive()
thread = threading.Thread(target=work)
thread.start()
while lines.acquire() and not over.is_set():
    child = os.fork()
    if child == 0:
        x = np.ones((3, graph.n_inputs)) * np.pad(x, ((0, 0), (0, graph.n_inputs - 3)))
        os._exit(0 if usable() else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    forked.release()
thread.join()
print(len(codes) > 5, *set(codes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["inputs", "expression", "parameter", "neuron", "neurons", "subgraph", "undo"])
def test_fork_while_a_thread_adds_or_removes_nodes(what):
    """Incomplete nodes do not exist in the child."""
    assert run(FORK_AT_EACH_LINE, what) == ["True", "0"]


FORK_WHILE_SIGNALS_WAIT = """
import os, signal, threading
from mlgraph._support.interrupts import uninterrupted

signal.signal(signal.SIGINT, signal.default_int_handler)


def fork():
    child = os.fork()
    if child == 0:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


codes = []
with uninterrupted(), uninterrupted():
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
print(*codes, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_fork_while_signals_are_deferred():
    """By a thread other than the one that defers them; nothing would deliver them in the child."""
    assert run(FORK_WHILE_SIGNALS_WAIT) == ["7", "True"]


FORK_WITHIN_A_RUN = """
import os, signal, sys
import mlgraph

signal.signal(signal.SIGINT, signal.default_int_handler)
net, path, codes = mlgraph.Network(2, seed=0), sys.argv[1], []
net.add_layer(1, "identity")


def fork(_):
    if not codes:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


try:
    net.fit([[0.0, 1.0], [1.0, 0.0]], [1.0, 2.0], epochs=2, callback=fork, checkpoint=path, checkpoint_every=1e6)
except KeyboardInterrupt:
    os._exit(1 if os.path.exists(path) else 7)
print(*codes, os.path.exists(path))
"""


def test_fork_within_a_run_with_a_checkpoint(tmp_path):
    """In the child, Ctrl-C does not wait for the end of a step, so no checkpoint is written."""
    assert run(FORK_WITHIN_A_RUN, str(tmp_path / "run.npz")) == ["7", "True"]


FORK_IN_A_MOVE = """
import os, sys
import numpy as np
import mlgraph
from mlgraph.graph.storage import Storage

graph = mlgraph.Graph()
inputs, rng = graph.inputs(5), np.random.default_rng(0)
hidden = [graph.add_neuron(inputs, "tanh", weights=rng.random(5), bias=rng.random()) for _ in range(20)]
graph.add_neuron(hidden, weights=rng.random(20))
before, codes = graph.get_parameters().tolist(), []


def at_each_line(frame, event, _):
    if event == "line":
        child = os.fork()
        if child == 0:
            sys.settrace(None)
            os._exit(0 if graph.get_parameters().tolist() == before else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return at_each_line


sys.settrace(lambda frame, *_: at_each_line if frame.f_code is Storage.move.__code__ else None)
graph.compile(graph[len(graph) - 1])
sys.settrace(None)
print(graph.storage.moves, len(codes) > 5, *set(codes))
"""


def test_fork_while_parameters_move():
    assert run(FORK_IN_A_MOVE) == ["1", "True", "0"]


FORK_WITHIN_A_PROPERTY = """
import os
import threading

from mlgraph._support.locks import cached_property

class Slow:
    @cached_property
    def value(self):
        if threading.current_thread() is thread:
            entered.set()
            leave.wait()
        return 3

entered, leave = threading.Event(), threading.Event()
slow = Slow()
thread = threading.Thread(target=lambda: slow.value)
thread.start()
entered.wait()
child = os.fork()
if child == 0:
    os._exit(Slow().value)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
leave.set()
thread.join()
print(code, slow.value)
"""


def test_fork_while_a_cached_property_is_computed():
    """The objects of a class must not share a lock."""
    assert run(FORK_WITHIN_A_PROPERTY) == ["3", "3"]
