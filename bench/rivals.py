"""The same epoch in the tensor libraries that people would pick instead: SGD with momentum 0.9 at rate 0.05, shuffled.

Each class builds itself from the sizes of the layers and has ``epoch(batch)``, and ``run(epochs,
batch)`` for many short ones. JAX runs an epoch, or all of them, in one jitted scan, the fastest way
it has; steps of a scan have one size, so that it leaves out the last examples of an epoch that fill
none (96 at batch 128, 608 at 1024).
"""

import itertools
import time

import numpy as np

import mlgraph


def network(*hidden, inputs=784, outputs=10, seed=0, **options):
    """inputs-hidden-outputs with leaky ReLU and softmax."""
    net = mlgraph.Network(inputs, seed=seed)
    for size in hidden:
        net.add_layer(size, activation="leaky_relu", **options)
    net.add_layer(outputs, activation="softmax")
    return net


class Torch:
    """PyTorch, eager."""

    name = "PyTorch eager"

    def __init__(self, sizes, x, y):
        import torch

        self.torch = torch
        self.x, self.y = torch.from_numpy(x).float() / 255, torch.from_numpy(y.astype(np.int64))
        layers = []
        for a, b in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(a, b), torch.nn.LeakyReLU()]
        self.net = torch.nn.Sequential(*layers[:-1])
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.05, momentum=0.9)
        self.loss = torch.nn.CrossEntropyLoss()

    def epoch(self, batch):
        order = self.torch.randperm(len(self.x))
        for first in range(0, len(self.x), batch):
            rows = order[first : first + batch]
            self.optimizer.zero_grad()
            self.loss(self.net(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()

    def run(self, epochs, batch):
        for _ in range(epochs):
            self.epoch(batch)

    def predict(self, x):
        with self.torch.no_grad():
            return self.net(self.torch.from_numpy(x).float() / 255).argmax(1).numpy()


class Jax:
    """JAX: one jitted scan over the steps of the epoch."""

    name = "JAX jit scan"

    def __init__(self, sizes, x, y):
        import jax
        import jax.numpy as jnp

        self.jax = jax
        x, y = jnp.asarray(x), jnp.asarray(y.astype(np.int32))
        rng = np.random.default_rng(0)
        self.parameters = [
            (jnp.asarray(rng.normal(size=(a, b)).astype(np.float32) / (3 * a) ** 0.5), jnp.zeros(b))
            for a, b in itertools.pairwise(sizes)
        ]
        self.velocity = jax.tree.map(jnp.zeros_like, self.parameters)
        self.epochs = 0

        def logits(parameters, images):
            h = images.astype(jnp.float32) / 255
            for i, (w, b) in enumerate(parameters):
                h = h @ w + b
                h = jax.nn.leaky_relu(h) if i < len(parameters) - 1 else h
            return h

        def loss(parameters, images, labels):
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, images)), labels[:, None], 1))

        def step(state, rows):
            parameters, velocity = state
            value, gradient = jax.value_and_grad(loss)(parameters, x[rows], y[rows])
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
            return (jax.tree.map(lambda p, v: p - 0.05 * v, parameters, velocity), velocity), value

        def epoch(state, key, batch):
            order = jax.random.permutation(key, len(x))
            return jax.lax.scan(step, state, order[: len(x) // batch * batch].reshape(-1, batch))

        def run(state, keys, batch):
            return jax.lax.scan(lambda state, key: epoch(state, key, batch), state, keys)

        self._epoch, self._run = (jax.jit(function, static_argnums=2) for function in (epoch, run))
        self._predict = jax.jit(lambda parameters, images: logits(parameters, images).argmax(1))

    def epoch(self, batch):
        self.epochs += 1
        key = self.jax.random.PRNGKey(self.epochs)
        (self.parameters, self.velocity), losses = self._epoch((self.parameters, self.velocity), key, batch)
        losses.block_until_ready()

    def run(self, epochs, batch):
        keys = self.jax.random.split(self.jax.random.PRNGKey(0), epochs)
        (self.parameters, self.velocity), losses = self._run((self.parameters, self.velocity), keys, batch)
        losses.block_until_ready()

    def predict(self, x):
        return np.asarray(self._predict(self.parameters, x))


class Sklearn:
    """scikit-learn's MLPClassifier (which has ReLU, and no leaky one)."""

    name = "scikit-learn"

    def __init__(self, sizes, x, y):
        from sklearn.neural_network import MLPClassifier

        self.make, self.sizes = MLPClassifier, sizes
        self.x, self.y = x.astype(np.float32) / 255, y
        self.net = None

    def epoch(self, batch):
        if self.net is None:
            self.net = self.make(
                self.sizes[1:-1],
                solver="sgd",
                learning_rate_init=0.05,
                momentum=0.9,
                alpha=0.0,
                nesterovs_momentum=False,
                batch_size=batch,
                max_iter=1,
            )
        self.net.partial_fit(self.x, self.y, classes=np.unique(self.y))

    def run(self, epochs, batch):
        for _ in range(epochs):
            self.epoch(batch)

    def predict(self, x):
        return self.net.predict(x.astype(np.float32) / 255)


EPOCHS = 10
"""Epochs of a `fit`. If few columns of the data are read, they are copied after eight."""


class Mlgraph:
    """This package, through ``net.fit``."""

    name = "mlgraph"

    def __init__(self, sizes, x, y, **options):
        inputs, *hidden, outputs = sizes
        self.net, self.x, self.y = network(*hidden, inputs=inputs, outputs=outputs, **options), x, y

    def epoch(self, batch):
        self.run(1, batch)

    def run(self, epochs, batch):
        self.net.fit(self.x, self.y, epochs=epochs, batch_size=batch, learning_rate=0.05, momentum=0.9, optimizer="sgd")

    def epochs(self, batch):
        """Return the seconds of the first epoch of a `fit`, set-up included, and of its last epoch."""
        at = [time.perf_counter()]
        self.net.fit(
            self.x,
            self.y,
            epochs=EPOCHS,
            batch_size=batch,
            learning_rate=0.05,
            momentum=0.9,
            callbacks=[lambda event: at.append(time.perf_counter()) if event.kind == "epoch" else None],
            optimizer="sgd",
        )
        return at[1] - at[0], at[-1] - at[-2]

    def predict(self, x):
        return self.net.predict(x)


ALL = {"mlgraph": Mlgraph, "jax": Jax, "torch": Torch, "sklearn": Sklearn}
"""By the names of the modules that they import."""
