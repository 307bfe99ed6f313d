"""Histories by themselves: how they grow, and what is written of them."""

import copy
import pickle

import numpy as np

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
    assert history.epoch_loss.tolist() == [0, 0.5, 7] and pickle.loads(pickle.dumps(history)).epoch_loss.tolist() == [0, 0.5, 7]


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
