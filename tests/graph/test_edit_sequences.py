"""Random sequences of edits, training steps, saving and loading, compared with a mirror in NumPy."""

import collections

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import mlgraph
from mlgraph.engine import reference
from mlgraph.graph import arrays
from mlgraph.models.running import engine_of

N, RATE, MOMENTUM = 5, 0.05, 0.9
INPUTS, SIZES = 4, (9, 5, 3)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, INPUTS)).astype(np.float32)
Y = RNG.normal(size=(N, SIZES[-1])).astype(np.float32)


def network():
    net = mlgraph.Network(INPUTS, seed=1)
    for size in SIZES[:-1]:
        net.add_layer(size, "tanh")
    net.add_layer(SIZES[-1], "identity")
    return net


ACTIVATIONS = {  # value of the sum; derivative, from the value
    "identity": (lambda z: z, lambda y: 1.0),
    "tanh": (np.tanh, lambda y: 1 - y**2),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda y: y * (1 - y)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda y: np.where(y > 0, 1, 0.01)),
}


class Mirror:
    """Edges and biases (None where there is none) as dictionaries to (weight, velocity); activations by neuron."""

    def __init__(self, net):
        self.net, self.last, self.several = net, None, None
        self.read()
        self.most = self.counts(self.edges)  # edges that each neuron was made with, or has had since
        self.outputs = [node.id for node in net.outputs]
        self.layers = [list(range(INPUTS)), *(list(layer.ids) for layer in net.layers)]
        self.activations = {node: net.graph[node].activation for node in self.biases}

    def read(self):
        g = self.net.graph
        edges = arrays.wiring(g)
        velocity = (
            g.storage.state_vector("first", fresh=False) if "first" in g.storage.state else np.zeros_like(g.parameters)
        )
        ends = zip(edges.source.tolist(), edges.target.tolist(), strict=True)
        values = zip(g.parameters[edges.place].tolist(), velocity[edges.place].tolist(), strict=True)
        self.edges = dict(zip(ends, values, strict=True))
        assert len(self.edges) == len(edges.source), "no edge is there twice"
        at = {node.id: g.storage.bias[g._data[node.id]] for node in g if isinstance(node, mlgraph.Neuron)}
        self.biases = {node: (float(g.parameters[i]), float(velocity[i])) if i >= 0 else None for node, i in at.items()}

    @property
    def made(self):
        return sum(self.most.values())

    def counts(self, edges):
        return collections.Counter(t for _, t in edges)

    # What is live, and what is needed.

    def sources(self, node, edges):
        return [s for s, t in edges if t == node]

    def live(self, edges):
        live = set(range(INPUTS))
        while True:
            more = {t for s, t in edges if s in live} - live
            if not more:
                return live
            live |= more

    def needed(self, edges):
        needed = set(self.outputs)
        while True:
            more = {s for s, t in edges if t in needed} - needed
            if not more:
                return needed
            needed |= more

    def order(self, edges):
        done = []

        def visit(node):
            if node not in done:
                for source in self.sources(node, edges):
                    visit(source)
                done.append(node)

        for node in self.biases:
            visit(node)
        return [node for node in done if node >= INPUTS]

    # Edits: what should come of them; None if they should be refused.

    def cut(self, gone, sweep=False):
        edges = {edge: v for edge, v in self.edges.items() if edge not in gone}
        live, before = self.live(edges), self.live(self.edges)
        if not live.issuperset(self.outputs):
            return None
        alive = before & self.needed(self.edges) if sweep else set()
        kept = self.needed(edges) | (set(self.biases) - alive)
        # What somebody has added to what was not live, or not needed, stays.
        return {(s, t): v for (s, t), v in edges.items() if (s in live or s not in before) and t in kept}

    def add(self, edge, weight):
        source, target = edge
        below, more = {target}, {target}
        while more:
            more = {t for s, t in self.edges if s in more} - below
            below |= more
        return None if source in below else {**self.edges, edge: (float(np.float32(weight)), 0.0)}

    def become(self, edges, activations=None, biases=None):
        before = self.edges, self.activations, self.biases, self.most
        if self.several is not None:
            self.several.append(before)
        else:
            self.last = [before]  # also where nothing has changed
        self.edges, self.most = edges, self.most | self.counts(edges)
        self.activations, self.biases = activations or self.activations, biases or self.biases

    def undo(self):
        for before, activations, biases, most in reversed(self.last):
            self.edges = {edge: self.edges.get(edge, old) for edge, old in before.items()}
            self.biases = {node: old and (self.biases[node] or old) for node, old in biases.items()}
            self.activations, self.most = activations, most
        self.last = None

    # Learning.

    def forward(self):
        values, live = dict(enumerate(X.T.astype(float))), self.live(self.edges)
        for node in self.order(self.edges):
            bias = self.biases[node][0] if self.biases[node] else 0
            z = bias + sum(self.edges[s, node][0] * values[s] for s in self.sources(node, self.edges))
            values[node] = ACTIVATIONS[self.activations[node]][0](z) * (node in live) + np.zeros(N)
        return values

    def step(self):
        values = self.forward()
        live, needed = self.live(self.edges), self.needed(self.edges)
        delta = {node: np.zeros(N) for node in values}
        for k, node in enumerate(self.outputs):
            delta[node] = 2 * (values[node] - Y[:, k]) / N
        for node in reversed(self.order(self.edges)):
            delta[node] = delta[node] * ACTIVATIONS[self.activations[node]][1](values[node])
            if node not in live or node not in needed:
                continue
            for source in self.sources(node, self.edges):
                w, v = self.edges[source, node]
                delta[source] = delta[source] + w * delta[node]
                v = MOMENTUM * v + float(values[source] @ delta[node])
                self.edges[source, node] = w - RATE * v, v
            if self.biases[node]:
                b, v = self.biases[node]
                v = MOMENTUM * v + float(delta[node].sum())
                self.biases[node] = b - RATE * v, v

    # In step?

    def check(self):
        net, expected, g = self.net, dict(self.edges), self.net.graph
        biases = dict(self.biases)
        self.read()
        assert set(self.edges) == set(expected)
        assert {n for n, b in self.biases.items() if b} == {n for n, b in biases.items() if b}
        for mine, theirs in ((self.edges, expected), (self.biases, biases)):
            for key in filter(mine.get, mine):
                np.testing.assert_allclose(mine[key], theirs[key], rtol=1e-4, atol=1e-5, err_msg=str(key))
        live, needed = self.live(self.edges), self.needed(self.edges)
        alive = live & needed
        assert [node.id for node in g if node.alive] == [node.id for node in g if node.id in alive]
        n_alive = sum(s in alive and t in alive for s, t in self.edges)
        assert net.n_edges == n_alive and net.sparsity == pytest.approx(max(0, 1 - n_alive / self.made))
        assert self.activations == {node: g[node].activation for node in self.biases}
        assert all(
            sorted(n.id for n in g[i].targets) == sorted(t for s, t in self.edges if s == i) for i in range(len(g))
        )
        want = np.array([self.forward()[node] for node in self.outputs]).T
        np.testing.assert_allclose(net.forward(X), want, rtol=1e-4, atol=1e-5)
        plan = engine_of(net, net.output_ids).plan
        values = reference.forward(plan, g.parameters, X)
        np.testing.assert_allclose(values[plan.slot[self.outputs]].T, want, rtol=1e-9, atol=1e-12)


def edit(mirror, kind, a, b, share, path):
    """One edit of the network and of its mirror."""
    net, g = mirror.net, mirror.net.graph
    edges = sorted(mirror.edges)
    if kind == "neuron":
        victim = mirror.layers[1 + a % 2][b % SIZES[a % 2]]
        what, want = [g[victim]], mirror.cut({edge for edge in edges if victim in edge})
    elif kind == "edges":
        gone = [edges[(a + 7 * k) % len(edges)] for k in range(1 + b % 12)]
        what, want = [(g[s], g[t]) for s, t in gone], mirror.cut(set(gone))
    if kind in ("neuron", "edges"):
        if want is None:
            with pytest.raises(ValueError, match="this would disconnect"):
                g.prune(what)
        else:
            g.prune(what)
            mirror.become(want)
    elif kind == "add":
        nodes = [*range(INPUTS), *mirror.biases]
        edge = nodes[a % len(nodes)], list(mirror.biases)[b % len(mirror.biases)]
        if edge in mirror.edges:
            with pytest.raises(ValueError, match="already exists"):
                g.add_edge(g[edge[0]], g[edge[1]], share)
            return
        want = mirror.add(edge, share)
        if want is None:
            with pytest.raises(mlgraph.CycleError):
                g.add_edge(g[edge[0]], g[edge[1]], share)
        else:
            g.add_edge(g[edge[0]], g[edge[1]], share)
            mirror.become(want)
    elif kind == "activation":
        node, name = list(mirror.biases)[a % len(mirror.biases)], list(ACTIVATIONS)[b % len(ACTIVATIONS)]
        g[node].activation = name
        mirror.become(mirror.edges, {**mirror.activations, node: name})
    elif kind == "bias":  # of the first two hidden neurons, so that it often is one that is not there
        node = mirror.layers[1][a % 2]
        bias, there = (None if b % 2 else share), mirror.biases[node]
        g[node].bias = bias
        new = {**mirror.biases, node: None if bias is None else (float(np.float32(bias)), there[1] if there else 0.0)}
        if bias is None or there is None:
            mirror.become(mirror.edges, biases=new)
        else:
            mirror.biases = new
    elif kind == "undo":
        if mirror.last is None:
            with pytest.raises(ValueError, match="undo: "):
                net.undo()
        else:
            net.undo()
            mirror.undo()
    elif kind == "several":
        mirror.several = []
        with g.one_edit():
            for k in range(b % 4):
                edit(mirror, KINDS[(a + 5 * k) % KINDS.index("undo")], a + 31 * k, b + 17 * k, share, path)
        mirror.last, mirror.several = mirror.several, None
    elif kind == "prune":
        before = dict(mirror.edges)
        net.prune(share, by="random", seed=b)  # within a run it keeps what outputs need, and refuses nothing
        after = set(zip(*(ends.tolist() for ends in (arrays.wiring(g).source, arrays.wiring(g).target)), strict=True))
        assert after <= set(before)
        want = mirror.cut(set(before) - after, sweep=True)
        assert set(want) == after and net.n_edges <= max(round((1 - share) * mirror.made), 0)
        mirror.become(want)
    elif kind == "regrow":
        before = dict(mirror.edges)
        alive = mirror.live(before) & mirror.needed(before)
        free = {
            (s, t)
            for x, y in zip(mirror.layers, mirror.layers[1:], strict=False)
            for s in x
            for t in y
            if s in alive and t in alive
        } - set(before)
        data = (X, Y) if a % 2 else None
        net.regrow(share, by="gradient" if data else "random", seed=b, data=data)
        after = set(zip(*(ends.tolist() for ends in (arrays.wiring(g).source, arrays.wiring(g).target)), strict=True))
        new = after - set(before)
        assert new <= free and set(before) <= after
        # Where an edge goes from a layer to one before, some places are left out, which might make a cycle.
        assert (
            len(new) <= round(share * len(free))
            if any(s > t for s, t in before)
            else len(new) == round(share * len(free))
        )
        mirror.become({**before, **dict.fromkeys(new, (0.0, 0.0))})
    elif kind == "file":
        net.save(path)
        back = mlgraph.load(path)
        assert back.forward(X).tobytes() == net.forward(X).tobytes() and back.sparsity == net.sparsity
        twin = Mirror(back)
        assert {e: w for e, (w, _) in twin.edges.items()} == {e: w for e, (w, _) in mirror.edges.items()}
        assert twin.activations == mirror.activations
        assert {n: b and b[0] for n, b in twin.biases.items()} == {n: b and b[0] for n, b in mirror.biases.items()}


KINDS = [
    "neuron",
    "edges",
    "edges",
    "add",
    "add",
    "activation",
    "bias",
    "prune",
    "regrow",
    "regrow",
    "undo",
    "undo",
    "several",
    "file",
    "step",
]
EDITS = st.tuples(
    st.sampled_from(KINDS), st.integers(0, 999), st.integers(0, 999), st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.85])
)


@given(st.lists(EDITS, min_size=1, max_size=14))
@pytest.mark.slow
def test_any_sequence_of_edits(tmp_path_factory, sequence):
    """All edits happen within one run, so momentum must follow them."""
    path = tmp_path_factory.mktemp("edits") / "model.npz"
    net = network()
    mirror, left = Mirror(net), list(sequence)

    def between(progress):
        if progress.kind != "epoch":
            return
        mirror.step()
        mirror.check()
        while left:
            kind, *arguments = left.pop(0)
            if kind == "step":
                break
            edit(mirror, kind, *arguments, path)
            mirror.check()

    epochs = 2 + sum(kind == "step" for kind, *_ in sequence)
    net.fit(X, Y, epochs=epochs, batch_size=N, learning_rate=RATE, momentum=MOMENTUM, shuffle=False, callback=between)
    assert not left
