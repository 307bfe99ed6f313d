"""The machine that is measured: a description, and the most that it can do, measured in this process."""

import importlib.metadata
import itertools
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import mlgraph
import mlgraph_ext

HERE = Path(__file__).parent


def peak(threads: int = 1, rounds: int = 9) -> float:
    """Floating-point operations per second of so many threads, as multiply-adds in registers: the best of `rounds`."""
    seconds = []
    repeats = [20_000_000] * threads  # some tens of milliseconds: to start a thread takes some tens of microseconds
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begin = time.perf_counter()
            flops = sum(pool.map(mlgraph_ext.sweep.fma_flops, repeats))
            seconds.append(time.perf_counter() - begin)
    return flops / min(seconds)


def slow_share(threads: int, moments: int = 300) -> float:
    """Share of moments, some tenths of a millisecond each, in which a core computed at less than 0.8 of its best.

    All threads compute at once, in registers alone: what slows one down, for tenths of a second on
    a virtual machine, is another guest's thread on the same core, or the next of this one.
    """

    def timed(_: int) -> list[float]:
        ends = [time.perf_counter()]
        for _ in range(moments):
            mlgraph_ext.sweep.fma_flops(100_000)
            ends.append(time.perf_counter())
        return [end - begin for begin, end in itertools.pairwise(ends)]

    with ThreadPoolExecutor(threads) as pool:
        seconds = np.array(list(pool.map(timed, range(threads))))
    return float((seconds * 0.8 > seconds.min()).mean())


def line_ns(lines: int = 128, turns: int = 1000, rounds: int = 9) -> float:
    """The least nanoseconds a thread takes to read and write a cache line that another has just written, many in a row.

    A virtual machine's cores may move apart and together again within minutes: on an EPYC, 2 ns or 9, probably with and
    without a common L3 cache.
    """
    return min(mlgraph_ext.sweep.hand_over(lines, turns) for _ in range(rounds)) / (lines * turns) * 1e9


def dense_flops(sizes: tuple[int, ...], examples: int) -> int:
    """Operations of an epoch of a dense network in which nothing is skipped.

    A multiply-add is two of them. Each weight takes part in one forward, one in its own gradient and, but for the first
    layer's, one in the adjoint of its source.
    """
    weights = [a * b for a, b in itertools.pairwise(sizes)]
    return 2 * examples * (3 * sum(weights) - weights[0])


def facts() -> dict[str, Any]:
    """The facts without which a number means nothing."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE)
    return {
        "cpu": cpu(),
        "isa": mlgraph.ISA,
        "threads": mlgraph.default_threads(),
        "commit": git.stdout.strip(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cpu() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(distribution: str) -> str | None:
    """Version of an installed package; None if it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
