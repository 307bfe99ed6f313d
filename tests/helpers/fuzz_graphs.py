"""Random graphs: built by right calls and mistakes, then run, trained, cut and saved."""

import contextlib
import operator

import numpy as np
from fuzz_files import INF, NAN, chance, check_model, one_line, pick

import mlgraph
from mlgraph.graph import ops

NUMBERS = (0, 1, -1, 2, 0.5, -3.25, 1e-40, 1e30, 3e38, INF, -INF, NAN, np.float32(0.1), np.int64(7), True)
MISTAKES = (
    None,
    "x",
    "",
    b"x",
    [],
    [None],
    {},
    object(),
    1j,
    1e39,
    10**400,
    -(2**31),
    2**31,
    NAN,
    float,
    np.ones(3),
    np.array("x"),
    np.zeros(0),
    lambda: 1,
)


class Builder:
    """A graph that grows by random calls, right ones and mistakes."""

    def __init__(self, rng):
        self.rng = rng
        self.g = mlgraph.Graph()
        self.other = mlgraph.Graph().input()
        self.nodes = self.g.inputs(int(rng.integers(1, 5)))

    def node(self):
        """Mostly a late one, so that graphs are deep."""
        if chance(self.rng, 0.02):
            return self.other if chance(self.rng, 0.5) else self.mistake()
        back = (
            int(self.rng.geometric(0.15)) if chance(self.rng, 0.6) else int(self.rng.integers(1, len(self.nodes) + 1))
        )
        return self.nodes[max(0, len(self.nodes) - back)]

    def some(self, most=6):
        nodes = [self.node() for _ in range(int(self.rng.integers(0 if chance(self.rng, 0.03) else 1, most)))]
        try:
            return list(dict.fromkeys(nodes)) if chance(self.rng, 0.95) else nodes
        except TypeError:
            return nodes

    def number(self):
        return self.mistake() if chance(self.rng, 0.03) else pick(self.rng, NUMBERS)

    def small(self):
        return float(self.rng.integers(-8, 9)) / 8

    def mistake(self):
        return pick(self.rng, MISTAKES)

    def name(self, names):
        return self.mistake() if chance(self.rng, 0.02) else pick(self.rng, names)

    def matrix(self, *shape):
        if chance(self.rng, 0.03):
            return self.mistake()
        if chance(self.rng, 0.03):
            shape = (*shape[:-1], shape[-1] + 1)
        array = self.rng.integers(-8, 9, shape) / 8
        return pick(self.rng, (np.asarray, np.asfortranarray, np.float32, list, lambda a: a[::-1]))(array)

    # What may be done; each gives the new nodes.

    def add_input(self):
        return [self.g.input(pick(self.rng, (None, "x", "\n", 3)))]

    def add_constant(self):
        return [self.g.constant(self.number())]

    def add_parameter(self):
        return [self.g.parameter(self.small() if chance(self.rng, 0.9) else self.number())]

    def add_operation(self):
        name = self.name(tuple(ops.OPS))
        arity = ops.OPS[name].arity if isinstance(name, str) and name in ops.OPS else 1
        n = int(self.rng.integers(1, 6)) if arity < 0 or chance(self.rng, 0.02) else arity
        return [self.g.operation(name, *(self.node() if chance(self.rng, 0.9) else self.number() for _ in range(n)))]

    def add_by_operator(self):
        a, b = self.node(), self.node() if chance(self.rng, 0.7) else self.number()
        if not isinstance(a, mlgraph.Node):
            return []
        if chance(self.rng, 0.5):
            a, b = b, a
        how = (
            operator.add,
            operator.sub,
            operator.mul,
            operator.truediv,
            operator.pow,
            lambda a, _: -a,
            lambda a, _: abs(a),
        )
        out = pick(self.rng, how)(a, b)
        return [out] if isinstance(out, mlgraph.Node) else []

    def add_softmax(self):
        return self.g.softmax(self.some())

    def add_neuron(self):
        sources = self.some(12)
        bias = None if chance(self.rng, 0.3) else self.small() if chance(self.rng, 0.9) else self.number()
        weights = None if chance(self.rng, 0.1) else self.matrix(len(sources))
        return [self.g.add_neuron(sources, self.name(ops.ACTIVATIONS), weights=weights, bias=bias)]

    def add_neurons(self):
        sources, n = self.some(20), int(self.rng.integers(1, 20))
        biases = None if chance(self.rng, 0.3) else self.matrix(n)
        given = sources
        if chance(self.rng, 0.3):
            ids = [getattr(node, "id", 0) for node in sources]
            given = np.array(ids, pick(self.rng, ("int32", "int64", "uint16", "float64")))
        ids = self.g.add_neurons(given, self.name(ops.ACTIVATIONS), weights=self.matrix(n, len(sources)), biases=biases)
        return [self.g[i] for i in ids]

    def add_written_neuron(self):
        """A sum of products with parameters, which the plan finds."""
        terms = [self.g.parameter(self.small()) * node for node in self.some()]
        out = terms[0]
        for term in terms[1:]:
            out = out + term
        return [mlgraph.tanh(out + self.g.parameter(self.small()))]

    def add_edge(self):
        self.g.add_edge(self.node(), self.node(), self.small() if chance(self.rng, 0.9) else self.number())

    def cut(self):
        self.g.prune(self.some())

    def cut_edges(self):
        neuron = self.node()
        self.g.prune([(source, neuron) for source in neuron.sources if chance(self.rng, 0.5)])

    def undo(self):
        self.g.undo()
        self.nodes = [node for node in self.nodes if node.id < len(self.g)]

    def set_weights(self):
        neuron = self.node()
        neuron.weights = self.matrix(len(neuron.sources))

    def set_bias(self):
        self.node().bias = self.number()

    def set_value(self):
        self.node().value = self.number()

    def look(self):
        node = self.node()
        assert isinstance(repr(node), str) and isinstance(str(node), str)
        self.g[self.rng.integers(len(self.g)) if chance(self.rng, 0.9) else self.mistake()]

    def compile(self):
        self.g.compile(self.some())(self.rows(3))

    def rows(self, n):
        shape = n, self.g.n_inputs
        x = self.rng.integers(-8, 9, shape) / 4 * (self.rng.random(shape) < pick(self.rng, (0.2, 1)))
        return pick(self.rng, (np.asarray, np.float32, np.asfortranarray, lambda x: np.uint8(np.abs(x) * 9)))(x)

    def state(self):
        g = self.g
        columns = [c.tobytes() for part in (g, g.storage) for c in vars(part).values() if isinstance(c, type(g._code))]
        return len(g), g.edits, columns, g.parameters.tobytes(), list(g.storage.state), dict(g.names)


ACTIONS = (
    ["add_operation"] * 6
    + ["add_by_operator"] * 6
    + ["add_neuron"] * 3
    + ["add_neurons"] * 2
    + [
        "add_constant",
        "add_parameter",
        "add_softmax",
        "add_written_neuron",
        "add_input",
        "set_weights",
        "set_bias",
        "set_value",
        "look",
        "compile",
        "add_edge",
        "add_edge",
        "cut",
        "cut_edges",
        "undo",
    ]
)


def fuzz_graph(rng, folder):
    """Random calls; what they built is run, trained and saved, and held against the reference."""
    builder = Builder(rng)
    g = builder.g
    mistakes = 0
    for _ in range(int(rng.integers(1, 30))):
        action = pick(rng, ACTIONS)
        before = builder.state() if action not in ("compile", "add_written_neuron") else None
        try:
            new = getattr(builder, action)() or []
            builder.nodes += [node for node in new if node.graph is g]
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            one_line(error)
            mistakes += 1
            if before is not None and builder.state() != before:
                raise AssertionError(f"{action} changed something, and failed") from error
    outputs = [node for node in builder.some(4) if isinstance(node, mlgraph.Node) and node.graph is g]
    outputs = outputs or [builder.nodes[-1]]
    f = g.compile(outputs)
    x = builder.rows(int(pick(rng, (1, 2, 31, 32, 33, 70))))
    mlgraph.testing.check_against_reference(f, x, seed=int(rng.integers(100)), n_threads=1)
    one, three = f(x, n_threads=1), f(x, n_threads=3)
    # IEEE 754 (6.3) leaves the sign of a NaN made of two NaNs open; it depends on how tiles are swept.
    assert ((one.view(np.int32) == three.view(np.int32)) | (np.isnan(one) & np.isnan(three))).all()

    loss = pick(rng, ("squared_error", "softmax_cross_entropy", "binary_cross_entropy", outputs[0]))
    before = builder.state()
    try:
        model = mlgraph.Model(g, outputs, loss)
    except ValueError as error:  # outputs without a live source, or one for a softmax
        one_line(error)
        assert builder.state() == before
        return "mistakes"
    labels, targets = rng.integers(0, len(outputs), len(x)), rng.random((len(x), len(outputs)))
    y = labels if loss == "softmax_cross_entropy" else targets if isinstance(loss, str) else ()
    trained = g.parameters.copy()
    try:
        model.fit(
            x,
            y,
            epochs=2,
            batch_size=int(rng.integers(1, 80)),
            learning_rate=1e-3,
            n_threads=int(rng.integers(1, 4)),
            optimizer=pick(rng, ("sgd", "adam")),
            momentum=pick(rng, (0, 0.5)),
        )
    except (mlgraph.NonFiniteError, ValueError) as error:
        one_line(error)
    if np.isfinite(trained).all():
        assert np.isfinite(g.parameters).all()
    check_model(model, folder)
    if chance(rng, 0.5):
        with contextlib.suppress(ValueError):  # too much, or a graph without edges
            model.prune(rng.random(), by=pick(rng, ("magnitude", "random")), seed=1)
        mlgraph.testing.check_against_reference(g.compile(model.outputs), x)
        check_model(model, folder)
    return "mistakes" if mistakes else "none"
