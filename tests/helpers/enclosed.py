"""Random float32 intervals, numbers in them, and results of ops with every permitted rounding error."""

import numpy as np

from mlgraph.graph import ops
from mlgraph.testing._intervals import ULPS

INF, NAN = np.inf, np.nan
SMALLEST, MOST = 2.0**-149, float(np.finfo(np.float32).max)
NUMBERS = [0.0, SMALLEST, 1e-40, 1e-30, 0.5, 1.0, 1.5, 2.0, 3.0, 88.0, 104.0, 1e30, MOST, INF]
EXACT = [name for name in ops.OPS if name not in (*ULPS, "sum", "prod", "logsumexp")]


def order(x):
    """Rank of float32 numbers: -0.0 has -1, 0.0 has 0, and NaN is far above infinity."""
    bits = np.asarray(x, np.float32).view(np.int32).astype(np.int64)
    return np.where(np.isnan(x), 2**40, np.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits))


def number(place):
    """Inverse of `order`."""
    bits = np.where(place < 0, -1 - place | 0x80000000, place)
    return np.where(place > 2**39, NAN, bits.astype(np.uint32).view(np.float32).astype(np.float64))


def interval(ends):
    """Interval of one number, or from one to another, in the format of the module for one example."""
    return np.ravel(ends)[[0, -1], None].astype(np.float32).astype(np.float64)


def drawn(rng, n):
    """Random intervals: points, narrow and wide ones, with zeros, infinities and NaN, and unknown ones."""
    signed = rng.choice(NUMBERS, (2, n)) * rng.choice([-1.0, 1.0], (2, n))
    ends = np.where(rng.random((2, n)) < 0.1, rng.normal(size=(2, n)), signed)
    ends[1] = np.where(rng.random(n) < 0.4, ends[0], ends[1])
    places = np.sort(order(ends), axis=0)
    places[1] += np.where(rng.random(n) < 0.2, rng.integers(0, 5, n), 0)
    kind = rng.random(n)
    return np.where(kind < 0.03, NAN, np.where(kind < 0.06, [[-INF], [INF]], number(np.minimum(places, order(INF)))))


def numbers_in(rng, x):
    """An end, a random number or a zero of each interval; also NaN where nothing is known."""
    low, high = order(x)
    which = rng.random(low.shape)
    choices = [low, high, rng.integers(low, high + 1), np.clip(rng.integers(-1, 1, low.shape), low, high)]
    place = np.select([which < 0.3, which < 0.6, which < 0.9], choices[:3], choices[3])
    return np.where((x[0] == -INF) & (x[1] == INF) & (rng.random(low.shape) < 0.2), NAN, number(place))


def erring(rng, y, ulps=0):
    """Round y, or move it by units in the last place, keeping its sign."""
    off = ulps * np.ldexp(1.0, np.maximum(np.frexp(np.abs(y))[1] - 24, -149)) * rng.integers(-1, 2, np.shape(y))
    there = np.where(np.sign(y) * (y + off) > 0, y + off, np.copysign(0.0, y))
    near = np.asarray(there, np.float32)
    near = np.where(np.abs(near - y) > np.abs(off), np.nextafter(near, np.float32(y)), near)
    return np.where(np.isfinite(y) & (off != 0), near, np.asarray(y, np.float32)).astype(np.float64)


def evaluated(name, *x):
    return ops.OPS[name].value(np.stack(x)) if ops.OPS[name].arity < 0 else ops.OPS[name].value(*x)


def in_float32(rng, name, *x):
    """A permitted result of an op; sums and products are computed in random order."""
    if name in ("sum", "prod"):
        total, *others = (x[i] for i in rng.permutation(len(x)))
        for a in others:
            total = erring(rng, total + a if name == "sum" else total * a)
        return total
    if name == "logsumexp":
        most = np.max(x, axis=0)
        most = np.where(np.isfinite(most), most, 0.0)
        total = in_float32(rng, "sum", *(in_float32(rng, "exp", erring(rng, a - most)) for a in x))
        return erring(rng, most + in_float32(rng, "log", total))
    return erring(rng, evaluated(name, *x), ULPS.get(name, 0))


def terms_in_float32(rng, name, d, y, *x):
    """Permitted terms that an op adds to the adjoints of its arguments."""
    if name == "prod":
        return [in_float32(rng, "prod", d, *x[:i], *x[i + 1 :]) for i in range(len(x))]
    if name == "max":
        return [np.where(a == y, d / np.maximum(np.sum(np.stack(x) == y, axis=0), 1), 0.0) for a in x]
    if name == "pow":
        (a, b), lower, log = x, in_float32(rng, "pow", x[0], erring(rng, x[1] - 1)), in_float32(rng, "log", x[0])
        partials = [np.where(b == 0, 0, b * lower), np.where((a == 0) & (b > 0), 0, y * log)]
    elif name == "logsumexp":
        partials = [in_float32(rng, "exp", erring(rng, a - y)) for a in x]
    elif name == "tanh":
        partials = [1 - np.where(rng.random(y.shape) < 0.5, y * y, erring(rng, y * y))]  # fused or not
    else:
        partials = ops.OPS[name].derivatives(y, *([np.stack(x)] if ops.OPS[name].arity < 0 else x))
        partials = [erring(rng, np.broadcast_to(partial, y.shape), ULPS.get(name, 0)) for partial in partials]
    return [np.where((partial == 0) & (name == "where"), 0.0, d * erring(rng, partial)) for partial in partials]
