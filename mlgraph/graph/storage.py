"""The parameters of a graph: one vector, and vectors of the same layout for optimizer state.

Terms
-----
place
    An index into the parameter vector.
record
    Where the parameters of one node are: the place of its first weight, the stride between its
    weights, and the place of its bias. Each neuron and each parameter node has one record. Strides
    let a plan choose the layout that its kernels need.
panel
    `PANEL` neurons with the same sources, whose weights are interleaved: the weights of all of them
    for the first source, then those for the second, and so on. A dense block is a sequence of
    panels.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph._support.array_types import Float32, Int32, Int64
from mlgraph._support.interrupts import uninterrupted
from mlgraph_ext import _topology

PANEL = mlgraph_ext.sweep.PANEL_NEURONS
"""Neurons of a panel."""


def aligned(n: int) -> Float32:
    """A vector of zeros that begins at a cache line."""
    raw = np.zeros(n + 16, np.float32)
    first = _topology.until_cache_line(raw)
    return raw[first : first + n]


def padded(n: int) -> int:
    """`n` rounded up to a multiple of `PANEL`."""
    return -(-n // PANEL) * PANEL


def in_panels(k: npt.NDArray[Any], arity: int) -> npt.NDArray[Any]:
    """Offsets of the first weights of neurons `k` in a dense block; each neuron's weights have the stride `PANEL`."""
    return np.asarray(k // PANEL * (PANEL * arity) + k % PANEL)


_NO_PARAMETERS = aligned(0)

FROZEN = "frozen"
"""Name of the vector in `Storage.state` that is 1 for frozen parameters and 0 for trainable ones."""

NO_OPTIMIZER = ("", 0)


class Storage:
    """Parameters, optimizer state and the records of where those of each node are.

    Attributes
    ----------
    vector : float32
        The parameters, including padding, and spare capacity from `used` on.
    used : int
        Elements of `vector` in use.
    state : dict of float32
        Optimizer state by name, in the layout of `vector`. A vector may be shorter than `used`:
        missing elements are 0.
    optimizer : (str, int)
        The optimizer whose state this is, a key of `mlgraph.engine.engine.STATE` or "" for none, and
        the number of steps since it began with zeros.
    moves : int
        How often the parameters were moved or optimizer state was restored; a training run then
        reads it again.
    weights, stride : array of int
        For each record, the place of its first weight and the distance between weights; a parameter
        node has one.
    bias : array of int
        For each record, the place of its bias, or -1.
    max_sources : array of int
        For each record, the largest number of sources that the neuron has had; 0 for a parameter
        node.
    """

    def __init__(self) -> None:
        self.vector = _NO_PARAMETERS
        self.used = 0
        self.state: dict[str, Float32] = {}
        self.optimizer = NO_OPTIMIZER
        self.moves = 0
        self.weights = array("q")
        self.stride = array("i")
        self.bias = array("q")
        self.max_sources = array("i")

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.weights)

    @property
    def columns(self) -> tuple[array[int], ...]:
        """`weights`, `stride`, `bias` and `max_sources`."""
        return self.weights, self.stride, self.bias, self.max_sources

    @property
    def places(self) -> tuple[Int64, Int64, Int64]:
        """Copies of `weights`, `stride` and `bias`, int64 of shape (records,)."""
        weights, stride, bias = (np.array(column, np.int64) for column in (self.weights, self.stride, self.bias))
        return weights, stride, bias

    def max_sources_of(self, records: Int64) -> Int64:
        """`max_sources` of these records."""
        return np.asarray(np.array(self.max_sources, np.int64)[records])

    def grow(self, n: int, align: int = 1) -> int:
        """Append `n` zeros to the parameters; returns the place of the first, a multiple of `align`."""
        at = -(-self.used // align) * align
        if at + n > len(self.vector):
            vector = aligned(max(at + n, len(self.vector) * 3 // 2))
            vector[: self.used] = self.vector[: self.used]
            self.vector = vector
        self.used = at + n
        return at

    def append(self, weights: int, bias: int = -1, max_sources: int = 0) -> int:
        """Append a record of contiguous weights; returns its index."""
        self.weights.append(weights)
        self.stride.append(1)
        self.bias.append(bias)
        self.max_sources.append(max_sources)
        return len(self.weights) - 1

    def add_row(self, weights: Float32, bias: float | None) -> int:
        """Append the weights of a neuron, then its bias; returns the index of its record."""
        n = len(weights)
        at = self.grow(n + (bias is not None))
        self.vector[at : at + n] = weights
        if bias is not None:
            self.vector[at + n] = bias
        return self.append(at, -1 if bias is None else at + n, n)

    def add_rows(self, weights: Float32, counts: Int32, biases: Float32) -> int:
        """Append the weights of several neurons, then all their biases.

        Parameters
        ----------
        weights : float32, shape (edges,)
        counts : int32, shape (neurons,)
            Number of weights of each neuron.
        biases : float32, shape (neurons,)

        Returns
        -------
        int
            Index of the first record.
        """
        at, n = self.grow(len(weights) + len(counts)), len(weights)
        self.vector[at : at + n], self.vector[at + n : at + n + len(counts)] = weights, biases
        return self._extend(at + np.cumsum(counts, dtype=np.int64) - counts, 1, at + n + np.arange(len(counts)), counts)

    def add_panels(self, weights: Float32, biases: Float32 | None) -> int:
        """Append a dense block of neurons, which share their sources; returns the index of the first record.

        Parameters
        ----------
        weights : float32, shape (neurons, sources)
        biases : float32, shape (neurons,), or None
        """
        n, arity = weights.shape
        panels, k = -(-n // PANEL), np.arange(n)
        at = self.grow(panels * PANEL * (arity + (biases is not None)), align=PANEL)
        end = at + panels * PANEL * arity
        block = self.vector[at:end].reshape(panels, arity, PANEL)
        for p in range(panels):
            rows = weights[p * PANEL : (p + 1) * PANEL]
            block[p, :, : len(rows)] = rows.T
        if biases is not None:
            self.vector[end : end + n] = biases
        return self._extend(at + in_panels(k, arity), PANEL, -1 if biases is None else end + k, arity)

    def _extend(self, *columns: Any) -> int:
        """Append records and return the index of the first; of the columns, all but the first may be numbers."""
        first = len(self)
        for column, values in zip(self.columns, columns, strict=True):
            extend(column, values, len(columns[0]))
        return first

    def weights_of(self, record: int, n: int) -> Float32:
        """A writable view of the first `n` weights of a record."""
        at, stride = self.weights[record], self.stride[record]
        return self.vector[at : at + n * stride : stride]

    def zeros(self) -> Float32:
        """A new vector with a zero for each parameter."""
        return aligned(self.used)

    def state_vector(self, name: str, *, fresh: bool) -> Float32:
        """The state vector of this name, created or extended by zeros if needed; if `fresh`, all zeros."""
        vector = self.state.get(name)
        if fresh or vector is None or len(vector) != self.used:
            old, vector = vector, self.zeros()
            if old is not None and not fresh:
                vector[: len(old)] = old
            self.state[name] = vector
        return vector

    def freeze(self, places: Int64 | Int32, frozen: bool) -> None:
        """Freeze the parameters at some places, or make them trainable again."""
        if not frozen and FROZEN not in self.state:
            return
        with uninterrupted():
            state = {name: self.state_vector(name, fresh=False) for name in (*self.state, FROZEN)}
            for vector in state.values() if frozen else ():
                vector[places] = 0  # momentum must not move a frozen parameter
            state[FROZEN][places] = frozen
            if not state[FROZEN].any():
                del self.state[FROZEN]

    @property
    def frozen(self) -> Float32 | None:
        """1 for each frozen parameter and 0 for the others; None if nothing is frozen."""
        return self.state_vector(FROZEN, fresh=False) if FROZEN in self.state else None

    def vectors(self) -> dict[str, Float32]:
        """The parameters, named "", and the state vectors, all of the same length."""
        return {"": self.vector[: self.used], **{name: self.state_vector(name, fresh=False) for name in self.state}}

    def move(self, origin: npt.NDArray[Any], weights: array[int], stride: array[int], bias: array[int]) -> None:
        """Rearrange all vectors.

        Parameters
        ----------
        origin : int32 or int64, shape (new length,)
            The current place of each new element; -1 for padding, which becomes 0.
        weights, stride, bias : array of int
            The new columns of the records, which the storage keeps.
        """

        def moved(vector: Float32) -> Float32:
            out = aligned(len(origin))
            _topology.move(vector, origin, out)
            return out

        vars(self).update(  # one bytecode: no signal and no fork in another thread can see half of it
            vector=moved(self.vector),
            state={name: moved(vector) for name, vector in self.state.items()},
            used=len(origin),
            weights=weights,
            stride=stride,
            bias=bias,
            moves=self.moves + 1,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.vector = copied(self.vector)  # numpy does not align it to a cache line
        self.state = {name: copied(vector) for name, vector in self.state.items()}

    def copy(self) -> Storage:
        """A copy that shares nothing with the original."""
        other = Storage()
        other.__setstate__(
            {name: value[:] if isinstance(value, array) else value for name, value in vars(self).items()}
        )
        return other


def copied(vector: Float32) -> Float32:
    """A copy of a vector that begins at a cache line."""
    out = aligned(len(vector))
    out[:] = vector
    return out


def written(column: array[Any], indices: Any, values: npt.ArrayLike) -> array[Any]:
    """A copy of a column in which the elements at `indices` are replaced."""
    copy = column[:]
    np.frombuffer(copy, copy.typecode)[indices] = values
    return copy


def column_of(typecode: str, values: npt.NDArray[Any]) -> array[Any]:
    """A column of numbers."""
    column: array[Any] = array(typecode)
    extend(column, values)
    return column


def extend(column: array[Any], values: npt.NDArray[Any] | int, n: int = 1) -> None:
    """Append numbers to a column, or one number `n` times."""
    if isinstance(values, np.ndarray):
        column.frombytes(np.ascontiguousarray(values, column.typecode).view(np.uint8).data)
    else:
        column.extend(array(column.typecode, [values]) * n)


def release(owner: object) -> None:
    """Replace the columns of `owner` of which a buffer is exported by copies.

    A column cannot grow while numpy has a view of it. In a forked child, a view that another thread
    had stays for ever.
    """
    for name, column in vars(owner).items():
        if isinstance(column, array):
            try:
                column.append(0)
            except BufferError:
                setattr(owner, name, column[:])
            else:
                column.pop()
