"""Histories: how they grow, and what is written of them."""

import copy
import pickle

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


def test_numbers_that_are_not_finite_become_none_in_json():
    history = mlgraph.History()
    history.add(epoch_loss=[1.0, np.inf, -np.inf, np.nan])
    assert history.to_dict()["epoch_loss"] == [1, None, None, None]
    assert repr(history) == "<History of 4 epochs, 0 batches>"


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
