"""The order of nodes: levels, cycles and very deep graphs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from planned import graphs, kinds, plan_of

import mlgraph
from mlgraph.graph.topology import topological
from mlgraph_ext import _topology


def ring(n):
    """A chain of n nodes that ends where it begins; no public edit makes one."""
    g = mlgraph.Graph()
    x = g.input("x")
    nodes = [x + 1]
    for _ in range(n - 1):
        nodes.append(-nodes[-1])
    g._pool[g._start[nodes[0].id]] = nodes[-1].id
    return g, nodes


def test_error_names_the_cycle():
    g, (a, b, c) = ring(3)
    beside = g[0] * 2
    with pytest.raises(mlgraph.CycleError, match=f"a cycle of 3 nodes: {a.name} -> {b.name} -> {c.name}$"):
        g.compile(mlgraph.exp(c))
    with pytest.raises(ValueError, match="cycle"):
        mlgraph.Model(g, [b]).forward([[1.0]])
    assert g.compile(beside)([[4.0]]) == 8, "the cycle is not needed"


def test_error_truncates_a_long_cycle():
    g, nodes = ring(50)
    with pytest.raises(mlgraph.CycleError, match=r"a cycle of 50 nodes: (n\d+ -> ){10}\.\.\.$"):
        g.compile(nodes[20])


def test_node_cannot_read_itself():
    g, (a,) = ring(1)
    with pytest.raises(mlgraph.CycleError, match=f"a cycle of 1 node: {a.name}$"):
        g.compile(a)


def test_deep_graphs_need_no_recursion(sweep):
    g = mlgraph.Graph()
    x = node = g.input()
    for _ in range(50_000):
        node = -node + x
    f = g.compile(node)
    assert f.engine(False).plan.n_slots == 100_001
    np.testing.assert_array_equal(f([[3.0], [5.0]]), [[3], [5]])
    np.testing.assert_array_equal(f.vjp([[3.0]]).inputs, [[1]])


def test_chain_of_neurons_is_planned_as_rows():
    g = mlgraph.Graph()
    node = g.input()
    for _ in range(2000):
        node = g.add_neuron([node], weights=[-1], bias=1.0)
    assert kinds(plan_of(node)) == [("rows", 1)] * 2000
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
    pool, out = np.arange(5, dtype=np.int32)[:4], np.zeros(3, np.int32)
    _topology.gather(pool, np.array([2, 0]), np.array([2, 1]), out)
    assert out.tolist() == [2, 3, 0]
    others = ([3, 0], [2, 1]), ([-1, 0], [2, 1]), ([0, 0], [2, 2]), ([0, 0], [2, 0]), ([0, 0], [-1, 4]), ([0], [2, 1])
    for start, count in others:
        with pytest.raises(ValueError, match=r"^start, count: expected "):
            _topology.gather(pool, np.array(start), np.array(count), out)
    _topology.runs(np.array([7, 1]), np.array([2, 0]), np.array([2, 1]), out)
    assert out.tolist() == [7, 9, 1]
    for count in ([2, 2], [2, 0], [-1, 4], [3]):
        with pytest.raises(ValueError, match="count: expected "):
            _topology.runs(np.array([7, 1]), np.array([2, 0]), np.array(count), out)
    counts, sources, level, order = (
        np.int32([0, 1]),
        np.zeros(2, np.int32)[:1],
        np.zeros(2, np.int32),
        np.zeros(2, np.int32),
    )
    for first, found in ((0, 2), (1, -1), (-1, -1)):
        assert _topology.sort(np.array([0, first]), counts, sources, np.int32([1]), level, order) == (found, [])
    flag = np.uint8([1, 0])
    _topology.spread(np.zeros(2, np.int64), counts, sources, np.int32([0, 1]), flag)
    assert flag.tolist() == [1, 1]
    for start, nodes, n in ([0, 1], [1], 2), ([0, -1], [1], 2), ([0, 0], [2], 2), ([0, 0], [1], 1):
        with pytest.raises(ValueError, match=r"^start, count, pool, order, flag: expected "):
            _topology.spread(np.array(start), counts, sources, np.int32(nodes), np.zeros(n, np.uint8))


def test_simplification_kernels_check_their_graph():
    good = {
        "start": np.zeros(2, np.int64),
        "count": np.int32([0, 1]),
        "pool": np.zeros(1, np.int32),
        "order": np.int32([0, 1]),
    }

    def merge(*, same=2, code=0, commutes=0, **graph):
        _topology.merge(
            np.int16([0, code]),
            *(good | graph).values(),
            np.array([0, -1]),
            np.uint8([commutes]),
            np.zeros(same, np.int32),
        )

    def find(*, ends=3, kind=0, **graph):
        of_nodes, of_pool = np.zeros((3, 2), np.int32), np.zeros((2, 1), np.int32)
        _topology.find_neurons(
            np.int8([0, kind]),
            *(good | graph).values(),
            np.zeros(2, np.uint8),
            of_nodes[0],
            np.zeros(ends, np.int64),
            *of_pool,
            *of_nodes[1:],
        )

    merge(), find()
    wrong = [
        {"start": np.array([0, 1])},
        {"count": np.int32([0, 2])},
        {"pool": np.int32([2])},
        {"order": np.int32([2])},
    ]
    own = [
        (merge, {"same": 1}),
        (merge, {"code": 1}),
        (merge, {"commutes": 1}),
        (find, {"ends": 2}),
        (find, {"kind": 2}),
    ]
    for attempt, graph in [*itertools.product((merge, find), wrong), *own]:
        with pytest.raises(ValueError, match=r"start, count, pool, order.*: expected a graph"):
            attempt(**graph)
