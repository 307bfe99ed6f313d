"""Everything that a call may need, and all that it might have changed, to the last bit."""

import types

import numpy as np
from editable import held

import mlgraph
from mlgraph import Graph, Network
from mlgraph.engine.trace import Trace
from mlgraph.models.history import History
from mlgraph.pictures import drawing
from mlgraph.sparsity.schedules import Schedule

RNG = np.random.default_rng(0)
X = RNG.integers(-8, 9, (16, 6)).astype(np.float32) / 4  # numbers that every type of float holds
LABELS = RNG.integers(0, 3, 16)
OTHER = Graph()
OTHER.inputs(50)


def world():
    """Everything that a call may need, new and always the same."""
    w = types.SimpleNamespace(g=Graph())
    w.x = w.g.inputs(6)
    w.p = w.g.parameter(0.5, "p")
    w.n = w.g.add_neuron(w.x[:4], "tanh", weights=[1, 2, -1, 0.5], bias=0.25)
    w.y = mlgraph.exp(w.n) * w.p + w.x[5]
    w.f = w.g.compile([w.y, w.n])
    w.gradients = w.f.vjp(X)
    w.model = mlgraph.Model(w.g, [w.y, w.n])
    w.traced = w.model.trace(X, np.zeros((16, 2)))
    w.net = Network(6, seed=1)
    w.net.add_layer(9, "tanh", dropout=0.25)
    w.net.add_layer(3, "softmax")
    w.sparse = Network(6, seed=1)
    w.sparse.add_layer(9, "tanh")
    w.sparse.add_layer(3, "softmax")
    w.sparse.prune(0.25)
    w.sparse.evaluate(X, LABELS)
    w.model.evaluate(X, np.zeros((16, 2)))  # what is compiled first may move parameters
    w.net.evaluate(X, LABELS)
    return w


def state(w):
    """All that a call might have changed by mistake."""
    graphs = [held(g) for g in (w.g, w.net.graph, w.sparse.graph, OTHER)]
    return graphs, bits(w.net.history), len(w.net.layers), w.net.dropout_shares


def bits(value):
    """A result, in a form that can be compared to the last bit."""
    if isinstance(value, np.ndarray | np.generic):
        return value.shape, value.dtype, value.tobytes()
    if isinstance(value, mlgraph.Node):
        return value.id
    if isinstance(value, mlgraph.Edge):
        return bits(tuple(value))
    if isinstance(value, mlgraph.Function):
        return bits(value(X))
    if isinstance(value, Network):
        return (
            bits(value.predict_proba(X)) if value.layers else (repr(value), value._random.bit_generator.state["state"])
        )
    if isinstance(value, mlgraph.Model):
        return bits(value.forward(X))
    if isinstance(value, mlgraph.Layer):
        return bits(value.weights)
    if isinstance(value, drawing.Drawing):
        return value.to_dot()
    if isinstance(value, History):
        return [bits(column) for name, column in vars(value).items() if name != "epoch_seconds"]
    if isinstance(value, Graph | Schedule):
        return repr(value)
    if isinstance(value, Trace):
        return bits([value.nodes, value.values, value.adjoints])
    if isinstance(value, dict):
        return {key: bits(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [bits(v) for v in value]
    assert value is None or isinstance(value, bool | int | float | str | range), type(value)
    return value
