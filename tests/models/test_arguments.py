"""Public functions refuse wrong arguments, by name and without any effect, and take right ones in every form."""

import fractions
import functools
import pathlib
import pickle
import re
import types

import numpy as np
import pytest
from editable import held

import mlgraph
from mlgraph import Edges, Graph, Network, Neurons, datasets, testing
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.steps import Steps

RNG = np.random.default_rng(0)
X = RNG.integers(-8, 9, (16, 6)).astype(np.float32) / 4  # numbers that every type of float holds
LABELS = RNG.integers(0, 3, 16)
TARGETS = RNG.integers(-4, 5, (16, 2)).astype(np.float32)
WEIGHTS = RNG.integers(-8, 9, (9, 6)).astype(np.float32) / 4
NAN, INF = np.nan, np.inf


def world(folder):
    """Everything that a call may need, new and always the same."""
    w = types.SimpleNamespace(g=Graph(seed=0), other=Graph(seed=0), folder=folder)
    w.other.add_inputs(50)
    w.x = w.g.add_inputs(6)
    w.p = w.g.add_parameter(0.5, "p")
    w.n = w.g.add_neuron(w.x[:4], "tanh", weights=[1, 2, -1, 0.5], bias=0.25)
    w.y = mlgraph.exp(w.n) * w.p + w.x[5]
    w.f = w.g.compile([w.y, w.n])
    w.gradients = w.f.vjp(X)
    w.model = mlgraph.Model(w.g, [w.y, w.n])
    w.traced = w.model.trace(X, TARGETS)
    w.net = Network(6, seed=1)
    w.net.add_layer(9, "tanh")
    w.net.add_layer(3, "softmax")
    w.net.prune(0.25)
    w.logits = w.net.graph.compile(w.net.outputs)
    w.net.evaluate(X, LABELS)  # what is compiled first may move parameters
    return w


def setter(thing, attribute, value):
    """Assigning an attribute, as a call with an argument of that name."""
    return functools.partial(lambda **given: setattr(thing, attribute, given[attribute]), **{attribute: value})


def calls(w):
    """A valid call of each public function that takes arguments, by its name."""
    partial, layers = functools.partial, w.net.layers
    data, labelled = {"x": X, "n_threads": 1}, {"x": X, "y": LABELS, "n_threads": 1}
    scored = {"scope": "layer", "block": 2, "data": (X, LABELS), "seed": 3, "n_threads": 1}
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 0.125, "momentum": 0.5, "weight_decay": 0.5}
    options |= {"optimizer": "adam", "validation_data": (X, LABELS), "shuffle": True, "seed": 3, "callbacks": None}
    options |= {"sparsify": None, "on_nonfinite": "skip", "clip_norm": 1.0, "checkpoint": w.folder / "checkpoint"}
    gradual = {"sparsity": 0.5, "updates": 20, "until": 0.5, "block": 4}
    checked = {"function": w.f, "x": X, "seed": 3}
    return {
        "Graph.add_input": partial(w.g.add_input, name="a"),
        "Graph.add_inputs": partial(w.g.add_inputs, n=3),
        "Graph.add_constant": partial(w.g.add_constant, value=0.5),
        "Graph.add_parameter": partial(w.g.add_parameter, value=0.5, name="b"),
        "Graph.add_neuron": partial(w.g.add_neuron, sources=w.x, activation="relu", weights=WEIGHTS[0], bias=0.5),
        "Graph.add_neurons": partial(
            w.g.add_neurons, sources=w.x, activation="relu", weights=WEIGHTS, biases=WEIGHTS[:, 0]
        ),
        "Graph.add_operation": partial(
            lambda name, argument: w.g.add_operation(name, argument), name="exp", argument=w.n
        ),
        "Graph.add_softmax": partial(w.g.add_softmax, nodes=w.x),
        "Graph.edge": partial(w.g.edge, source=w.x[0], target=w.n),
        "Graph.has_edge": partial(w.g.has_edge, source=w.x[0], target=w.n),
        "Graph.reaches": partial(w.g.reaches, source=w.x[0], target=w.n),
        "Graph.sources_of": partial(w.g.sources_of, node=w.n),
        "Graph.weights_of": partial(w.g.weights_of, node=w.n),
        "Graph.targets_of": partial(w.g.targets_of, node=w.n),
        "Graph.add_edge": partial(w.g.add_edge, source=w.x[5], target=w.n, weight=0.5),
        "Graph.add_edges": partial(w.g.add_edges, edges=Edges([4, 5], [w.n.id] * 2, [0.5, 1])),
        "Graph.add_subgraph": partial(
            w.g.add_subgraph,
            neurons=Neurons([50, 40], ["relu", "tanh"], [0, 1]),
            edges=Edges([40, 0, 1], [50, 40, 40], [0.5, 1, 2]),
        ),
        "Graph.prune": partial(w.g.prune, what=[(w.x[0], w.n)]),
        "Graph.set_parameters": partial(w.g.set_parameters, values=w.g.get_parameters()),
        "Graph.compile": partial(w.g.compile, outputs=[w.y, w.n], inputs=w.x[::-1]),
        "Node.name": setter(w.p, "name", "c"),
        "Node.value": setter(w.p, "value", 0.75),
        "Node.frozen": setter(w.p, "frozen", True),
        "Neuron.activation": setter(w.n, "activation", "relu"),
        "Neuron.weights": setter(w.n, "weights", WEIGHTS[0, :4]),
        "Neuron.bias": setter(w.n, "bias", 0.5),
        "Edge.weight": setter(w.n.in_edges[0], "weight", 0.75),
        "Edge.frozen": setter(w.n.in_edges[0], "frozen", True),
        "Layer.weights": setter(layers[1], "weights", WEIGHTS.T[:3]),
        "Layer.biases": setter(layers[1], "biases", WEIGHTS[0, :3]),
        "Layer.mask": setter(layers[1], "mask", np.ones((3, 9), bool)),
        "Layer.dropout": setter(layers[0], "dropout", 0.5),
        "Layer.weight_dropout": setter(layers[0], "weight_dropout", 0.5),
        "Layer.frozen": setter(layers[0], "frozen", True),
        "Function": partial(mlgraph.Function, graph=w.g, outputs=[w.y, w.n], inputs=w.x[::-1]),
        "Function.__call__": partial(w.f, **data),
        "Function.vjp": partial(w.f.vjp, cotangent=TARGETS, **data),
        "Function.jvp": partial(w.f.jvp, tangent=X, **data),
        "Function.to_c": partial(w.f.to_c, name="digits"),
        "Function.quantize": partial(lambda calibrate: w.logits.quantize(calibrate).to_c(), calibrate=X),
        "QuantizedFunction.__call__": partial(w.logits.quantize(X), x=X),
        "Trace.adjoint": partial(w.traced.adjoint, node=w.n),
        "Trace.of": partial(lambda nodes: w.traced.of(nodes).values, nodes=[w.y, w.n]),
        "Gradients.of": partial(w.gradients.of, node=w.n),
        "Gradients.of_bias": partial(w.gradients.of_bias, neuron=w.n),
        "Model": partial(mlgraph.Model, graph=w.g, outputs=[w.y, w.n], loss="softmax_cross_entropy"),
        "Model.frozen": setter(w.net, "frozen", True),
        "Model.forward": partial(w.net.forward, **data),
        "Model.predict": partial(w.net.predict, **data),
        "Model.predict_proba": partial(w.net.predict_proba, **data),
        "Model.evaluate": partial(w.net.evaluate, **labelled),
        "Model.gradients": partial(w.net.gradients, **labelled),
        "Model.trace": partial(w.net.trace, nodes=w.net.outputs, **labelled),
        "Model.inspect": partial(w.net.inspect, **labelled),
        "Model.ablate": partial(w.net.ablate, what=[layers[0][2]], **labelled),
        "Model.ablation_table": partial(w.net.ablation_table, layer=layers[0], **labelled),
        "Model.draw": partial(w.net.draw, x=X[0], limit=20),
        "Model.fit": partial(w.net.fit, checkpoint_every=0.5, **options, **labelled),
        "Model.fit to targets": partial(w.model.fit, x=X, y=TARGETS, epochs=1),
        "Model.prune": partial(w.net.prune, sparsity=0.5, by="saliency", **scored),
        "Model.prune neurons": partial(w.net.prune, neurons=0.25, by="magnitude", seed=3),
        "Model.quantize": partial(lambda calibrate: w.net.quantize(calibrate).to_c(), calibrate=X),
        "Model.to_c": partial(
            lambda name, calibrate: w.net.to_c(name, dtype="int8", calibrate=calibrate), name="digits", calibrate=X
        ),
        "Model.save": partial(w.net.save, path=w.folder / "new.npz"),
        "Network": partial(Network, n_inputs=3, seed=3),
        "Network.add_layer": partial(
            w.net.add_layer, size=4, activation="relu", dropout=0.5, weight_dropout=0.5, bias=True, loss="squared_error"
        ),
        "Network.widen": partial(w.net.widen, layer=layers[0], n=2, seed=3),
        "Network.regrow": partial(w.net.regrow, fraction=0.25, by="gradient", **scored),
        "GradualPruning": partial(mlgraph.GradualPruning, start=0.25, initial=0.25, scope="layer", **gradual),
        "SET": partial(mlgraph.SET, fraction=0.25, **gradual),
        "RigL": partial(mlgraph.RigL, fraction=0.25, **gradual),
        "load": partial(mlgraph.load, path=w.folder / "saved.npz"),
        "datasets.load_mnist": partial(datasets.load_mnist, folder=w.folder),
        "datasets.read_idx": partial(datasets.read_idx, path=w.folder / "a.idx", ndim=1),
        "testing.check_gradients": partial(testing.check_gradients, step=1e-6, n_threads=1, **checked),
        "testing.check_reference": partial(testing.check_reference, step=1e-6, **checked),
        "testing.check_against_reference": partial(
            testing.check_against_reference, cotangent=TARGETS, n_threads=1, **checked
        ),
        "testing.expect": partial(testing.expect, function=w.f, x=X, ulps=2),
    }


def wrong_values(w, good):
    """Wrong values by the names of the parameters that they are for; arrays are made from a good one."""
    numbers = ["3", [1], 1j, b"3", w.x[0]]
    floats = [*numbers, np.ones(3), NAN, -1, True]
    nodes = ["x", 3, ["x"], w.other[1], [w.x[0], w.other[40]], [w.x], Graph]
    integers = [*numbers, np.ones(3), 1.5, True, -3, NAN, 2**70]
    arrays = ["abc", b"abc", {}, len, [[1.0], [1.0, 2.0]], [[None]], [[2**70] * 6] * 16, w.x]
    if isinstance(good, np.ndarray):
        longer = np.append(good, good, axis=-1)[..., : good.shape[-1] + 1]
        arrays += [np.stack([good, good]), good[..., 1:], longer, np.ma.masked_array(good, good == good)]
        arrays += [good.astype(dtype) for dtype in (str, object, complex, "M8[s]")]
    table = {
        "n seed ulps": integers,
        "n_inputs size epochs batch_size block updates limit ndim n_threads": [*integers, 0],
        "dropout weight_dropout sparsity neurons fraction until start initial momentum": [*floats, 2.0, INF],
        "weight_decay checkpoint_every learning_rate step": [*floats, INF, 10**400],
        "clip_norm": [*floats, 0, 1e-300, INF],
        "value weight bias": [*numbers, 1e39, 10**400],
        "activation by scope optimizer on_nonfinite loss": ["spam", "", "a\nb", 3, ["relu"], b"relu", "x" * 10**5],
        "name": [3, True, b"a", ["a"]],
        "shuffle frozen": [None, "yes", 1, 0.0, X],
        "x weights biases values cotangent tangent mask calibrate": arrays,
        "y": [*arrays, LABELS - 1, LABELS + 2, LABELS.astype(float)],
        "outputs inputs sources nodes layer": nodes,
        "node source target neuron": [None, "x", [w.x[0]], w.other[1], 1.5, 10**6, -1, 10**5000],
        "argument": [None, "x", [w.x[0]], w.other[1]],
        "path folder checkpoint": [3, True, ["x"], 1.5, w.x[0], "a\0b", b"a\0b", "\ud800"],
        "graph": [None, "x", w.x[0], w.model, Graph],
        "data validation_data": [
            3,
            "ab",
            X,
            (),
            {0: X},
            (X, LABELS, X),
            (None, None),
            (X[:, :5], LABELS),
            (X, LABELS + 1),
        ],
        "what": [None, 3, "x", [1], w.x, [(0, 1.5)], [(0, 10**6)], [(w.other[0], w.other[1])], [(w.x[5], w.n)], X],
        "edges": [None, "x", [(0, 7)], w.x, Edges(X[0], X[0], X[0]), Edges([0, 1], [7], [1])],
        "sparsify": [3, "rigl", [print]],
        "callbacks": [3, print, [3], [mlgraph.EarlyStopping]],
        "function": [None, 3, "x", [], [1.0], Graph],
    }
    return {parameter: values for names, values in table.items() for parameter in names.split()}


FORMS = [
    np.asfortranarray,
    np.ndarray.tolist,
    list,
    memoryview,
    np.ma.masked_array,
    lambda a: a.astype(a.dtype.newbyteorder(">")),
    lambda a: a[::-1].copy()[::-1],
    lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),  # unaligned and read-only
]
"""Other forms of an array."""


def other_forms(parameter, good):
    """The same value in other forms."""
    if isinstance(good, np.ndarray):
        more = [lambda a: a.astype(np.float64)] * (good.dtype.kind == "f")
        return [form(good) for form in [*FORMS, *more]]
    if isinstance(good, list):
        return [tuple(good), iter(good)]
    if isinstance(good, mlgraph.Node) and parameter != "argument":
        return [good.id, np.int64(good.id)]
    if isinstance(good, pathlib.Path):
        return [str(good), bytes(good)]
    types = {bool: [np.bool_], int: [np.int64, np.uint8], float: [np.float32, fractions.Fraction], str: [np.str_]}
    return [form(good) for form in types.get(type(good), [])]


def state(w):
    """All that a call might have changed."""
    return [held(graph) for graph in (w.g, w.net.graph, w.other)], repr(w.net.history), repr(w.net.layers)


def bits(value):
    """A result in a form that compares bitwise."""
    if isinstance(value, mlgraph.History):
        value = [column for name, column in vars(value).items() if name != "epoch_seconds"]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [bits(each) for each in value]
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the calls read."""
    folder = tmp_path_factory.mktemp("files")
    world(folder).net.save(folder / "saved.npz")
    (folder / "a.idx").write_bytes(b"\0\0\x08\x01\0\0\0\2ab")
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\1\0\0\0\1\0\0\0\1a")
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\1\1")
    return folder


NAMES = list(calls(world(pathlib.Path())))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_are_refused_and_change_nothing(folder, name):
    w = world(folder)
    call, before = calls(w)[name], state(w)
    for parameter, good in call.keywords.items():
        names = {"argument": "arguments", "nodes": "nodes|arguments", "validation_data": "validation(_data)?"}.get(
            parameter, parameter
        )
        for value in wrong_values(w, good)[parameter]:
            with pytest.raises((TypeError, ValueError, IndexError)) as error:  # IndexError: an id of no node
                call(**{parameter: value})
            text = str(error.value)
            assert text.isprintable() and len(text) < 600
            assert re.search(rf"\b({names}|{name.rpartition('.')[2]})\b", text), text
            assert state(w) == before, f"{parameter}={value!r}"


FAST = ("Graph.add_neurons", "Model.fit")


@pytest.mark.filterwarnings("ignore:y. outputs of tanh are")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in NAMES])
def test_arguments_in_other_forms_give_the_same_bits(folder, name):
    w = world(folder)
    call = calls(w)[name]
    expected, after = bits(call()), state(w)
    for parameter, good in call.keywords.items():
        for k in range(len(other_forms(parameter, good))):
            w = world(folder)
            call = calls(w)[name]
            value = other_forms(parameter, call.keywords[parameter])[k]
            before = pickle.dumps(value) if isinstance(value, np.ndarray) else None
            assert bits(call(**{parameter: value})) == expected, parameter
            assert state(w) == after, parameter
            assert before is None or pickle.dumps(value) == before


@pytest.mark.parametrize("node", [-1, 10**6, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("use", [lambda g, node: node, lambda g, node: g.add_neuron([g[0], node])])
def test_nodes_that_do_not_exist_reach_no_kernel(use, node):
    g = Graph(seed=0)
    g.add_inputs(3)
    with pytest.raises(ValueError, match=r"sources that do not exist|was removed"):
        g.compile(use(g, mlgraph.Node(g, node)))


def test_half_an_edit_reaches_no_kernel():
    g = Graph(seed=0)
    x, y = g.add_inputs(2)
    z = x * y
    g._code.append(1)
    with pytest.raises(RuntimeError, match=r"an edit was interrupted$"):
        g.compile(z)


def test_missing_columns_and_examples_reach_no_kernel():
    """A callback may add inputs to the graph after `fit` has checked the data."""
    g = Graph(seed=0)
    neuron = g.add_neuron(g.add_inputs(3), weights=[1, 2, 3])
    engine = Engine(g, Plan(g, [neuron.id]))
    with pytest.raises(ValueError, match=r"^x: expected 3 columns, one for each input, got 2$"):
        engine.execute(Examples(np.ones((5, 2)), 2), values=[neuron.id])
    with pytest.raises(ValueError, match=r"^steps: expected at least one example in every step, got 0$"):
        engine.execute(Examples(np.ones((5, 3)), 3), steps=Steps.without_update(np.array([0, 0]), np.array([5, 0])))
