"""neat-python judges: what a genome computes there, its model computes here, and trained numbers go back."""

import copy
import json
import math
import random
import re
import sys

import numpy as np
import pytest

import mlgraph
from mlgraph import exchange
from mlgraph.exchange.neat import ACTIVATIONS, AGGREGATIONS

neat = pytest.importorskip("neat")

from neat_configs import CONNECTED, IS_OLD, configuration, random_genome  # noqa: E402

X = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
OURS = [name for name in ACTIVATIONS if name in neat.activations.ActivationFunctionSet().functions]
TAME = ["sigmoid", "tanh", "relu", "identity", "clamped", "hat", "abs"]


@pytest.fixture
def config(tmp_path):
    """Makes a configuration; by default with all functions."""
    defaults = {"activation_options": OURS, "aggregation_options": list(AGGREGATIONS)}
    connected = CONNECTED if IS_OLD else {}  # older versions do not compute nodes without connections
    return lambda **options: configuration(tmp_path, **{**defaults, **options, **connected})


def genome_of(config, seed, mutations=25):
    random.seed(seed)
    return random_genome(config, mutations)


def network_of(genome, config):
    return neat.nn.FeedForwardNetwork.create(genome, config)


def activated(genome, config, x=X):
    network = network_of(genome, config)
    return np.array([network.activate(row) for row in x.tolist()])


def called(function, *arguments):
    try:
        return function(*arguments)
    except OverflowError:  # of square and cube; and exp of what rounding has made of a clamped number
        return math.inf


def check_nodes(model, genome, config, x=X):
    """Compare each node with neat-python's own functions of the model's values of its sources.

    `z`, the sum before an activation, may be off by the rounding of its terms.
    """
    evaluated = network_of(genome, config).node_evals
    names = [str(key) for key in config.genome_config.input_keys] + [str(key) for key, *_ in evaluated]
    values = model.graph.compile([model.graph[name] for name in names])(x).T.tolist()
    of_node = dict(zip(map(int, names), values, strict=True))
    for key, activation, aggregation, bias, response, links in evaluated:
        for row in range(len(x)):
            terms = [of_node[source][row] * weight for source, weight in links]
            aggregated, got = called(aggregation, terms), of_node[key][row]
            z = bias + response * aggregated
            if not math.isfinite(z):
                assert not math.isfinite(sum(terms)) or abs(aggregated) > 1e37
                continue
            error = 3e-6 * (abs(bias) + abs(response) * (abs(aggregated) + sum(map(abs, terms))))
            around = [called(activation, min(max(z + e, -1e300), 1e300)) for e in (-error, 0, error)]
            if activation.__name__ == "inv_activation" and abs(z) <= error:
                around += [-math.inf, math.inf]
            low, high = min(around), max(around)
            within = math.prod(max(1.0, abs(term)) for term in terms) if "product" in aggregation.__name__ else 0.0
            if not math.isfinite(got) and max(abs(low), abs(high), within, *map(abs, terms)) > 3e38:
                continue  # float32 overflows, maybe within the node
            assert low - 1e-5 * abs(low) - 2e-6 <= got <= high + 1e-5 * abs(high) + 2e-6, (key, activation, terms, z)


# --- there and here -------------------------------------------------------------------------------


def test_all_functions_of_neat_python_are_known():
    activations = neat.activations.ActivationFunctionSet().functions
    aggregations = neat.aggregations.AggregationFunctionSet().functions
    assert set(ACTIVATIONS) >= set(activations) and set(AGGREGATIONS) == set(aggregations)
    assert IS_OLD or (len(ACTIVATIONS), len(activations), len(aggregations)) == (18, 18, 7)


@pytest.mark.parametrize("activation", OURS)
def test_every_activation_with_random_aggregations(config, activation):
    made = config(activation_options=activation, num_hidden=2)
    for seed in range(8):
        genome = genome_of(made, seed)
        check_nodes(exchange.from_neat(genome, made), genome, made)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_aggregation_of_many_terms(config, aggregation):
    made = config(
        aggregation_options=aggregation, num_inputs=7, initial_connection="full_direct", conn_delete_prob=0.05
    )
    x = np.random.default_rng(1).normal(size=(9, 7)).astype(np.float32)
    for seed in range(8):
        genome = genome_of(made, seed)
        check_nodes(exchange.from_neat(genome, made), genome, made, x)


def test_outputs_of_whole_genomes(config):
    made = config(activation_options=TAME, aggregation_options=["sum", "mean", "max", "min", "median", "maxabs"])
    for seed in range(40):
        genome = genome_of(made, seed, mutations=seed)
        got = exchange.from_neat(genome, made).forward(X)
        np.testing.assert_allclose(got, activated(genome, made), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_thousands_of_genomes(config):
    made = config(num_hidden=2)
    for seed in range(3000):
        genome = genome_of(made, seed, mutations=seed % 60)
        check_nodes(exchange.from_neat(genome, made), genome, made)


def by_hand(config, links, **nodes):
    """A genome with these connections (source, target): weight, and attributes of nodes, n0=..., ..."""
    genome = neat.DefaultGenome(1)
    keys = {key for ends in links for key in ends if key >= 0} | {*config.genome_config.output_keys}
    keys |= {int(name[1:]) for name in nodes}
    for key in keys:
        gene = genome.nodes[key] = neat.DefaultGenome.create_node(config.genome_config, key)
        attributes = {"bias": 0.0, "response": 1.0, "activation": "identity", "aggregation": "sum"}
        for name, value in {**attributes, **nodes.get(f"n{key}", {})}.items():
            setattr(gene, name, value)
    for i, (ends, weight) in enumerate(links.items()):
        extra = {} if IS_OLD else {"innovation": i}
        gene = genome.connections[ends] = config.genome_config.connection_gene_type(ends, **extra)
        gene.weight, gene.enabled = weight, True
    return genome


@pytest.mark.parametrize("activation", OURS)
def test_clamps_and_special_points_of_activations(config, activation):
    made = config(num_inputs=1, num_outputs=1)
    genome = by_hand(made, {(-1, 0): 1.0}, n0={"activation": activation})
    z = np.array([[0.0], [1e-8], [-1e-8], [0.3], [-0.3], [1.0], [-1.0], [3.3], [-3.3], [3.5], [-3.5], [11.9], [-11.9]])
    z = np.vstack([z, [[12.1], [-12.1], [59.0], [-59.0], [61.0], [-61.0], [1e4], [-1e4]]]).astype(np.float32)
    model = exchange.from_neat(genome, made)
    expected = np.array([called(network_of(genome, made).activate, row)[0] for row in z.tolist()])
    np.testing.assert_allclose(model.forward(z)[:, 0], expected, rtol=2e-5, atol=1e-6)
    gradients = model.graph.compile(model.outputs).vjp(z).inputs
    assert np.isfinite(gradients).all() and (activation == "inv" or gradients.any())


def test_nan_stays_nan_and_large_numbers_become_infinite(config):
    made = config(num_inputs=1, num_outputs=1)
    for activation in OURS:
        genome = by_hand(made, {(-1, 0): 1.0}, n0={"activation": activation})
        assert np.isnan(exchange.from_neat(genome, made).forward([[np.nan]])).all(), activation
    genome = by_hand(made, {(-1, 0): 1.0}, n0={"activation": "square"})
    assert exchange.from_neat(genome, made).forward([[1e30]])[0, 0] == np.inf
    assert network_of(genome, made).activate([1e30]) == pytest.approx([1e60])
    with pytest.raises(OverflowError):
        network_of(genome, made).activate([1e200])


@pytest.mark.parametrize("signs", [(1, -1), (-1, 1), (1, 1)])
def test_of_equal_magnitudes_maxabs_is_the_first(config, signs):
    made = config(num_inputs=2, num_outputs=1)
    genome = by_hand(made, {(-1, 0): signs[0], (-2, 0): signs[1]}, n0={"aggregation": "maxabs"})
    x = np.array([[2.0, 2.0], [2.0, -2.0], [1.0, 3.0]], np.float32)
    np.testing.assert_array_equal(exchange.from_neat(genome, made).forward(x), activated(genome, made, x))


def test_inputs_are_in_their_order_and_names_are_keys(config):
    made = config(num_outputs=1)
    genome = by_hand(made, {(-3, 0): 2.0, (-1, 5): 3.0, (5, 0): 1.0})
    model = exchange.from_neat(genome, made)
    assert [node.name for node in model.graph.inputs] == ["-1", "-2", "-3"]
    assert str(model.graph["0"]) == "identity(2*-3 + 1*5 + 0)" or model.graph["5"].sources[0].name == "-1"
    np.testing.assert_array_equal(model.forward([[1, 10, 100]]), [[203]])
    assert model.scaling == "unscaled"


def test_what_no_output_needs_is_left_out_and_disabled_connections_are_absent(config):
    made = config(num_outputs=1)
    genome = by_hand(made, {(-1, 0): 1.0, (-2, 0): 1.0, (-1, 7): 1.0, (7, 8): 1.0, (8, 7): 1.0})
    genome.connections[-2, 0].enabled = False
    model = exchange.from_neat(genome, made)
    assert (len(model.graph), model.n_edges) == (4, 1)


@pytest.mark.skipif(not IS_OLD, reason="this version computes nodes without connections")
def test_before_1_1_nodes_without_inputs_are_refused_by_name(config):
    made = config(num_outputs=1)
    with pytest.raises(ValueError, match="node 5: no enabled connection leads to it"):
        exchange.from_neat(by_hand(made, {(-1, 0): 1.0, (5, 0): 1.0}), made)


@pytest.mark.skipif(IS_OLD, reason="older versions do not compute nodes without connections")
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_nodes_without_inputs_are_constants_that_can_be_trained(config, aggregation):
    made = config()
    of_both = {"aggregation": aggregation, "activation": "sigmoid", "bias": 0.3, "response": 0.7}
    genome = by_hand(made, {(5, 1): 2.0}, n0=of_both, n5=of_both)
    model = exchange.from_neat(genome, made)
    np.testing.assert_allclose(model.forward(X), activated(genome, made), rtol=1e-6)
    model.fit(X, np.full((9, 2), 0.5), epochs=300, learning_rate=0.1)
    exchange.update_genome(genome, made, model)
    np.testing.assert_allclose(model.forward(X), activated(genome, made), rtol=1e-6)
    np.testing.assert_allclose(model.forward(X), 0.5, atol=0.01)


# --- training and back ----------------------------------------------------------------------------


def test_trained_numbers_go_back(config):
    made = config(activation_options=TAME, aggregation_options=["sum", "mean", "max", "min", "median", "product"])
    for seed in range(20):
        genome = genome_of(made, seed)
        model = exchange.from_neat(genome, made)
        model.fit(X, np.abs(X[:, :2]) % 1, epochs=3, learning_rate=0.003, optimizer="adam", on_nonfinite="skip")
        assert exchange.update_genome(genome, made, model) is None
        check_nodes(model, genome, made)
        again = exchange.from_neat(genome, made).graph.get_parameters()
        np.testing.assert_allclose(again, model.graph.get_parameters(), rtol=3e-7, atol=1e-30)


def numbers_of(genome):
    return [(n.bias, n.response) for n in genome.nodes.values()] + [c.weight for c in genome.connections.values()]


def test_numbers_that_did_not_change_stay_exactly(config):
    made = config()
    genome = genome_of(made, 3)
    before = numbers_of(genome)
    exchange.update_genome(genome, made, exchange.from_neat(genome, made, loss="binary_cross_entropy"))
    assert numbers_of(genome) == before
    model = exchange.from_neat(genome, made)
    output = model.outputs[0]
    while not isinstance(output, mlgraph.Neuron):
        output = output.sources[0]
    output.bias += 1
    exchange.update_genome(genome, made, model)
    assert sum(a != b for a, b in zip(numbers_of(genome), before, strict=True)) == 1


def test_a_response_of_0_becomes_1_if_the_weights_behind_it_have_changed(config):
    made = config(num_inputs=2, num_outputs=1)
    genome = by_hand(made, {(-1, 0): 2.0, (-2, 0): 3.0}, n0={"response": 0.0, "bias": 1.0})
    model = exchange.from_neat(genome, made)
    exchange.update_genome(genome, made, model)
    assert genome.nodes[0].response == 0 and genome.connections[-1, 0].weight == 2
    model.fit(X[:, :2], X[:, 0], epochs=2)
    exchange.update_genome(genome, made, model)
    np.testing.assert_allclose(activated(genome, made, X[:, :2]), model.forward(X[:, :2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("response", "value", "message"),
    [
        (1e-50, 0.001, r"weight would be 2e\+47, .*: the response is 1e-50; set it to 1 before from_neat"),
        (5e-324, 0.001, "weight would be inf, .*: the response is 5e-324"),
        (1.0, np.inf, "weight would be inf, .*: that of the model is inf"),
    ],
)
def test_numbers_that_a_genome_cannot_hold_are_refused_before_any_changes(config, response, value, message):
    made = config(num_inputs=2, num_outputs=1)
    genome = by_hand(
        made,
        {(-1, 3): 1.0, (3, 0): 2.0, (-2, 0): 1.0},
        n3={"bias": 0.5},
        n0={"response": response, "aggregation": "mean"},
    )
    model, before = exchange.from_neat(genome, made), numbers_of(genome)
    model.graph["3"].bias = 0.75
    parameters = model.graph.get_parameters()
    parameters[2] = value
    model.graph.set_parameters(parameters)
    with pytest.raises(ValueError, match=f"update_genome: node 0: connection from node -2: {message}"):
        exchange.update_genome(genome, made, model)
    assert numbers_of(genome) == before


def test_copies_and_files_of_a_model_go_back_as_well(config, tmp_path):
    made = config(num_inputs=7, initial_connection="full_direct", aggregation_options="median")
    for seed in range(5):
        genome = genome_of(made, seed)
        model = exchange.from_neat(genome, made)
        model.save(tmp_path / "model.npz")
        before = numbers_of(genome)
        for other in (copy.deepcopy(model), mlgraph.load(tmp_path / "model.npz")):
            exchange.update_genome(genome, made, other)
            assert numbers_of(genome) == before


def test_models_of_another_structure_do_not_go_into_a_genome(config):
    made = config(num_outputs=1)
    genome = by_hand(made, {(-1, 0): 1.0, (-2, 0): 1.0})
    before, model = numbers_of(genome), exchange.from_neat(genome, made)
    others = [exchange.from_neat(genome, made) for _ in range(5)]
    others[0].outputs[0].in_edges[0].prune()
    others[1].outputs[0].activation = "tanh"
    others[2].outputs[0].bias = None
    others[3].graph.add_neuron(others[3].graph.inputs)
    others[4] = exchange.from_neat(by_hand(made, {(-1, 0): 1.0, (-3, 0): 1.0}), made)
    for other in others:
        with pytest.raises(ValueError, match="does not have the nodes and edges of this genome"):
            exchange.update_genome(genome, made, other)
    model.scaling = np.zeros(3), np.ones(3)
    with pytest.raises(ValueError, match="the model scales its data"):
        exchange.update_genome(genome, made, model)
    with pytest.raises(TypeError, match="expected a Model, got Graph"):
        exchange.update_genome(genome, made, model.graph)
    assert numbers_of(genome) == before


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.skipif(IS_OLD, reason="neat-python exports JSON since 1.1")
@pytest.mark.filterwarnings("ignore:datetime:DeprecationWarning")
def test_json_of_neat_python_is_read(config):
    from neat.export import export_network_json

    made = config()
    for seed in range(20):
        genome = genome_of(made, seed)
        text = export_network_json(network_of(genome, made))
        for given in (text, json.loads(text)):
            model = exchange.from_neat(given)
            check_nodes(model, genome, made)


def test_json_comes_back_as_the_same_network(config):
    made = config(num_hidden=2)
    for seed in range(30):
        model = exchange.from_neat(genome_of(made, seed), made)
        text = exchange.to_neat(model, metadata={"fitness": 1.5})
        again = exchange.from_neat(text)
        assert json.loads(text)["metadata"] == {"fitness": 1.5}
        np.testing.assert_allclose(again.forward(X), model.forward(X), rtol=2e-5, atol=1e-6)
        nodes, others = ({node.name for node in m.graph if not node.name.startswith("n")} for m in (model, again))
        assert nodes == others and again.n_edges == model.n_edges


@pytest.mark.skipif(IS_OLD, reason="neat-python exports JSON since 1.1")
@pytest.mark.filterwarnings("ignore:datetime:DeprecationWarning")
def test_json_has_the_form_of_neat_python(config):
    from neat.export import export_network_json
    from neat.export.json_format import validate_json

    made = config(aggregation_options=["sum", "max", "min", "median", "maxabs", "product"])
    for seed in range(10):
        genome = genome_of(made, seed)
        theirs = json.loads(export_network_json(network_of(genome, made)))
        ours = json.loads(exchange.to_neat(exchange.from_neat(genome, made)))
        assert validate_json(ours) and list(ours) == list(theirs) and ours["topology"] == theirs["topology"]
        by_id, theirs_by_id = ({node["id"]: node for node in data["nodes"]} for data in (ours, theirs))
        assert by_id.keys() == theirs_by_id.keys()
        for key, node in by_id.items():
            assert node.keys() == theirs_by_id[key].keys() and node["activation"] == theirs_by_id[key]["activation"]
        ends, their_ends = ({(c["from"], c["to"]) for c in data["connections"]} for data in (ours, theirs))
        assert ends == their_ends


def test_networks_of_layers_become_json():
    net = mlgraph.Network(3, seed=0)
    for activation in ("relu", "tanh", "elu", "sigmoid", "identity"):
        net.add_layer(4, activation)
    net.add_layer(2, "softmax")
    net.layers[0][1].prune()
    net.layers[2][1].in_edges[2].prune()
    net.scaling = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 4.0])
    again = exchange.from_neat(exchange.to_neat(net), loss="softmax_cross_entropy")
    np.testing.assert_allclose(again.forward(X), net.forward(X), rtol=1e-5, atol=1e-6)
    net.scaling, pixels = "bytes", np.floor(50 * np.abs(X))
    again = exchange.from_neat(exchange.to_neat(net), loss="softmax_cross_entropy")
    np.testing.assert_allclose(again.forward(pixels), net.forward(pixels), rtol=1e-5, atol=1e-6)


def test_expressions_become_json_as_far_as_neat_has_them():
    g = mlgraph.Graph(seed=0)
    x, y, z = g.add_inputs(3)
    a = g.add_neuron([x, g.add_constant(2.0), g.add_parameter(0.5)], "tanh", weights=[1.0, 0.5, -1.0], bias=0.25)
    outputs = [mlgraph.tanh(x), abs(a), mlgraph.max(a, x, y), mlgraph.prod(a, z), x, a, a, g.add_parameter(3.0)]
    model = mlgraph.Model(g, outputs)
    again = exchange.from_neat(exchange.to_neat(model))
    np.testing.assert_allclose(again.forward(X), model.forward(X), rtol=1e-5, atol=1e-6)


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: mlgraph.sqrt(x), "to_neat: sqrt n3: neat-python has no function for a sqrt"),
        (lambda x: x.graph.add_neuron([x], "gelu"), "to_neat: neuron n3: .* for a gelu neuron"),
        (lambda x: mlgraph.sin(x), "for a sin"),  # that of neat-python is clamped
    ],
)
def test_what_neat_cannot_express_is_refused_by_name(make, message):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)[0]
    with pytest.raises(ValueError, match=message):
        exchange.to_neat(mlgraph.Model(g, make(x)))


def test_functions_of_users_are_refused_by_name(config):
    made = config(num_outputs=1)
    made.genome_config.add_activation("wave", lambda z: z)
    made.genome_config.add_aggregation("first", lambda x: x[0])
    for name, value in (("activation", "wave"), ("aggregation", "first")):
        genome = by_hand(made, {(-1, 0): 1.0}, n0={name: value})
        with pytest.raises(ValueError, match=f"node 0: the {name} '{value}' is not one of neat-python's own"):
            exchange.from_neat(genome, made)
    made.genome_config.add_activation("sigmoid", lambda z: z)  # another function of the same name
    genome = by_hand(made, {(-1, 0): 1.0}, n0={"activation": "sigmoid"})
    with pytest.raises(ValueError, match="the activation 'sigmoid' is not"):
        exchange.from_neat(genome, made)


@pytest.mark.parametrize(
    ("of_node", "weight", "message"),
    [
        (
            {"activation": "sigmoid"},
            2e38,
            "connection from node -1: weight: expected a number that float32 can hold, got 1e+39, which is 2e+38 times "
            "the response 1.0 and the 5 of sigmoid",
        ),
        (
            {"aggregation": "product", "activation": "tanh", "response": 3e38},
            1.0,
            "response: expected a number that float32 can hold, got 7.5e+38, which is 3e+38 times the 2.5 of tanh",
        ),
        ({"bias": -math.inf}, 1.0, "bias: expected a number that float32 can hold, got -inf"),
    ],
)
def test_numbers_beyond_float32_are_refused_by_the_name_of_the_gene(config, of_node, weight, message):
    made = config(num_outputs=1)
    genome = by_hand(made, {(-1, 4): 1.0, (4, 0): 1.0, (-1, 0): weight}, n0=of_node, n4={"aggregation": "max"})
    model = exchange.from_neat(by_hand(made, {(-1, 0): 1.0}), made)
    for call in (lambda: exchange.from_neat(genome, made), lambda: exchange.update_genome(genome, made, model)):
        with pytest.raises(ValueError, match=re.escape(f"node 0: {message}")):
            call()


def test_sigmoids_are_no_logits(config):
    made = config()
    genome = by_hand(made, {(-1, 0): 1.0, (-1, 1): 1.0}, n1={"activation": "sigmoid"})
    with pytest.raises(ValueError, match="node 1: expected a logit, because binary_cross_entropy computes the sigmoid"):
        exchange.from_neat(genome, made, loss="binary_cross_entropy")
    model = exchange.from_neat(genome, made, loss="softmax_cross_entropy")
    logits = activated(genome, made)
    np.testing.assert_allclose(model.forward(X), logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.predict_proba(X), np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_recurrent_genomes_are_refused_by_name(config):
    made = config(num_outputs=1, feed_forward=False)
    genome = by_hand(made, {(-1, 0): 1.0, (0, 5): 1.0, (5, 6): 1.0, (6, 0): 1.0})
    with pytest.raises(mlgraph.CycleError, match=r"cycle of 3 nodes: 0 -> 6 -> 5; recurrent networks have a state"):
        exchange.from_neat(genome, made)
    genome = by_hand(made, {(-1, 0): 1.0, (0, 0): 1.0})
    with pytest.raises(mlgraph.CycleError, match="cycle of 1 node: 0"):
        exchange.from_neat(genome, made)


def test_wrong_arguments_are_named(config):
    made = config(num_outputs=1)
    genome = by_hand(made, {(-1, 0): 1.0})
    for arguments, error, message in [
        ((genome,), TypeError, "config: expected the neat.Config of the genome, got NoneType"),
        ((3, made), TypeError, "genome: expected a neat.DefaultGenome, got int"),
        (("{", None), ValueError, "expected a neat.DefaultGenome or the JSON of a network"),
        (("{}", made), TypeError, "config: expected none with the JSON of a network"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            exchange.from_neat(*arguments)
    genome.connections[-1, 0].weight = 1e39
    expected = r"node 0: connection from node -1: weight: expected a number that float32 can hold, got 1e\+39$"
    with pytest.raises(ValueError, match=expected):
        exchange.from_neat(genome, made)
    genome = by_hand(made, {(-1, 0): 1.0, (4, 0): 1.0})
    del genome.nodes[4]
    with pytest.raises(ValueError, match="node 4: a connection or output refers to it"):
        exchange.from_neat(genome, made)
    with pytest.raises(TypeError, match="to_neat: expected a Model, got Graph"):
        exchange.to_neat(mlgraph.Graph())


GOOD = {
    "network_type": "feedforward",
    "topology": {"input_keys": [-1], "output_keys": [0]},
    "nodes": [{"id": 0, "activation": {"name": "square"}}],
    "connections": [{"from": -1, "to": 0, "weight": 1.0}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("network_type"), "the network: expected an object with 'network_type'"),
        (lambda d: d.update(network_type="ctrnn"), "network_type: ctrnn networks have a state"),
        (lambda d: d["topology"].update(input_keys=3), "topology: expected an object with 'input_keys' (list)"),
        (lambda d: d["topology"].update(output_keys=[]), "at least one"),
        (lambda d: d["connections"].append({"from": -1}), "connection 1: expected an object with 'to' (int)"),
        (lambda d: d["connections"].append(d["connections"][0]), "two connections from node -1 to node 0"),
        (lambda d: d["connections"][0].update(weight="w"), "connection 0: weight"),
        (lambda d: d["nodes"][0]["activation"].update(custom=True), "node 0: the activation 'square' is not one of"),
        (lambda d: d["nodes"][0].update(activation={"name": "cosh"}), "node 0: activation: expected"),
        (lambda d: d["nodes"][0].update(bias=math.nan), "node 0: bias"),
        (lambda d: d.update(nodes=5), "the network: expected an object with 'nodes' (list)"),
        (lambda d: d.update(nodes=None), "the network: expected an object with 'nodes' (list)"),
        (lambda d: d["nodes"].append({"id": 0, "bias": 9.0}), "nodes: element 1: there are two nodes with the id 0"),
        (lambda d: d["topology"].update(input_keys=[-1, -1]), "input_keys: expected distinct keys, got [-1, -1]"),
        (lambda d: d["topology"].update(output_keys=[0, 0]), "output_keys: expected distinct keys, got [0, 0]"),
        (
            lambda d: d["connections"][0].update(enabled="false"),
            "connection 0: enabled: expected true or false, got 'f",
        ),
    ],
)
def test_wrong_json_is_named(change, message):
    data = copy.deepcopy(GOOD)
    assert exchange.from_neat(data).forward([[3.0]]) == 9
    change(data)
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        exchange.from_neat(data)


def test_without_neat_python_the_extra_is_named(config, monkeypatch):
    made = config(num_outputs=1)
    genome = by_hand(made, {(-1, 0): 1.0})
    monkeypatch.setitem(sys.modules, "neat", None)
    with pytest.raises(ImportError, match=r"from_neat needs neat-python .*pip install "):
        exchange.from_neat(genome, made)
    assert exchange.from_neat(json.dumps(GOOD)).forward([[3.0]]) == 9  # JSON needs nothing
