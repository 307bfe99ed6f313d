"""Check that an installed mlgraph learns which of two numbers is larger and finds its data set."""

import numpy as np

import mlgraph
import mlgraph_ext
from mlgraph.datasets import load_mnist

rng = np.random.default_rng(0)
x = rng.random((1024, 2), dtype=np.float32)
y = (x[:, 0] > x[:, 1]).astype(np.uint8)

net = mlgraph.Network(2, seed=0)
net.add_layer(8, activation="leaky_relu")
net.add_layer(2, activation="softmax")
net.fit(x, y, epochs=20, batch_size=(32, 32), learning_rate=(0.5, 0.01), momentum=0.9, seed=0)
accuracy = net.evaluate(x, y)["accuracy"]

print(f"{mlgraph.__file__}: {mlgraph_ext.ISA} of {mlgraph_ext.AVAILABLE}, accuracy {accuracy:.3f}")
assert accuracy > 0.95
assert load_mnist().train_x.shape == (60000, 784)
