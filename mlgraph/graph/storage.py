"""Where a graph keeps what training changes: one vector of parameters, and the optimizer's vectors beside it.

Each parameter node or neuron has a record, which says where its weights are in the vector. They are a strided run of it, so
that a plan may lay them out as its kernels want.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

import mlgraph_ext
from mlgraph._support.array_types import Float32, Int32, Int64
from mlgraph._support.interrupts import uninterrupted

PANEL = mlgraph_ext.sweep.PANEL_NEURONS
"""Neurons that stand side by side in the vector."""


def aligned(n: int) -> Float32:
    """Zeroed float32 vector that begins at a cache line."""
    raw = np.zeros(n + 16, np.float32)
    first = -raw.ctypes.data // 4 % 16
    return raw[first : first + n]


def padded(n: int) -> int:
    """`n`, rounded up to whole panels."""
    return -(-n // PANEL) * PANEL


def in_panels(k: npt.NDArray[Any], arity: int) -> npt.NDArray[Any]:
    """Places in a dense block of the first weights of its neurons `k`; a neuron's next weight is `PANEL` places further."""
    return np.asarray(k // PANEL * (PANEL * arity) + k % PANEL)


FROZEN = "frozen"
"""The vector of `Storage.state` that is 1 for parameters that training leaves as they are, else 0."""


class Storage:
    """Parameters and optimizer state, and where those of each record stand in every one of these vectors.

    Attributes
    ----------
    vector : float32
        The parameters, padding included, and room to grow from `used` on.
    used : int
    state : dict of float32
        Optimizer state by name; it follows every move. A vector may be shorter than `used`: the rest counts as zero.
    moves : int
        Number of times that the storage was laid out anew, or an earlier state of it restored.
    weights, stride : array of int
        For each record, where its weights begin and how far apart they are. A parameter node is one weight.
    bias : array of int
        Where its bias stands, or -1.
    max_sources : array of int
        The most sources that it has had; 0 for a parameter node.
    """

    def __init__(self) -> None:
        self.vector = aligned(0)
        self.used = 0
        self.state: dict[str, Float32] = {}
        self.moves = 0
        self.weights = array("q")
        self.stride = array("i")
        self.bias = array("q")
        self.max_sources = array("i")

    def __len__(self) -> int:
        """Number of records."""
        return len(self.weights)

    @property
    def columns(self) -> tuple[array[int], ...]:
        """`weights`, `stride`, `bias` and `max_sources`."""
        return self.weights, self.stride, self.bias, self.max_sources

    @property
    def places(self) -> tuple[Int64, Int64, Int64]:
        """`weights`, `stride` and `bias`, int64 of shape (records,); copies."""
        weights, stride, bias = (np.array(column, np.int64) for column in (self.weights, self.stride, self.bias))
        return weights, stride, bias

    def max_sources_of(self, records: Int64) -> Int64:
        """`max_sources` of these records."""
        return np.asarray(np.array(self.max_sources, np.int64)[records])

    def grow(self, n: int, align: int = 1) -> int:
        """Make room for `n` more elements; the place of the first, a multiple of `align`."""
        at = -(-self.used // align) * align
        if at + n > len(self.vector):
            vector = aligned(max(at + n, len(self.vector) * 3 // 2))
            vector[: self.used] = self.vector[: self.used]
            self.vector = vector
        self.used = at + n
        return at

    def append(self, weights: int, bias: int = -1, max_sources: int = 0) -> int:
        """Add a record of weights side by side; its number."""
        for column, value in zip(self.columns, (weights, 1, bias, max_sources), strict=True):
            column.append(value)
        return len(self) - 1

    def add_row(self, weights: Float32, bias: float | None) -> int:
        """Lay out the weights of a neuron side by side, and behind them its bias; the number of its record."""
        n = len(weights)
        at = self.grow(n + (bias is not None))
        self.vector[at : at + n] = weights
        if bias is not None:
            self.vector[at + n] = bias
        return self.append(at, -1 if bias is None else at + n, n)

    def add_rows(self, weights: Float32, counts: Int32, biases: Float32) -> int:
        """Lay out the weights of neurons, `counts` for each, and behind them all biases; the number of the first record."""
        at, n = self.grow(len(weights) + len(counts)), len(weights)
        self.vector[at : at + n], self.vector[at + n : at + n + len(counts)] = weights, biases
        return self._extend(at + np.cumsum(counts, dtype=np.int64) - counts, 1, at + n + np.arange(len(counts)), counts)

    def add_panels(self, weights: Float32, biases: Float32 | None) -> int:
        """Lay out neurons that share their sources as a dense block has them; the number of the first record.

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
        """Add records, given as `columns`; the number of the first."""
        first = len(self)
        for column, values in zip(self.columns, np.broadcast_arrays(*columns), strict=True):
            extend(column, values)
        return first

    def weights_of(self, record: int, n: int) -> Float32:
        """The first `n` weights of a record; a writable view."""
        at, stride = self.weights[record], self.stride[record]
        return self.vector[at : at + n * stride : stride]

    def zeros(self) -> Float32:
        """A new vector, 0 for each parameter."""
        return aligned(self.used)

    def state_vector(self, name: str, *, fresh: bool) -> Float32:
        """The optimizer's vector of this name, as long as the parameters; zeros where it is new or `fresh`."""
        vector = self.state.get(name)
        if fresh or vector is None or len(vector) != self.used:
            old, vector = vector, self.zeros()
            if old is not None and not fresh:
                vector[: len(old)] = old
            self.state[name] = vector
        return vector

    def freeze(self, places: Int64 | Int32, frozen: bool) -> None:
        """Have training leave the parameters in some places as they are, or change them again; kept like optimizer state."""
        if not frozen and FROZEN not in self.state:
            return
        with uninterrupted():
            state = {name: self.state_vector(name, fresh=False) for name in (*self.state, FROZEN)}
            for vector in state.values() if frozen else ():
                vector[places] = 0  # no velocity may move them further
            state[FROZEN][places] = frozen
            if not state[FROZEN].any():
                del self.state[FROZEN]

    @property
    def frozen(self) -> Float32 | None:
        """For each parameter 1 if training leaves it as it is, else 0; None if none is frozen."""
        return self.state_vector(FROZEN, fresh=False) if FROZEN in self.state else None

    def vectors(self) -> dict[str, Float32]:
        """The parameters (""), and each vector of optimizer state, all of one length."""
        return {"": self.vector[: self.used], **{name: self.state_vector(name, fresh=False) for name in self.state}}

    def move(self, origin: npt.NDArray[Any], weights: Int64, stride: Int64, bias: Int64) -> None:
        """Lay out all vectors anew.

        Parameters
        ----------
        origin : int32 or int64, shape (new length,)
            Where each element of the new vectors stands now; -1 for padding.
        weights, stride, bias : int64, shape (records,)
            The records afterwards.
        """

        def moved(vector: Float32) -> Float32:
            out = aligned(len(origin))
            if len(vector):
                vector.take(origin, out=out, mode="clip")
            out[(origin < 0) | (origin >= len(vector))] = 0
            return out

        every = slice(None)
        vars(self).update(  # at one blow: neither a signal nor a fork of another thread finds a part of it
            vector=moved(self.vector),
            state={name: moved(vector) for name, vector in self.state.items()},
            used=len(origin),
            weights=written(self.weights, every, weights),
            stride=written(self.stride, every, stride),
            bias=written(self.bias, every, bias),
            moves=self.moves + 1,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.vector = copied(self.vector)  # numpy has not aligned it
        self.state = {name: copied(vector) for name, vector in self.state.items()}

    def copy(self) -> Storage:
        """The same, with vectors and records of its own."""
        other = Storage()
        other.__setstate__(
            {name: value[:] if isinstance(value, array) else value for name, value in vars(self).items()}
        )
        return other


def copied(vector: Float32) -> Float32:
    """A copy that begins at a cache line."""
    out = aligned(len(vector))
    out[:] = vector
    return out


def written(column: array[Any], places: Any, values: npt.ArrayLike) -> array[Any]:
    """A copy of a column of records or of nodes, with numbers written into it."""
    copy = column[:]
    np.frombuffer(copy, copy.typecode)[places] = values
    return copy


def extend(column: array[Any], values: npt.NDArray[Any]) -> None:
    """Append numbers to a column of records or of nodes."""
    column.frombytes(np.ascontiguousarray(values, column.typecode).view(np.uint8).data)


def release(owner: object) -> None:
    """Give `owner` copies of those of its columns that numpy has a view of: they could not grow before it is gone."""
    for name, column in vars(owner).items():
        if isinstance(column, array):
            try:
                column.append(0)
            except BufferError:
                setattr(owner, name, column[:])
            else:
                column.pop()
