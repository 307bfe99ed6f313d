"""The weights of a neuron as an array. Writing to it changes the network, wherever its parameters have moved."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from mlgraph._support.array_types import Float32, Int64
from mlgraph._support.checks import float_array, real_array

if TYPE_CHECKING:
    from mlgraph.graph.views import Node


class Weights(NDArrayOperatorsMixin):
    """The weights of a neuron, or some of them: an array of float32 in the order of the neuron's sources.

    It holds no numbers. Each use reads or writes those of the neuron, so it stays valid while training
    and compiling move them. Its elements, slices and in-place operators write to the network. All
    else is as with a read-only numpy array. ``weights.copy()`` is an independent array.

    It is a ValueError to use it after the neuron's sources have changed, and to write NaN.
    """

    __slots__ = ("_at", "_edits", "_node", "_sources")

    def __init__(self, node: Node, sources: array[int], at: Int64, edits: int) -> None:
        self._node = node
        self._sources = sources  # ids of the sources that the neuron must still have
        self._at = at  # indices among the neuron's weights
        self._edits = edits  # the graph's counter when the neuron had these sources

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__slots__:  # numpy's class has no __slots__ before numpy 2
            raise AttributeError(f"weights: the attribute {name!r} cannot be assigned")
        object.__setattr__(self, name, value)

    def _memory(self) -> Float32:
        """All weights of the neuron, a view to be used at once."""
        graph, node = self._node.graph, self._node._checked_id
        if graph.edits != self._edits:
            if graph._source_list(node) != self._sources:
                raise ValueError(f"weights: the sources of {self._node!r} have changed since; read them again")
            self._edits = graph.edits
        return graph._memory_of(node)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("weights: expected copy=None or True, got False: the array is always a copy")
        with self._node.graph.lock:
            out = self._memory()[self._at].astype(dtype or np.float32, copy=False)
        out.flags.writeable = bool(copy)  # a write that does not reach the network is an error
        return out

    def __getitem__(self, index: Any) -> Any:
        at = self._at[index]
        if isinstance(at, np.ndarray):
            return Weights(self._node, self._sources, at, self._edits)
        with self._node.graph.lock:
            return self._memory()[at]

    def __setitem__(self, index: Any, value: npt.ArrayLike) -> None:
        at, given = self._at[index], real_array("weights", value)  # conversions that may edit the graph
        new = float_array("weights", given, given.shape)
        with self._node.graph.lock:
            self._memory()[at] = new

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        if method == "at" and isinstance(inputs[0], Weights):
            return NotImplemented  # numpy would write to a copy
        if out:
            options["out"] = tuple(np.array(o) if isinstance(o, Weights) else o for o in out)
        result = getattr(ufunc, method)(*(np.asarray(i) if isinstance(i, Weights) else i for i in inputs), **options)
        for target, new in zip(out, options.get("out", ()), strict=True):
            if isinstance(target, Weights):
                target[...] = new
        return out[0] if len(out) == 1 else result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy asks for other protocols before `__array__`
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[Any]:
        return iter(np.asarray(self))

    def __bool__(self) -> bool:
        return bool(np.asarray(self))

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()  # copies and pickles are arrays

    def __repr__(self) -> str:
        return repr(np.asarray(self))
