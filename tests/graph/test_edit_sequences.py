"""Random sequences of edits, training steps, saving and loading, compared with a mirror in NumPy."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import mlgraph
from mlgraph.engine import reference
from mlgraph.models.running import engine_of

EXAMPLES, RATE, MOMENTUM = 5, 0.05, 0.9
SIZES = (4, 9, 5, 3)
ENDS = np.cumsum(SIZES)
INPUTS, NODES = ENDS[0], ENDS[-1]
LAYERS = np.repeat(range(len(SIZES)), SIZES)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(EXAMPLES, INPUTS)).astype(np.float32)
Y = RNG.normal(size=(EXAMPLES, SIZES[-1])).astype(np.float32)
ACTIVATIONS = {  # value of the sum; derivative, from the value
    "identity": (lambda z: z, np.ones_like),
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda y: y * (1 - y)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda y: np.where(y > 0, 1, 0.01)),
}
NAMES = list(ACTIVATIONS)


def network():
    net = mlgraph.Network(int(INPUTS), seed=1)
    for size in SIZES[1:-1]:
        net.add_layer(size, "tanh")
    net.add_layer(SIZES[-1], "identity")
    return net


def reached(first, edges):
    """The nodes to which edges lead from some nodes, and these."""
    for _ in range(NODES):
        first = first | first @ edges[:NODES]
    return first


def live(edges):
    return reached(LAYERS == 0, edges)


def needed(edges):
    return reached(LAYERS == len(SIZES) - 1, edges[:NODES].T)


def read(graph):
    """The edges of a graph, bool of shape (NODES + 1, NODES), the last row for biases; their weights and velocities."""
    edges, values = np.zeros((NODES + 1, NODES), bool), np.zeros((2, NODES + 1, NODES))
    velocity = graph.storage.vectors().get("first", np.zeros_like(graph.parameters))
    for i in range(INPUTS, NODES):
        rows = graph.sources_of(i).tolist() + [NODES] * (graph[i].bias is not None)
        places = graph[i].parameter_places()
        assert len(set(rows)) == len(rows) == len(places)
        edges[rows, i] = True
        values[:, rows, i] = graph.parameters[places], velocity[places]
    return edges, values


class Mirror:
    """A network as dense matrices. Each kind of edit is a method: it edits the network, and predicts the result."""

    def __init__(self, net, path):
        self.net, self.graph, self.path = net, net.graph, path
        self.edges, self.values = read(net.graph)
        self.activations = [node.activation for node in list(net.graph)[INPUTS:]]
        self.most = self.edges[:NODES].sum(0)  # of the edges into each neuron
        self.done, self.undone, self.within = [], [], None

    def become(self, edges, activations=None):
        before = self.edges, self.values.copy(), self.activations, self.most
        if self.within is None:
            self.done.append([before])  # also if nothing has changed
            self.undone.clear()
        else:
            self.within.append(before)
        self.edges, self.activations = edges, activations or self.activations
        self.most = np.maximum(self.most, edges[:NODES].sum(0))

    def without(self, gone, sweep=False):
        """The edges that are left after these are cut; None if that must be refused."""
        edges = self.edges & ~gone
        now, before = live(edges), live(self.edges)
        if not now[LAYERS == len(SIZES) - 1].all():
            return None
        idle = before & needed(self.edges) & ~needed(edges) & sweep
        edges[:NODES] &= (now | ~before)[:, None] & ~idle  # edges that were added to what was dead stay
        return edges

    def cut(self, what, gone):
        edges = self.without(gone)
        if edges is None:
            with pytest.raises(ValueError, match="this would disconnect"):
                self.graph.prune(what)
        else:
            self.graph.prune(what)
            self.become(edges)

    def cut_neuron(self, a, b, share):
        victim, gone = INPUTS + (a + b) % (SIZES[1] + SIZES[2]), np.zeros_like(self.edges)
        gone[victim] = gone[:NODES, victim] = True
        self.cut([self.graph[victim]], gone)

    def cut_edges(self, a, b, share):
        edges, gone = np.argwhere(self.edges[:NODES]), np.zeros_like(self.edges)
        pairs = [tuple(edges[(a + 7 * k) % len(edges)].tolist()) for k in range(1 + b % 12)]
        gone[tuple(np.transpose(pairs))] = True
        self.cut(pairs, gone)

    def add(self, a, b, share):
        source, target = a % NODES, INPUTS + b % (NODES - INPUTS)
        cycle = reached(np.arange(NODES) == target, self.edges)[source]
        if self.edges[source, target] or cycle:
            with pytest.raises(ValueError, match=r"already exists|form a cycle"):
                self.graph.add_edge(source, target, share)
            return
        self.graph.add_edge(source, target, share)
        edges = self.edges.copy()
        edges[source, target] = True
        self.become(edges)
        self.values[:, source, target] = share, 0

    def activation(self, a, b, share):
        k, name = a % len(self.activations), NAMES[b % len(NAMES)]
        self.graph[INPUTS + k].activation = name
        self.become(self.edges, [*self.activations[:k], name, *self.activations[k + 1 :]])

    def bias(self, a, b, share):
        """Of the first two hidden neurons, so that it often is missing."""
        node, bias = INPUTS + a % 2, None if b % 2 else share
        self.graph[node].bias = bias
        edges, had = self.edges.copy(), self.edges[NODES, node]
        edges[NODES, node] = bias is not None
        if bias is None or not had:
            self.become(edges)
            self.values[1, NODES, node] = 0
        self.values[0, NODES, node] = share

    def prune(self, a, b, share):
        self.net.prune(share, by="random", seed=b)  # within a run it keeps what outputs need
        after, _ = read(self.graph)
        assert (after <= self.edges).all() and (self.without(self.edges & ~after, sweep=True) == after).all()
        assert self.net.n_edges <= max(round((1 - share) * self.most.sum()), 0)
        self.become(after)

    def regrow(self, a, b, share):
        alive = live(self.edges) & needed(self.edges)
        free = (LAYERS[:, None] + 1 == LAYERS) & alive & alive[:, None] & ~self.edges[:NODES]
        data = (X, Y) if a % 2 else None
        self.net.regrow(share, by="gradient" if data else "random", seed=b, data=data)
        after, _ = read(self.graph)
        new = after & ~self.edges
        assert (self.edges <= after).all() and (new[:NODES] <= free).all()
        # If an edge leads back to an earlier layer, places that might make a cycle are left out.
        back, most = np.tril(self.edges[:NODES]).any(), round(share * free.sum())
        assert new.sum() <= most if back else new.sum() == most
        self.become(after)
        self.values[:, new] = 0

    def undo(self, a, b, share):
        self.reverse("undo", 1 + a % 3, self.done, self.undone)

    def redo(self, a, b, share):
        self.reverse("redo", 1 + a % 3, self.undone, self.done)

    def reverse(self, name, n, taken, added):
        """Undo or redo n edits, or as many as there are."""
        for _ in range(n):
            if not taken:
                with pytest.raises(ValueError, match=f"{name}: "):
                    getattr(self.net, name)()
                return
            getattr(self.net, name)()
            back = []
            for edges, values, activations, most in reversed(taken.pop()):
                back.append((self.edges, self.values.copy(), self.activations, self.most))
                self.values = np.where(self.edges, self.values, values)  # what has been trained since stays
                self.edges, self.activations, self.most = edges, activations, most
            added.append(back)

    def several(self, a, b, share):
        self.within = []
        with self.graph.one_edit():
            for k in range(b % 4):
                getattr(self, EDITS[(a + 5 * k) % len(EDITS)])(a + 31 * k, b + 17 * k, share)
        self.done.append(self.within)
        self.undone.clear()
        self.within = None

    def file(self, a, b, share):
        self.net.save(self.path)
        back = mlgraph.load(self.path)
        assert back.forward(X).tobytes() == self.net.forward(X).tobytes() and back.sparsity == self.net.sparsity
        edges, values = read(back.graph)
        np.testing.assert_array_equal(edges, self.edges)
        np.testing.assert_array_equal(values[0][edges], self.values[0][edges])
        assert [back.graph[i].activation for i in range(INPUTS, NODES)] == self.activations

    def apply(self, k, rows):
        """The activations, or their derivatives, of rows of all nodes; inputs have none."""
        own = zip(self.activations, rows[INPUTS:NODES], strict=True)
        return np.array([*np.zeros((INPUTS, EXAMPLES)), *(ACTIVATIONS[name][k](row) for name, row in own)])

    def forward(self):
        """The values of all nodes, and 1 for the biases: repeated until each has seen its sources."""
        weights, alive = self.values[0] * self.edges, live(self.edges)[:, None]
        start = np.concatenate([X.T, np.zeros((NODES - INPUTS, EXAMPLES)), np.ones((1, EXAMPLES))])
        values = start
        for _ in range(NODES):
            values = start + np.pad(self.apply(0, weights.T @ values) * alive, ((0, 1), (0, 0)))
        return values

    def step(self):
        """A step of training, by the same repetition backwards."""
        weights, values, active = self.values[0] * self.edges, self.forward(), live(self.edges) & needed(self.edges)
        error = np.zeros((NODES, EXAMPLES))
        error[-SIZES[-1] :] = 2 * (values[:NODES][-SIZES[-1] :] - Y.T) / EXAMPLES
        slope, delta = self.apply(1, values) * active[:, None], 0 * error
        for _ in range(NODES):
            delta = (error + weights[:NODES] @ delta) * slope
        weight, velocity = self.values
        velocity = np.where(active, MOMENTUM * velocity + values @ delta.T, velocity)
        self.values = np.array([np.where(active, weight - RATE * velocity, weight), velocity])

    def check(self):
        edges, values = read(self.graph)
        np.testing.assert_array_equal(edges, self.edges)
        np.testing.assert_allclose(values[:, edges], self.values[:, edges], rtol=1e-4, atol=1e-5)
        self.values = np.where(edges, values, self.values)
        alive = live(edges) & needed(edges)
        assert self.graph.alive().tolist() == alive.tolist()
        n_alive = (edges[:NODES] & alive & alive[:, None]).sum()
        assert self.net.n_edges == n_alive
        assert self.net.sparsity == pytest.approx(max(0, 1 - n_alive / self.most.sum()))
        assert [self.graph[i].activation for i in range(INPUTS, NODES)] == self.activations
        assert all(self.graph.targets_of(i).tolist() == np.flatnonzero(edges[i]).tolist() for i in range(NODES))
        outputs = self.net.output_ids
        want = self.forward()[outputs].T
        np.testing.assert_allclose(self.net.forward(X), want, rtol=1e-4, atol=1e-5)
        plan = engine_of(self.net, outputs).plan
        exact = reference.forward(plan, self.graph.parameters, X)[plan.slot[outputs]].T
        np.testing.assert_allclose(exact, want, rtol=1e-9, atol=1e-12)


EDITS = ["cut_neuron", "cut_edges", "cut_edges", "add", "add", "activation", "bias", "prune", "regrow", "regrow"]
KINDS = [*EDITS, "undo", "undo", "redo", "redo", "several", "file", "step"]
SHARES = st.sampled_from([0.0, 0.125, 0.25, 0.625, 0.875])
STEPS = st.tuples(st.sampled_from(KINDS), st.integers(0, 999), st.integers(0, 999), SHARES)


def run(sequence, path):
    """Make all edits within one run, so momentum must follow them."""
    net, left = network(), list(sequence)
    mirror = Mirror(net, path)

    def between(progress):
        if progress.kind != "epoch":
            return
        mirror.step()
        mirror.check()
        while left and left[0][0] != "step":
            kind, *arguments = left.pop(0)
            getattr(mirror, kind)(*arguments)
            mirror.check()
        del left[:1]

    options = {
        "batch_size": EXAMPLES,
        "learning_rate": RATE,
        "momentum": MOMENTUM,
        "shuffle": False,
        "optimizer": "sgd",
    }
    net.fit(X, Y, epochs=2 + sum(kind == "step" for kind, *_ in sequence), callbacks=[between], **options)
    assert not left


@pytest.mark.slow
@given(st.lists(STEPS, min_size=1, max_size=14))
def test_any_sequence_of_edits(tmp_path_factory, sequence):
    run(sequence, tmp_path_factory.mktemp("edits") / "model.npz")


@pytest.mark.parametrize("seed", range(3))
def test_each_kind_of_edit_in_some_order(tmp_path, seed):
    rng = np.random.default_rng(seed)
    sequence = [
        (kind, *rng.integers(0, 1000, 2).tolist(), rng.choice([0.25, 0.625])) for kind in rng.permutation(KINDS)
    ]
    run(sequence, tmp_path / "model.npz")
