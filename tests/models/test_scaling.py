"""How a model reads its data: the first fit decides on a scaling and on the order of a frame's columns."""

import copy
import pickle

import numpy as np
import pytest
from learnable import FLOATS, TARGETS, X, Y, network

import mlgraph

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(150, 3)) * [1, 40, 1000] + [0, 300, -5000]
CLASSES = (TABLE[:, 1] > 300).astype(int) + (TABLE[:, 2] > -5000)


class Frame:
    """What pandas and polars have in common."""

    def __init__(self, data, columns):
        self.data, self.columns = np.asarray(data), list(columns)

    def __array__(self, dtype=None, copy=None):
        return self.data


def table_network():
    net = mlgraph.Network(3, seed=0)
    net.add_layer(16, "tanh")
    net.add_layer(3, "softmax")
    return net


def fitted(x=X, y=Y, net=None, **options):
    net = net or network()
    net.fit(x, y, epochs=2, **options)
    return net


# --- what the first fit decides on ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "scaling"),
    [
        (X, "bytes"),
        ((X > 200).astype(np.uint8), "unscaled"),
        (FLOATS, "unscaled"),
        ((X % 200).astype(np.int64), "unscaled"),
        ((X % 200).tolist(), "unscaled"),
    ],
)
def test_the_first_fit_decides(x, scaling):
    net = network()
    assert net.scaling is None
    before = net.forward(x)
    assert net.scaling is None  # looking decides nothing, and reads data as a fit would
    net.scaling = scaling
    np.testing.assert_array_equal(net.forward(x), before)
    net.scaling = None
    fitted(x, net=net, learning_rate=1e-3)
    assert net.scaling == scaling
    fitted((X > 200).astype(np.uint8), net=net, learning_rate=1e-3)
    assert net.scaling == scaling


def test_one_hot_bytes_are_read_as_numbers():
    ones = (X > 200).astype(np.uint8)
    assert bits(fitted(ones)) == bits(fitted(ones.astype(np.float32)))


def bits(net):
    return net.graph.get_parameters().tobytes()


def test_a_fit_that_is_refused_decides_nothing():
    net = network()
    for x, y in ((X, Y % 2 + 2), (X[:, 1:], Y), (Frame(X, "abcdefghijkl"), Y[1:])):
        with pytest.raises(ValueError, match=r"expected"):
            net.fit(x, y, standardize=True)
        assert net.scaling is None and net.columns is None


@pytest.mark.parametrize(
    "form", [np.float32, np.float64, np.int64, np.uint16, list, lambda x: Frame(x * 1.0, "abcdefghijkl")]
)
def test_bytes_in_any_form_are_read_as_bytes(form):
    net = fitted()
    x = X.tolist() if form is list else X.astype(form) if isinstance(form, type) else form(X)
    for read in (
        net.forward,
        net.predict_proba,
        lambda x: net.trace(x).values,
        lambda x: net.gradients(x, Y).flat,
        lambda x: np.array([*net.evaluate(x, Y).values()]),
        lambda x: np.array(net.inspect(x, Y).tolist()),
        lambda x: net.ablation_table(net.layers[0], x, Y)["loss"],
    ):
        np.testing.assert_array_equal(read(x), read(X))
    other = copy.deepcopy(net)
    assert bits(fitted(x, net=other)) == bits(fitted(X, net=net))


def test_fractions_for_a_model_of_bytes():
    net = fitted()
    x = X * 0.99
    np.testing.assert_allclose(net.forward(x), network_of(net).forward(x / 255), rtol=1e-5, atol=1e-6)
    assert np.isnan(net.forward(np.full((1, 12), np.nan))).all()
    for x, message in (
        (X / 255, "x: expected numbers from 0 to 255, got fractions from 0 to 1; .*fitted on bytes.*multiply x by 255"),
        (X - 1.0, r"x: expected numbers from 0 to 255, got -1\.0"),
        (X * 2.0, r"x: expected numbers from 0 to 255, got 510\.0"),
    ):
        for read in (net.predict, net.forward, lambda x: net.evaluate(x, Y), lambda x: net.fit(x, Y)):
            with pytest.raises(ValueError, match=f"^{message}"):
                read(x)


def network_of(net):
    """The same network, whose data are read as they are."""
    other = copy.deepcopy(net)
    other.scaling = "unscaled"
    return other


def test_functions_of_a_graph_read_bytes_as_numbers():
    g = mlgraph.Graph()
    a, b = g.add_inputs(2)
    f = g.compile(a + b)
    x = np.array([[1, 200], [3, 55]], np.uint8)
    assert f(x).tolist() == [[201], [58]] and f.vjp(x).values.tolist() == f.jvp(x, x).tolist()


# --- standardization ------------------------------------------------------------------------------


def test_standardize():
    net = table_network()
    net.fit(TABLE, CLASSES, epochs=40, batch_size=15, standardize=True, optimizer="sgd", learning_rate=0.05)
    mean, std = net.scaling
    np.testing.assert_allclose(mean, TABLE.mean(axis=0))
    np.testing.assert_allclose(std, TABLE.std(axis=0))
    assert net.evaluate(TABLE, CLASSES)["accuracy"] > 0.95
    by_hand = ((TABLE - mean) / std).astype(np.float32)
    np.testing.assert_array_equal(net.forward(TABLE), network_of(net).forward(by_hand))
    other = table_network()
    other.fit(by_hand, CLASSES, epochs=40, batch_size=15, optimizer="sgd", learning_rate=0.05)
    assert bits(net) == bits(other)
    net.fit(
        TABLE[:50], CLASSES[:50], epochs=1, standardize=True, optimizer="sgd", learning_rate=0.05, batch_size=128
    )  # a standardized model keeps its scaling
    assert net.scaling[0].tolist() == mean.tolist()


@pytest.mark.parametrize("scaling", ["bytes", "unscaled"])
def test_standardize_replaces_no_scaling_that_weights_suit(scaling):
    net = table_network()
    net.scaling = scaling
    before = bits(net)
    with pytest.raises(ValueError, match=f"^standardize: .* as '{scaling}', .*; assign None to its scaling"):
        net.fit(TABLE, CLASSES, standardize=True)
    assert (bits(net), net.scaling) == (before, scaling)
    net.scaling = None
    net.fit(TABLE, CLASSES, epochs=1, standardize=True)
    assert net.scaling[0].shape == (TABLE.shape[1],)


def test_standardize_reads_bytes_as_numbers_and_keeps_constant_columns_finite():
    net = fitted(np.c_[X[:, :11], np.full(len(X), 7, np.uint8)], standardize=True)
    assert net.scaling.std[11] == 1 and net.scaling.mean[11] == 7
    np.testing.assert_array_equal(net.forward(X), net.forward(X.astype(float)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_standardize_needs_finite_numbers(bad):
    x = TABLE.copy()
    x[7, 1] = bad
    with pytest.raises(ValueError, match=f"^x: expected finite numbers .*, got {bad}.* in example 7, column 1"):
        table_network().fit(x, CLASSES, standardize=True)


def own_loss(n):
    """A model whose loss is a node: (output - target)^2, and the last input is the target."""
    g = mlgraph.Graph(seed=0)
    *x, target = g.add_inputs(n + 1)
    out = g.add_neuron(x, weights=np.zeros(n), bias=0.0)
    return mlgraph.Model(g, out, loss=(out - target) ** 2)


@pytest.mark.parametrize("options", [{}, {"sparsify": mlgraph.GradualPruning(0.3, by="saliency")}])
def test_standardize_leaves_the_targets_of_a_loss_as_they_are(options):
    y = (TABLE[:, 1] - 300) / 40 + 3
    model = own_loss(3)
    model.fit(
        TABLE, y, epochs=100, batch_size=30, learning_rate=0.1, standardize=True, validation_data=(TABLE, y), **options
    )
    assert model.history.validation_loss[-1] < 1e-3 > model.evaluate(TABLE, y)["loss"]
    assert model.evaluate(np.c_[TABLE, y])["loss"] == pytest.approx(model.evaluate(TABLE, y)["loss"])
    assert np.abs(model.predict(TABLE) - y).max() < 0.1
    assert model.draw(TABLE[0], y[:1]).to_dot() == model.draw(np.r_[TABLE[0], y[0]], ()).to_dot()
    with pytest.raises(ValueError, match=r"^standardize: expected the targets as y"):
        own_loss(3).fit(
            np.c_[TABLE, y], standardize=True, optimizer="sgd", learning_rate=0.05, epochs=10, batch_size=128
        )


def test_bytes_leave_the_targets_of_a_loss_as_they_are():
    model, y = own_loss(12), TARGETS[:, 0]
    schedule = mlgraph.GradualPruning(0.3, by="saliency")
    model.fit(X, y, epochs=3, batch_size=20, validation_data=(X, y), sparsify=schedule)
    assert model.history.validation_loss[-1] == pytest.approx(model.evaluate(X.astype(float), y)["loss"])


@pytest.mark.parametrize("by", ["saliency", "gradient"])
def test_a_schedule_samples_what_fit_was_given(by):
    """Otherwise data would be scaled twice."""

    class Watching(mlgraph.SET if by == "saliency" else mlgraph.RigL):
        def act(self, model, moment, step, seed, sample, n_threads):
            x, y = sample(10)
            assert x.dtype == TABLE.dtype and (x[:, None] == TABLE).all(axis=2).any(axis=1).all()
            model.prune(0.1, by="saliency", data=(x, y))
            seen.append(model.evaluate(x, y)["loss"])

    seen = []
    net = table_network()
    net.fit(TABLE, CLASSES, epochs=3, batch_size=15, standardize=True, sparsify=Watching(0.3, updates=3))
    assert seen and max(seen) < 5


# --- a scaling of one's own -----------------------------------------------------------------------


def test_a_scaling_may_be_assigned():
    net, floats = network(), network()
    net.scaling = "bytes"
    floats.scaling = [np.zeros(12), np.full(12, 255)]
    np.testing.assert_allclose(net.forward(X.astype(int)), floats.forward(X), rtol=1e-5, atol=1e-6)
    assert fitted(FLOATS.astype(np.float64) * 255, net=net).scaling == "bytes"
    with pytest.raises(ValueError, match="read-only"):
        floats.scaling.mean[0] = 1


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("byte", ValueError, 'expected "bytes", "unscaled", .mean, std. or None, got \'byte\''),
        (3, TypeError, 'expected "bytes"'),
        ((1, 2, 3), ValueError, 'expected "bytes"'),
        ((1, 2), ValueError, r"expected a mean and a std for each column, got shapes \(\) and \(\)"),
        ((np.zeros(3), np.ones(2)), ValueError, r"expected a mean and a std for each column"),
        ((np.zeros(3), np.zeros(3)), ValueError, "expected finite numbers, and a std above 0"),
        ((np.full(3, np.nan), np.ones(3)), ValueError, "expected finite numbers"),
        (("ab", np.ones(3)), TypeError, "mean: expected numbers"),
    ],
)
def test_a_scaling_that_is_none(value, error, message):
    net = fitted()
    with pytest.raises(error, match=f"^scaling: {message}"):
        net.scaling = value
    assert net.scaling == "bytes"


def test_no_change_of_scaling_or_columns_during_training():
    net = network()

    def change(progress):
        for name, value in (("scaling", "unscaled"), ("columns", None)):
            with pytest.raises(RuntimeError, match=name):
                setattr(net, name, value)

    fitted(net=net, callbacks=[change])
    assert net.scaling == "bytes"


@pytest.mark.parametrize("kept", ["file", "copy", "pickle", "compact", "checkpoint"])
def test_scaling_and_columns_are_kept(kept, tmp_path):
    net = table_network()
    frame = Frame(TABLE, ["a", "b", "c"])
    net.fit(frame, CLASSES, epochs=2, standardize=True, checkpoint=tmp_path / "run.npz")
    net.save(tmp_path / "model.npz")
    other = {
        "file": lambda: mlgraph.load(tmp_path / "model.npz"),
        "checkpoint": lambda: mlgraph.load(tmp_path / "run.npz"),
        "copy": lambda: copy.deepcopy(net),
        "pickle": lambda: pickle.loads(pickle.dumps(net)),
        "compact": net.compact,
    }[kept]()
    assert other.columns == ("a", "b", "c")
    np.testing.assert_array_equal(other.scaling, net.scaling)
    np.testing.assert_array_equal(other.forward(TABLE), net.forward(TABLE))


def test_a_resumed_run_scales_as_before(tmp_path):
    def run(stop, x=None, **options):
        net = table_network()
        net.fit(
            Frame(TABLE, "abc") if x is None else x,
            CLASSES,
            epochs=3,
            batch_size=15,
            standardize=True,
            checkpoint=tmp_path / "run.npz",
            callbacks=[lambda progress: stop(progress)],
            **options,
        )
        return net

    def stop(progress):
        if progress.kind == "epoch":
            raise KeyboardInterrupt

    whole = run(lambda progress: None)
    (tmp_path / "run.npz").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(stop)
    resumed = run(lambda progress: None, TABLE, resume=True)  # the checkpoint knows the names of the columns
    assert bits(resumed) == bits(whole) and resumed.columns == ("a", "b", "c")
    np.testing.assert_array_equal(resumed.scaling, whole.scaling)


def test_another_model_of_the_graph_takes_the_scaling():
    net = table_network()
    net.fit(TABLE, CLASSES, epochs=1, standardize=True)
    soft = mlgraph.Model(net.graph, [z / 3 for z in net.outputs], loss="softmax_cross_entropy")
    np.testing.assert_allclose(soft.forward(TABLE) * 3, net.forward(TABLE), rtol=1e-5)
    assert soft.scaling is net.scaling
    soft.scaling = "unscaled"
    assert mlgraph.Model(net.graph, net.outputs).scaling is None  # the others disagree


# --- frames ---------------------------------------------------------------------------------------


def frames():
    yield Frame
    for name in ("pandas", "polars"):
        try:
            library = __import__(name)
        except ImportError:
            continue
        yield lambda data, columns, make=library.DataFrame: make(dict(zip(columns, np.asarray(data).T, strict=True)))


@pytest.mark.parametrize("frame", [*frames()])
def test_columns_of_a_frame_are_read_in_the_order_of_the_first_fit(frame):
    net = fitted(frame(TABLE, ["age", "size", "cost"]), CLASSES, table_network(), standardize=True)
    assert net.columns == ("age", "size", "cost")
    other_order = frame(TABLE[:, [2, 0, 1]], ["cost", "age", "size"])
    expected = net.forward(TABLE)
    for read in (net.forward, lambda x: net.trace(x, CLASSES, net.outputs).values):
        np.testing.assert_array_equal(read(other_order), expected)
    assert net.evaluate(other_order, CLASSES) == net.evaluate(TABLE, CLASSES)
    again = copy.deepcopy(net)
    again.fit(other_order, CLASSES, epochs=1, validation_data=(other_order, CLASSES))
    assert bits(fitted_once(net, TABLE)) == bits(again)


def fitted_once(net, x):
    net.fit(x, CLASSES, epochs=1)
    return net


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["age", "size", "price"], "without cost and with price"),
        (["x", "y", "z"], "without age, size, cost and with x, y, z"),
        (["cost", "size"], "without age"),
        (["age", "size"], "without cost"),
        (["age"], "without size, cost"),
    ],
)
def test_columns_of_another_frame_are_refused(columns, message):
    net = fitted(Frame(TABLE, ["age", "size", "cost"]), CLASSES, table_network(), standardize=True)
    other = Frame(TABLE[:, : len(columns)], columns)
    calls = [net.predict, lambda x: net.fit(x, CLASSES), lambda x: net.evaluate(x, CLASSES), net.draw]
    calls += [
        lambda x: net.draw(x, 1),
        lambda x: net.trace(x, CLASSES, net.outputs),
        lambda x: net.quantize(calibrate=x),
    ]
    for read in calls:
        with pytest.raises(
            ValueError, match=rf"^(x|calibrate): expected the columns .*fitted.*, got a frame {message}"
        ):
            read(other)
    net.columns = None
    assert len(net.predict(Frame(TABLE, "xyz"))) == len(TABLE)


def test_inputs_are_called_by_the_columns(tmp_path):
    net = table_network()
    age, size, cost = net.graph.inputs
    size.name = "width"
    before = (net.graph.edits, dict(net.graph.names))
    fitted(Frame(TABLE, ["age", "size", "cost"]), CLASSES, net, standardize=True)
    assert (net.graph.edits, net.graph.names) == before
    assert [node.name for node in net.layers[0][0].sources] == ["age", "width", "cost"]
    assert [repr(node) for node in net.graph.inputs] == ["<input age>", "<input width>", "<input cost>"]
    assert "*cost" in str(net.layers[0][0]) and all(name in net.draw().to_svg() for name in (">age<", ">cost<"))
    assert net.graph["cost"] == net.graph["n2"] == cost
    assert "size" not in net.graph
    with pytest.raises(AttributeError, match="got input age"):
        age.value = 1
    net.save(tmp_path / "model.npz")
    for other in (mlgraph.load(tmp_path / "model.npz"), copy.deepcopy(net), net.compact()):
        assert repr(other.graph.inputs) == repr(net.graph.inputs)
    age.name, net.columns = "years", ["n1", "n0", "n2"]
    assert [repr(node) for node in net.graph.inputs] == ["<input years>", "<input width>", "<input n2>"]
    size.name = age.name = None
    assert [net.graph[name].id for name in net.columns] == [0, 1, 2]
    net.columns = None
    assert repr(net.graph.inputs) == "[<input n0>, <input n1>, <input n2>]"


def test_inputs_have_no_names_where_models_of_a_graph_have_other_columns():
    net = table_network()
    net.columns = ["age", "size"]  # the last column may be a target
    assert repr(net.graph.inputs) == "[<input age>, <input size>, <input n2>]"
    other = mlgraph.Model(net.graph, net.graph.add_neuron(net.graph.inputs))
    other.columns = ["age", "size"]
    assert repr(net.graph.inputs[0]) == "<input age>"
    other.columns = ["size", "age"]
    assert repr(net.graph.inputs[0]) == "<input n0>"


def test_errors_of_training_call_inputs_by_the_columns():
    graph = mlgraph.Graph(seed=0)
    age, size, factor = graph.add_inputs(3)
    neuron = graph.add_neuron([age, size], weights=[0.5, 0.0], bias=None)
    model = mlgraph.Model(graph, [neuron], loss=neuron * factor)
    frame = Frame([[1, 1e30, 1e30]], ["age", "size", "factor"])
    with pytest.raises(mlgraph.NonFiniteError, match="neuron n3 would not keep its weight of input size"):
        model.fit(frame, epochs=1, clip_norm=1.0)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_errors_about_data_name_the_column(standardize):
    net, bad = table_network(), TABLE.copy()
    bad[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"^x: expected finite numbers .*got nan in example 7, column 1 \(size\)$"):
        net.fit(Frame(bad, ["age", "size", "cost"]), CLASSES, standardize=standardize)
    with pytest.raises(ValueError, match=r"^x: .*, column 1$"):
        net.fit(bad, CLASSES, standardize=standardize)
    net.columns = ["age", "size"]
    with pytest.raises(ValueError, match=r"^validation x: .*, column 1 \(size\)$"):
        net.fit(TABLE, CLASSES, validation_data=(bad, CLASSES), standardize=standardize)


@pytest.mark.filterwarnings("ignore:the numbers in column")
def test_advice_about_large_numbers_names_the_columns():
    line = mlgraph.Network(3, seed=0)
    line.add_layer(1)
    line.columns = ["age", "size"]
    with pytest.raises(
        mlgraph.NonFiniteError, match=r"in columns 1 \(size, about [\de+.]+\), 2 \(about [\de+.]+\) of x"
    ):
        line.fit(TABLE * [0, 100, 1], CLASSES, epochs=2, learning_rate=1e-3, optimizer="sgd")


@pytest.mark.parametrize("columns", [["a", "a", "b"], [0, 1, 2]])
def test_names_that_do_not_tell_columns_apart_are_not_remembered(columns):
    assert fitted(Frame(TABLE, columns), CLASSES, table_network(), standardize=True).columns is None


@pytest.mark.parametrize(
    ("columns", "error"),
    [("abc", TypeError), ([1, 2], TypeError), (["a", "a"], ValueError), (list("abcd"), ValueError)],
)
def test_columns_that_are_refused(columns, error):
    net = table_network()
    with pytest.raises(error, match=r"^columns: expected"):
        net.columns = columns
    assert net.columns is None


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "value"),
    [("scaling", "byte"), ("scaling", [[1.0], [0.0]]), ("scaling", {}), ("columns", ["a", "a"]), ("columns", 3)],
)
def test_files_with_a_wrong_scaling_are_refused(entry, value, tmp_path):
    import json

    fitted().save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    for change in ({entry: value}, {}):
        arrays["header"] = np.frombuffer(json.dumps(header | change).encode(), np.uint8)
        np.savez(tmp_path / "other.npz", **arrays)
        if change:
            with pytest.raises(mlgraph.ModelFileError, match=f"header: {entry}: expected"):
                mlgraph.load(tmp_path / "other.npz")
        else:
            del header[entry]
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)  # files of earlier versions have no scaling
    assert getattr(mlgraph.load(tmp_path / "old.npz"), entry) is None
