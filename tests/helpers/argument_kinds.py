"""What an argument of a kind may be, in which forms it may come, and what it may not be."""

import datetime
import fractions
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from world import OTHER, world

import mlgraph
from mlgraph import Graph


@dataclass
class Kind:
    """What an argument may be and may not be; values are functions of a `world`, or the same in any."""

    good: Any
    bad: dict[str, Any] = field(default_factory=dict)
    same: dict[str, Callable[[Any], Any]] = field(default_factory=dict)


def of(value, w):
    return value(w) if isinstance(value, types.FunctionType) else value


NAN, INF = float("nan"), float("inf")
NOT_NUMBERS = {
    "text": "3",
    "None": None,
    "list": [1],
    "object": object(),
    "complex": 1j,
    "bytes": b"3",
    "date": datetime.date.max,
    "row": np.ones(2),
    "node": lambda w: w.x[0],
}
INTEGERS = {"int64": np.int64, "uint8": np.uint8}
FLOATS = {"float64": np.float64, "float32": np.float32, "fraction": fractions.Fraction}


def count(good, least=1, most=2**31 - 1, optional=False):
    bad = {**NOT_NUMBERS, "half": 1.5, "float": float(good), "NaN": NAN, "truth": True, "too small": least - 1}
    bad |= {"negative": -3}
    if most is not None:
        bad |= {"too large": most + 1, "beyond int64": 2**63, "huge": 10**5000}
    if optional:
        del bad["None"]
    return Kind(good, bad, INTEGERS)


def share(good, optional=False, all=False):
    bad = {
        **NOT_NUMBERS,
        "one": 1,
        "two": 2.0,
        "negative": -0.125,
        "NaN": NAN,
        "infinite": INF,
        "truth": False,
        "float32 one": np.float32(1),
    }
    bad = {
        way: value
        for way, value in bad.items()
        if not (way == "None" and optional) and not (way.endswith("one") and all)
    }
    return Kind(good, bad, FLOATS)


def number(good, optional=False):
    bad = {**NOT_NUMBERS, "beyond float32": 1e39, "huge": 10**400}
    if optional:
        del bad["None"]
    return Kind(good, bad, FLOATS)


def a_name(good):
    return Kind(
        good,
        {
            "unknown": "spam",
            "empty": "",
            "None": None,
            "number": 3,
            "list": [good],
            "bytes": good.encode(),
            "row": np.array([good, good]),
            "lines": "a\nb",
            "long": "x" * 10**5,
        },
        {"numpy": np.str_},
    )


def a_node(good):
    return Kind(
        good, {"None": None, "number": 3, "text": "x", "list": lambda w: [w.x[0]], "of another graph": OTHER[1]}
    )


def a_node_or_id(good):
    bad = {
        **a_node(good).bad,
        "number": 10**6,
        "negative": -1,
        "half": 1.5,
        "float": 3.0,
        "huge": 10**5000,
        "row": np.ones(2),
    }
    return Kind(good, bad, {"id": lambda node: node.id, "int64": lambda node: np.int64(node.id)})


def nodes(good, one=False):
    bad = {
        "None": None,
        "number": 3,
        "text": "x",
        "numbers": [1.0],
        "one node": lambda w: w.x[0],
        "empty": [],
        "of another graph": [OTHER[1]],
        "one of another": lambda w: [w.x[0], OTHER[40]],
        "list in a list": lambda w: [w.x],
        "class": [mlgraph.Node],
        "empty row": np.array([]),
        "array of no row": np.array(5),
    }
    if one:
        del bad["one node"]
    row = {"row": lambda v: np.array([*v, None])[:-1]}  # of objects
    return Kind(good, bad, {"tuple": tuple, "iterator": lambda v: (node for node in v), **row})


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    raw[1:] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    return raw[1:].view(a.dtype).reshape(a.shape)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


FORMS = {
    "Fortran": np.asfortranarray,
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "every third row": lambda a: np.repeat(a, 3, axis=0)[::3],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "of a larger one": lambda a: np.pad(a, 3)[(slice(3, -3),) * a.ndim],
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "list": np.ndarray.tolist,
    "rows": list,
    "unmasked": np.ma.masked_array,
    "subclass": lambda a: a.view(type("Array", (np.ndarray,), {})),
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
}
FLOAT_TYPES = {t: lambda a, t=t: a.astype(t) for t in ("float16", "float32", "float64", "longdouble")}
INT_TYPES = {
    t: lambda a, t=t: a.astype(t) for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
}


def array(good, *, labels=False, finite=False, empty=False, fits=True, lengths=(0,), optional=False):
    """An array argument: must it be `finite`, not `empty`, in float32's range (`fits`), of fixed `lengths`?"""
    a = good if isinstance(good, np.ndarray) else good(world())
    bad = {
        "None": None,
        "number": 3.0,
        "text": "abc",
        "texts": a.astype(str),
        "bytes": b"abc",
        "dict": {},
        "set": {1.0},
        "object": object(),
        "node": lambda w: w.x[0],
        "nodes": lambda w: w.x,
        "objects": a.astype(object),
        "complex": a.astype(complex),
        "dates": np.zeros(a.shape, "M8[s]"),
        "times": np.zeros(a.shape, "m8[s]"),
        "fields": np.zeros(a.shape, [("a", "<f4")]),
        "raw": np.zeros(a.shape, "V4"),
        "ragged": [[1.0], [1.0, 2.0]],
        "some None": [[1.0, None]],
        "huge integers": [[2**70] * a.shape[-1]] * len(a),
        "more dimensions": a[None],
        "one number": np.float32(1),
        "masked": np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 1),
        "deep": np.zeros((1,) * 30),
        "class": np.ndarray,
        "function": len,
    }
    for axis in lengths:
        shorter = np.moveaxis(np.moveaxis(a, axis, 0)[1:], 0, axis)
        longer = np.moveaxis(np.moveaxis(np.concatenate([a, a], axis), axis, 0)[: a.shape[axis] + 1], 0, axis)
        bad |= {f"shorter {axis}": shorter, f"longer {axis}": longer}
    if a.ndim > 1:
        bad |= {"fewer dimensions": a[0], "flat": a.ravel()}
    if labels:
        bad |= {"negative": a - 1, "too large": a + 1, "wrapped": a + 2**32, "floats": a.astype(float)}
    if finite:
        bad |= {
            "NaN": np.where(np.arange(a.size).reshape(a.shape) == 1, np.nan, a),
            "infinite": np.full(a.shape, np.inf),
        }
    if not empty:
        bad |= {"empty": a[:0], "no columns": a[..., :0]}
    if fits:
        bad |= {"beyond float32": a.astype(float) + 1e39}
    if optional:
        del bad["None"]
    return Kind(good, bad, FORMS | (INT_TYPES if labels else FLOAT_TYPES))


def a_path(good):
    bad = {
        "None": None,
        "number": 3,
        "descriptor": 0,
        "truth": True,
        "list": ["x"],
        "float": 1.5,
        "node": lambda w: w.x[0],
        "null": "a\0b",
        "null in bytes": b"a\0b",
        "half a pair": "\ud800",
    }
    return Kind(good, bad, {"bytes": lambda p: str(p).encode(), "text": str})


def graph(good):
    return Kind(good, {"None": None, "text": "x", "node": lambda w: w.x[0], "model": lambda w: w.model, "class": Graph})
