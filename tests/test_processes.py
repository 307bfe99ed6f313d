"""Threads of Python, forked children, and how many processors are used."""

import builtins
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import mlgraph
from mlgraph import engine

X = np.random.default_rng(0).integers(0, 256, (600, 40), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 600)


def trained(seed, **options):
    """The parameters of a network after some epochs, in bits."""
    net = mlgraph.Network(40, seed=seed)
    net.add_layer(50, "tanh", dropout=0.5)
    net.add_layer(4, "softmax")
    net.fit(X, LABELS, epochs=8, batch_size=100, learning_rate=0.01, **options)
    return net.graph.parameters.tobytes() + net.predict_proba(X, **options).tobytes()


def run(code, **environment):
    """Run code in another process, which ends after a minute whatever happens; what it printed."""
    setting = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=setting, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
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
from mlgraph.engine import threads_for
if os.fork() == 0:
    os._exit(threads_for(7, 1e12) * 16 + threads_for(None, 1e12))
print(os.waitstatus_to_exitcode(os.wait()[1]), threads_for(7, 1e12))
"""
    assert run(code) == ["17", "7"]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_train_models_at_the_same_time(n_threads):
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


def test_the_interpreter_is_free_meanwhile():
    """While a sweep runs, another thread of Python does too."""
    net = mlgraph.Network(400)
    net.add_layer(800)
    net.add_layer(800)
    x, turns, running = np.ones((4000, 400), np.float32), 0, threading.Event()
    net.forward(x[:1])

    def sweep():
        running.set()
        net.forward(x, n_threads=1)
        running.clear()

    thread = threading.Thread(target=sweep)
    thread.start()
    running.wait()
    while running.is_set():
        turns += 1
    thread.join()
    assert turns > 1000


# --- how many processors ------------------------------------------------------------------------------------------------

COUNT = "import mlgraph; print(mlgraph.default_threads())"
affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")


@affinity
def test_affinity():
    code = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); {COUNT}"
    assert run(code) == ["1"]
    assert int(run(COUNT)[0]) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("2", 2), ("3,2", 3), ("64", 5), ("0", 5), ("many", 5), ("", 5)])
def test_environment(monkeypatch, value, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setattr(engine, "_cgroup_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert mlgraph.default_threads() == expected


def test_environment_of_a_process():
    assert run(COUNT, OMP_NUM_THREADS="1") == ["1"]


@pytest.mark.parametrize(("text", "expected"), [("max 100000", None), ("200000 100000\n", 2), ("150000 100000", 1), ("5 10", 1),
                                                ("", None), ("spam", None), (None, None)])  # fmt: skip
def test_quota(monkeypatch, text, expected):
    def open_quota(path):
        if text is None:
            raise FileNotFoundError
        assert path == "/sys/fs/cgroup/cpu.max"
        return io.StringIO(text)

    monkeypatch.setattr(builtins, "open", open_quota)
    quota = engine._cgroup_quota.__wrapped__()
    monkeypatch.undo()
    assert quota == expected


def test_the_smallest_limit_counts(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for quota, expected in ((None, 5), (3, 3), (8, 5)):
        monkeypatch.setattr(engine, "_cgroup_quota", lambda quota=quota: quota)
        assert mlgraph.default_threads() == expected


def test_small_work_has_one_thread(monkeypatch):
    monkeypatch.setattr(engine, "available_threads", lambda: 6)
    assert [engine.threads_for(None, work) for work in (0, 1, 2 * engine.WORK_PER_THREAD, 1e12)] == [1, 1, 2, 6]
    assert engine.threads_for(4, 1) == engine.threads_for(np.int64(4), 1e12) == 4
