"""What every benchmark shares: the data, the machine's peak measured in this process, and what stands in extra_info."""

import os
import platform
import subprocess
import time

import numpy as np
import pytest

import mlgraph
import mlgraph_ext
from mlgraph.datasets import load_mnist


@pytest.fixture(scope="session")
def mnist():
    return load_mnist()


@pytest.fixture(scope="session")
def peak():
    """Floating-point operations a second of one core, as multiply-adds in registers."""
    best = 0.0
    for _ in range(9):
        begin = time.perf_counter()
        flops = mlgraph_ext.sweep.fma_flops(200_000)
        best = max(best, flops / (time.perf_counter() - begin))
    return best


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["mlgraph_isa"] = mlgraph.ISA
    machine_info["threads"] = mlgraph.default_threads()


@pytest.fixture
def note(benchmark, peak):
    """Put the facts that a number means nothing without beside it."""
    here = os.path.dirname(__file__)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=here)
    benchmark.extra_info.update(
        cpu=platform.processor() or platform.machine(), isa=mlgraph.ISA, numpy=np.__version__, commit=commit.stdout.strip(),
        peak_gflops_per_core=round(peak / 1e9, 1),
    )  # fmt: skip

    def add(**facts):
        benchmark.extra_info.update(facts)

    return add


def network(*hidden, seed=0, **options):
    """784-hidden-10 with leaky ReLU and softmax."""
    net = mlgraph.Network(784, seed=seed)
    for size in hidden:
        net.add_layer(size, activation="leaky_relu", **options)
    net.add_layer(10, activation="softmax")
    return net
