"""Kernels refuse arrays and numbers that do not fit together before they access memory."""

import re

import numpy as np
import pytest
from swept import data, layered

from mlgraph.compiler.instructions import KINDS
from mlgraph.engine.engine import OPTIMIZERS
from mlgraph_ext import _topology

NO_UNITS = np.zeros((0, 6), np.int64)
NUMBERS = np.zeros(3, np.float32)


@pytest.fixture
def given(sweep):
    """The arguments of `prepare` and `run` in a small fit on two threads."""
    net, calls = layered((140, 33, 10)), {}

    def spy(name, real):
        def called(*args, **options):
            calls[name] = options or list(args)
            return real(*args, **options)

        return called

    with pytest.MonkeyPatch.context() as patch:
        for name in ("prepare", "run"):
            patch.setattr(sweep, name, spy(name, getattr(sweep, name)))
        net.fit(*data(16, 140, 10, "sparse"), epochs=1, batch_size=8, n_threads=2, weight_decay=0.1)
    return calls  # keeps the prepared memory alive


def shorter(array):
    return array[:-1]


def narrower(array):
    return array[:, :-1].copy()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"program": narrower}, "program, units: expected rows of 24 and 6 numbers, got 23 and 6"),
        ({"units": narrower}, "program, units: expected rows of 24 and 6 numbers, got 24 and 5"),
        ({"n_workers": 0}, "scratch: expected n_workers >= 1 and"),
        ({"pack_sums": np.zeros(0, np.float32), "pack_stride": 1}, "pack_sums: expected"),
        ({"wide": 3, "at_once": 3}, "wide, at_once: expected 1, 2 or 4"),
        ({"wide": 4, "at_once": 4, "program": lambda good: np.full_like(good, KINDS["rows"])}, "wide, at_once:"),
        ({"input_column": lambda good: good // 2}, "input_column: expected ascending numbers, got 0 after 0"),
        ({"n_tiles": 1}, "tiles: expected n_tiles >= 2"),
        ({"units": NO_UNITS, "at_once": 2}, "tiles: expected n_tiles >= 4"),
        ({"tiles": shorter}, "tiles: expected n_tiles >= 2 and 2 x"),
        ({"sums": lambda good: good[:1]}, "sums: expected 2 x"),
    ],
)
def test_prepare_refuses_inconsistent_arguments(sweep, given, changes, message):
    good = given["prepare"]
    assert good["n_workers"] == good["n_tiles"] == 2
    wrong = {name: value(good[name]) if callable(value) else value for name, value in changes.items()}
    with pytest.raises(ValueError, match=f"^{message}"):
        sweep.prepare(**{**good, **wrong})


PREPARED, FIRST, SIZE, RATE, DECAY, WEIGHT, GRADIENT = 0, 3, 4, 5, 6, 17, 18
"""Positions of arguments of `run`."""


@pytest.mark.parametrize(
    ("at", "wrong", "message"),
    [
        (PREPARED, b"", r"prepared: expected \d+ bytes, got 0"),
        (FIRST, np.zeros(1, int), "step_first, step_size, step_rate: expected one length, got 1, 2, 2"),
        (RATE, np.zeros(1, np.float32), "step_first, step_size, step_rate: expected one length, got 2, 2, 1"),
        (DECAY, np.zeros(1, np.float32), "step_decay: expected 2 numbers, got 1"),
        (SIZE, np.array([8, 65]), "prepared: expected memory for 3 tiles, got 2"),
        (WEIGHT, np.zeros(1, np.float32), r"weight: expected \d+ numbers, one for each example, got 1"),
    ],
)
def test_run_refuses_inconsistent_arguments(sweep, given, at, wrong, message):
    good = given["run"]
    assert sweep.run(*good) == -1
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.run(*good[:at], wrong, *good[at + 1 :])


@pytest.mark.parametrize("gradient", [None, np.zeros(0, np.float32)])
def test_run_needs_a_vector_to_add_gradients_to(sweep, given, gradient):
    called = given["run"]
    called[PREPARED] = sweep.prepare(**{**given["prepare"], "optimizer": OPTIMIZERS["accumulate"]})
    called[GRADIENT], called[DECAY] = gradient, None
    with pytest.raises(ValueError, match=r"^gradient: expected a vector that gradients are added to, got none$"):
        sweep.run(*called)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [2]}, "first, size, loss, right, left_out: expected one length, got 2, 1, 2, 2, 2"),
        ({"correct": np.zeros(4, np.uint8)}, "correct: expected 5 bytes, got 4"),
        ({"first": [-1, 2]}, "first, size: expected steps within 5 places, got 2 from -1 on"),
        ({"size": [2, 0]}, "first, size: expected steps within 5 places, got 0 from 2 on"),
        ({"size": [2, 2**63 - 1]}, f"first, size: expected steps within 5 places, got {2**63 - 1} from 2 on"),
    ],
)
def test_sum_steps_refuses_steps_outside_the_losses(sweep, changes, message):
    good = {"first": [0, 2], "size": [2, 3], "losses": np.ones(5, np.float32), "correct": np.ones(5, np.uint8)}
    good |= {"loss": np.zeros(2), "right": [0, 0], "left_out": [0, 0]}
    good, wrong = ({name: np.asarray(x) for name, x in given.items()} for given in (good, {**good, **changes}))
    sweep.sum_steps(**good)
    assert good["loss"].tolist() == good["right"].tolist() == [2, 3]
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.sum_steps(**wrong)


def move(sweep, origin, place):
    sweep.move(NUMBERS, np.array(origin, np.int32), NUMBERS.copy(), np.array(place, np.int32), 1)


def take(sweep, columns, shape=(2, 4), size=4):
    sweep.take_columns(np.zeros((2, 12), np.uint8), np.array(columns, np.int32), np.zeros(shape, np.uint8), size, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: move(k, [0], []), "origin, place: expected one length, got 1 and 0"),
        (lambda k: move(k, [3], [0]), "origin, place: expected numbers below 3 and 3, got 1 that are not"),
        (lambda k: move(k, [0, 0], [3, -1]), "origin, place: expected numbers below 3 and 3, got 2 that are not"),
        (lambda k: take(k, [-1]), "columns: expected 0 to 2, got -1"),
        (lambda k: take(k, [0], (2, 3)), "size, out: expected 1 or 4, and 2 rows of "),
        (lambda k: take(k, [0], size=2), "size, out: expected 1 or 4, and 2 rows of "),
        (lambda k: k.as_bytes(NUMBERS[None], np.zeros((2, 2), np.uint8), 1), "out: expected shape (1, 3), got (2, 2)"),
        (lambda k: k.are_finite(NUMBERS, np.array([(0, 3), (0, 4)])), "ranges: expected numbers up to 3, got 0 to 4"),
        (lambda k: k.are_finite(NUMBERS, np.array([(-1, 2)])), "ranges: expected numbers up to 3, got -1 to 2"),
        (lambda k: k.are_finite(NUMBERS, np.zeros((2, 1), int)), "ranges: expected 2 columns, got 1"),
        (lambda k: k.find_quads(np.ones(4, np.int32), np.zeros(3, np.uint8)), "out: expected 4 bytes, got 3"),
        (lambda k: k.hand_over(0, 1), "lines, turns: expected 1 or more, at most 2**20 and 2**24, got 0, 1"),
    ],
)
def test_numbers_outside_of_arrays_are_refused(sweep, call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(sweep)


@pytest.mark.parametrize(
    ("source", "lowest", "places"), [(2**30, 0, 16), (1, 0, 16), (0, 1, 16), (5, 0, 16), (0, 0, 0)]
)
def test_edges_need_places(source, lowest, places):
    row, source = np.array([0, 1], np.int32), np.array([source], np.int32)
    number = np.zeros(3, np.int64)[1:2]  # its neighbours would do, too
    with pytest.raises(ValueError, match=r"^row, source: expected edges that have places, got 1 that have none"):
        _topology.place_edges(row, source, lowest, number, 1, 16, np.full(places, -1, np.int32))


@pytest.mark.parametrize("n", [1, 16, 31, 65])
def test_are_finite_finds_a_single_value(sweep, n):
    x = np.full(n, np.finfo(np.float32).max)
    assert sweep.are_finite(x, np.array([[0, n]])) and sweep.are_finite(x, np.array([[0, 0]]))
    for i in range(n):
        other = x.copy()
        other[i] = (np.nan, np.inf, -np.inf)[i % 3]
        assert not sweep.are_finite(other, np.array([[0, 0], [0, n]]))
        assert sweep.are_finite(other, np.array([[0, i], [i + 1, n]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": np.zeros((1, 2), int)}, "ranges: expected 3 columns, got 2"),
        ({"ranges": np.array([[0, 9, 1]])}, "ranges: expected numbers up to 8, got 0 to 9"),
        ({"frozen": np.zeros(7, np.float32)}, "ranges: expected numbers up to 7, got 0 to 8"),
        ({"second": None}, "optimizer: expected 1, 2 or 3, and its moments, got 3"),
        ({"optimizer": 0}, "optimizer: expected 1, 2 or 3, and its moments, got 0"),
    ],
)
def test_update_clipped_refuses_inconsistent_arguments(sweep, changes, message):
    vectors = dict.fromkeys(("gradient", "parameters", "first", "second", "frozen"), np.zeros(8, np.float32))
    good = {"ranges": np.array([[0, 8, 1]]), "hyper": np.zeros(3, np.float32), **vectors}
    good |= {"most": 1.0, "optimizer": 3, "rate": 0.1, "decay": 0.0, "shrink": 0.0}
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.update_clipped(**{**good, **changes})


def test_only_a_call_of_one_thread_and_one_step_without_an_update_may_wait(sweep, given):
    with pytest.raises(ValueError, match=r"^later: expected one worker, one step and no update$"):
        sweep.run(*given["run"], later=True)


def test_calls_that_waited_are_refused_unless_run_made_them(sweep):
    with pytest.raises(ValueError, match=r"^calls: expected \d+ bytes, got 1$"):
        sweep.run_each([b"0"], 2)
    with pytest.raises(TypeError):
        sweep.run_each([None], 2)
    assert sweep.run_each([], 2) is None
