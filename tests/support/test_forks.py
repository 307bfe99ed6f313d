"""Forked children, and the graphs that threads of the parent were using."""

import os

import pytest
from processes import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PRELUDE = """
import os, signal, sys, threading, warnings
import numpy as np
import mlgraph

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: a fork of a process that has threads
signal.signal(signal.SIGINT, signal.default_int_handler)


def child(work):
    "Work in a child; return its exit status: 0 if the work returned True."
    number = os.fork()
    if number == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def network(n_inputs=3, hidden=5, classes=2):
    net = mlgraph.Network(n_inputs, seed=1)
    net.add_layer(hidden, "tanh")
    net.add_layer(classes, "softmax")
    return net


def background(work):
    "Start a thread."
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


rng = np.random.default_rng(0)
x, y = rng.random((512, 64), np.float32), rng.integers(0, 4, 512)
"""

TRAINED = """
from mlgraph._support.threads import threads_for

net = network(64, 64, 4)


def train():
    "Training, and a small call that is repeated, and so reuses its description."
    other = network(64, 64, 4)
    other.fit(x, y, epochs=3, batch_size=256, n_threads=2)
    again = net.gradients(x[:32], y[:32], n_threads=2)
    return other.predict_proba(x, n_threads=2).tobytes() + again.parameters.tobytes()


def good():
    return train() == expected and threads_for(7, 1e12) == threads_for(None, 1e12) == 1


expected = train()
print(child(lambda: child(good) == 0 and good()), train() == expected, threads_for(7, 1e12))
"""


def test_child_and_grandchild_train_after_threads_have_run():
    """They run on one thread, since OpenMP's threads do not exist in a child."""
    assert run(PRELUDE + TRAINED) == ["0", "True", "7"]


WHILE_A_THREAD_TRAINS = """
net, stop, trains = network(64, 64, 4), threading.Event(), threading.Event()


def note(_):
    trains.set()
    if stop.is_set():
        raise StopIteration


def use():
    net.predict(x)
    net.fit(x, y, epochs=1)
    net.graph.add_parameter(1.0)
    return True


thread = background(lambda: net.fit(x, y, epochs=10**6, callbacks=[note], n_threads=2))
trains.wait()
print(*(child(use) for _ in range(20)))
stop.set()
thread.join()
"""


def test_fork_while_a_thread_trains():
    """Locks held by that thread do not stay locked in the child."""
    assert run(PRELUDE + WHILE_A_THREAD_TRAINS) == ["0"] * 20


WHILE_A_THREAD_EDITS = """
net, within, over = network(), threading.Event(), threading.Event()
graph, before, n_nodes = net.graph, net.predict_proba(np.eye(3)).tobytes(), len(net.graph)


def edit():
    with graph.one_edit():
        views = [memoryview(column) for column in graph._columns()]  # as numpy has them for a moment
        within.set()
        over.wait(300)


def usable():
    same = net.predict_proba(np.eye(3)).tobytes() == before
    graph.add_input() * graph.add_parameter(1.0)
    net.widen(net.layers[0], 2)
    net.undo()
    return same and len(graph) == n_nodes + 3


thread = background(edit)
within.wait()
print(child(usable))
over.set()
thread.join()
"""


def test_fork_while_a_thread_edits():
    """The child releases the lock, the open edit and the views of columns."""
    assert run(PRELUDE + WHILE_A_THREAD_EDITS) == ["0"]


WHILE_A_THREAD_DRAWS = """
graph, within, over = mlgraph.Graph(seed=0), threading.Event(), threading.Event()
inputs = graph.add_inputs(4)


def draw():
    with graph.lock, graph.random.bit_generator.lock:  # as numpy holds it while it draws
        within.set()
        over.wait(300)


def usable():
    return (graph.add_neuron(inputs).weights != 0).all()


thread = background(draw)
within.wait()
print(child(usable))
over.set()
thread.join()
"""


def test_fork_while_a_thread_draws_random_numbers():
    """The child releases numpy's lock of the generator, too."""
    assert run(PRELUDE + WHILE_A_THREAD_DRAWS) == ["0"]


WITHIN_AN_EDIT = """
net, x, y, codes = network(), np.eye(3), [0, 1, 0], []
before = net.graph.get_parameters().tolist()


def trains():
    net.fit(x, y, epochs=1)
    return True


def goes_on():
    net.layers[0].neurons[2].prune()
    edit.__exit__(None, None, None)
    net.undo()
    same = net.graph.get_parameters().tolist() == before
    other = background(lambda: net.predict(x))
    other.join(60)
    return same and not other.is_alive()


edit = net.graph.one_edit()
edit.__enter__()
net.layers[0].neurons[1].prune()
print(child(goes_on), goes_on())
net.fit(x, y, epochs=1, callbacks=[lambda _: codes.append(child(trains))])
print(*set(codes))
"""


def test_child_continues_the_edit_of_its_own_thread():
    """It does not continue the training run."""
    assert run(PRELUDE + WITHIN_AN_EDIT) == ["0", "True", "0"]


AT_EACH_LINE = """
from mlgraph import graph as room

changes = {
    "expression": lambda: graph[0] * 2.0 + graph[1],
    "parameter": lambda: graph.add_parameter(1.0, "p"),
    "neurons": lambda: graph.add_neurons([graph[0], graph[4]], weights=np.ones((20, 2))),
    "undo": lambda: net.undo(),
    "compile": lambda: graph.compile(net.layers[0].neurons[::-1]),  # moves parameters
}
codes, over = [], threading.Event()
lines, forked = threading.Semaphore(0), threading.Semaphore(0)


def at_each_line(frame, event, _):
    if event == "line":
        lines.release()
        forked.acquire()
    return at_each_line


def work():
    folder = os.path.dirname(room.__file__)
    sys.settrace(lambda frame, *_: at_each_line if frame.f_code.co_filename.startswith(folder) else None)
    changes[sys.argv[1]]()
    sys.settrace(None)
    over.set()
    lines.release()


def usable():
    same = net.predict_proba(np.pad(x, ((0, 0), (0, graph.n_inputs - 3)))).tobytes() == before
    known = len(graph.alive()) == len(graph) and [len(layer.weights) for layer in net.layers] in ([5, 2], [7, 2])
    new = graph.add_neuron([graph.add_input(), graph.add_parameter(2.0) * graph[0]], weights=[1.0, 1.0], bias=0.0)
    found = graph.compile(new)(np.ones((1, graph.n_inputs)))[0, 0] == 3
    graph.undo()
    return same and known and found and all(node in source.targets for node in graph for source in node.sources)


net, x = network(), np.eye(3)
graph = net.graph
if sys.argv[1] == "undo":
    net.widen(net.layers[0], 2)
before = net.predict_proba(x).tobytes()
graph.alive()
thread = background(work)
while lines.acquire() and not over.is_set():
    codes.append(child(usable))
    forked.release()
thread.join()
print(len(codes) > 5, *set(codes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["expression", "parameter", "neurons", "undo", "compile"])
def test_fork_while_a_thread_changes_the_graph(what):
    """Incomplete nodes do not exist in the child."""
    assert run(PRELUDE + AT_EACH_LINE, what) == ["True", "0"]


WHILE_SIGNALS_WAIT = """
from mlgraph._support.interrupts import uninterrupted


def interrupted():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return True


with uninterrupted(), uninterrupted():
    background(lambda: print(child(interrupted))).join()
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_fork_while_signals_are_deferred():
    """By a thread other than the one that defers them; nothing would deliver them in the child."""
    assert run(PRELUDE + WHILE_SIGNALS_WAIT) == ["0", "True"]


WITHIN_A_RUN = """
net, path, codes = network(), sys.argv[1], []


def interrupted(_):
    if not codes:
        if os.fork() == 0:
            signal.raise_signal(signal.SIGINT)
            os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.wait()[1]))


try:
    net.fit(np.eye(3), [0, 1, 0], epochs=2, callbacks=[interrupted], checkpoint=path, checkpoint_every=1e6)
except KeyboardInterrupt:
    os._exit(1 if os.path.exists(path) else 7)
print(*codes, os.path.exists(path))
"""


def test_fork_within_a_run_with_a_checkpoint(tmp_path):
    """In the child, Ctrl-C does not wait for the end of a step, so no checkpoint is written."""
    assert run(PRELUDE + WITHIN_A_RUN, str(tmp_path / "run.npz")) == ["7", "True"]
