"""Labels that are strings or other integers: the first fit decides on the classes, which a model keeps."""

import copy
import pickle

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INPUTS, TARGETS, Y, bits, network

import mlgraph

NAMES = np.array(["cat", "dog", "bird"])  # not sorted
LABELS = NAMES[Y]
NUMBERS = np.unique(LABELS, return_inverse=True)[1]


TWO_LABELS = (
    r'add_layer\(2, "softmax"\) as the last layer, or add_layer\(1, "sigmoid", loss="binary_cross_entropy"\); '
    "other losses take 0 and 1 for them"
)


def one_sigmoid():
    net = mlgraph.Network(INPUTS)
    net.add_layer(1, "sigmoid")
    return net


def fitted(y=LABELS, net=None, **options):
    net = net or network()
    net.fit(FLOATS, y, epochs=5, learning_rate=0.03, seed=1, **options)
    return net


@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        list,
        lambda y: y.astype(object),
        lambda y: y[:, None],
        lambda y: [[label] for label in y.tolist()],
        lambda y: np.array(y, "T") if np.__version__ >= "2" else y,  # of numpy's own strings
    ],
)
def test_strings_are_learnt_and_predicted(form):
    net, by_hand = fitted(form(LABELS)), fitted(NUMBERS)
    assert net.classes == ("bird", "cat", "dog") and by_hand.classes is None
    assert bits(net) == bits(by_hand)
    predicted = net.predict(FLOATS)
    np.testing.assert_array_equal(predicted, np.array(net.classes)[by_hand.predict(FLOATS)])
    assert predicted.dtype.kind == "U" and np.mean(predicted == LABELS) > 0.9
    y = form(LABELS)
    assert net.evaluate(FLOATS, y) == by_hand.evaluate(FLOATS, NUMBERS)
    np.testing.assert_array_equal(net.gradients(FLOATS, y).flat, by_hand.gradients(FLOATS, NUMBERS).flat)
    assert net.inspect(FLOATS, y).tobytes() == by_hand.inspect(FLOATS, NUMBERS).tobytes()
    neuron = net.layers[0][0]
    assert net.ablate(neuron, FLOATS, y) == by_hand.ablate(by_hand.layers[0][0], FLOATS, NUMBERS)
    drawn = net.draw(FLOATS[0], LABELS[0]).to_dot()
    for i, name in enumerate(net.classes):
        drawn = drawn.replace(f"{name}: ", f"{i}: ")
    assert drawn == by_hand.draw(FLOATS[0], int(NUMBERS[0])).to_dot()
    portraits = mlgraph.pictures.neuron_portraits(net, [neuron], FLOATS, LABELS)
    same = mlgraph.pictures.neuron_portraits(by_hand, [by_hand.layers[0][0]], FLOATS, NUMBERS)
    np.testing.assert_array_equal(portraits[0].class_means, same[0].class_means)
    net.fit(FLOATS[:20], form(LABELS[:20]), epochs=1)  # a few of the classes, or all, in the order of the first fit
    assert net.classes == ("bird", "cat", "dog")


@pytest.mark.parametrize("by", ["sample", "class", "balanced"])
def test_weights(by):
    weight = {"dog": 3, "bird": 0.5}
    options, same = {
        "sample": [{"sample_weight": [weight.get(label, 1) for label in LABELS]}] * 2,
        "class": [{"class_weight": weight}, {"class_weight": {2: 3, 0: 0.5}}],
        "balanced": [{"class_weight": "balanced"}] * 2,
    }[by]
    assert bits(fitted(**options)) == bits(fitted(NUMBERS, **same))
    with pytest.raises(ValueError, match=r"class_weight: expected labels among \['bird', 'cat', 'dog'\], got 'cow'$"):
        fitted(class_weight={"cow": 1})


def test_validation_and_schedules():
    options = [{"validation_data": (FLOATS[:50], y[:50]), "sparsify": mlgraph.RigL(0.5)} for y in (LABELS, NUMBERS)]
    net, by_hand = (fitted(y, **o) for y, o in zip((LABELS, NUMBERS), options, strict=True))
    assert bits(net) == bits(by_hand)
    assert net.history.validation_loss.tolist() == by_hand.history.validation_loss.tolist()
    assert bits(fitted(validation_split=0.3)) == bits(fitted(NUMBERS, validation_split=0.3))
    net.prune(0.1, by="saliency", data=(FLOATS, LABELS))


@pytest.mark.parametrize("labels", [[3, 5, 9], [1, 2, 3], [-1, 0, 1]])
def test_other_integers(labels):
    """Only in the very first fit, and only if there are as many as outputs."""
    y = np.array(labels)[Y]
    net = fitted(y)
    assert net.classes == tuple(labels) and bits(net) == bits(fitted(Y))
    assert net.predict(FLOATS).dtype == np.int64 and np.mean(net.predict(FLOATS) == y) > 0.9
    later = fitted(Y)
    with pytest.raises(ValueError, match=r"^y: expected labels from 0 to 2, got "):
        later.fit(FLOATS, y)
    with pytest.raises(ValueError, match=r"^y: expected one of the model's classes .*got 17 in example 4"):
        net.fit(FLOATS, np.where(np.arange(len(y)) == 4, 17, y))


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1]])
def test_two_classes_of_one_output(labels):
    net = mlgraph.Network(INPUTS, seed=0)
    net.add_layer(1, "sigmoid", loss="binary_cross_entropy")
    y = np.array(labels)[Y % 2]
    net.fit(FLOATS, y, epochs=3, class_weight={labels[0]: 2})
    assert net.classes == tuple(labels) and set(net.predict(FLOATS)) <= set(labels)
    assert net.evaluate(FLOATS, y)["accuracy"] == np.mean(net.predict(FLOATS) == y)


def test_copies_files_and_other_models_keep_the_classes(tmp_path):
    net = fitted()
    net.save(tmp_path / "net.npz")
    others = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.compact(), mlgraph.load(tmp_path / "net.npz")]
    warm = mlgraph.Model(net.graph, [z / 3 for z in net.outputs], loss="softmax_cross_entropy")
    for other in [*others, warm]:
        assert other.classes == net.classes and (other.predict(FLOATS) == net.predict(FLOATS)).all()
    assert mlgraph.Model(net.graph, net.outputs[:2], loss="softmax_cross_entropy").classes is None
    net.add_layer(CLASSES, "softmax")  # other outputs mean something else
    assert net.classes is None


def test_checkpoints_keep_the_classes(tmp_path):
    path, whole = tmp_path / "run", fitted()

    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(checkpoint=path, callbacks=[stop])
    for other in (NAMES[(Y + 1) % 3], np.char.upper(LABELS)):  # the last has the same numbers
        with pytest.raises(mlgraph.CheckpointError, match="the data changed"):
            fitted(other, checkpoint=path, resume=True)
    resumed = fitted(checkpoint=path, resume=True)
    assert resumed.classes == whole.classes and bits(resumed) == bits(whole)


def test_assigning_classes():
    net = network()
    net.classes = list(NAMES)
    assert net.classes == ("cat", "dog", "bird")
    assert bits(fitted(net=net)) == bits(fitted(Y)) and net.classes == ("cat", "dog", "bird")
    np.testing.assert_array_equal(net.predict_proba(FLOATS), fitted(Y).predict_proba(FLOATS))
    assert net.evaluate(FLOATS, LABELS) == net.evaluate(FLOATS, TARGETS)
    net.classes = None
    assert net.predict(FLOATS).dtype == np.int64
    for classes, message in (
        (["a", "b"], "classes: expected 3 different labels"),
        (["a", "b", "b"], "classes: expected 3 different labels"),
        ("abc", "classes: expected strings, integers or None"),
        ([True, False, 3], "classes: expected strings, integers or None"),
        ([0.0, 1.0, 2.0], "classes: expected strings, integers or None"),
        (["a", "b", "c\0"], "classes: expected labels that do not end"),
        ([1, 2, 2**70], "classes: expected integers that int64"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            net.classes = classes
    with pytest.raises(ValueError, match="classes: expected a model whose last layer is a softmax"):
        network("identity").classes = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("net", "y", "message"),
    [
        (network, np.arange(200).astype(str), r'expected 3 different labels.*, got 200, .*add_layer\(200, "softmax"\)'),
        (network, ["a"] * 200, "expected 3 different labels, as many as outputs, got 1.*assign all 3"),
        (network, [*LABELS[1:], None], "expected labels that are all strings, got None in example 199"),
        (network, [*LABELS[1:], 3.5], "(expected labels that are all strings, got 3.5|expected 3 different labels)"),
        (fitted, [*LABELS[1:], "cow"], r"expected one of .*\['bird', 'cat', 'dog'\], got 'cow' in example 199"),
        (fitted, Y, r"expected one of the model's classes .*, got [012] in example 0"),
        (
            lambda: network("identity"),
            LABELS,
            r'expected numbers, got strings; labels need add_layer\(3, "softmax"\) as.*r$',
        ),
        (one_sigmoid, ["no", "yes"] * 100, f"expected numbers, got strings; labels need {TWO_LABELS}"),
        (one_sigmoid, ["yes"] * 200, f"expected numbers, got strings; labels need {TWO_LABELS}"),
    ],
)
def test_refused(net, y, message):
    net = net()
    before, classes = bits(net), net.classes
    with pytest.raises((ValueError, TypeError), match=f"^y: {message}"):
        net.fit(FLOATS, y)
    assert bits(net) == before and net.classes == classes
    with pytest.raises((ValueError, TypeError), match=r"^y: "):
        net.evaluate(FLOATS, y)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_labels_in_a_column(dtype):
    y = (Y > 0).astype(dtype)
    assert bits(fitted(y[:, None])) == bits(fitted(y))
    net = fitted(y)
    assert net.classes is None and net.evaluate(FLOATS, y[:, None]) == net.evaluate(FLOATS, y)


@pytest.mark.parametrize("loss", ["squared_error", "mse", "binary_cross_entropy"])
def test_numbers_in_a_column(loss):
    nets = []
    for y in (Y > 0, (Y > 0)[:, None] * 1.0, (Y > 0) * 1):
        net = mlgraph.Network(INPUTS, seed=0)
        net.add_layer(1, "sigmoid", loss=loss)
        nets.append(bits(fitted(y, net)))
    assert nets[0] == nets[1] == nets[2]
