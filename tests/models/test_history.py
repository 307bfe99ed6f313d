"""Histories: how they grow, and what is written of them."""

import copy
import pickle
import re
import sys

import numpy as np
import pytest

import mlgraph


def test_history_grows_in_place():
    """A thousand values move only a few times; copies and columns already read stay as they are."""
    history, other, arrays = mlgraph.History(), None, set()
    for i in range(1000):
        history.add(epoch_loss=i / 2, batch_size=np.array([i, i]))
        arrays.add(id(history.epoch_loss.base))
        if i == 500:
            other = copy.copy(history)
            other.add(epoch_loss=-1.0)
    assert len(arrays) < 8
    assert history.epoch_loss.tolist() == [i / 2 for i in range(1000)]
    assert history.batch_size.tolist() == [i for i in range(1000) for _ in range(2)]
    assert (history.epoch_loss.dtype, history.batch_size.dtype) == (np.float64, np.int64)
    assert other.epoch_loss.tolist() == [*(i / 2 for i in range(501)), -1.0]


def test_history_grows_after_an_assigned_column():
    history = mlgraph.History()
    history.add(epoch_loss=[1.0, 2.0, 3.0])
    kept = history.epoch_loss
    history.epoch_loss = kept[:2]
    history.add(epoch_loss=7.0)
    assert kept.tolist() == [1, 2, 3] and history.epoch_loss.tolist() == [1, 2, 7]
    assert pickle.loads(pickle.dumps(history)).epoch_loss.tolist() == [1, 2, 7]


def trained(**options):
    net = mlgraph.Network(4, seed=0)
    net.add_layer(2, "softmax")
    return net.fit(np.eye(4), [0, 1, 1, 0], epochs=3, seed=0, **options)


def test_a_history_is_a_mapping_of_its_columns():
    history = trained()
    assert history["epoch_loss"] is history.epoch_loss and dict(history) == dict(history.items()) == vars(history)
    assert "epoch_loss" in history and "val_loss" not in history and history.get("val_loss") is None
    assert list(history) == list(history.keys()) and len(history) == len(list(history.values())) > 10
    assert history != trained() and len({history, trained()}) == 2
    assert repr(mlgraph.History()) == "<History of 0 epochs, 0 batches>"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("val_loss", "; did you mean validation_loss?"),
        ("val_acc", "; did you mean validation_accuracy?"),
        ("loss", "; did you mean epoch_loss?"),
        ("epoch_los", "; did you mean epoch_loss?"),
        ("xyz", ""),
        (0, ""),
        ([], ""),
    ],
)
def test_an_unknown_column_is_an_error_that_lists_the_names(name, hint):
    with pytest.raises(KeyError, match=re.escape(f"history: no column {name!r}{hint}; columns: batch_examples, ")):
        trained()[name]


@pytest.mark.parametrize("validated", [False, True])
def test_to_pandas_has_a_row_for_each_epoch(validated):
    pytest.importorskip("pandas")
    history = trained(validation_data=(np.eye(4), [0, 1, 1, 0]) if validated else None)
    frame = history.to_pandas()
    assert len(frame) == 3 and frame["epoch_loss"].tolist() == history.epoch_loss.tolist()
    assert [name for name in frame if name.startswith("validation")] == [
        "validation_loss",
        "validation_accuracy",
    ] * validated
    frame.loc[0, "epoch_loss"] = -1
    assert history.epoch_loss[0] > 0
    assert len(mlgraph.History().to_pandas()) == 0


def test_to_pandas_without_pandas_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_pandas needs pandas \(.*\): pip install pandas$"):
        trained().to_pandas()


@pytest.mark.parametrize("with_answers", [True, False])
def test_sums_over_steps_leave_out_nan(sweep, with_answers):
    rng = np.random.default_rng(0)
    size = np.r_[1:40, 128, 1000]
    first = np.cumsum(size) - size + 3
    losses = rng.exponential(size=first[-1] + size[-1] + 2).astype(np.float32)
    losses[rng.random(len(losses)) < 0.05] = np.nan
    losses[first[20]], losses[first[30] : first[30] + 2] = np.inf, (np.inf, -np.inf)
    losses[first[2] : first[3]] = np.nan
    correct = rng.integers(0, 2, len(losses), np.uint8) if with_answers else None
    loss, (right, left_out) = np.full(len(size), 7.0), np.full((2, len(size)), 7)
    sweep.sum_steps(first, size, losses, correct, loss, right, left_out)
    for i, step in enumerate(map(slice, first, first + size)):
        kept = ~np.isnan(losses[step])
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(loss[i], losses[step][kept].sum(dtype=float), rtol=1e-13)
        assert left_out[i] == np.count_nonzero(~kept)
        assert right[i] == (correct[step][kept].sum() if with_answers else 0)


@pytest.mark.parametrize("name", ["validation_loss", "validation_accuracy"])
def test_an_index_into_missing_validation_results_names_the_argument(name, tmp_path):
    """Also in a resumed run, and in a pickle."""

    def ask(progress):
        if progress.kind == "epoch":
            getattr(pickle.loads(pickle.dumps(progress.history)), name)[-1]

    x, y, message = (
        np.eye(4),
        [0, 1, 1, 0],
        r"no validation result at index -1: .* given validation_data or validation_split",
    )
    for resume in (False, True):
        net = mlgraph.Network(4, seed=0)
        net.add_layer(2, "softmax")
        with pytest.raises(IndexError, match=message):
            net.fit(x, y, epochs=4, callbacks=[ask], checkpoint=tmp_path / "run", resume=resume)
        assert len(getattr(net.history, name)[-1:]) == 0
    net.fit(x, y, epochs=2, validation_data=(x, y))
    assert getattr(net.history, name)[-1] > 0 and type(getattr(net.history, name)) is np.ndarray


def test_a_history_has_no_other_columns():
    with pytest.raises(TypeError, match="history: no column loss; columns: batch_examples, batch_size"):
        mlgraph.History(loss=np.zeros(3))
