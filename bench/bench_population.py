"""Many small graphs over the same data, as neuroevolution has them: in one call, one by one, and in neat-python."""

import numpy as np
import pytest

import mlgraph

MEMBERS, CONNECTIONS, NEURONS = 150, 30, 10
INPUTS, EXAMPLES = 8, 1000
FIT = {"batch_size": 32, "learning_rate": 0.01, "seed": 0}


def genome(seed):
    """A random DAG: sources of each neuron, their weights, and the bias; each neuron reads the one before it."""
    rng = np.random.default_rng(seed)
    more = np.bincount(rng.integers(0, NEURONS, CONNECTIONS - NEURONS), minlength=NEURONS)
    neurons = []
    for i in range(NEURONS):
        before = INPUTS + i
        others = rng.choice(before - 1, min(1 + more[i], before) - 1, replace=False)
        sources = [*others.tolist(), before - 1]
        neurons.append((sources, rng.normal(size=len(sources)), float(rng.normal())))
    return neurons


def model(seed):
    graph = mlgraph.Graph(seed=seed)
    nodes = list(graph.add_inputs(INPUTS))
    for sources, weights, bias in genome(seed):
        nodes.append(graph.add_neuron([nodes[i] for i in sources], "tanh", weights=weights, bias=bias))
    return mlgraph.Model(graph, nodes[-1])


def data():
    x = np.random.default_rng(0).normal(size=(EXAMPLES, INPUTS)).astype(np.float32)
    return x, np.sign(x[:, :1] * x[:, 1:2])


class Population:
    """All members in one call."""

    def __init__(self, n_threads):
        self.members = mlgraph.Population(model(seed) for seed in range(MEMBERS))
        self.n_threads = n_threads

    def forward(self, x):
        return self.members.forward(x, n_threads=self.n_threads)

    def evaluate(self, x, y):
        return self.members.evaluate(x, y, n_threads=self.n_threads)["loss"]

    def fit(self, x, y, epochs):
        self.members.fit(x, y, epochs=epochs, n_threads=self.n_threads, **FIT)


class Loop(Population):
    """One member after the other."""

    def forward(self, x):
        return np.stack([member.forward(x, n_threads=self.n_threads) for member in self.members])

    def evaluate(self, x, y):
        return np.array([member.evaluate(x, y, n_threads=self.n_threads)["loss"] for member in self.members])

    def fit(self, x, y, epochs):
        for member in self.members:
            member.fit(x, y, epochs=epochs, n_threads=self.n_threads, **FIT)


class NEAT:
    """neat-python's networks of the same graphs, one example after the other; a fiftieth of them."""

    def __init__(self):
        from neat.activations import tanh_activation
        from neat.aggregations import sum_aggregation
        from neat.nn import FeedForwardNetwork

        # neat-python's tanh is of 2.5 times the sum; here the sum alone counts as work.
        def network(seed):
            keys = [-1 - i for i in range(INPUTS)] + list(range(NEURONS))
            nodes = [
                (
                    i,
                    tanh_activation,
                    sum_aggregation,
                    bias,
                    1.0,
                    [(keys[j], w) for j, w in zip(sources, weights, strict=True)],
                )
                for i, (sources, weights, bias) in enumerate(genome(seed))
            ]
            return FeedForwardNetwork(keys[:INPUTS], [NEURONS - 1], nodes)

        self.networks = [network(seed) for seed in range(MEMBERS)]

    def forward(self, x):
        return np.array([[network.activate(row) for row in x] for network in self.networks])


WHO = {"population, 1 thread": (Population, 1), "population, 2 threads": (Population, 2), "loop": (Loop, 1)}


@pytest.fixture(params=WHO)
def members(request):
    who, n_threads = WHO[request.param]
    return who(n_threads)


@pytest.mark.benchmark(group=f"population of {MEMBERS}, {CONNECTIONS} connections: {EXAMPLES} examples forward")
def bench_population_forward(benchmark, note, members):
    x, _ = data()
    got = benchmark.pedantic(members.forward, (x,), rounds=50, warmup_rounds=2)
    note(microseconds_a_member=benchmark.stats.stats.min / MEMBERS * 1e6)
    assert np.array_equal(got[7], model(7).forward(x))


@pytest.mark.benchmark(group=f"population of {MEMBERS}, {CONNECTIONS} connections: {EXAMPLES} examples forward")
def bench_population_forward_by_neat(benchmark, note):
    pytest.importorskip("neat")
    x, few, rival = data()[0], EXAMPLES // 50, NEAT()
    rows = x[:few].tolist()
    got = benchmark.pedantic(rival.forward, (rows,), rounds=5, warmup_rounds=1)
    note(examples=few, seconds_scaled=benchmark.stats.stats.min * EXAMPLES / few)
    assert np.isfinite(got).all()


@pytest.mark.benchmark(group=f"population of {MEMBERS}, {CONNECTIONS} connections: loss of {EXAMPLES} examples")
def bench_population_evaluate(benchmark, note, members):
    x, y = data()
    got = benchmark.pedantic(members.evaluate, (x, y), rounds=50, warmup_rounds=2)
    note(microseconds_a_member=benchmark.stats.stats.min / MEMBERS * 1e6)
    assert got[7] == model(7).evaluate(x, y)["loss"]


@pytest.mark.benchmark(
    group=f"population of {MEMBERS}, {CONNECTIONS} connections: new, and {EXAMPLES} examples forward"
)
def bench_population_new(benchmark, note):
    """Conversion and compilation included: what each generation of an evolution costs."""
    x, _ = data()
    benchmark.pedantic(lambda: Population(None).forward(x), rounds=3, warmup_rounds=1)
    note(microseconds_a_member=benchmark.stats.stats.min / MEMBERS * 1e6)


@pytest.mark.parametrize("epochs", [1, 20])
def bench_population_fit(benchmark, note, members, epochs):
    benchmark.group = f"population of {MEMBERS}, {CONNECTIONS} connections: {epochs} epochs of {EXAMPLES} examples"
    x, y = data()
    members.fit(x, y, epochs)
    benchmark.pedantic(members.fit, (x, y, epochs), rounds=5 if epochs == 1 else 3)
    note(microseconds_a_member=benchmark.stats.stats.min / MEMBERS * 1e6)
    assert np.isfinite(members.evaluate(x, y)).all()
