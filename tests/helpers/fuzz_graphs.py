"""Random graphs: built by correct and incorrect calls, then run, trained, pruned and saved."""

import contextlib
import operator

import numpy as np
from fuzz_files import INF, NAN, chance, check_model, one_line, pick

import mlgraph
from mlgraph.graph import ops

NUMBERS = (0, 1, -1, 0.5, -3.25, 1e-40, 1e30, 3e38, INF, -INF, np.float32(0.1), np.int64(7), True)
MISTAKES = (None, "x", b"x", [], [None], {}, 1j, 1e39, 10**400, 2**31, NAN, float, np.ones(3), np.array("x"))
MISTAKES += (mlgraph.Graph(seed=0).add_input(),)


class Builder:
    """A graph that grows by random calls. About one argument in seventy is a mistake."""

    def __init__(self, rng):
        self.rng, self.g = rng, mlgraph.Graph(seed=0)
        self.nodes = self.g.add_inputs(int(rng.integers(1, 5)))

    def maybe(self, value):
        return pick(self.rng, MISTAKES) if chance(self.rng, 0.015) else value

    def node(self):
        """Mostly a late one, so that graphs are deep."""
        back = self.rng.geometric(0.15) if chance(self.rng, 0.6) else self.rng.integers(1, len(self.nodes) + 1)
        return self.maybe(self.nodes[max(0, len(self.nodes) - int(back))])

    def some(self, most=6):
        nodes = [self.node() for _ in range(int(self.rng.integers(1, most)))]
        return nodes if chance(self.rng, 0.05) else list({id(node): node for node in nodes}.values())

    def number(self):
        return self.maybe(float(self.rng.integers(-8, 9)) / 8 if chance(self.rng, 0.9) else pick(self.rng, NUMBERS))

    def numbers(self, *shape):
        array = self.rng.integers(-8, 9, shape) / 8
        return self.maybe(pick(self.rng, (np.asarray, np.asfortranarray, np.float32, list))(array))

    def activation(self):
        return self.maybe(pick(self.rng, ops.ACTIVATIONS))

    def rows(self, n):
        shape = n, self.g.n_inputs
        x = self.rng.integers(-8, 9, shape) / 4 * (self.rng.random(shape) < pick(self.rng, (0.2, 1)))
        return pick(self.rng, (np.asarray, np.float32, np.asfortranarray, lambda x: np.uint8(np.abs(x) * 9)))(x)

    def state(self):
        g = self.g
        columns = [c.tobytes() for part in (g, g.storage) for c in vars(part).values() if isinstance(c, type(g._code))]
        return len(g), g.edits, columns, g.parameters.tobytes(), list(g.storage.state), dict(g.names)

    # What may be done. Each returns the new nodes, if there are any.

    def add_leaf(self):
        how = pick(
            self.rng, (self.g.add_constant, self.g.add_parameter, self.g.add_parameter, lambda _: self.g.add_input())
        )
        return [how(self.number())]

    def add_operation(self):
        name = pick(self.rng, tuple(ops.OPS))
        n = ops.OPS[name].arity if ops.OPS[name].arity > 0 else int(self.rng.integers(1, 6))
        nodes = [self.node() if chance(self.rng, 0.9) else self.number() for _ in range(n)]
        return [self.g.add_operation(self.maybe(name), *nodes)]

    def add_by_operator(self):
        how = pick(self.rng, (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow))
        return [how(self.g[int(self.rng.integers(len(self.g)))], self.maybe(self.node()))]

    def add_softmax(self):
        return self.g.add_softmax(self.some())

    def add_neurons(self):
        sources, n = self.some(20), int(self.rng.integers(1, 20))
        biases = None if chance(self.rng, 0.3) else self.numbers(n)
        given = self.maybe(sources if chance(self.rng, 0.7) else np.array([node.id for node in sources]))
        weights = self.numbers(n, len(sources))
        return [self.g[i] for i in self.g.add_neurons(given, self.activation(), weights=weights, biases=biases)]

    def add_neuron(self):
        sources = self.some(12)
        bias = None if chance(self.rng, 0.3) else self.number()
        return [self.g.add_neuron(sources, self.activation(), weights=self.numbers(len(sources)), bias=bias)]

    def add_edge(self):
        self.g.add_edge(self.node(), self.node(), self.number())

    def cut(self):
        neuron = self.node()
        edges = [(source, neuron) for source in neuron.sources if chance(self.rng, 0.5)]
        self.g.prune(self.some() if chance(self.rng, 0.5) else edges)

    def undo(self):
        self.g.undo()
        self.nodes = [node for node in self.nodes if node.id < len(self.g)]

    def assign(self):
        node = self.node()
        name = pick(self.rng, ("weights", "bias", "value"))
        setattr(node, name, self.numbers(len(node.sources)) if name == "weights" else self.number())


ACTIONS = [*["add_operation", "add_by_operator", "add_neuron"] * 4, *["add_neurons", "add_leaf", "add_edge"] * 2]
ACTIONS += ["add_softmax", "cut", "undo", "assign"]


def fuzz_graph(rng, folder):
    """Calls that fail change nothing; what the others built is run, trained and saved like any graph."""
    builder = Builder(rng)
    g, mistakes = builder.g, 0
    for _ in range(int(rng.integers(1, 20))):
        action, before = pick(rng, ACTIONS), builder.state()
        try:
            new = getattr(builder, action)() or []
            builder.nodes += new
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            one_line(error)
            mistakes += 1
            if builder.state() != before:
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
    except ValueError as error:  # outputs without a live source, or a single one for a softmax
        one_line(error)
        assert builder.state() == before
        return "mistakes"
    labels, targets = rng.integers(0, len(outputs), len(x)), rng.random((len(x), len(outputs)))
    y = labels if loss == "softmax_cross_entropy" else targets if isinstance(loss, str) else ()
    before = g.parameters.copy()
    optimizer, batch_size = pick(rng, ("sgd", "adam")), int(rng.integers(1, 80))
    try:
        model.fit(x, y, epochs=2, batch_size=batch_size, learning_rate=1e-3, n_threads=2, optimizer=optimizer)
    except (mlgraph.NonFiniteError, ValueError) as error:
        one_line(error)
    assert np.isfinite(g.parameters).all() or not np.isfinite(before).all()
    check_model(model, folder)
    with contextlib.suppress(ValueError):  # too much, or a graph without edges
        model.prune(rng.random(), by=pick(rng, ("magnitude", "random")), seed=1)
        mlgraph.testing.check_against_reference(g.compile(model.outputs), x)
        check_model(model, folder)
    return "mistakes" if mistakes else "none"
