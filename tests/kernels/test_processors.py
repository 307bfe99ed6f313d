"""Number of threads, and use together with other libraries."""

import os

import numpy as np
import pytest
from processes import run

import mlgraph
import mlgraph_ext
from mlgraph._support import threads

# --- how many processors --------------------------------------------------------------------------

COUNT = "import mlgraph; print(mlgraph.default_threads())"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_default_threads_respects_affinity():
    """But not the binding of a thread by OpenMP, which is one to each processor."""
    code = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); {COUNT}"
    assert run(code) == ["1"]
    assert int(run(COUNT)[0]) <= len(os.sched_getaffinity(0))
    assert run(COUNT, OMP_PROC_BIND="true") == run(COUNT)


@pytest.mark.parametrize(
    ("variable", "quota", "openmp", "expected"),
    [
        ("1", None, 64, 1),
        ("3,2", None, 64, 3),
        *((nothing, None, 64, 5) for nothing in ("0", "many", "\N{SUPERSCRIPT TWO}", "")),
        ("", 3, 64, 3),
        ("", 8, 64, 5),
        ("4", 3, 1, 1),
    ],
)
def test_default_threads_is_the_smallest_limit(monkeypatch, variable, quota, openmp, expected):
    """Of affinity, the variable OMP_NUM_THREADS, the quota and OpenMP's own limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: quota)
    monkeypatch.setattr(mlgraph_ext.sweep, "max_threads", lambda: openmp)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert mlgraph.default_threads() == expected


V1, QUOTA, PERIOD = "cpu,cpuacct", "cpu.cfs_quota_us", "cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "spam"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 10", "a/cpu.max": "30 10", "cpu.max": "90 10"}, 3),
        ("0::/../elsewhere", {"cpu.max": "40 10"}, 4),
        ("0::/caf\N{LATIN SMALL LETTER E WITH ACUTE}.slice", {"caf\udce9.slice/cpu.max": "20 10"}, 2),
        ("4:memory:/\n2:cpu,cpuacct:/c\n0::/", {f"{V1}/c/{QUOTA}": "70", f"{V1}/c/{PERIOD}": "10"}, 7),
        ("2:cpu,cpuacct:/c", {f"{V1}/c/{QUOTA}": "-1", f"{V1}/{QUOTA}": "80", f"{V1}/{PERIOD}": "10"}, 8),
        (None, {"cpu.max": "10 10"}, None),
    ],
    ids=ascii,
)
def test_default_threads_respects_cgroup_quota(tmp_path, membership, files, expected):
    """Of version 1 or 2, of the group and its parents; names of groups may be in any encoding."""
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership, "latin-1")
    assert threads._cgroup_quota.__wrapped__(tmp_path / "mount", tmp_path / "membership") == expected


def test_small_work_uses_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "default_threads", lambda: 6)
    assert [threads.threads_for(None, work) for work in (0, 1, 2 * threads.WORK_PER_THREAD, 1e12)] == [1, 1, 2, 6]
    few, many = threads.MANY_STEPS - 1, threads.MANY_STEPS
    assert [threads.threads_for(None, threads.WORK_OF_TWO, steps) for steps in (1, few, many)] == [1, 1, 2]
    assert threads.threads_for(None, threads.WORK_OF_TWO - 1, many) == 1
    assert threads.threads_for(4, 1) == threads.threads_for(np.int64(4), 1e12) == 4


@pytest.mark.parametrize("setting", [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}], ids=str)
def test_bits_are_the_same_if_openmp_gives_fewer_threads(setting):
    """Threads that start do the work of all; none waits for a missing one."""
    code = """
import numpy as np
import mlgraph

rng = np.random.default_rng(0)
x = rng.integers(0, 256, (20000, 140), np.uint8) * (rng.random((20000, 140)) < 0.3).astype(np.uint8)
for sparsity in (0, 0.9):
    bits = set()
    for n_threads in (1, 2, 4, None):
        net = mlgraph.Network(140, seed=0)
        net.add_layer(40)
        net.add_layer(10, "softmax")
        net.prune(sparsity, by="random")
        net.fit(x, x[:, 0] % 10, epochs=2, batch_size=(256, 24), n_threads=n_threads)
        bits.add((net.graph.parameters.tobytes(), net.predict(x, n_threads=n_threads).tobytes()))
    print(len(bits))
"""
    assert run(code, **setting) == ["1", "1"]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in /proc")
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
    assert run(code) == ["0", "2" if mlgraph_ext.sweep.PARALLEL else "0"]


# --- other libraries ------------------------------------------------------------------------------


@pytest.mark.skipif(not mlgraph_ext.sweep.PARALLEL, reason="built without OpenMP")
def test_threadpoolctl_limits_threads():
    control = pytest.importorskip("threadpoolctl")
    default = mlgraph.default_threads()
    with control.threadpool_limits(1):
        assert mlgraph.default_threads() == threads.threads_for(None, 1e12) == 1
        assert threads.threads_for(3, 1e12) == 3, "an explicit number is not limited"
    assert mlgraph.default_threads() == default
