"""Twenty tasks as someone guesses them who knows Keras, PyTorch and scikit-learn, and has read nothing of mlgraph.

    python bench/newcomer.py      # needs scikit-learn, pandas and scipy

Each prints "ok", or the first error. They are not changed to pass: an error should say what the name is
here, so that the second guess is right.
"""

import os
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.preprocessing import StandardScaler, minmax_scale

import mlgraph


def iris():
    x, y = load_iris(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order], y[order]


def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(x)[:, :8], y


def iris_net():
    net = mlgraph.Network(4, seed=0)
    net.add_layer(8, "relu")
    net.add_layer(3, "softmax")
    return net


def task_01_epochs_validation_split():
    """epochs, batch_size and validation_split in fit; history has val_loss."""
    x, y = iris()
    net = iris_net()
    # Keras: model.fit(..., epochs, batch_size, validation_split, verbose)
    history = net.fit(x, y, epochs=30, batch_size=16, validation_split=0.2, verbose=0)
    assert len(history.history["val_loss"]) == 30
    assert (net.predict(x).argmax(axis=1) == y).mean() > 0.9


def task_02_early_stopping():
    """EarlyStopping on validation_data, restoring the best weights."""
    x, y = iris()
    net = iris_net()
    # Keras: keras.callbacks.EarlyStopping(monitor, patience, restore_best_weights)
    stop = mlgraph.callbacks.EarlyStopping(monitor="val_loss", patience=5, restore_best_weights=True)
    history = net.fit(x[:100], y[:100], epochs=200, batch_size=16, validation_data=(x[100:], y[100:]), callbacks=[stop])
    assert len(history.history["val_loss"]) <= 200


def task_03_custom_callback():
    """A Callback subclass whose on_epoch_end(epoch, logs) collects the loss."""
    x, y = iris()

    # Keras: keras.callbacks.Callback, on_epoch_end(self, epoch, logs=None)
    class Collect(mlgraph.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.losses = []

        def on_epoch_end(self, epoch, logs=None):
            self.losses.append((epoch, logs["loss"]))

    collect = Collect()
    iris_net().fit(x, y, epochs=5, callbacks=[collect])
    assert [e for e, _ in collect.losses] == [0, 1, 2, 3, 4]


def task_04_history_to_pandas():
    """The history as a pandas frame with one row per epoch."""
    x, y = iris()
    # Keras: pd.DataFrame(history.history)
    history = iris_net().fit(x, y, epochs=10)
    frame = pd.DataFrame(history.history)
    assert len(frame) == 10 and "loss" in frame.columns
    assert frame["loss"].iloc[-1] < frame["loss"].iloc[0]


def task_05_metrics_in_fit():
    """metrics=["accuracy"] gives a column of accuracies, evaluate gives (loss, accuracy)."""
    x, y = iris()
    net = iris_net()
    # Keras: metrics=["accuracy"] (of compile, which fit seems to take over here)
    history = net.fit(x, y, epochs=20, batch_size=16, metrics=["accuracy"])
    assert len(history.history["accuracy"]) == 20
    loss, accuracy = net.evaluate(x, y)
    assert loss > 0 and 0.8 < accuracy <= 1


def task_06_class_weight():
    """class_weight as a dict of class -> weight."""
    x, y = cancer()
    net = mlgraph.Network(8, seed=0)
    net.add_layer(4, "tanh")
    net.add_layer(1, "sigmoid")
    # Keras: class_weight={0: .., 1: ..}
    net.fit(x, y, epochs=10, batch_size=32, class_weight={0: 5.0, 1: 1.0})
    p = np.asarray(net.predict(x)).reshape(-1)
    assert p.shape == y.shape
    assert ((p > 0.5) == y).mean() > 0.85


def task_07_string_labels_from_a_frame():
    """A pandas frame in, string labels out."""
    data = load_iris(as_frame=True)
    x = (data.data - data.data.mean()) / data.data.std()
    y = data.target.map(dict(enumerate(data.target_names)))
    net = iris_net()
    net.fit(x, y, epochs=30, batch_size=16)
    # scikit-learn: clf.predict gives the labels, clf.classes_ the names
    assert list(net.classes_) == ["setosa", "versicolor", "virginica"]
    assert (net.predict(x) == y).mean() > 0.8


def task_08_regression_column_y():
    """Regression with loss="mse" and y of shape (n, 1)."""
    x, y = load_diabetes(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    y = StandardScaler().fit_transform(y[:, None])
    net = mlgraph.Network(10, seed=0)
    net.add_layer(6, "tanh")
    net.add_layer(1, "linear")  # Keras: activation="linear"
    net.fit(x, y, epochs=20, batch_size=32, loss="mse")
    p = net.predict(x)
    assert p.shape == (442, 1)
    assert ((p - y) ** 2).mean() < 0.7


def task_09_get_set_weights():
    """Read a layer's kernel and bias, set them, read them again."""
    net = iris_net()
    # Keras: layer.get_weights() -> [kernel (in, out), bias (out,)]
    kernel, bias = net.layers[0].get_weights()
    assert kernel.shape == (4, 8) and bias.shape == (8,)
    net.layers[0].set_weights([np.zeros_like(kernel), bias + 1])
    kernel, bias = net.layers[0].get_weights()
    assert (kernel == 0).all()


def task_10_initialiser_by_name():
    """Initial weights chosen by name in the layer."""
    net = mlgraph.Network(4, seed=0)
    # Keras: Dense(8, "relu", kernel_initializer="he_normal")
    net.add_layer(8, "relu", kernel_initializer="he_normal")
    net.add_layer(3, "softmax", kernel_initializer="zeros")
    x, _ = iris()
    assert np.allclose(net.predict(x), 1 / 3)


def task_11_gradient_clipping():
    """An Adam object with clipnorm."""
    x, y = iris()
    net = iris_net()
    # Keras: keras.optimizers.Adam(learning_rate=0.01, clipnorm=1.0)
    adam = mlgraph.optimizers.Adam(learning_rate=0.01, clipnorm=1.0)
    net.fit(x, y, epochs=20, batch_size=16, optimizer=adam)
    assert (net.predict(x).argmax(axis=1) == y).mean() > 0.9


def task_12_l2():
    """L2 as weight_decay beside a named optimizer makes the weights smaller."""
    x, y = iris()
    norms = []
    for decay in (0.0, 0.1):
        net = iris_net()
        # PyTorch: Adam(lr=0.01, weight_decay=0.1)
        net.fit(x, y, epochs=20, batch_size=16, optimizer="adam", lr=0.01, weight_decay=decay)
        norms.append(np.square(net.layers[0].weight).sum())
    assert norms[1] < norms[0]


def task_13_dropout():
    """A dropout layer between two layers; predict is deterministic."""
    x, y = iris()
    net = mlgraph.Network(4, seed=0)
    net.add_layer(16, "gelu")
    net.add_dropout(0.2)  # Keras: model.add(Dropout(0.2)), in this library's add_... manner
    net.add_layer(3, "softmax")
    net.fit(x, y, epochs=20, batch_size=16)
    assert np.array_equal(net.predict(x), net.predict(x))


def task_14_sparse_rows():
    """A scipy CSR matrix as x, in fit and predict."""
    x, y = load_digits(return_X_y=True)
    keep = y < 3
    x, y = scipy.sparse.csr_matrix(minmax_scale(x[keep])), y[keep]
    net = mlgraph.Network(64, seed=0)
    net.add_layer(3, "softmax")
    # scikit-learn: estimators take csr_matrix
    net.fit(x, y, epochs=10, batch_size=32)
    assert (np.argmax(net.predict(x), axis=1) == y).mean() > 0.9


def task_15_sample_weight():
    """Rows of weight 0 have no influence."""
    x, y = iris()
    w = (y != 2).astype(float)
    net = iris_net()
    # Keras / scikit-learn: fit(x, y, sample_weight=w)
    net.fit(x, y, sample_weight=w, epochs=20, batch_size=16)
    assert np.argmax(net.predict(x), axis=1)[y != 2].max() < 2


def task_16_predict_one_row():
    """predict of one 1-D row gives one 1-D row of probabilities."""
    x, _ = iris()
    net = iris_net()
    # PyTorch: model(x[0]) of shape (4,) gives shape (3,)
    p = net.predict(x[0])
    assert p.shape == (3,) and np.isclose(p.sum(), 1)


def task_17_save_load():
    """Save to a file, load it again, same predictions."""
    x, y = iris()
    net = iris_net()
    net.fit(x, y, epochs=3)
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "net.mlgraph")
        net.save(path)  # Keras: model.save(path); keras.models.load_model(path)
        again = mlgraph.load_model(path)
    assert np.allclose(net.predict(x), again.predict(x))


def task_18_prune_half():
    """Remove the half of a layer's weights that is smallest in magnitude."""
    x, y = iris()
    net = iris_net()
    net.fit(x, y, epochs=5)
    # PyTorch: torch.nn.utils.prune.l1_unstructured(module, name="weight", amount=0.5)
    net.prune(amount=0.5)
    weights = np.concatenate([np.ravel(layer.weight) for layer in net.layers])
    assert abs((weights == 0).mean() - 0.5) < 0.1


def task_19_freeze_layer():
    """A frozen layer keeps its weights during fit."""
    x, y = iris()
    net = iris_net()
    net.layers[0].trainable = False  # Keras: layer.trainable = False
    before = np.array(net.layers[0].weights[0])
    last = np.array(net.layers[1].weights[0])
    net.fit(x, y, epochs=3)
    assert np.array_equal(before, np.array(net.layers[0].weights[0]))
    assert not np.array_equal(last, np.array(net.layers[1].weights[0]))


def task_20_grad_of_softmax():
    """Derivative nodes of a softmax of a list of nodes."""
    g = mlgraph.Graph()
    a, b, c = (g.add_input(name) for name in "abc")
    p = mlgraph.softmax([a, b, c])
    # JAX / PyTorch: grad(output, inputs) -> one derivative per input
    grads = mlgraph.grad(p[0], [a, b, c])
    f = g.compile(grads)
    got = np.asarray(f(0.0, 0.0, 0.0))
    assert np.allclose(got, [2 / 9, -1 / 9, -1 / 9])


def main():
    tasks = [(n, f) for n, f in sorted(globals().items()) if n.startswith("task_")]
    good = 0
    for name, task in tasks:
        start = time.time()
        try:
            task()
            line = "ok"
            good += 1
        except Exception as error:
            tb = error.__traceback__
            while tb.tb_next and tb.tb_next.tb_frame.f_code.co_filename == __file__:
                tb = tb.tb_next
            line = f"[line {tb.tb_lineno}] {type(error).__name__}: {error}"
        print(f"{name}: {line}  ({time.time() - start:.1f} s)", flush=True)
    print(f"{good} of {len(tasks)} ok  ({os.path.dirname(mlgraph.__file__)})")


if __name__ == "__main__":
    sys.exit(main())
