"""Each kernel on one core, beside the peak of multiply-adds measured in the same process.

``share_of_peak`` counts useful operations only: not a multiply-add with a zero that was skipped.
"""

import pytest

import mlgraph_ext

KERNELS = [
    ("dense_forward", 784, 32, 1, 1.0),
    ("dense_forward", 1024, 1024, 4, 1.0),
    ("few_forward", 300, 100, 1, 1.0),
    ("few_forward", 1024, 1024, 1, 1.0),
    ("dense_adjoint", 300, 100, 1, 1.0),
    ("dense_adjoint", 1024, 1024, 4, 1.0),
    ("dense_gradient", 784, 32, 4, 1.0),
    ("dense_gradient", 1024, 1024, 4, 1.0),
    ("runs_forward", 784, 32, 4, 0.19),
    ("runs_forward", 784, 300, 4, 0.19),
    ("runs_gradient", 784, 32, 4, 0.19),
    ("runs_gradient", 784, 300, 4, 0.19),
    ("rows_forward", 784, 300, 2, 0.1),
    ("rows_adjoint", 784, 300, 2, 0.1),
    ("rows_gradient", 784, 300, 4, 0.1),
    ("byte_rows_forward", 784, 300, 2, 0.1),
    ("byte_rows_gradient", 784, 300, 4, 0.1),
    ("quads_forward", 784, 300, 2, 0.1),
    ("quads_adjoint", 784, 300, 2, 0.1),
    ("quads_gradient", 784, 300, 4, 0.1),
    ("byte_quads_forward", 784, 300, 2, 0.1),
    ("byte_quads_gradient", 784, 300, 4, 0.1),
]


FLOPS = 1 << 30
"""Operations of one call: it takes some milliseconds, so that some call runs while the machine does nothing else."""


def repeats(fan_in: int, count: int, tiles: int, density: float) -> int:
    """How often a kernel must run to do about `FLOPS` operations."""
    return 2 + int(FLOPS / (2 * 32 * fan_in * count * tiles * density))


@pytest.mark.benchmark(group="kernels")
@pytest.mark.parametrize(("kernel", "fan_in", "count", "tiles", "density"), KERNELS, ids=str)
def bench_kernel(benchmark, note, peak, kernel, fan_in, count, tiles, density):
    """The rate is the kernel's alone; the benchmark's own time includes the making of its data."""
    arguments, rates = (kernel, fan_in, count, tiles, repeats(fan_in, count, tiles, density), density), []

    examples = 8 if kernel == "few_forward" else 32 * tiles

    def run():
        flops, seconds = mlgraph_ext.sweep.time_kernel(*arguments)
        assert flops == pytest.approx(
            2 * examples * fan_in * count * density * arguments[4], rel=0.2
        )  # edges are drawn
        rates.append(flops / seconds)

    benchmark.pedantic(run, rounds=25, warmup_rounds=1)
    rate = max(rates)
    note(gflops=round(rate / 1e9, 1), share_of_peak=round(rate / peak, 3))
    print(f"\n{kernel} {fan_in}x{count}: {rate / 1e9:.1f} GFLOP/s, {rate / peak:.0%} of the peak of {peak / 1e9:.1f}")
