"""Each kernel on one core, beside the peak of multiply-adds measured in the same process.

``share_of_peak`` counts useful operations only: a multiply-add with a zero that was skipped is none.
"""

import pytest

import mlgraph_ext

KERNELS = [
    ("dense_forward", 784, 32, 1, 1.0),
    ("dense_forward", 1024, 1024, 1, 1.0),
    ("dense_adjoint", 300, 100, 1, 1.0),
    ("dense_adjoint", 1024, 1024, 1, 1.0),
    ("dense_gradient", 784, 32, 4, 1.0),
    ("dense_gradient", 1024, 1024, 4, 1.0),
    ("nonzero_forward", 784, 32, 1, 0.19),
    ("nonzero_forward", 784, 300, 1, 0.19),
    ("nonzero_gradient", 131, 32, 4, 0.19),
    ("rows_forward", 784, 300, 1, 0.1),
    ("rows_adjoint", 784, 300, 1, 0.1),
    ("rows_gradient", 784, 300, 4, 0.1),
]


@pytest.mark.benchmark(group="kernels")
@pytest.mark.parametrize(("kernel", "fan_in", "count", "tiles", "density"), KERNELS, ids=lambda value: str(value))
def bench_kernel(benchmark, note, peak, kernel, fan_in, count, tiles, density):
    repeats = max(1, int(3e7 / (fan_in * count * tiles * 32 * density)))
    flops = benchmark(mlgraph_ext.sweep.kernel_flops, kernel, fan_in, count, tiles, repeats, density)
    rate = flops / benchmark.stats.stats.min
    note(gflops=round(rate / 1e9, 1), share_of_peak=round(rate / peak, 3))
    print(f"\n{kernel} {fan_in}x{count}: {rate / 1e9:.1f} GFLOP/s, {rate / peak:.0%} of the peak of {peak / 1e9:.1f}")
    assert flops > 0
