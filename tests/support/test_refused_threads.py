"""Processes that the system refuses threads or memory: they work with those they have, or raise MemoryError."""

import sys

import pytest
from limited import bare_memory, results
from processes import run

import mlgraph_ext

MIB = 2**20

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are those of Linux"),
    pytest.mark.skipif(not mlgraph_ext.sweep.PARALLEL, reason="one thread needs no other"),
]


@pytest.fixture(scope="module")
def expected():
    """The results of one thread, without a limit."""
    (result,) = results("none", 0, 1)
    return result


@pytest.fixture(scope="module")
def bare():
    return bare_memory()


@pytest.mark.parametrize(("n_threads", "more"), [(16, 60), (64, 350), (512, 1600)])
def test_a_limit_on_memory_takes_threads_or_raises_memory_error(expected, bare, n_threads, more):
    found = results("AS", bare + more * MIB, n_threads)
    assert found in ([expected], ["MemoryError"])


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [4, 16, 64, 512])
def test_every_limit_on_memory_takes_threads_or_raises_memory_error(expected, bare, n_threads):
    """Also if a call with few threads comes between two with many."""
    for more in range(50, 2048, 50):
        found = results("AS", bare + more * MIB, n_threads, 2, n_threads)
        assert found == [expected] * 3 or (found.pop() == "MemoryError" and set(found) <= {expected}), more


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [1, 2, 5, 20])
def test_a_limit_on_processes_takes_threads(expected, allowed):
    assert results("NPROC", allowed, 1, 16, 2, 64) == [expected] * 4


@pytest.mark.parametrize("size", ["40M", pytest.param("900G", marks=pytest.mark.slow)])
def test_threads_that_are_too_large_are_done_without(expected, bare, size):
    """Even of a size that the system refuses without a limit."""
    assert results("AS", bare + 300 * MIB, 16, OMP_STACKSIZE=size) == [expected]


KEPT = """
import os, resource
import numpy as np, mlgraph

def megabytes():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() >> 20

def limit(more):
    limit = megabytes() + more << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))

def fitted(n_threads):
    net = mlgraph.Network(40, seed=0)
    net.add_layer(10, "softmax")
    net.fit(x, y, epochs=1, n_threads=n_threads)
    assert len(net.predict(x, n_threads=2)) == 1000
    return net.graph.get_parameters().tobytes()

x, y = np.random.default_rng(0).normal(size=(1000, 40)), np.arange(1000) % 10
before, one = len(os.listdir("/proc/self/task")), fitted(1)
limit(300)
many = fitted(16)
print(len(os.listdir("/proc/self/task")) - before)
limit(4)
again = fitted(16)
print(one == many == again)
"""


def test_threads_that_have_started_stay():
    """A call with fewer threads ends none, so that one with as many as before needs no more memory."""
    assert run(KEPT) == ["15", "True"]
