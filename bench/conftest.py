"""Fixtures of all benchmarks: the data, the machine's peak measured in this process, the contents of extra_info."""

import machine
import pytest

import mlgraph
from mlgraph.datasets import load_mnist


@pytest.fixture(scope="session")
def mnist():
    return load_mnist()


@pytest.fixture(scope="session")
def peak():
    """Peak of one core."""
    return machine.peak()


@pytest.fixture(scope="session")
def peak_of_all():
    """Peak of all threads that a step takes."""
    return machine.peak(mlgraph.default_threads())


@pytest.fixture(scope="session")
def facts(peak, peak_of_all):
    gflops = {"peak_gflops_per_core": round(peak / 1e9, 1), "peak_gflops": round(peak_of_all / 1e9, 1)}
    return {**machine.facts(), **gflops}


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(mlgraph_isa=mlgraph.ISA, threads=mlgraph.default_threads())


@pytest.fixture
def note(benchmark, facts):
    """Put beside each number the facts without which it means nothing."""
    benchmark.extra_info.update(facts)
    return benchmark.extra_info.update
