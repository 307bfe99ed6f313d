"""What a plan makes of a graph: order, blocks, layout of the parameters; and what it leaves out."""

import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import mlgraph
from mlgraph import reference
from mlgraph.grouping import DENSE_FROM
from mlgraph.ops import ACTIVATIONS
from mlgraph.plan import KINDS, ROW_WORK, Plan
from mlgraph.storage import PANEL
from mlgraph.topology import topological
from mlgraph.units import unit_floats, units_of

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


def plan_of(*nodes):
    return Plan(nodes[0].graph, [node.id for node in nodes])


def kinds(plan):
    names = {code: name for name, code in KINDS.items()}
    return [(names[ins.kind], ins.size) for ins in plan.instructions]


def neurons(g, sources, n, seed=0, **options):
    """Neurons made one by one, all with the same sources."""
    rng = np.random.default_rng(seed)
    return [g.add_neuron(sources, weights=rng.normal(size=len(sources)), bias=rng.normal(), **options) for _ in range(n)]


def parameters_of(nodes):
    return [[*node.weights.tolist(), node.bias] for node in nodes]


def affine(nodes, x):
    return np.array([x @ node.weights + node.bias for node in nodes]).T


# --- blocks -------------------------------------------------------------------------------------------------------------


def test_a_layer_is_a_dense_block():
    net = mlgraph.Network(6)
    net.add_layer(20, "relu")
    net.add_layer(9, "tanh")
    plan = plan_of(*net.outputs)
    assert kinds(plan) == [("dense", 20), ("dense", 9)]
    first, second = plan.instructions
    assert first.reads_data and not second.reads_data and not first.propagate and second.propagate
    assert plan.reads_directly and plan.n_edges == 6 * 20 + 20 * 9 and plan.n_slots == 6 + 20 + 9
    assert net.graph.storage.moves == 0, "a network is laid out as it is made"


def test_work_counts_what_costs_more_than_an_edge_of_a_block():
    """By it threads are shared out: a graph of operations alone has no edges, and is no less work."""
    g = mlgraph.Graph()
    x, y = g.inputs(2)
    assert plan_of(mlgraph.tanh(x * y)).work == 3 * ROW_WORK
    assert plan_of(g.add_neuron([x, y])).work == 2 * ROW_WORK
    net = mlgraph.Network(6)
    net.add_layer(20)
    assert plan_of(*net.outputs).work == 6 * 20


def test_a_short_layer_is_rows():
    net = mlgraph.Network(6)
    net.add_layer(DENSE_FROM - 1)
    plan = plan_of(*net.outputs)
    assert kinds(plan) == [("rows", DENSE_FROM - 1)] and plan.reads_directly and plan.rows_read_data


def test_neurons_made_one_by_one_become_a_block():
    g = mlgraph.Graph()
    x = g.inputs(6)
    made = neurons(g, x, 40)
    before = parameters_of(made)
    f = g.compile(made)
    assert kinds(plan_of(*made)) == [("dense", 40)] and g.storage.moves == 1
    assert parameters_of(made) == before
    np.testing.assert_allclose(f(X), affine(made, X), rtol=1e-5, atol=1e-6)
    made[33].weights[5] = 100
    np.testing.assert_allclose(f(X), affine(made, X), rtol=1e-5, atol=1e-4)


def test_blocks_by_activation_bias_and_order_of_sources():
    g = mlgraph.Graph()
    x = g.inputs(6)
    made = [*neurons(g, x, 32), *neurons(g, x, 9, activation="relu"), *neurons(g, x[::-1], 33)]
    made += [g.add_neuron(x, bias=None) for _ in range(11)]
    assert sorted(kinds(plan_of(*made))) == [("dense", 9), ("dense", 11), ("dense", 32), ("dense", 33)]
    assert sorted(kinds(plan_of(*made[:31], *made[41:]))) == [("dense", 11), ("dense", 33), ("rows", 31)]
    assert sorted(kinds(plan_of(*made[:20], *neurons(g, x[:2], 4)))) == [("dense", 20), ("rows", 4)]


def test_half_of_those_of_a_level_are_a_block():
    g = mlgraph.Graph()
    x = g.inputs(6)
    assert kinds(plan_of(*neurons(g, x, DENSE_FROM), *neurons(g, x[::-1], DENSE_FROM))) == [("dense", DENSE_FROM)] * 2


def test_neurons_are_counted_for_a_block_by_activation_and_bias():
    """With each other way to compute them they would be enough."""
    for i, first in enumerate(ACTIVATIONS):
        for second in ACTIVATIONS[i:]:
            g = mlgraph.Graph()
            x = g.inputs(6)
            made = neurons(g, x, DENSE_FROM - 1, activation=first)
            made += [g.add_neuron(x, second, bias=None) for _ in range(DENSE_FROM - 1)]
            assert kinds(plan_of(*made)) == [("rows", DENSE_FROM - 1)] * 2


def test_few_beside_others_are_rows():
    """Which all together may be filled: blocks of 8 in a layer that was pruned by them."""
    net = mlgraph.Network(40, seed=0)
    for size in (24, 48, 9):
        net.add_layer(size, activation="tanh")
    net.layers[1].mask = np.repeat(np.random.default_rng(0).random((6, 24)) < 0.9, 8, axis=0)
    engine = net._engine()
    assert kinds(engine.plan) == [("dense", 24), ("rows", 48), ("dense", 9)]
    assert kinds(engine.filled.plan) == [("dense", 24), ("dense", 48), ("dense", 9)]


def test_what_shares_no_sources_is_rows():
    g = mlgraph.Graph()
    x = g.inputs(6)
    few = neurons(g, x, DENSE_FROM - 1)
    ragged = [g.add_neuron(x[: k + 1], weights=np.ones(k + 1)) for k in range(5)]
    plan = plan_of(*few, *ragged)
    assert kinds(plan) == [("rows", DENSE_FROM + 4)] and plan.n_edges == 6 * (DENSE_FROM - 1) + 15
    want = np.hstack([affine(few, X), np.cumsum(X, axis=1)[:, :5]])
    np.testing.assert_allclose(g.compile([*few, *ragged])(X), want, rtol=1e-5, atol=1e-6)


def test_who_has_the_same_sources_stands_side_by_side():
    g = mlgraph.Graph()
    x = g.inputs(6)
    lists = [x[:2], x[2:], x[:2], x[1:4], x[2:], x[:2], x[2:]]
    hidden = [g.add_neuron(some, weights=np.arange(len(some)) + i) for i, some in enumerate(lists)]
    plan = plan_of(*hidden)
    [(_, ins)] = plan.trained
    assert plan.node[ins.dst :].tolist() == [hidden[i].id for i in (0, 2, 5, 1, 4, 6, 3)]
    rows = plan.rows(ins)
    assert rows.begin.tolist() == [0, 2, 4, 6, 10, 14, 18, 21] and rows.alike.tolist() == [3, 2, 1, 3, 2, 1, 1]
    values = np.arange(6.0)
    want = [values[[node.id for node in some]] @ n.weights for some, n in zip(lists, hidden, strict=True)]
    np.testing.assert_array_equal(g.compile(hidden)([values])[0], want)


def test_units_do_not_cut_quads():
    """Of rows about 2048 edges each; neurons that share their sources stay together."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.inputs(300)
    lists = [[node for node in x if rng.random() < 0.3] for _ in range(40)]
    hidden = [g.add_neuron(lists[i // 5], weights=np.ones(len(lists[i // 5]))) for i in range(100)]
    plan = plan_of(*hidden)
    units = units_of(plan, False, 0)
    bounds = units[units[:, 1] == 0][:, 2:4]
    assert len(bounds) == 5 and set((bounds % 5).ravel()) == {0, 4}
    assert bounds[0, 0] == 0 and bounds[-1, 1] == 100 and (bounds[1:, 0] == bounds[:-1, 1]).all()


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
@pytest.mark.parametrize("sizes", [(150, 40), (150, 600), (70, 9, 1100)], ids=str)
def test_units_take_each_weight_and_bias_of_blocks_once(sizes, ahead):
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:]:
        net.add_layer(size)
    plan = net._engine().plan
    units = units_of(plan, True, ahead)
    taken = {i: np.zeros((-(-ins.size // PANEL), ins.arity + 1), int) for i, ins in plan.trained}
    for i, part, first, last, panel, panels in units.tolist():
        end = plan.instructions[i].arity
        some, first, last = taken[i][panel : panel + panels], *((end, end + 1) if part == 1 else (first, last))
        assert len(some) == panels and first < last <= end + (part == 1)
        some[:, first:last] += 1
        some[:, end] += part == 2 and first == 0
        assert part == 2 or panels * PANEL * (last - first) <= unit_floats(plan, units)
    assert all((each == 1).all() for each in taken.values())


@pytest.mark.parametrize(
    ("n", "columns", "kind"),
    [(8, 4, "rows"), (31, 4, "rows"), (32, 4, "dense"), (8, 5, "rows"), (40, 7, "rows"), (8, 8, "dense"), (8, 0, "dense")],
)
def test_what_reads_some_of_the_data_is_rows(n, columns, kind):
    """Of few neurons, or of most of the data; what reads all of them, or others too, is a block."""
    g = mlgraph.Graph()
    x = g.inputs(8)
    inner = [g.add_neuron(x, "tanh", weights=np.ones(8)) for _ in range(3)]
    sources = x[:columns] if columns else [x[0], *inner]
    some = [g.add_neuron(sources, weights=np.ones(len(sources))) for _ in range(n)]
    assert (kind, n) in kinds(plan_of(*some, *inner))


def test_columns_that_are_not_needed_do_not_count():
    """What reads all others is a block."""
    g = mlgraph.Graph()
    x = g.inputs(12)
    assert kinds(plan_of(*neurons(g, x[2:8], DENSE_FROM))) == [("dense", DENSE_FROM)]


def test_more_neurons_of_a_block_move_what_was_there():
    """The state of the optimizer goes where its weights go."""
    g = mlgraph.Graph()
    x = g.inputs(6)
    made = neurons(g, x, 5)
    model = mlgraph.Model(g, made)
    model.fit(X, np.zeros((5, 5)), epochs=3)
    places = zip(g.storage.weights, g.storage.bias, strict=True)
    states = [g.storage.state["first"][[*range(at, at + 6), bias]] for at, bias in places]
    before, moves = parameters_of(made), g.storage.moves
    more = neurons(g, x, 5, seed=1)
    fresh = parameters_of(more)
    assert kinds(plan_of(*made, *more)) == [("dense", 10)] and g.storage.moves == moves + 1
    assert parameters_of(made) == before and parameters_of(more) == fresh
    for k, state in enumerate(states):
        at, stride = g.storage.weights[k], g.storage.stride[k]
        assert stride == PANEL
        np.testing.assert_array_equal(g.storage.state["first"][[*range(at, at + 6 * stride, stride), g.storage.bias[k]]], state)


def test_what_has_parameters_begins_at_a_panel():
    g = mlgraph.Graph()
    x, p = g.inputs(2), g.parameter(1.0)
    neuron = g.add_neuron([*x, p], weights=[1, 2, 3], bias=None)
    assert sorted(ins.weights % PANEL for _, ins in plan_of(neuron).trained) == [0, 0]


@pytest.mark.parametrize("beside", [False, True])
def test_rows_are_not_read_where_a_block_stands(beside):
    """Though the first of their weights, and of the block's, is in its place."""
    g = mlgraph.Graph()
    x = g.inputs(PANEL)
    row = [g.add_neuron(x, weights=np.ones(PANEL), bias=None)] if beside else []
    row.append(g[g.add_neurons(x, weights=np.ones((1, PANEL)), biases=None)[0]])
    np.testing.assert_array_equal(g.compile(row)(np.ones((1, PANEL))), [[PANEL] * len(row)])


def test_momentum_does_not_notice_a_move():
    """Half a run, an edit that moves the parameters, the other half: as if nothing had been."""

    def run(moves):
        g = mlgraph.Graph()
        x = g.inputs(6)
        model = mlgraph.Model(g, neurons(g, x, 5))

        def edit(progress):
            if moves and progress.kind == "epoch" and progress.epoch == 1:
                before = g.storage.moves
                g.compile([*neurons(g, x, 8), *model.outputs])
                assert g.storage.moves > before

        model.fit(X, np.ones((5, 5)), epochs=4, learning_rate=0.01, callback=edit)
        return parameters_of(model.outputs)

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5)


# --- what no output needs -----------------------------------------------------------------------------------------------


def test_dead_nodes_cost_nothing():
    def build(dead):
        g = mlgraph.Graph()
        x = g.inputs(6)
        alive = neurons(g, x[1:3], 3)
        if dead:
            neurons(g, [*x, *alive], 20)
            mlgraph.exp(x[0] * g.parameter(1.0) + 3)
        total = mlgraph.sum(*alive)
        return plan_of(total), g

    (lean, _), (plan, g) = build(False), build(True)
    assert plan.input_column.tolist() == [1, 2]
    assert (plan.n_slots, plan.n_edges, plan.n_extra) == (lean.n_slots, lean.n_edges, lean.n_extra) == (6, 6, 0)
    np.testing.assert_array_equal(plan.program, lean.program)
    np.testing.assert_array_equal(plan.index, lean.index)
    assert (plan.slot >= 0).sum() == plan.n_slots < len(g)


def test_the_dead_keep_their_parameters():
    g = mlgraph.Graph()
    x = g.inputs(6)
    made, p = neurons(g, x, 50), g.parameter(7.0)
    before = parameters_of(made)
    g.compile(made[::5])
    assert g.storage.moves == 1 and parameters_of(made) == before and p.value == 7.0


def test_two_models_of_one_graph_take_turns():
    """Each compiles again when the other has moved the parameters; what one learns is there for the other."""
    g = mlgraph.Graph()
    x = g.inputs(6)
    hidden = neurons(g, x, 24, activation="tanh")
    models = [mlgraph.Model(g, [neurons(g, part, 1)[0]]) for part in (hidden[:12], hidden[6:])]
    for turn in range(3):
        for model in models:
            before = parameters_of(hidden)
            model.fit(X, X[:, 0] + turn, epochs=2, learning_rate=0.01)
            changed = [k for k, (a, b) in enumerate(zip(before, parameters_of(hidden), strict=True)) if a != b]
            assert changed == ([*range(12)] if model is models[0] else [*range(6, 24)])
            for each in models:
                plan = each._engine(each._outputs).plan
                want = reference.forward(plan, g.parameters, X)[plan.slot[each._outputs]].T
                np.testing.assert_allclose(each.forward(X), want, rtol=1e-5, atol=1e-6)


# --- order --------------------------------------------------------------------------------------------------------------


def ring(n):
    """A chain of n nodes that ends where it begins; no public edit makes one."""
    g = mlgraph.Graph()
    x = g.input("x")
    nodes = [x + 1]
    for _ in range(n - 1):
        nodes.append(-nodes[-1])
    g._pool[g._start[nodes[0].id]] = nodes[-1].id
    return g, nodes


def test_a_cycle_is_named():
    g, (a, b, c) = ring(3)
    beside = g[0] * 2
    with pytest.raises(mlgraph.CycleError, match=f"got one of 3 nodes: {a.name} -> {b.name} -> {c.name}$"):
        g.compile(mlgraph.exp(c))
    with pytest.raises(ValueError, match="cycle"):
        mlgraph.Model(g, [b]).forward([[1.0]])
    assert g.compile(beside)([[4.0]]) == 8, "the cycle is not needed"


def test_a_long_cycle_is_cut_short():
    g, nodes = ring(50)
    with pytest.raises(mlgraph.CycleError, match=r"got one of 50 nodes: (n\d+ -> ){10}\.\.\.$"):
        g.compile(nodes[20])


def test_a_node_of_itself():
    g, (a,) = ring(1)
    with pytest.raises(mlgraph.CycleError, match=f"got one of 1 node: {a.name}$"):
        g.compile(a)


def test_a_long_chain(sweep):
    """As deep as there are nodes, and no recursion."""
    g = mlgraph.Graph()
    x = node = g.input()
    for _ in range(50_000):
        node = -node + x
    f = g.compile(node)
    assert f._engine(False).plan.n_slots == 100_001
    np.testing.assert_array_equal(f([[3.0], [5.0]]), [[3], [5]])
    np.testing.assert_array_equal(f.vjp([[3.0]]).inputs, [[1]])


def test_a_chain_of_neurons():
    g = mlgraph.Graph()
    node = g.input()
    for _ in range(2000):
        node = g.add_neuron([node], weights=[-1], bias=1.0)
    assert kinds(plan_of(node)) == [("rows", 1)] * 2000
    assert g.compile(node)([[3.0]]) == 3


@st.composite
def graphs(draw):
    """Nodes that read earlier ones, some more than once, neurons that share lists; and a few of them as outputs."""
    g = mlgraph.Graph()
    nodes = [*g.inputs(3), g.constant(1.5), g.parameter(0.5)]
    below = st.integers(0, 10**6).map(lambda i: nodes[i % len(nodes)])
    for kind in draw(st.lists(st.sampled_from(["neg", "sub", "sum", "neuron", "block"]), max_size=25)):
        if kind == "neg":
            nodes.append(-draw(below))
        elif kind == "sub":
            nodes.append(draw(below) - draw(below))
        elif kind == "sum":
            nodes.append(mlgraph.sum(*draw(st.lists(below, min_size=1, max_size=5))))
        else:
            sources = draw(st.lists(below, min_size=1, max_size=5, unique_by=lambda node: node.id))
            n = 1 if kind == "neuron" else draw(st.integers(1, 20))
            weights = np.arange(n * len(sources)).reshape(n, -1) + 100 * len(nodes)
            biases = np.arange(n) + 0.5 if draw(st.booleans()) else None
            activation = draw(st.sampled_from(["identity", "tanh"]))
            ids = g.add_neurons(np.array([s.id for s in sources]), activation, weights=weights, biases=biases)
            nodes += [g[i] for i in ids]
    return g, draw(st.lists(below, min_size=1, max_size=3))


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
    arrays = [np.array(g._start), g.counts, np.array(g._pool, np.int32), np.array([node.id for node in outputs], np.int32)]
    level, order = topological(g, *arrays)
    assert level.tolist() == [level_of(i) if i in needed else -1 for i in range(len(g))]
    assert sorted(order) == sorted(needed)
    place = {i: k for k, i in enumerate(order.tolist())}
    assert all(place[s] < place[i] for i in needed for s in g.sources_of(i).tolist())


@given(graphs())
def test_instructions_read_what_is_written_before(case):
    _, outputs = case
    plan = plan_of(*outputs)
    written = len(plan.input_column)
    for ins in plan.instructions:
        assert ins.dst == written
        if ins.kind in (KINDS["operation"], KINDS["dense"]):
            sources = plan.index[ins.args : ins.args + ins.arity * (ins.size if ins.kind == KINDS["operation"] else 1)]
            assert len(sources) and sources.min() >= 0 and sources.max() < written
        elif ins.kind == KINDS["rows"]:
            begin, sources, _, _ = plan.rows(ins)
            assert begin[0] == 0 and (np.diff(begin) > 0).all() and sources.min() >= 0 and sources.max() < written
        written += ins.size
    assert written == plan.n_slots and (plan.slot[[node.id for node in outputs]] >= 0).all()


@given(graphs())
def test_every_parameter_has_one_place(case):
    g, outputs = case
    trained = [node for node in g if node.kind in ("parameter", "neuron")]
    before = [g.weights_of(node.id).tolist() for node in trained]
    biases = [node.bias for node in trained if node.kind == "neuron"]
    plan = plan_of(*outputs)
    assert [g.weights_of(node.id).tolist() for node in trained] == before
    assert [node.bias for node in trained if node.kind == "neuron"] == biases
    g.parameters[:] = np.arange(len(g.parameters))
    places = np.concatenate([g.weights_of(node.id) for node in trained] + [[b for b in g.storage.bias if b >= 0]])
    assert len(np.unique(places)) == len(places) == g.n_parameters
    for ins in plan.instructions:
        if ins.kind in (KINDS["parameter"], KINDS["dense"], KINDS["rows"]):
            assert ins.weights % PANEL == 0 and ins.weights + ins.n_weights <= len(g.parameters)
            width = -(-ins.size // PANEL) * PANEL if ins.kind == KINDS["dense"] else ins.size
            assert ins.bias < 0 or ins.bias + width <= len(g.parameters)


def test_a_constant_of_any_bits():
    """Also of those that mean "an operation" where equal nodes are sought."""
    g = mlgraph.Graph()
    a, b = (g.constant(np.frombuffer(b"\xff" * 8)[0]) for _ in range(2))
    plan = plan_of(a, b)
    assert plan.slot[a.id] != plan.slot[b.id]
    assert np.isnan(g.compile([a, b, a * b])(np.zeros((1, 0)))).all()


def test_a_neuron_beside_a_layer_is_swept_with_it():
    """Where neither drops anything, and with a layer before that does."""
    net = mlgraph.Network(20, seed=0)
    for dropout in (0.5, 0.0):
        net.add_layer(16, "tanh", dropout=dropout)
    net.add_layer(3, "softmax")
    extra = net.graph.add_neuron(net.layers[0].neurons, "tanh", weights=np.ones(16))
    net.graph.add_edge(extra, net.outputs[0], 1.0)
    assert [ins.size for ins in net._engine().plan.instructions if ins.kind == KINDS["dense"]][:2] == [16, 17]


def test_layers_on_one_level_that_drop_other_shares_stay_apart():
    """The second, all of whose edges from the first have been cut, reads the data."""
    net = mlgraph.Network(6, seed=0)
    net.add_layer(9, "tanh", dropout=0.5)
    net.add_layer(9, "tanh", dropout=0.25)
    net.add_layer(3)
    g, first, second = net.graph, net.layers[0], net.layers[1]
    for target in second.neurons:
        for source in list(g)[:6]:
            g.add_edge(source, target, 1.0)
    for source in first.neurons:
        g.add_edge(source, net.outputs[0], 1.0)
    g.prune([(source, target) for target in second.neurons for source in first.neurons])
    [one, other] = [ins for ins in net._engine().plan.instructions if ins.drop]
    assert (one.size, other.size) == (9, 9) and {one.drop, other.drop} == {2**31, 2**30}


def test_a_plan_holds_its_index_once():
    net = mlgraph.Network(60, seed=0)
    net.add_layer(40)
    net.add_layer(9)
    net.prune(0.5)
    plan = net._engine().plan
    assert plan.index.nbytes < len(pickle.dumps(plan)) < 1.5 * plan.index.nbytes
