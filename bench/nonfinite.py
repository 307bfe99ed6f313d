"""Compare the policies for a neuron that is not finite: raise and start again, skip, clamp, or disconnect.

    python bench/nonfinite.py

The author of ml-rust asked whether to disconnect it ("after all, it's dead"), and left it open;
ml-rust clamps. Networks 784-32-10 are made to overflow on MNIST in four ways, and trained under
each policy from the same starts on the same batches. The table has the final test accuracy (its
mean, standard deviation and range over the seeds), and how many of the 32 hidden neurons are left.
If one neuron is at fault, "without" is the network that never had it: the best that disconnecting
it can reach.
"""

import argparse
import statistics
from typing import NamedTuple

import numpy as np

import mlgraph
from mlgraph.datasets import load_mnist
from mlgraph.engine.steps import epoch_order, epoch_steps

HIDDEN, CLASSES, BATCH, MOMENTUM = 32, 10, 128, 0.9
FLOAT32_MAX = np.finfo(np.float32).max


class Way(NamedTuple):
    """A way to overflow: which hidden neurons are raised to which power, which softmax, which learning rate."""

    text: str
    rate: float
    powers: int = 1
    raised: int = 0
    by_hand: bool = False


WAYS = [
    Way("learning rate 3", 3.0),
    Way("softmax by hand, rate 1", 1.0, by_hand=True),
    Way("all neurons squared, rate 0.1", 0.1, 2, HIDDEN),
    Way("one neuron cubed, rate 0.2", 0.2, 3, 1),
]
POLICIES = ("ignore", "clamp", "restart", "skip", "disconnect", "without")


class Data(NamedTuple):
    """Images, labels, and images with their labels as ten more columns, for the softmax that is written by hand."""

    x: np.ndarray
    y: np.ndarray
    xy: np.ndarray


def weights(rng: np.random.Generator, fan_in: int, size: int) -> np.ndarray:
    return rng.standard_normal((size, fan_in), np.float32) / np.float32((3 * fan_in) ** 0.5)


def build(way: Way, seed: int) -> tuple[mlgraph.Model, list[mlgraph.Neuron]]:
    """The network as a graph, and its hidden neurons."""
    rng, g = np.random.default_rng(seed), mlgraph.Graph()
    x = g.add_inputs(784)
    target = g.add_inputs(CLASSES) if way.by_hand else []
    first = weights(rng, 784, HIDDEN)
    hidden: list[mlgraph.Node] = []
    for part, activation in ((slice(0, way.raised), "identity"), (slice(way.raised, HIDDEN), "leaky_relu")):
        if len(first[part]):
            hidden += [
                g[i] for i in g.add_neurons(x, activation, weights=first[part], biases=np.zeros(len(first[part])))
            ]
    outputs = list(hidden)
    for k in range(way.raised):
        for _ in range(way.powers - 1):
            outputs[k] = outputs[k] * hidden[k]
    logits = [g[i] for i in g.add_neurons(outputs, weights=weights(rng, HIDDEN, CLASSES), biases=np.zeros(CLASSES))]
    if not way.by_hand:
        return mlgraph.Model(g, logits, "softmax_cross_entropy"), hidden
    exponentials = [mlgraph.exp(z) for z in logits]
    total = mlgraph.sum(*exponentials)
    loss = -mlgraph.sum(*[t * mlgraph.log(e / total) for t, e in zip(target, exponentials, strict=True)])
    return mlgraph.Model(g, logits, loss), hidden


class Numpy:
    """The same network in numpy, float32; what is not finite goes through `clean`, after every operation."""

    def __init__(self, way: Way, seed: int, *, clamp: bool) -> None:
        self.way, rng = way, np.random.default_rng(seed)
        self.random = np.random.default_rng([seed, 1])
        self.clamp = clamp
        first = weights(rng, 784, HIDDEN)
        shapes = [first, np.zeros(HIDDEN, np.float32), weights(rng, HIDDEN, CLASSES), np.zeros(CLASSES, np.float32)]
        self.parameters, self.velocity = shapes, [np.zeros_like(p) for p in shapes]

    def clean(self, x: np.ndarray) -> np.ndarray:
        """As ml-rust did: very large numbers for infinities, random numbers for NaN."""
        if not self.clamp:
            return x
        bad = np.isnan(x)
        if bad.any():
            x = np.where(bad, self.random.uniform(-1, 1, x.shape).astype(np.float32), x)
        return np.clip(x, -FLOAT32_MAX, FLOAT32_MAX)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w1, b1, w2, b2 = self.parameters
        n, clean = self.way.raised, self.clean
        z = clean(x @ w1.T + b1)
        h = np.where(z > 0, z, np.float32(0.01) * z)
        h[:, :n] = z[:, :n]
        for _ in range(self.way.powers - 1):
            h[:, :n] = clean(h[:, :n] * z[:, :n])
        return z, h, clean(h @ w2.T + b2)

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> None:
        n, clean, raised = len(x), self.clean, self.way.raised
        z, h, o = self.forward(x)
        target = np.eye(CLASSES, dtype=np.float32)[y]
        if self.way.by_hand:
            e = clean(np.exp(o))
            total = clean(e.sum(axis=1, keepdims=True))
            p = clean(e / total)
            dp = clean(-target / np.float32(n) / p)
            de = clean(clean(dp / total) - clean((dp * p / total).sum(axis=1, keepdims=True)))
            d2 = clean(de * e)
        else:
            e = np.exp(o - o.max(axis=1, keepdims=True))
            d2 = clean((e / e.sum(axis=1, keepdims=True) - target) / np.float32(n))
        d1 = clean(d2 @ self.parameters[2])
        slope = np.where(z > 0, np.float32(1), np.float32(0.01))
        slope[:, :raised] = clean(self.way.powers * z[:, :raised] ** (self.way.powers - 1))
        d1 = clean(d1 * slope)
        gradients = [clean(d1.T @ x), clean(d1.sum(axis=0)), clean(d2.T @ h), clean(d2.sum(axis=0))]
        for k, gradient in enumerate(gradients):
            self.velocity[k] = clean(np.float32(MOMENTUM) * self.velocity[k] + gradient)
            self.parameters[k] = clean(self.parameters[k] - np.float32(rate) * self.velocity[k])

    def fit(self, data: Data, floats: np.ndarray, epochs: int, seed: int) -> None:
        rates = self.way.rate, self.way.rate / 100
        with np.errstate(all="ignore"):
            for epoch in range(epochs):
                order = epoch_order(epoch, len(floats), seed)
                steps = epoch_steps(epoch, len(floats), epochs, (BATCH, BATCH), rates)
                for first, size, rate in zip(steps.first, steps.size, steps.rate, strict=True):
                    rows = order[first : first + size]
                    self.step(floats[rows], data.y[rows], rate)

    def accuracy(self, data: Data, floats: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            return float((self.forward(floats)[2].argmax(axis=1) == data.y).mean())


class Result(NamedTuple):
    """How a run ended."""

    accuracy: float
    neurons: int
    note: float = 0.0


def run(
    way: Way, policy: str, seed: int, train: Data, test: Data, floats: tuple[np.ndarray, np.ndarray], epochs: int
) -> Result:
    """Train one network under one policy; by hand in numpy where the library has no such policy."""
    if policy in ("ignore", "clamp"):
        net = Numpy(way, seed, clamp=policy == "clamp")
        net.fit(train, floats[0], epochs, seed)
        return Result(net.accuracy(test, floats[1]), HIDDEN)
    rate, restarts = way.rate, 0
    on_nonfinite = policy if policy in ("skip", "disconnect") else "raise"
    while True:
        model, hidden = build(way, seed)
        if policy == "without":
            model.graph.prune(hidden[: way.raised])
        given = (train.xy,) if way.by_hand else (train.x, train.y)
        try:
            model.fit(
                *given,
                epochs=epochs,
                batch_size=BATCH,
                learning_rate=(rate, rate / 100),
                momentum=MOMENTUM,
                optimizer="sgd",
                seed=seed,
                on_nonfinite=on_nonfinite,
                n_threads=1,
            )
        except mlgraph.NonFiniteError:
            # Nothing is left to disconnect: the parameters are those before the step.
            if policy == "restart":
                rate, restarts = rate / 2, restarts + 1
                continue
        logits = model.forward(test.xy if way.by_hand else test.x)
        history = model.history
        share = (history.batch_skipped if policy == "skip" else history.batch_size).sum() / (epochs * len(train.x))
        note = restarts if policy == "restart" else share
        return Result(float((logits.argmax(axis=1) == test.y).mean()), sum(n.alive for n in hidden), float(note))


def check(train: Data, floats: np.ndarray) -> None:
    """Both networks are the same: where nothing overflows they learn the same."""
    for way in WAYS:
        easy = way._replace(rate=0.01)
        model, hidden = build(easy, 0)
        given = (train.xy[:2560],) if way.by_hand else (train.x[:2560], train.y[:2560])
        model.fit(
            *given, epochs=1, batch_size=BATCH, learning_rate=(0.01, 0.0001), momentum=MOMENTUM, optimizer="sgd", seed=0
        )
        twin = Numpy(easy, 0, clamp=True)
        twin.fit(Data(train.x[:2560], train.y[:2560], train.xy), floats[:2560], 1, 0)
        for neuron, row in zip(hidden, twin.parameters[0], strict=True):
            np.testing.assert_allclose(neuron.weights, row, rtol=1e-3, atol=1e-4)


NOTES = {
    "ignore": "",
    "clamp": "",
    "restart": "{:.1f} restarts at half the rate",
    "skip": "{:.1%} of the examples skipped",
    "disconnect": "{:.0%} of the training done",
    "without": "never had it",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    mnist = load_mnist()
    train, test = (
        Data(x, y, np.hstack([x, 255 * np.eye(CLASSES, dtype=np.uint8)[y]]))
        for x, y in ((mnist.train_x, mnist.train_y), (mnist.test_x, mnist.test_y))
    )
    floats = tuple(data.x.astype(np.float32) / np.float32(255) for data in (train, test))
    check(train, floats[0])
    print(
        "| overflow by | policy | test accuracy, mean ± deviation | range | neurons left | |\n|---|---|---|---|---|---|"
    )
    rows = []
    for way in WAYS:
        row = [way.text]
        for policy in POLICIES if way.raised == 1 else POLICIES[:-1]:
            results = [run(way, policy, seed, train, test, floats, args.epochs) for seed in range(args.seeds)]
            scores = [100 * result.accuracy for result in results]
            neurons, note = (statistics.fmean(column) for column in list(zip(*results, strict=True))[1:])
            deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
            score = f"{statistics.fmean(scores):.2f} ± {deviation:.2f}"
            row += [score, f"{neurons:.1f}"] if policy == "disconnect" else [score]
            print(
                f"| {way.text} | {policy} | {score} | {min(scores):.2f} to {max(scores):.2f} | {neurons:.1f} "
                f"| {NOTES[policy].format(note)} |",
                flush=True,
            )
        rows.append(row)
    heads = ["overflow by", *POLICIES]
    heads.insert(heads.index("disconnect") + 1, "neurons left")
    print("\nTest accuracy in %, mean ± standard deviation:\n")
    for line in (heads, ["---"] * len(heads), *(row + [""] * (len(heads) - len(row)) for row in rows)):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
