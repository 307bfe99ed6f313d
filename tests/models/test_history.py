"""Histories by themselves: how they grow, and what is written of them."""

import copy
import pickle

import numpy as np
import pytest

import mlgraph


def test_a_history_grows_without_being_copied_each_time():
    history, other, rooms = mlgraph.History(), None, set()
    for i in range(1000):
        history.add(epoch_loss=i / 2, batch_size=np.array([i, i]))
        rooms.add(id(history.epoch_loss.base))
        if i == 500:
            other = copy.copy(history)
            other.add(epoch_loss=-1.0)
    assert history.epoch_loss.tolist() == [i / 2 for i in range(1000)] and len(rooms) < 8
    assert history.batch_size.tolist() == [i for i in range(1000) for _ in range(2)]
    assert (history.epoch_loss.dtype, history.batch_size.dtype) == (np.float64, np.int64)
    assert other.epoch_loss.tolist() == [*(i / 2 for i in range(501)), -1.0]
    kept = history.epoch_loss
    history.epoch_loss = kept[:2]
    history.add(epoch_loss=7.0)
    assert kept[2] == 1 and len(kept) == 1000
    assert history.epoch_loss.tolist() == [0, 0.5, 7] and pickle.loads(pickle.dumps(history)).epoch_loss.tolist() == [
        0,
        0.5,
        7,
    ]


def test_what_is_not_finite_is_none_in_json_and_not_told():
    history = mlgraph.History()
    history.add(epoch_loss=[1.0, np.inf, -np.inf, np.nan])
    assert history.to_dict()["epoch_loss"] == [1, None, None, None]
    assert repr(history) == "<History of 4 epochs, 0 batches>"


def test_a_history_grows_behind_what_it_is_given():
    history = mlgraph.History()
    history.add(epoch_loss=[1.0, 2.0])
    history.epoch_loss = np.array([3.0, 4.0])
    history.add(epoch_loss=5.0)
    assert history.epoch_loss.tolist() == [3, 4, 5]


@pytest.mark.parametrize("answers", [True, False])
def test_what_steps_gave_is_summed(sweep, answers):
    """Of any number of examples; a loss that is NaN is left out, whether or not its answer counts as right."""
    rng = np.random.default_rng(0)
    size = np.r_[1:40, 128, 1000]
    first = np.cumsum(size) - size + 3
    losses = rng.exponential(size=first[-1] + size[-1] + 2).astype(np.float32)
    losses[rng.random(len(losses)) < 0.05] = np.nan
    losses[first[20]], losses[first[30] : first[30] + 2] = np.inf, (np.inf, -np.inf)
    losses[first[2] : first[3]] = np.nan
    correct = rng.integers(0, 2, len(losses), np.uint8) if answers else None
    loss, (right, left_out) = np.full(len(size), 7.0), np.full((2, len(size)), 7)
    sweep.sum_steps(first, size, losses, correct, loss, right, left_out)
    for i, (a, n) in enumerate(zip(first, size, strict=True)):
        here = losses[a : a + n].astype(float)
        kept = here[~np.isnan(here)]
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(loss[i], kept.sum(), rtol=1e-13)
        assert left_out[i] == n - len(kept)
        assert right[i] == (correct[a : a + n][~np.isnan(here)].sum() if answers else 0)
