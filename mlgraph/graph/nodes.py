"""The table of a graph's nodes, stored by column: what each node is, its sources and its record of parameters."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, TypeVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Int32, Int64, read_only
from mlgraph._support.locks import P, Shared, T, locked
from mlgraph.graph.ops import CONSTANT, INPUT, NEURON, PARAMETER, is_operation
from mlgraph.graph.storage import Storage, extend, release, written
from mlgraph.graph.topology import Topology
from mlgraph.graph.views import Node

if TYPE_CHECKING:
    from mlgraph.graph.changes import Edit

S = TypeVar("S", bound="NodeTable")


def adds_nodes(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Decorate a method that adds nodes: it holds the lock, and adds no node if it raises, even Ctrl-C or MemoryError.

    One exception: if reading the arguments edited the graph, all complete new nodes stay.
    """

    @functools.wraps(method)
    def all_or_nothing(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            lengths, changes = [*map(len, self._columns())], self._n_changes
            history = {"last_edit": self.last_edit, "undone_edit": self.undone_edit}
            try:
                return method(self, *args, **kwargs)
            except BaseException:
                if self._n_changes != changes:
                    self._truncate(len(self))  # an edit may refer to the new nodes
                else:
                    for node in range(lengths[0], len(self)):
                        self.names.pop(node, None)
                    for column, length in zip(self._columns(), lengths, strict=True):
                        del column[length:]
                    vars(self).update(history)  # an edit may have been recorded
                raise

    return all_or_nothing


class NodeTable(Shared):
    """The columns of a graph's nodes, by id; ids never change.

    Neurons that are added together share one list of sources until one of them is edited.
    """

    _code: array[int]
    _start: array[int]
    _count: array[int]
    _data: array[int]
    born: array[int]
    _pool: array[int]
    constants: array[float]
    input_ids: array[int]
    differentiated: array[int]
    names: dict[int, str]
    edits: int
    _n_changes: int
    last_edit: Edit | None
    undone_edit: Edit | None
    storage: Storage

    def __init__(self) -> None:
        vars(self).update(  # faster than assignments, which check the names
            _code=array("h"),  # code of an op, or INPUT, ..., NEURON + code of the activation
            _start=array("q"),  # index of the node's first source in the pool
            _count=array("i"),
            _data=array("q"),  # input: its column; constant: its index; parameter, neuron: its record
            born=array("q"),  # `edits` when the node was added: distinguishes nodes that had the same id
            _pool=array("i"),  # see `Topology.pool`
            constants=array("d"),
            input_ids=array("i"),
            # Ids of the neurons that nodes depended on when their derivatives were made, ascending (derivatives.py).
            differentiated=array("i"),
            names={},
            edits=0,  # counter of changes of the topology; a plan compiled at another count is stale
            _n_changes=0,  # edit counter; adding nodes does not increment it
            last_edit=None,  # what `undo` takes back, which refers to the edit before it
            undone_edit=None,  # what `redo` makes again, which refers to the edit that it makes next
            storage=Storage(),  # the parameters and the optimizer state
        )

    def __len__(self) -> int:
        return len(self._code)

    @property
    def n_inputs(self) -> int:
        """Number of inputs, which is the number of columns that data must have."""
        return len(self.input_ids)

    @property
    @locked
    def n_edges(self) -> int:
        """Number of edges into neurons, alive or not; `edges` returns only those that are alive."""
        return int(self.counts[self.codes >= NEURON].sum())

    @property
    @locked
    def n_parameters(self) -> int:
        """Number of weights, biases and parameter nodes, alive or not: the length of `get_parameters`."""
        biases = np.frombuffer(self.storage.bias, np.int64) >= 0
        return self.n_edges + int((self.codes == PARAMETER).sum()) + int(biases.sum())

    @property
    @locked
    def codes(self) -> npt.NDArray[np.int16]:
        """The code of each node, as in `mlgraph.graph.ops`; int16 of shape (nodes,), a copy."""
        return np.array(self._code, np.int16)

    @property
    @locked
    def counts(self) -> Int32:
        """Number of sources of each node, int32 of shape (nodes,); a copy."""
        return np.array(self._count, np.int32)

    @property
    @locked
    def records(self) -> Int64:
        """Index of each constant, record of each parameter or neuron, column of each input, else -1; int64, a copy."""
        return np.array(self._data, np.int64)

    def n_sources(self, node: int) -> int:
        """Number of sources of a node."""
        return self._count[node]

    def code_and_record(self, node: int) -> tuple[int, int]:
        """The code of a node, as in `codes`, and its record, as in `records`."""
        return self._code[node], self._data[node]

    def columns_by_name(self) -> dict[str, array[Any]]:
        """The columns that a file stores, by their names in the file; not copies."""
        storage = self.storage
        return {
            "code": self._code,
            "start": self._start,
            "count": self._count,
            "data": self._data,
            "pool": self._pool,
            "constants": self.constants,
            "inputs": self.input_ids,
            "weights": storage.weights,
            "stride": storage.stride,
            "bias": storage.bias,
            "max_sources": storage.max_sources,
        }

    @locked
    def topology(self) -> Topology:
        """The sources of all nodes as arrays; copies."""
        start, counts, pool = self._start, self._count, self._pool
        return Topology(np.array(start, np.int64), np.array(counts, np.int32), np.array(pool, np.int32))

    @property
    def parameters(self) -> Float32:
        """The parameter vector, float32, including padding; a read-only view, valid until the next edit or compilation.

        Any call that computes other nodes than the last one may compile: not only `compile` and
        `fit`, but also `trace` and `inspect`. Compiling may move parameters within the vector;
        `get_parameters` returns them in a fixed order, and `set_parameters` assigns them.
        """
        return read_only(self.storage.vector[: self.storage.used])

    # --- inside -----------------------------------------------------------------------------------

    def _readers(self, chosen: Bool) -> Bool:
        """Which nodes read one of the chosen nodes; both of shape (nodes,)."""
        start, count, pool = self.topology()
        # A node reads one of them if its list contains one of their positions in the pool.
        at = np.flatnonzero(chosen[pool])
        readers: Bool = np.searchsorted(at, start + count) > np.searchsorted(at, start)
        return readers

    def read_by_operations(self) -> Bool:
        """Which inputs are read by operations, by column; shape (inputs,)."""
        read = np.zeros(len(self), bool)
        read[self.topology().sources_of(np.flatnonzero(is_operation(self.codes)))] = True
        return read[np.array(self.input_ids, np.int64)]

    def _append(self, code: int, sources: Sequence[int], data: int = -1) -> int:
        # `adds_nodes` inlined, because this is most of the time that an expression takes.
        with self.lock:
            node, start = len(self._code), len(self._pool)
            try:
                self._pool.extend(sources)
                self._code.append(code)
                self._start.append(start)
                self._count.append(len(sources))
                self._data.append(data)
                self.born.append(self.edits)
            except BaseException:
                del self._pool[start:]
                for column in self._of_nodes:
                    del column[node:]
                raise
            vars(self)["edits"] += 1  # faster than an assignment, which checks the name
            return node

    @property
    def _of_nodes(self) -> tuple[array[Any], ...]:
        return self._code, self._start, self._count, self._data, self.born

    def _columns(self) -> tuple[array[Any], ...]:
        return *self._of_nodes, self._pool, self.constants, self.input_ids, *self.storage.columns

    def _extend(
        self,
        code: int | npt.NDArray[np.int16],
        sources: Int32,
        data: Int64,
        start: int | Int64 = 0,
        count: Int32 | None = None,
    ) -> None:
        """Add a node for each element of `data`.

        They share the list `sources`, unless `start` and `count` give each its own part of it.
        """
        values = code, len(self._pool) + start, len(sources) if count is None else count, data, self.edits
        extend(self._pool, sources)
        for column, numbers in zip(self._of_nodes, values, strict=True):
            extend(column, numbers, len(data))
        self.edits += 1

    def _truncate(self, n: int) -> None:
        """Remove all nodes but the first `n`, nodes that are incomplete, and what belongs to no other node."""
        n = min(n, *map(len, self._of_nodes))
        codes, data = self.codes[:n], self.records[:n]
        inputs = np.flatnonzero(codes == INPUT)
        inputs = inputs[np.argsort(data[inputs])]  # by column: files may number them in any order
        n_records, n_constants = np.count_nonzero(codes >= PARAMETER), data[codes == CONSTANT].max(initial=-1) + 1
        kept = {
            "input_ids": array(self.input_ids.typecode, inputs.tolist()),
            "differentiated": array("i", [node for node in self.differentiated if node < n]),
            "names": {node: name for node, name in self.names.items() if node < n},
            "_pool": written(self._pool, np.array(self._pool, np.int32) >= n, 0),  # in lists of removed nodes
        }
        # Nothing below allocates memory, so it cannot fail half way.
        for columns, end in ((self._of_nodes, n), (self.storage.columns, n_records), ((self.constants,), n_constants)):
            for column in columns:
                del column[end:]
        vars(self).update(kept)

    def lock_was_lost(self) -> None:
        """Repair the columns in a forked child."""
        release(self)
        release(self.storage)
        self._truncate(len(self))
        if len(self) and self.born[-1] == self.edits:
            self.edits += 1  # nodes were added before the counter was incremented

    def _has(self, node: Node) -> bool:
        """Whether a node still exists: `undo` may have removed it, and another node may have its id."""
        return 0 <= node.id < len(self.born) and self.born[node.id] == node.born
