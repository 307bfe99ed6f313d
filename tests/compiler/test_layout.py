"""Compiling may move parameters. Their values, and the state of the optimizer, move with them."""

import numpy as np
import pytest
from hypothesis import given
from planned import X, affine, graphs, kinds, neurons, parameters_of, plan_of

import mlgraph
from mlgraph.compiler.instructions import KINDS
from mlgraph.engine import reference
from mlgraph.graph.storage import PANEL
from mlgraph.models.running import engine_of


def test_neurons_made_one_by_one_move_into_a_block_and_keep_their_weights():
    g = mlgraph.Graph()
    x = g.add_inputs(6)
    made, unused = neurons(g, x, 40), g.add_parameter(7.0)
    before = parameters_of(made)
    f = g.compile(made)
    assert kinds(plan_of(*made)) == [("dense", 40)] and g.storage.moves == 1
    assert parameters_of(made) == before and unused.value == 7.0
    np.testing.assert_allclose(f(X), affine(made, X), rtol=1e-5, atol=1e-6)
    made[33].weights[5] = 100
    np.testing.assert_allclose(f(X), affine(made, X), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_does_not_notice_a_move(optimizer):
    """Half a run, an edit that moves the parameters, the other half: the same as without the edit."""

    def run(moves):
        g = mlgraph.Graph(seed=0)
        x = g.add_inputs(6)
        model = mlgraph.Model(g, [*neurons(g, x, 5), mlgraph.tanh(g.add_parameter(1.0) * x[0])])

        def edit(progress):
            if moves and progress.kind == "epoch" and progress.epoch == 1:
                before = g.storage.moves
                g.compile([*neurons(g, x, 8), *model.outputs])
                assert g.storage.moves > before

        model.fit(X, np.ones((5, 6)), epochs=4, learning_rate=0.01, optimizer=optimizer, callbacks=[edit])
        return [*parameters_of(model.outputs[:5]), *model.forward(X).tolist()]

    np.testing.assert_allclose(np.hstack(run(True)), np.hstack(run(False)), rtol=1e-5)


def test_two_models_of_one_graph_take_turns():
    """Each compiles again when the other has moved the parameters, and sees what the other has learned."""
    g = mlgraph.Graph(seed=0)
    hidden = neurons(g, g.add_inputs(6), 24, activation="tanh")
    models = [mlgraph.Model(g, [neurons(g, part, 1)[0]]) for part in (hidden[:12], hidden[6:])]
    for turn in range(3):
        for model, trained in zip(models, (range(12), range(6, 24)), strict=True):
            before = parameters_of(hidden)
            model.fit(X, X[:, 0] + turn, epochs=2, learning_rate=0.01)
            changed = [k for k, (a, b) in enumerate(zip(before, parameters_of(hidden), strict=True)) if a != b]
            assert changed == list(trained)
            for each in models:
                plan = engine_of(each, each.output_ids).plan
                want = reference.forward(plan, g.parameters, X)[plan.slot[each.output_ids]].T
                np.testing.assert_allclose(each.forward(X), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", [False, True])
def test_a_row_does_not_take_the_place_of_a_block_for_its_own(more):
    """Though the first weight of the block is where that of a row would be."""
    g = mlgraph.Graph()
    x = g.add_inputs(PANEL)
    row = [g.add_neuron(x, weights=np.ones(PANEL), bias=None)] if more else []
    row.append(g[g.add_neurons(x, weights=np.ones((1, PANEL)), biases=None)[0]])
    np.testing.assert_array_equal(g.compile(row)(np.ones((1, PANEL))), [[PANEL] * len(row)])


def test_unused_parameters_are_not_stored_in_the_padding_of_a_block():
    """Updates write whole panels."""
    g = mlgraph.Graph()
    x, parameters = g.add_input(), [g.add_parameter(float(k)) for k in range(PANEL + 9)]
    out = [w * x + b for w, b in zip(parameters[PANEL:], parameters[:9], strict=True)]
    [(_, ins)] = plan_of(*out).trained
    unused = {g.storage.weights[g._data[p.id]] for p in parameters[9:PANEL]}
    assert ins.kind == KINDS["dense"] and not unused & set(range(ins.bias, ins.bias + PANEL))
    assert [p.value for p in parameters] == list(range(PANEL + 9))


@given(graphs())
def test_every_parameter_has_one_place_and_keeps_its_value(case):
    g, outputs = case
    trained = [node for node in g if node.kind in ("parameter", "neuron")]
    held = [(g.weights_of(node.id).tolist(), node.kind == "neuron" and node.bias) for node in trained]
    plan = plan_of(*outputs)
    assert [(g.weights_of(node.id).tolist(), node.kind == "neuron" and node.bias) for node in trained] == held
    g.storage.vector[: g.storage.used] = np.arange(len(g.parameters))
    places = np.concatenate([g.weights_of(node.id) for node in trained] + [[b for b in g.storage.bias if b >= 0]])
    assert len(np.unique(places)) == len(places) == g.n_parameters
    assert all(ins.weights % PANEL == 0 for _, ins in plan.trained)
