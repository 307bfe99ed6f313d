"""The order of nodes: levels, cycles and very deep graphs."""

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from planned import graphs, kinds, plan_of

import mlgraph
from mlgraph.graph.topology import topological
from mlgraph_ext import _topology


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (1, "a cycle of 1 node: n2$"),
        (3, "a cycle of 3 nodes: n2 -> n3 -> n4$"),
        (50, r"a cycle of 50 nodes: (n\d+ -> ){10}\.\.\.$"),
    ],
)
def test_error_names_the_cycle(n, text):
    """No public edit makes one, but nodes outside of it are computed."""
    g = mlgraph.Graph()
    x = g.add_input("x")
    nodes = [x + 1]
    for _ in range(n - 1):
        nodes.append(-nodes[-1])
    g._pool[g._start[nodes[0].id]] = nodes[-1].id
    with pytest.raises(mlgraph.CycleError, match=text):
        g.compile(nodes[-1])
    assert g.compile(x * 2)([[4.0]]) == 8


def test_deep_graphs_need_no_recursion(sweep):
    g = mlgraph.Graph()
    x = node = g.add_input()
    for _ in range(20_000):
        node = -node + x
    f = g.compile(node)
    np.testing.assert_array_equal(f([[3.0], [5.0]]), [[3], [5]])
    np.testing.assert_array_equal(f.vjp([[3.0]]).inputs, [[1]])
    for _ in range(600):
        node = g.add_neuron([node], weights=[-1], bias=1.0)
    assert kinds(plan_of(node))[-600:] == [("rows", 1)] * 600
    assert g.compile(node)([[3.0]]) == 3


@given(graphs())
def test_levels_and_order(case):
    g, outputs = case

    def level_of(i):
        return max((1 + level_of(s) for s in g.sources_of(i).tolist()), default=0)

    needed, todo = set(), [node.id for node in outputs]
    while todo:
        i = todo.pop()
        if i not in needed:
            needed.add(i)
            todo += g.sources_of(i).tolist()
    level, order = topological(g, g.topology(), [node.id for node in outputs])
    assert level.tolist() == [level_of(i) if i in needed else -1 for i in range(len(g))]
    assert sorted(order) == sorted(needed)
    place = {i: k for k, i in enumerate(order.tolist())}
    assert all(place[s] < place[i] for i in needed for s in g.sources_of(i).tolist())


def test_kernels_refuse_ranges_outside_the_arrays():
    """Otherwise a damaged file could make them read or write elsewhere."""
    pool, out = np.arange(5, dtype=np.int32)[:4], np.zeros(3, np.int32)
    for start, count in ([3, 0], [2, 1]), ([-1, 0], [2, 1]), ([0, 0], [2, 2]), ([0, 0], [-1, 4]), ([0], [2, 1]):
        with pytest.raises(ValueError, match=r"^start, count: expected "):
            _topology.gather(pool, np.array(start), np.array(count), out)
    for count in [2, 2], [-1, 4], [3]:
        with pytest.raises(ValueError, match="count: expected "):
            _topology.runs(np.array([7, 1]), np.array([2, 0]), np.array(count), out)
    counts, sources, level, order = np.int32([0, 1]), np.zeros(1, np.int32), *np.zeros((2, 2), np.int32)
    for first, found in ((0, 2), (1, -1), (-1, -1)):
        assert _topology.sort(np.array([0, first]), counts, sources, np.int32([1]), level, order) == (found, [])
    for start, nodes, n in ([0, 1], [1], 2), ([0, -1], [1], 2), ([0, 0], [2], 2), ([0, 0], [1], 1):
        with pytest.raises(ValueError, match=r"^start, count, pool, order, flag: expected "):
            _topology.spread(np.array(start), counts, sources, np.int32(nodes), np.zeros(n, np.uint8))


def test_simplification_kernels_check_their_graph():
    good = np.zeros(2, np.int64), np.int32([0, 1]), np.zeros(1, np.int32), np.int32([0, 1])

    def merge(graph, *, same=2, code=0, commutes=0):
        codes, data = np.int16([0, code]), np.array([0, -1])
        _topology.merge(codes, *graph, data, np.uint8([commutes]), np.zeros(same, np.int32))

    def find(graph, *, ends=3, kind=0):
        of_nodes, of_pool, flags = np.zeros((3, 2), np.int32), np.zeros((2, 1), np.int32), np.zeros(2, np.uint8)
        first, *rest = of_nodes
        _topology.find_neurons(np.int8([0, kind]), *graph, flags, first, np.zeros(ends, np.int64), *of_pool, *rest)

    merge(good), find(good)
    wrong = good[0], good[1], np.int32([2]), good[3]
    cases = [(merge, wrong, {}), (find, wrong, {}), (merge, good, {"same": 1}), (merge, good, {"code": 1})]
    cases += [(merge, good, {"commutes": 1}), (find, good, {"ends": 2}), (find, good, {"kind": 2})]
    for call, graph, bad in cases:
        with pytest.raises(ValueError, match=r"start, count, pool, order.*: expected a graph"):
            call(graph, **bad)


def test_kernels_of_edits_refuse_ranges_outside_the_arrays():
    """Two neurons, 1 and 2, read node 0."""
    one, ids, pair = np.int32([1]), np.int32([1, 2]), np.zeros(2, np.int32)
    lists = np.zeros(3, np.int64), np.int32([0, 1, 1]), np.array([0, 0, 1])
    floats, bytes_ = np.zeros(3, np.float32), np.zeros(2, np.uint8)
    calls = {
        "counts_of": (ids, lists[1], pair),
        "edges_into": (ids, *lists, np.int32([0]), np.zeros(2, np.int64), np.ones(2, np.int32), pair, pair),
        "match_edges": (
            ids,
            np.int32([1, 1]),
            np.zeros(2, np.int32),
            np.array([0]),
            np.array([2]),
            3,
            bytes_,
            bytes_[:1],
        ),
        "count_left": (np.int32([1, 1]), bytes_, pair),
        "edges_left": (pair, np.uint8([0, 1]), one, np.int32([0])),
        "with_added": (
            *(np.int32([1, 1]), np.int32([0, 0]), np.array([1]), one, floats[:1], pair),
            *np.zeros((2, 3), np.int32),
            floats,
        ),
        "rewire": (
            *(one, np.int32([1]), np.array([0]), np.int32([0]), 0, None, lists[2], lists[0], lists[1]),
            *(np.zeros(2, np.int64), pair, pair, np.zeros(1, np.int64), np.int32([0])),
        ),
        "begin_lists": (ids, pair, 0, lists[0], lists[1]),
        "move": (floats, pair, floats[:2]),
        "until_cache_line": (floats[:1],),
        "in_use": (np.int16([100, 103, 103]), *lists[:2], 1, np.int64([-1, -1])),
    }
    for name, good in calls.items():
        kernel, refused = getattr(_topology, name), 0
        kernel(*deepcopy(good))
        for k, value in enumerate(good):
            for wrong in [value[:-1], value - 9] if isinstance(value, np.ndarray) else []:
                given = deepcopy(good)
                try:
                    kernel(*given[:k], wrong, *given[k + 1 :])
                except ValueError:
                    refused += 1
        assert refused, name


@pytest.mark.parametrize("n", [5, 100])
def test_inputs_come_first_by_column(n):
    column = np.random.default_rng(0).permutation(n)
    code, data = np.int16([100] * n + [103] * 2), np.append(column, [7, 7])
    order, out = np.int32([n + 1, *range(n), n]), np.empty(n + 2, np.int32)
    assert _topology.put_inputs_first(code, data, order, out) == n
    assert out.tolist() == [*np.argsort(column), n + 1, n]
    good = code, data, order, out
    for k, wrong in (0, code[1:]), (1, data - 1), (2, order + 1), (3, out[1:]):
        with pytest.raises(ValueError, match="code, data, order, out: expected nodes of a graph, got others"):
            _topology.put_inputs_first(*good[:k], wrong, *good[k + 1 :])


def test_slots_of_nodes():
    slot = np.empty(4, np.int32)
    _topology.number_slots(np.int32([2, 0]), np.int32([0, 2, 2, 3]), slot)
    assert slot.tolist() == [1, 0, 0, -1]
    for node, same in (([4], [0] * 4), ([-1], [0] * 4), ([0], [4] * 4), ([0], [0] * 3)):
        with pytest.raises(ValueError, match="node, same, slot: expected nodes, got others"):
            _topology.number_slots(np.int32(node), np.int32(same), slot)


@pytest.mark.parametrize(
    ("reader", "want_inputs", "first"),
    [([-1, 3, 0], True, 0), ([-1, 3, -2], False, 2), ([-1, 3, 0], False, 3), ([0, 3, 0], True, 3), ([], False, 0)],
)
def test_first_slot_that_is_added_to(reader, want_inputs, first):
    assert _topology.first_added(np.array(reader, np.int64), 1, want_inputs) == first
