"""Where parameters stand for a plan, and what goes with them when they move."""

import numpy as np
import pytest
from hypothesis import given
from planned import X, graphs, kinds, neurons, parameters_of, plan_of

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.engine import reference
from mlgraph.graph.storage import PANEL
from mlgraph.models.running import engine_of


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
        np.testing.assert_array_equal(
            g.storage.state["first"][[*range(at, at + 6 * stride, stride), g.storage.bias[k]]], state
        )


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
                plan = engine_of(each, each.output_ids).plan
                want = reference.forward(plan, g.parameters, X)[plan.slot[each.output_ids]].T
                np.testing.assert_allclose(each.forward(X), want, rtol=1e-5, atol=1e-6)


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
