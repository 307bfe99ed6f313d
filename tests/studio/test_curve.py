"""The curve of a run, against numpy over all steps."""

import numpy as np
import pytest

from mlgraph.studio import curve


@pytest.mark.parametrize("seed", range(20))
def test_columns_are_those_of_all_steps(monkeypatch, seed):
    """Beyond `MOST` entries, too: two neighbours become one, and their mean is that of their steps."""
    monkeypatch.setattr(curve, "MOST", 16)
    rng = np.random.default_rng(seed)
    losses, accuracies = rng.normal(size=(2, rng.integers(1, 1000))).astype(np.float32)
    found = curve.Curve()
    at = 0
    while at < len(losses):
        n = int(rng.integers(0, rng.choice([2, 10, 300])))
        found.extend(losses[at : at + n], accuracies[at : at + n])
        at += n
    n, stride = len(losses), found.stride
    assert found.steps == n and n / stride < 17 and stride & (stride - 1) == 0
    whole = n // stride * stride
    loss, accuracy = losses[:whole].reshape(-1, stride), accuracies[:whole].reshape(-1, stride)
    for pixels in (1000, 7, 1):
        columns = found.columns(0, n, pixels)
        step = columns["step"]
        assert step[0] == 0 and len(step) == min(len(loss), pixels)
        ends = [*(np.array(step[1:]) // stride), len(loss)]
        for i, (a, b) in enumerate(zip(np.array(step) // stride, ends, strict=True)):
            expected = loss[a:b].min(), loss[a:b].mean(), loss[a:b].max(), accuracy[a:b].mean()
            got = [columns[name][i] for name in ("low", "mean", "high", "accuracy")]
            np.testing.assert_allclose(got, expected, rtol=6e-5, atol=1e-6)  # five digits
    first, last = sorted(rng.integers(0, n + 1, 2).tolist())
    part = found.columns(first, last, 1000)["step"]
    entries = range(first // stride * stride, min(last, whole), stride)
    assert part == list(entries)


def test_an_empty_curve_and_a_range_beyond_it():
    found = curve.Curve()
    nothing = {name: [] for name in ("step", "low", "mean", "high", "accuracy")}
    assert found.columns(0, 0, 10) == nothing
    found.extend([1.0, np.nan, 2.0], [0.5, 0.5, np.nan])
    assert found.columns(2**62, 2**62, 10) == found.columns(2, 1, 10) == nothing
    assert found.columns(0, 2**62, 10)["low"] == [1, None, 2]
