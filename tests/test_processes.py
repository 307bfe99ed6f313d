"""Forked children, how many processors are used, and other libraries beside."""

import os
import subprocess
import sys

import numpy as np
import pytest

import mlgraph
import mlgraph_ext
from mlgraph import threads

X = np.random.default_rng(0).integers(0, 256, (600, 40), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 600)


def trained(seed, **options):
    """The parameters of a network after some epochs, in bits."""
    net = mlgraph.Network(40, seed=seed)
    net.add_layer(50, "tanh", dropout=0.5)
    net.add_layer(4, "softmax")
    net.fit(X, LABELS, epochs=8, batch_size=100, learning_rate=0.01, **options)
    return net.graph.parameters.tobytes() + net.predict_proba(X, **options).tobytes()


def run(code, *arguments, **environment):
    """Run code in another process, which is given some minutes whatever happens; what it printed."""
    setting = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")} | environment
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=setting, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(done.stderr)  # what a child had to say, if the test fails
    return done.stdout.split()


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_trains_after_threads_have_run():
    """The threads of OpenMP are not there in a child, which must not wait for them."""
    assert run(FORK) == ["child", "0", "parent", "True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_runs_on_one_thread():
    code = """
import os, sys
from mlgraph.threads import threads_for
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


def train():
    try:
        net.fit(x, y, epochs=10**6, callback=note, n_threads=2)
    except StopIteration:
        pass


thread = threading.Thread(target=train)
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_forked_while_a_thread_trains():
    """What that thread held at the fork stays locked for nobody."""
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_forked_while_a_thread_edits():
    """Neither its lock, nor its open edit, nor a view that it had of a column is ever let go in the child."""
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_has_the_edit_of_its_thread_but_trains_anew():
    assert run(FORK_WITHIN_AN_EDIT) == ["True", "0"]


FORK_AT_EACH_LINE = """
import os, sys, threading
import numpy as np
import mlgraph
from mlgraph.interrupts import uninterrupted

adds = {
    "inputs": lambda: graph.inputs(2),
    "expression": lambda: graph[0] * 2.0 + graph[1],
    "parameter": lambda: graph.parameter(1.0, "p"),
    "neuron": lambda: graph.add_neuron([graph[0], graph[4]], weights=[1.0, 2.0]),
    "neurons": lambda: graph.add_neurons([graph[0], graph[4]], weights=np.ones((20, 2))),
}
folder, codes, over = os.path.dirname(mlgraph.__file__), [], threading.Event()
lines, forked = threading.Semaphore(0), threading.Semaphore(0)


def at_each_line(frame, event, _):
    if event == "line":
        lines.release()
        forked.acquire()
    return at_each_line


def work():
    sys.settrace(lambda frame, *_: at_each_line if os.path.dirname(frame.f_code.co_filename) == folder else None)
    adds[sys.argv[1]]()
    sys.settrace(None)
    over.set()
    lines.release()


def usable():
    same = net.predict_proba(x).tobytes() == before
    columns = {len(column) for column in graph._of_nodes}, {len(column) for column in graph.storage.columns}
    new = graph.add_neuron([graph.input(), graph.parameter(2.0) * graph[0]], weights=[1.0, 1.0], bias=0.0)
    found = graph.compile(new)(np.ones((1, graph.n_inputs)))[0, 0] == 3
    graph.undo()
    net.prune(0.5)
    net.undo()
    return same and found and [len(c) for c in columns] == [1, 1] and graph[len(graph) - 1].name.startswith("n")


net = mlgraph.Network(3, seed=1)
net.add_layer(5, "tanh")
net.add_layer(2, "softmax")
graph, x = net.graph, np.eye(3)
before = net.predict_proba(x).tobytes()
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("what", ["inputs", "expression", "parameter", "neuron", "neurons"])
def test_a_child_is_forked_while_a_thread_adds_nodes(what):
    """What was not yet whole is not there."""
    assert run(FORK_AT_EACH_LINE, what) == ["True", "0"]


FORK_WHILE_SIGNALS_WAIT = """
import os, signal, threading
from mlgraph.interrupts import uninterrupted

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_forked_while_signals_wait():
    """By another thread than that for which they wait: nobody would hand them on."""
    assert run(FORK_WHILE_SIGNALS_WAIT) == ["7", "True"]


FORK_IN_A_MOVE = """
import os, sys
import numpy as np
import mlgraph
from mlgraph.storage import Storage

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_forked_while_a_thread_moves_the_parameters():
    assert run(FORK_IN_A_MOVE) == ["1", "True", "0"]


FORK_WITHIN_A_PROPERTY = """
import os
import threading

from mlgraph.turns import cached_property

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_forked_while_a_thread_computes_what_is_kept():
    """What all objects of a class have in common is not locked in the child."""
    assert run(FORK_WITHIN_A_PROPERTY) == ["3", "3"]


# --- how many processors ------------------------------------------------------------------------------------------------

COUNT = "import mlgraph; print(mlgraph.default_threads())"
affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")


@affinity
def test_affinity():
    code = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); {COUNT}"
    assert run(code) == ["1"]
    assert int(run(COUNT)[0]) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("value", "expected"), [
    ("1", 1), ("2", 2), ("3,2", 3), ("64", 5), ("0", 5), ("many", 5), ("\N{SUPERSCRIPT TWO}", 5), ("", 5),
])  # fmt: skip
def test_environment(monkeypatch, value, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: None)
    monkeypatch.setattr(mlgraph_ext.sweep, "max_threads", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert mlgraph.default_threads() == expected


@affinity
def test_a_thread_that_openmp_has_bound():
    """To one processor, when it was loaded: the others may still be used."""
    assert run(COUNT, OMP_PROC_BIND="true") == run(COUNT)


def test_environment_of_a_process():
    assert run(COUNT, OMP_NUM_THREADS="1") == ["1"]


@pytest.mark.parametrize(("membership", "files", "expected"), [
    ("0::/", {"cpu.max": "max 100000"}, None),
    ("0::/", {"cpu.max": "200000 100000\n"}, 2),
    ("0::/", {"cpu.max": "150000 100000"}, 1),
    ("0::/", {"cpu.max": "5 10"}, 1),
    ("0::/", {"cpu.max": ""}, None),
    ("0::/", {"cpu.max": "spam"}, None),
    ("0::/", {}, None),
    ("0::/a/b", {"a/b/cpu.max": "max 10", "a/cpu.max": "30 10", "cpu.max": "90 10"}, 3),
    ("0::/a/b", {"a/b/cpu.max": "20 10", "a/cpu.max": "30 10"}, 2),
    ("0::/of/the/host", {"cpu.max": "40 10"}, 4),
    ("0::/../elsewhere", {"cpu.max": "40 10"}, 4),
    ("4:memory:/\n2:cpu,cpuacct:/c\n1:name=systemd:/\n0::/",
     {"cpu,cpuacct/c/cpu.cfs_quota_us": "70", "cpu,cpuacct/c/cpu.cfs_period_us": "10"}, 7),
    ("2:cpu:/c", {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "10",
                  "cpu/cpu.cfs_quota_us": "80", "cpu/cpu.cfs_period_us": "10"}, 8),
    ("2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "10"}, None),
    ("", {"cpu.max": "10 10"}, None),
    (None, {"cpu.max": "10 10"}, None),
], ids=str)  # fmt: skip
def test_quota(tmp_path, membership, files, expected):
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    assert threads._cgroup_quota.__wrapped__(tmp_path / "mount", tmp_path / "membership") == expected


def test_a_group_whose_name_no_encoding_knows(tmp_path):
    (tmp_path / "membership").write_bytes(b"0::/caf\xe9.slice")
    folder = os.fsencode(tmp_path) + b"/mount/caf\xe9.slice"
    os.makedirs(folder)
    with open(folder + b"/cpu.max", "w") as file:
        file.write("20 10")
    assert threads._cgroup_quota.__wrapped__(tmp_path / "mount", tmp_path / "membership") == 2


def test_the_smallest_limit_counts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for quota, openmp, expected in ((None, 64, 5), (3, 64, 3), (8, 64, 5), (None, 2, 2), (3, 1, 1)):
        monkeypatch.setattr(threads, "_cgroup_quota", lambda quota=quota: quota)
        monkeypatch.setattr(mlgraph_ext.sweep, "max_threads", lambda openmp=openmp: openmp)
        assert mlgraph.default_threads() == expected


def test_small_work_has_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "default_threads", lambda: 6)
    assert [threads.threads_for(None, work) for work in (0, 1, 2 * threads.WORK_PER_THREAD, 1e12)] == [1, 1, 2, 6]
    few, many = threads.MANY_STEPS - 1, threads.MANY_STEPS
    assert [threads.threads_for(None, threads.WORK_OF_TWO, steps) for steps in (1, few, many)] == [1, 1, 2]
    assert threads.threads_for(None, threads.WORK_OF_TWO - 1, many) == 1
    assert threads.threads_for(4, 1) == threads.threads_for(np.int64(4), 1e12) == 4


@pytest.mark.parametrize("setting", [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}], ids=str)
def test_fewer_threads_than_asked_for(setting):
    """OpenMP may give fewer threads: those that come do the work of all, and nobody waits for the others."""
    code = """
import hashlib
import numpy as np
import mlgraph

rng = np.random.default_rng(0)
x = rng.integers(0, 256, (20000, 140), np.uint8) * (rng.random((20000, 140)) < 0.3).astype(np.uint8)
for sparsity in (0, 0.9):
    for n_threads in (1, 2, 4, None):
        net = mlgraph.Network(140, seed=0)
        net.add_layer(40)
        net.add_layer(10, "softmax")
        net.prune(sparsity, by="random")
        net.fit(x, x[:, 0] % 10, epochs=2, batch_size=(256, 24), n_threads=n_threads)
        print(hashlib.sha256(net.graph.parameters.tobytes() + net.predict(x, n_threads=n_threads).tobytes()).hexdigest())
"""
    bits = run(code, **setting)
    assert len(bits) == 8 and len(set(bits[:4])) == len(set(bits[4:])) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted as Linux shows them")
def test_small_work_starts_no_thread():
    code = """
import os
import numpy as np
import mlgraph

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
net = mlgraph.Network(8)
net.add_layer(16)
net.add_layer(3, "softmax")
x = np.ones((100, 8), np.float32)
net.fit(x, np.zeros(100, int), epochs=5)
net.predict(x[:1])
net.graph.compile(net.layers[0].neurons[0]).vjp(x)
small = threads()
net.predict(x, n_threads=3)
print(small - before, threads() - small)
"""
    expected = ["0", "2"] if mlgraph_ext.sweep.PARALLEL else ["0", "0"]
    assert run(code) == expected


# --- beside others ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not mlgraph_ext.sweep.PARALLEL, reason="built without OpenMP")
def test_threadpoolctl_sees_us():
    control = pytest.importorskip("threadpoolctl")
    default = mlgraph.default_threads()
    pools = [pool for pool in control.threadpool_info() if pool["user_api"] == "openmp"]
    assert any(pool["num_threads"] == mlgraph_ext.sweep.max_threads() for pool in pools)
    with control.threadpool_limits(1):
        assert mlgraph.default_threads() == threads.threads_for(None, 1e12) == 1
        assert threads.threads_for(3, 1e12) == 3, "what is asked for is asked for"
    assert mlgraph.default_threads() == default


BESIDE_TORCH = """
import sys, threading, warnings
warnings.simplefilter("ignore")
if sys.argv[1] == "first":
    import torch
import numpy as np
import mlgraph
rng = np.random.default_rng(0)
x, y = rng.random((512, 64), np.float32), rng.integers(0, 4, 512)


def train():
    net = mlgraph.Network(64, seed=1)
    net.add_layer(64, dropout=0.5)
    net.add_layer(4, "softmax")
    net.fit(x, y, epochs=5, batch_size=256, n_threads=2)
    return net.predict_proba(x, n_threads=2).tobytes()


expected = train()
import torch
torch.set_num_threads(2)


def train_torch():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    return net[0].weight.detach().numpy().tobytes()


first = train_torch()
print(train() == expected, train_torch() == first)
results = [None] * 4
threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, train_torch() if i % 2 else train())) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(results[0] == results[2] == expected, results[1] is not None, results[3] is not None)
"""


@pytest.mark.parametrize("order", ["first", "last"])
def test_beside_pytorch(order):
    """In one process, in turns and at once, whichever is imported first."""
    pytest.importorskip("torch")
    assert run(BESIDE_TORCH, order) == ["True"] * 5
