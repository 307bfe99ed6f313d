"""Each argument of each public function, wrong in the ways its kind can be, and right in all its forms."""

import inspect
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from argument_kinds import (
    FORMS,
    INF,
    INTEGERS,
    NAN,
    NOT_NUMBERS,
    Kind,
    a_name,
    a_node,
    a_node_or_id,
    a_path,
    array,
    count,
    graph,
    nodes,
    number,
    of,
    share,
)
from world import LABELS, OTHER, RNG, X, bits, state, world

import mlgraph
from mlgraph import Graph, Network, datasets, pictures, testing
from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.examples import Examples
from mlgraph.engine.steps import Steps
from mlgraph.graph.arrays import Edges, Neurons
from mlgraph.models import model_file as modelfile

ANY = Kind(lambda w: True)  # a truth value, which anything has
NAME = Kind("a", {"number": 3, "truth": True, "bytes": b"a", "list": ["a"]}, {"numpy": np.str_})
TRUTH = Kind(True, {"None": None, "text": "yes", "number": 1, "float": 0.0, "array": X}, {"numpy": np.bool_})
VALIDATION = Kind(
    (X, LABELS),
    {
        "number": 3,
        "text": "ab",
        "row": X,
        "empty": (),
        "dict": {0: X, 1: LABELS},
        "three": (X, LABELS, X),
        "Nones": (None, None),
        "columns": (X[:, :5], LABELS),
        "NaN": (X * NAN, LABELS),
        "no examples": (X[:0], LABELS[:0]),
        "labels": (X, LABELS + 1),
    },
    {"list": list},
)
PAIR = {
    **NOT_NUMBERS,
    "NaN": NAN,
    "truth": True,
    "empty": (),
    "three": (1, 2, 3),
    "texts": ("a", "b"),
    "negative": -1,
    "row": np.ones(3),
}
PAIRS = {"pair": lambda v: (v, v), "list": lambda v: [v, v], "row": lambda v: np.array([v, v])}
RATE = Kind(
    0.125,
    {**PAIR, "list": [], "infinite": INF, "one bad": (0.1, -1), "huge": 10**400, "beyond float32": 1e39},
    PAIRS | {"float64": np.float64},
)
SIZE = Kind(
    8,
    {**PAIR, "list": [], "zero": 0, "half": 1.5, "float": 8.0, "one bad": (1, 0), "huge": 2**63},
    PAIRS | {"int64": np.int64},
)
THREADS = count(1, most=1024, optional=True)
SEED = count(3, 0, None)
DATA = array(X, empty=True, fits=False, lengths=(1,))
EXAMPLES = array(X, finite=True, lengths=(0, 1))
CHECKPOINT = Kind(lambda w: w.path, {way: v for way, v in a_path("").bad.items() if v is not None}, {"text": str})
SECONDS = Kind(
    0.5,
    {
        **NOT_NUMBERS,
        "truth": True,
        "negative": -1,
        "NaN": NAN,
        "infinite": INF,
        "huge": 10**400,
        "float16": np.float16(INF),
    },
)
CALLBACK = Kind(None, {"number": 3, "text": "print", "list": [print]})
NUMBERS = Kind({0: 1.5}, {"number": 3, "list": [1.0], "texts": {0: "x"}, "Nones": {0: None}, "complex": {0: 1j}})
PICTURE = {
    "x": Kind(
        X[0],
        {
            "text": "abc",
            "two rows": X[:2],
            "shorter": X[0, 1:],
            "objects": X[0].astype(object),
            "number": 3.0,
            "complex": X[0] * 1j,
        },
        {"list": list, "float64": np.float64, "backwards": FORMS["backwards"]},
    ),
    "values": NUMBERS,
    "adjoints": NUMBERS,
    "limit": count(20, 2),
}
NO_NODES = {"None": None, "number": 3, "text": "x", "empty": [], "numbers": [1.0], "class": Graph}
DRAWN = {"nodes": Kind(lambda w: w.y, {**NO_NODES, "mixed": lambda w: [w.x[0], OTHER[0]]})}
CHECKED = {"function": Kind(lambda w: w.f, NO_NODES), "x": array(X, fits=False, lengths=(1,))}
TARGETS = RNG.integers(-4, 5, (16, 2)).astype(np.float32)
COTANGENT = array(TARGETS, lengths=(0, 1), optional=True)
STEP = Kind(
    1e-6,
    {
        **NOT_NUMBERS,
        "truth": True,
        "zero": 0,
        "negative": -1e-6,
        "NaN": NAN,
        "infinite": INF,
        "huge": 10**400,
        "float32": np.float32(0),
    },
)
DIFFERENCES = CHECKED | {"inputs": ANY, "parameters": ANY, "seed": SEED, "step": STEP}
SPARSIFY = Kind(None, {"number": 0.5, "text": "rigl", "list": [], "class": mlgraph.RigL})
OPTIONS = {
    "x": EXAMPLES,
    "epochs": count(2),
    "batch_size": SIZE,
    "learning_rate": RATE,
    "momentum": share(0.5),
    "weight_decay": Kind(0.5, SECONDS.bad),
    "sparsify": SPARSIFY,
    "optimizer": a_name("sgd"),
    "validation": VALIDATION,
    "shuffle": TRUTH,
    "seed": SEED,
    "callback": CALLBACK,
    "on_nonfinite": a_name("raise"),
    "checkpoint": CHECKPOINT,
    "checkpoint_every": SECONDS,
    "resume": Kind(False, TRUTH.bad),
    "n_threads": THREADS,
}
LABELS_OF_ALL = array(LABELS, labels=True)
DATA_FOR = Kind((X, LABELS), {**VALIDATION.bad, "None": None}, VALIDATION.same)
NO_IDS = Edges(*np.full((3, 1), 10**6))
EDGES = {
    "None": None,
    "number": 3,
    "text": "x",
    "numbers": [1],
    "nodes": lambda w: w.x,
    "triples": lambda w: [(w.x[0],) * 3],
    "pairs of numbers": [(0, 1.5)],
    "no ids": [(0, 10**6)],
    "of another graph": [(OTHER[0], OTHER[1])],
    "no edge": lambda w: [(w.x[5], w.n)],
    "class": [mlgraph.Neuron],
    "row": X,
    "a pair": lambda w: (w.x[0], w.n),
    "pair of ids": (0, 7),
    "edges of floats": Edges(X[0], X[0], X[0]),
    "edges of no ids": NO_IDS,
    "edges cut short": Edges(np.zeros(2, int), np.zeros(1, int), np.zeros(1)),
}
WITHOUT = Kind(
    lambda w: [w.net.layers[0].neurons[2]], EDGES | {"an output": lambda w: [w.net.outputs[0]]}, {"tuple": tuple}
)
SCORED = {"scope": a_name("layer"), "seed": SEED, "n_threads": THREADS}
MASK = RNG.integers(0, 2, (3, 9)) > 0
WEIGHTS = RNG.integers(-8, 9, (9, 6)).astype(np.float32) / 4

# By the name of a function: how to get it, and the kind of each argument. In the name of a setter stands what it sets.
API: dict[str, tuple[Callable[[Any], Any], dict[str, Kind]]] = {
    "Graph": (lambda w: Graph, {}),
    "Graph.input": (lambda w: w.g.input, {"name": NAME}),
    "Graph.inputs": (lambda w: w.g.inputs, {"n": count(3, 0)}),
    "Graph.constant": (lambda w: w.g.constant, {"value": number(0.5)}),
    "Graph.parameter": (lambda w: w.g.parameter, {"value": number(0.5), "name": NAME}),
    "Graph.add_neuron": (
        lambda w: w.g.add_neuron,
        {
            "sources": nodes(lambda w: w.x),
            "activation": a_name("relu"),
            "weights": array(WEIGHTS[0], optional=True),
            "bias": number(0.5, optional=True),
        },
    ),
    "Graph.add_neurons": (
        lambda w: w.g.add_neurons,
        {
            "sources": nodes(lambda w: w.x),
            "weights": array(WEIGHTS, lengths=(1,)),
            "biases": array(WEIGHTS[:, 0], optional=True),
            "activation": a_name("relu"),
        },
    ),
    "Graph.operation": (lambda w: w.g.operation, {"name": a_name("exp"), "arguments": a_node(lambda w: w.x[0])}),
    "Graph.softmax": (lambda w: w.g.softmax, {"nodes": nodes(lambda w: w.x)}),
    "Graph.sources_of": (lambda w: w.g.sources_of, {"node": a_node_or_id(lambda w: w.n)}),
    "Graph.weights_of": (lambda w: w.g.weights_of, {"node": a_node_or_id(lambda w: w.n)}),
    "Graph.targets_of": (lambda w: w.g.targets_of, {"node": a_node_or_id(lambda w: w.n)}),
    "Graph.edge": (
        lambda w: w.g.edge,
        {"source": a_node_or_id(lambda w: w.x[0]), "target": a_node_or_id(lambda w: w.n)},
    ),
    "Graph.reaches": (
        lambda w: w.g.reaches,
        {"source": a_node_or_id(lambda w: w.x[0]), "target": a_node_or_id(lambda w: w.n)},
    ),
    "Graph.set_parameters": (lambda w: w.g.set_parameters, {"values": array(lambda w: w.g.get_parameters())}),
    "Graph.has_edge": (
        lambda w: w.g.has_edge,
        {"source": a_node_or_id(lambda w: w.x[0]), "target": a_node_or_id(lambda w: w.n)},
    ),
    "Graph.add_edge": (
        lambda w: w.g.add_edge,
        {"source": a_node_or_id(lambda w: w.x[5]), "target": a_node_or_id(lambda w: w.n), "weight": number(0.5)},
    ),
    "Graph.add_edges": (
        lambda w: w.g.add_edges,
        {
            "edges": Kind(
                lambda w: Edges([4, 5], [w.n.id] * 2, [0.5, 1]),
                {
                    "None": None,
                    "pairs": [(5, 7)],
                    "nodes": lambda w: w.x,
                    "floats": Edges(X[0], X[0], X[0]),
                    "no ids": NO_IDS,
                    "cut short": Edges(np.zeros(2, int), np.zeros(1, int), np.zeros(2)),
                    "there": lambda w: Edges([0], [w.n.id], [1]),
                    "twice": lambda w: Edges([5, 5], [w.n.id] * 2, [1, 1]),
                    "to an input": Edges([0], [1], [1]),
                    "one weight": lambda w: Edges([4, 5], [w.n.id] * 2, [1]),
                    "huge": lambda w: Edges([5], [w.n.id], [1e39]),
                    "texts": lambda w: Edges([5], [w.n.id], ["x"]),
                },
            )
        },
    ),
    "Graph.add_subgraph": (
        lambda w: w.g.add_subgraph,
        {
            "neurons": Kind(
                Neurons([50, 40], ["relu", "tanh"], [0, 1]),
                {
                    "None": None,
                    "ids": [50, 40],
                    "none": Neurons([], [], []),
                    "floats": Neurons(X[0], ["relu"], [0]),
                    "twice": Neurons([40, 40], ["relu", "tanh"], [0, 1]),
                    "no activation": Neurons([50, 40], ["relu"], [0, 1]),
                    "sine": Neurons([50, 40], ["relu", "sine"], [0, 1]),
                    "one name": Neurons([50, 40], "relu", [0, 1]),
                    "one bias": Neurons([50, 40], ["relu", "tanh"], [0]),
                    "huge": Neurons([50, 40], ["relu", "tanh"], [0, 1e39]),
                    "another": Neurons([50, 41], ["relu", "tanh"], [0, 1]),
                    "one more": Neurons([50, 40, 1], ["relu"] * 3, [0, 1, 2]),
                },
            ),
            "edges": Kind(
                Edges([40, 0, 1], [50, 40, 40], [0.5, 1, 2]),
                {
                    "None": None,
                    "pairs": [(0, 40)],
                    "floats": Edges(X[0], X[0], X[0]),
                    "cut short": Edges([0, 1], [40], [1, 2]),
                    "none": Edges([], [], []),
                    "no source": Edges([999, 0], [50, 40], [1, 1]),
                    "to others": Edges([0], [1], [1]),
                    "twice": Edges([0, 40, 40], [40, 50, 50], [1, 1, 1]),
                    "cycle": Edges([50, 40, 0], [40, 50, 40], [1, 1, 1]),
                    "itself": Edges([0, 40, 40], [40, 40, 50], [1, 1, 1]),
                    "one weight": Edges([40, 0], [50, 40], [1]),
                    "huge": Edges([40, 0], [50, 40], [1, 1e39]),
                    "bare": Edges([0], [40], [1]),
                    "negative": Edges([-1, 0], [50, 40], [1, 1]),
                },
            ),
        },
    ),
    "Graph.prune": (
        lambda w: w.g.prune,
        {
            "what": Kind(
                lambda w: [(w.x[0], w.n)], EDGES | {"an output": lambda w: [w.n]}, {"tuple": tuple, "iterator": iter}
            )
        },
    ),
    "Graph.__getitem__": (
        lambda w: w.g.__getitem__,
        {"node": Kind(7, {way: value for way, value in count(7, 0, None).bad.items() if way != "node"}, INTEGERS)},
    ),
    "Graph.compile": (
        lambda w: w.g.compile,
        {"outputs": nodes(lambda w: [w.y, w.n]), "inputs": nodes(lambda w: w.x[::-1])},
    ),
    "Graph.draw": (lambda w: w.g.draw, PICTURE),
    "Model.draw": (
        lambda w: w.net.draw,
        {
            "x": PICTURE["x"],
            "limit": count(20, 2, optional=True),
            "y": Kind(None, {"text": "abc", "too high": 99, "list": [0, 1]}),
        },
    ),
    "Node.name": (lambda w: lambda name: setattr(w.p, "name", name), {"name": NAME}),
    "Node.value": (lambda w: lambda value: setattr(w.p, "value", value), {"value": number(0.5)}),
    "Node.draw": (lambda w: w.y.draw, PICTURE),
    "Neuron.weights": (lambda w: lambda weights: setattr(w.n, "weights", weights), {"weights": array(WEIGHTS[0, :4])}),
    "Edge.weight": (lambda w: lambda weight: setattr(w.n.edges[0], "weight", weight), {"weight": number(0.5)}),
    "Neuron.activation": (
        lambda w: lambda activation: setattr(w.n, "activation", activation),
        {"activation": a_name("relu")},
    ),
    "Node.frozen": (lambda w: lambda frozen: setattr(w.p, "frozen", frozen), {"frozen": TRUTH}),
    "Edge.frozen": (lambda w: lambda frozen: setattr(w.n.edges[0], "frozen", frozen), {"frozen": TRUTH}),
    "Model.frozen": (lambda w: lambda frozen: setattr(w.net, "frozen", frozen), {"frozen": TRUTH}),
    "Layer.frozen": (lambda w: lambda frozen: setattr(w.net.layers[0], "frozen", frozen), {"frozen": TRUTH}),
    "Neuron.bias": (lambda w: lambda bias: setattr(w.n, "bias", bias), {"bias": number(0.5, optional=True)}),
    "Layer.weights": (
        lambda w: lambda weights: setattr(w.net.layers[1], "weights", weights),
        {"weights": array(WEIGHTS.T[:3])},
    ),
    "Layer.mask": (
        lambda w: lambda mask: setattr(w.net.layers[1], "mask", mask),
        {
            "mask": Kind(
                MASK,
                {
                    **NOT_NUMBERS,
                    "number": 1,
                    "floats": MASK.astype(float),
                    "integers": MASK.astype(int),
                    "a row": MASK[0],
                    "fewer": MASK[:, 1:],
                    "no path to an output": MASK & [[True], [False], [True]],
                },
                {"list": lambda v: v.tolist()},
            )
        },
    ),
    **{
        f"Layer.{name}": (
            lambda w, name=name: lambda value: setattr(w.net.layers[0], name, value),
            {"value": share(0.5)},
        )
        for name in ("dropout", "weight_dropout")
    },
    "Layer.biases": (
        lambda w: lambda biases: setattr(w.net.layers[1], "biases", biases),
        {"biases": array(WEIGHTS[0, :3])},
    ),
    "Function": (
        lambda w: mlgraph.Function,
        {"graph": graph(lambda w: w.g), "outputs": nodes(lambda w: [w.y, w.n]), "inputs": nodes(lambda w: w.x[::-1])},
    ),
    "Function.__call__": (lambda w: w.f, {"x": DATA, "n_threads": THREADS}),
    "Function.vjp": (lambda w: w.f.vjp, {"x": DATA, "cotangent": COTANGENT, "n_threads": THREADS}),
    "Function.jvp": (lambda w: w.f.jvp, {"x": DATA, "tangent": array(X, lengths=(0, 1)), "n_threads": THREADS}),
    "Function.to_c": (
        lambda w: w.f.to_c,
        {
            "name": Kind(
                "digits",
                {
                    **NOT_NUMBERS,
                    "empty": "",
                    "space": "a b",
                    "keyword": "int",
                    "of math.h": "expf",
                    "its own": "weights",
                    "accent": "é",
                },
                {"numpy": np.str_},
            )
        },
    ),
    "Trace.__getitem__": (lambda w: w.traced.__getitem__, {"node": a_node(lambda w: w.n)}),
    "Trace.adjoint": (lambda w: w.traced.adjoint, {"node": a_node(lambda w: w.n)}),
    "Trace.of": (lambda w: lambda nodes: w.traced.of(nodes).values, {"nodes": nodes(lambda w: [w.y, w.n])}),
    "Gradients.of": (lambda w: w.gradients.of, {"node": a_node_or_id(lambda w: w.n)}),
    "Gradients.of_bias": (lambda w: w.gradients.of_bias, {"neuron": a_node_or_id(lambda w: w.n)}),
    "Model": (
        lambda w: mlgraph.Model,
        {
            "graph": graph(lambda w: w.g),
            "outputs": nodes(lambda w: [w.y, w.n], one=True),
            "loss": a_name("softmax_cross_entropy"),
        },
    ),
    **{
        f"Model.{name}": (lambda w, name=name: getattr(w.net, name), {"x": DATA, "n_threads": THREADS})
        for name in ("forward", "predict", "predict_proba")
    },
    "Model.evaluate": (
        lambda w: w.net.evaluate,
        {"x": array(X, fits=False, lengths=(0, 1)), "y": array(LABELS, labels=True), "n_threads": THREADS},
    ),
    "Model.fit": (lambda w: w.net.fit, {**OPTIONS, "y": array(LABELS, labels=True)}),
    "Model.fit to targets": (
        lambda w: w.model.fit,
        {**OPTIONS, "y": array(TARGETS, finite=True, lengths=(0, 1)), "validation": Kind((X, TARGETS))},
    ),
    "Model.gradients": (
        lambda w: w.net.gradients,
        {"x": array(X, fits=False, lengths=(0, 1)), "y": array(LABELS, labels=True), "n_threads": THREADS},
    ),
    "Model.trace": (
        lambda w: w.net.trace,
        {
            "x": DATA,
            "y": array(LABELS, labels=True, empty=True, optional=True),
            "n_threads": THREADS,
            "nodes": Kind(
                lambda w: w.net.outputs, {k: v for k, v in nodes(None).bad.items() if k != "None"}, {"tuple": tuple}
            ),
        },
    ),
    "Model.inspect": (
        lambda w: w.net.inspect,
        {
            "x": array(X, fits=False, lengths=(0, 1)),
            "y": array(LABELS, labels=True, optional=True),
            "n_threads": THREADS,
        },
    ),
    "Model.ablate": (
        lambda w: w.net.ablate,
        {"what": WITHOUT, "x": array(X, fits=False, lengths=(0, 1)), "y": LABELS_OF_ALL, "n_threads": THREADS},
    ),
    "Model.ablation_table": (
        lambda w: w.net.ablation_table,
        {
            "layer": Kind(
                lambda w: w.net.layers[0],
                {
                    "None": None,
                    "number": 0,
                    "text": "x",
                    "inputs": lambda w: [w.net.graph[0]],
                    "of another graph": [OTHER[0]],
                    "numbers": [6, 7],
                    "class": [mlgraph.Neuron],
                },
                {"neurons": lambda v: v.neurons},
            ),
            "x": array(X, fits=False, lengths=(0, 1)),
            "y": LABELS_OF_ALL,
            "n_threads": THREADS,
        },
    ),
    "Model.prune": (
        lambda w: w.net.prune,
        {
            "sparsity": share(0.25, optional=True),
            "neurons": Kind(None, {"both": 0.25}),
            "by": a_name("saliency"),
            "block": count(2),
            "data": DATA_FOR,
            **SCORED,
        },
    ),
    "Model.prune neurons": (
        lambda w: w.net.prune,
        {
            "sparsity": Kind(None, {"both": 0.25}),
            "neurons": share(0.25, optional=True),
            "by": a_name("magnitude"),
            "block": count(1),
            "data": Kind(None),
            **SCORED,
        },
    ),
    "Network.widen": (
        lambda w: w.sparse.widen,
        {
            "n": count(2),
            "seed": SEED,
            "layer": Kind(
                lambda w: w.sparse.layers[0],
                {
                    "None": None,
                    "number": 0,
                    "text": "x",
                    "neurons": lambda w: w.sparse.layers[0].neurons,
                    "the last": lambda w: w.sparse.layers[1],
                    "of another": lambda w: w.net.layers[0],
                },
            ),
        },
    ),
    "Network.regrow": (
        lambda w: w.sparse.regrow,
        {"fraction": share(0.25, all=True), "by": a_name("gradient"), "block": count(2), "data": DATA_FOR, **SCORED},
    ),
    "GradualPruning": (
        lambda w: mlgraph.GradualPruning,
        {
            "sparsity": share(0.5),
            "updates": count(20, optional=True),
            "until": share(0.5),
            "start": share(0.25),
            "scope": a_name("layer"),
            "by": a_name("saliency"),
            "initial": share(0.25),
            "block": count(4),
        },
    ),
    **{
        name: (
            lambda w, name=name: getattr(mlgraph, name),
            {
                "sparsity": share(0.5),
                "updates": count(20, optional=True),
                "until": share(0.5),
                "fraction": share(0.25, all=True),
                "block": count(4),
            },
        )
        for name in ("SET", "RigL")
    },
    "Model.save": (lambda w: w.net.save, {"path": a_path(lambda w: w.path)}),
    "Network": (lambda w: Network, {"n_inputs": count(3), "seed": SEED}),
    "Network.add_layer": (
        lambda w: w.net.add_layer,
        {
            "size": count(4),
            "activation": a_name("relu"),
            "dropout": share(0.5),
            "weight_dropout": share(0.5),
            "bias": TRUTH,
            "loss": Kind("squared_error", {k: v for k, v in a_name("").bad.items() if k != "None"}, {"numpy": np.str_}),
        },
    ),
    "load": (lambda w: mlgraph.load, {"path": a_path(lambda w: w.saved)}),
    "modelfile.save": (lambda w: lambda path: modelfile.save(w.net, path), {"path": a_path(lambda w: w.path)}),
    "datasets.load_mnist": (lambda w: datasets.load_mnist, {"folder": Kind(lambda w: w.path.parent, a_path("").bad)}),
    "datasets.read_idx": (
        lambda w: datasets.read_idx,
        {"path": a_path(lambda w: w.idx), "ndim": count(1, 1, 32, optional=True)},
    ),
    "pictures.Drawing": (lambda w: pictures.Drawing, DRAWN | PICTURE),
    "pictures.Drawing.save": (
        lambda w: pictures.Drawing(w.y).save,
        {
            "path": Kind(
                lambda w: w.path.with_name("y.svg"),
                a_path("").bad | {"other": "y.jpg", "none": "y"},
                {"text": str, "dot": lambda p: p.with_suffix(".dot")},
            )
        },
    ),
    "testing.check_gradients": (lambda w: testing.check_gradients, DIFFERENCES | {"n_threads": THREADS}),
    "testing.check_reference": (lambda w: testing.check_reference, DIFFERENCES),
    "testing.check_against_reference": (
        lambda w: testing.check_against_reference,
        CHECKED | {"cotangent": COTANGENT, "seed": SEED, "n_threads": THREADS},
    ),
    "testing.expect": (lambda w: testing.expect, CHECKED | {"cotangent": COTANGENT, "ulps": count(2, 0)}),
    "default_threads": (lambda w: mlgraph.default_threads, {}),
}
for _name in mlgraph.graph.functions.__all__:
    _parameters = inspect.signature(getattr(mlgraph, _name)).parameters
    API[_name] = lambda w, name=_name: getattr(mlgraph, name), {p: a_node(lambda w: w.x[0]) for p in _parameters}

FREE = {
    "NonFiniteError": "an exception",
    "CycleError": "an exception",
    "ModelFileError": "an exception",
    "CheckpointError": "an exception",
    "datasets.DataError": "an exception",
    "datasets.Dataset": "a record",
    "testing.Expected": "a record",
    "Edges": "a record",
    "Neurons": "a record",
    "Trace": "made by models",
    "Trace.deltas": "no argument",
    "Edge": "made by graphs",
    "Gradients": "a record",
    "History": "a record",
    "Progress": "a record",
    "Layer": "made by add_layer",
    "Node": "made by graphs",
    "Neuron": "made by graphs",
    "History.add": "of the training loop",
    "Layer.__getitem__": "as of the list of its neurons",
    "Graph.in_training": "no argument",
    "Graph.alive": "no argument",
    "Graph.sinks": "no argument",
    "Graph.copy": "no argument",
    "Graph.topology": "no argument",
    "Graph.edges": "no argument",
    "Graph.neurons": "no argument",
    "Graph.get_parameters": "no argument",
    "Graph.one_edit": "a context",
    "Graph.undo": "no argument",
    "Graph.optimizer_state": "no argument",
    "Model.undo": "no argument",
    "Model.compact": "no argument",
    "Edge.prune": "no argument",
    "Neuron.prune": "no argument",
    **dict.fromkeys((f"GradualPruning.{name}" for name in ("act", "at", "check")), "of the training loop"),
    **dict.fromkeys(("SET.act", "SET.check"), "of the training loop"),
    "Schedule": "abstract",
    **dict.fromkeys((f"Schedule.{name}" for name in ("act", "check", "due", "over")), "of the training loop"),
    **dict.fromkeys(
        (name for name in map("pictures.{}".format, pictures.__all__) if "Drawing" not in name), "tests/pictures"
    ),
    "pictures.LivePicture.update": "tests/pictures",
    "pictures.LivePicture.wait": "no argument",
    "History.to_dict": "no argument",
    "pictures.Drawing.to_dot": "no argument",
    "pictures.Drawing.to_svg": "no argument",
}
MAY_BE = {  # what is no mistake there
    "Graph.operation": {("arguments", "number")},
    "Graph.softmax": {("nodes", "numbers")},
    "Graph.sources_of": {("node", "truth")},
    "Graph.targets_of": {("node", "truth")},
    "Graph.__getitem__": {("node", "truth")},
    "Trace.of": {("nodes", "empty"), ("nodes", "empty row")},
    "Graph.add_neurons": {("biases", "number"), ("biases", "one number")},
    "Graph.compile": {("outputs", "one node"), ("inputs", "None")},
    "Function": {("inputs", "None")},
    "datasets.load_mnist": {("folder", "None")},
    **{
        name: {(p, way) for p in kinds for way in (["number"] if len(kinds) > 1 else ["number", "of another graph"])}
        for name, (_, kinds) in API.items()
        if name in mlgraph.graph.functions.__all__
    },
}
BY_PLACE = {"Graph.operation", *mlgraph.graph.functions.__all__}
ALIAS = {"function": "nodes|outputs", "nodes": "arguments", "x": "y|cotangent", "weights": "biases"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    world().net.save(folder / "saved.npz")
    (folder / "a.idx").write_bytes(b"\0\0\x08\x01\0\0\0\2ab")
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0\0\1\0\0\0\1\0\0\0\1a")
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\1\1")
    return types.SimpleNamespace(path=folder / "new.npz", saved=folder / "saved.npz", idx=folder / "a.idx")


@pytest.fixture
def new(files):
    def new():
        return types.SimpleNamespace(**vars(world()), **vars(files))

    return new


def call(name, w, changed):
    """The function with good arguments, but for those changed."""
    function, kinds = API[name][0](w), API[name][1]
    given = {p: of(kind.good, w) if p not in changed else changed[p] for p, kind in kinds.items()}
    if name in BY_PLACE:
        return function(*given.values())
    return function(**given)


def arguments(forms):
    """Those of which the table has such forms: "bad" or "same"."""
    return [
        pytest.param(name, p, id=f"{name}-{p}")
        for name, (_, kinds) in API.items()
        for p, kind in kinds.items()
        if getattr(kind, forms)
    ]


@pytest.mark.parametrize(("name", "parameter"), arguments("bad"))
def test_what_is_wrong_is_refused(new, name, parameter):
    """By a ValueError or TypeError of one line that names the argument; nothing has changed."""
    w = new()
    before = state(w)
    for way, value in API[name][1][parameter].bad.items():
        if (parameter, way) in MAY_BE.get(name, ()):
            continue
        with pytest.raises((ValueError, TypeError, IndexError)) as error:  # IndexError: as sequences do
            call(name, w, {parameter: of(value, w)})
        text = str(error.value)
        last = name.rpartition(".")[2]
        assert text.isprintable() and len(text) < 600, (way, text)
        assert re.search(rf"\b({parameter}|{last}|{ALIAS.get(parameter, parameter)})\b", text), (way, text)
        assert state(w) == before, way


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameter"), arguments("same"))
def test_what_is_right_gives_the_same_in_any_form(new, name, parameter):
    """To the bit; and what is given stays as it is."""
    w = new()
    expected, after = bits(call(name, w, {})), state(w)
    for way, change in API[name][1][parameter].same.items():
        w = new()
        value = change(of(API[name][1][parameter].good, w))
        copy = np.array(value) if isinstance(value, np.ndarray) else None
        assert bits(call(name, w, {parameter: value})) == expected, way
        assert state(w) == after, way
        assert copy is None or copy.tobytes() == np.array(value).tobytes(), way


@pytest.mark.parametrize(
    "name", [name for name, (_, kinds) in API.items() if not any(kind.same for kind in kinds.values())]
)
def test_what_is_right_is_taken(new, name):
    """Where the test above does not call the function: else what is wrong might be refused for what is right."""
    call(name, new(), {})


def hidden(thing, names):
    """The bases of a class that have none of these names, and theirs."""
    for base in thing.__bases__:
        if base is not object and base.__name__ not in names:
            yield from [*hidden(base, names), base]


OF_GRAPHS = [
    "alive_for",
    "become",
    "code_and_record",
    "columns_by_name",
    "init_lock",
    "live",
    "lock_was_lost",
    "n_sources",
    "read_by_operations",
    "require_not_training",
]
OF_MODELS = [
    "alive",
    "become",
    "ever_needed",
    "forget_nodes",
    "kept_ids",
    "layer_numbers",
    "name_of",
    "own",
    "parameter_places",
    "require_outputs",
]
FOR_OTHER_ROOMS = {
    *("Edge.parameter_places", "Node.parameter_places", "Layer.parameter_places", "Layer.bias_places"),
    *("Function.engine", *map("Graph.{}".format, OF_GRAPHS), *map("Model.{}".format, OF_MODELS)),
}
"""Methods that only other rooms of the package call, with arguments that are known to be valid."""


def public():
    """All functions and methods that are public, by name."""
    found = {}
    rooms = {"": (mlgraph, [*mlgraph.__all__, "max", "sum"])}
    rooms |= {
        **{f"{room.__name__.partition('.')[2]}.": (room, room.__all__) for room in (datasets, pictures, testing)},
        "modelfile.": (modelfile, ["save"]),
    }
    for prefix, (room, names) in rooms.items():
        for name in names:
            thing = getattr(room, name)
            if inspect.isclass(thing):
                found[prefix + name] = thing
                inherited = {name: value for base in hidden(thing, names) for name, value in vars(base).items()}
                for method, value in (inherited | vars(thing)).items():
                    if isinstance(value, property) and value.fset:
                        found[f"{prefix}{name}.{method}"] = value.fset
                    elif inspect.isfunction(value) and (
                        not method.startswith("_") or method in ("__call__", "__getitem__")
                    ):
                        found[f"{prefix}{name}.{method}"] = value
            elif callable(thing):
                found[prefix + name] = thing
    return found


def test_the_table_is_complete():
    """Whoever makes something public says here how it may be misused."""
    found = public()
    assert set(found) - FOR_OTHER_ROOMS == {name for name in API if " " not in name} | set(FREE)
    for name, (_, kinds) in API.items():
        parameters = inspect.signature(found[name.partition(" ")[0]]).parameters
        if "options" in parameters:
            parameters = inspect.signature(pictures.Drawing).parameters.keys() - {"nodes"}
        of_checkpoints = {"more", "more_arrays", "previous"}
        assert set(kinds) == set(parameters) - {"self", "model"} - of_checkpoints, name


@pytest.mark.parametrize("numbers", [-1, 10**6, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize(
    "use",
    [
        lambda g, node: node + 1,
        lambda g, node: mlgraph.sum(g[0], node),
        lambda g, node: g.add_neuron([g[0], node]),
        lambda g, node: node,
    ],
    ids=range(4),
)
def test_a_node_that_no_graph_made_reaches_no_kernel(numbers, use):
    g = Graph()
    g.inputs(3)
    with pytest.raises(ValueError, match=r"^graph: a node has sources that do not exist|was removed"):
        g.compile(use(g, mlgraph.Node(g, numbers)))
    with pytest.raises(ValueError, match=r"^graph: |: node n-?[0-9]+ was removed"):
        mlgraph.Model(g, [use(g, mlgraph.Node(g, numbers))]).forward(X[:, :3])


@pytest.mark.parametrize("id", ["x", 0.5, None, 2**40])
def test_a_node_without_a_number_changes_nothing(id):
    g = Graph()
    x, y = g.inputs(2)
    z = x * y
    with pytest.raises((TypeError, ValueError)):
        z + mlgraph.Node(g, id)
    assert g.compile([z, x + y])([[3, 4]]).tolist() == [[12, 7]]


def test_an_interrupted_edit_reaches_no_kernel():
    """Ctrl-C may strike between two lines."""
    for column in ("_code", "_start", "_count"):
        g = Graph()
        x, y = g.inputs(2)
        z = x * y
        getattr(g, column).append(1)
        with pytest.raises(RuntimeError, match=r"^graph: .* an edit was interrupted$"):
            g.compile(z)


def test_columns_that_the_data_do_not_have_reach_no_kernel():
    """A callback may add inputs to the graph that `fit` has checked the data for."""
    g = Graph()
    neuron = g.add_neuron(g.inputs(3), weights=[1, 2, 3])
    engine = Engine(g, Plan(g, [neuron.id]))
    for columns in (0, 2):
        with pytest.raises(ValueError, match=f"^x: expected 3 columns, one for each input, got {columns}$"):
            engine.execute(Examples(np.ones((5, columns)), columns), values=[neuron.id])
    with pytest.raises(ValueError, match=r"^size: expected at least one example in every step, got 0$"):
        engine.execute(Examples(np.ones((5, 3)), 3), steps=Steps.without_update(np.array([0, 0]), np.array([5, 0])))
