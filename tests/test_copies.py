"""Every public class can be pickled, for another process, and copied with `copy.deepcopy`."""

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import mlgraph
import mlgraph.datasets
import mlgraph.exchange
import mlgraph.pictures
import mlgraph.testing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)).astype(np.float32)
Y = np.where(X[:, 0] * X[:, 1] > 0, "yes", "no")
ADJOINTS = np.ones((60, 2), np.float32)
COPIES = {"pickle": lambda made: pickle.loads(pickle.dumps(made)), "deepcopy": copy.deepcopy}


def network():
    net = mlgraph.Network(2, seed=0)
    net.add_layer(4, "tanh")
    net.add_layer(2, "softmax")
    return net


def fitted(**options):
    net = network()
    net.fit(X, Y, **{"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "standardize": True, **options})
    return net


def progress():
    """The last one of a run."""
    seen = []
    fitted(callbacks=[seen.append])
    return seen[-1]


def function():
    net = fitted()
    return net.graph.compile(net.outputs)


def model():
    net = fitted()
    return mlgraph.Model(net.graph, net.outputs, loss="mse")


def portrait():
    net = fitted()
    return mlgraph.pictures.neuron_portraits(net, net.layers[0].neurons[:1], X, Y)[0]


def scikit(name):
    estimators = pytest.importorskip("mlgraph.sklearn", exc_type=ImportError)
    options = {"max_iter": 3, "n_iter_no_change": np.inf, "random_state": 0}
    return getattr(estimators, name)(4, **options).fit(X, Y == "yes")


def weights(graph):
    return graph.get_parameters().tobytes()


ERRORS = ["CheckpointError", "CycleError", "ModelFileError", "NonFiniteError", "datasets.DataError"]
ERRORS += ["pictures.NoDisplayError"]
MADE = {
    "Callback": (mlgraph.Callback, vars),
    "EarlyStopping": (lambda: mlgraph.EarlyStopping("epoch_loss", patience=3), vars),
    "Edge": (lambda: fitted().layers[0].neurons[1].in_edges[0], lambda edge: (repr(edge), edge.weight)),
    "Edges": (lambda: fitted().graph.edges(), lambda edges: edges.weight.tobytes()),
    "Function": (function, lambda f: f(X).tobytes()),
    "Gradients": (lambda: function().vjp(X, ADJOINTS), lambda gradients: gradients.flat.tobytes()),
    "GradualPruning": (lambda: mlgraph.GradualPruning(0.5, until=0.5), repr),
    "Graph": (lambda: fitted().graph, weights),
    "History": (lambda: fitted().history, lambda history: history.batch_loss.tobytes()),
    "Layer": (lambda: fitted().layers[0], lambda layer: (layer.weights.tobytes(), layer.activation)),
    "Model": (model, lambda model: model.predict(X).tobytes()),
    "Network": (fitted, lambda net: (net.predict(X).tolist(), net.classes, net.n_edges)),
    "Neuron": (lambda: fitted().layers[0].neurons[1], lambda neuron: (repr(neuron), neuron.bias)),
    "Neurons": (lambda: fitted().graph.neurons(), lambda neurons: neurons.bias.tobytes()),
    "Node": (lambda: fitted().graph.inputs[1], lambda node: (type(node), node.id)),
    "Population": (lambda: mlgraph.Population([fitted(), fitted(seed=1)]), lambda p: p.predict(X).tolist()),
    "Progress": (progress, lambda p: (p.kind, p.epoch, p.batch_loss, p.history.epoch_loss[-1], weights(p.model.graph))),
    "QuantizedFunction": (lambda: fitted().quantize(X), lambda q: q(X).tobytes()),
    "RigL": (lambda: mlgraph.RigL(0.5), repr),
    "SET": (lambda: mlgraph.SET(0.5), repr),
    "Trace": (lambda: fitted().trace(X), lambda trace: trace.values.tobytes()),
    "datasets.Dataset": (lambda: mlgraph.datasets.Dataset(X, Y, X, Y, (1, 2), 2), str),
    "pictures.Drawing": (lambda: fitted().draw(X[:1]), lambda drawing: drawing.to_dot()),
    "pictures.Portrait": (portrait, lambda portrait: portrait.class_means.tobytes()),
    "sklearn.GraphClassifier": (lambda: scikit("GraphClassifier"), lambda estimator: estimator.predict(X).tobytes()),
    "sklearn.GraphRegressor": (lambda: scikit("GraphRegressor"), lambda estimator: estimator.predict(X).tobytes()),
    "testing.Expected": (lambda: mlgraph.testing.expect(function(), X, ADJOINTS), str),
    **{name: (lambda name=name: resolved(name)("why"), repr) for name in ERRORS},
}
NOT_MADE = {"Schedule", "pictures.LivePicture"}
"""Schedule is abstract, and a LivePicture is a window."""


def resolved(name):
    where = mlgraph
    for part in name.split("."):
        where = getattr(where, part)
    return where


def test_every_public_class_is_among_them():
    modules = {"": mlgraph} | {f"{name}.": resolved(name) for name in ("datasets", "exchange", "pictures", "testing")}
    names = {prefix + name for prefix, module in modules.items() for name in module.__all__}
    public = {name for name in names if isinstance(resolved(name), type)}
    assert public | {"sklearn.GraphClassifier", "sklearn.GraphRegressor"} == MADE.keys() | NOT_MADE


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", MADE)
def test_a_copy_has_the_same_type_and_content(name, how):
    make, content = MADE[name]
    made = make()
    copied = COPIES[how](made)
    assert type(copied) is type(made) and copied is not made
    assert content(copied) == content(made)


def edges_and_loss(progress):
    return progress.model.n_edges, float(progress.history.batch_loss[-1])


def test_a_callback_may_send_its_progress_to_another_process():
    sent = []
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        fitted(callbacks=[lambda p: sent.append((edges_and_loss(p), pool.submit(edges_and_loss, p).result()))])
    assert len(sent) >= 2 and all(there == here for here, there in sent)


@pytest.mark.parametrize("how", [*COPIES, "copy"])
def test_a_copy_of_a_progress_cannot_change_the_run_and_says_so(how):
    seen = []

    def change(progress):
        with pytest.raises(ValueError, match=r"change: .*a copy"):
            (COPIES | {"copy": copy.copy})[how](progress).change(learning_rate=0.5)
        seen.append(progress.epoch)

    net = fitted(callbacks=[change])
    assert seen and set(net.history.learning_rate.tolist()) == {np.float32(0.01)}
    fitted(callbacks=[lambda progress: progress.change(learning_rate=0.5)])  # the progress itself still can
