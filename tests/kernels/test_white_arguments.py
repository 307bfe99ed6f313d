"""Kernels refuse arrays and numbers that do not fit together before they access memory."""

import re

import numpy as np
import pytest
from swept import data, layered

from mlgraph.compiler.instructions import KINDS
from mlgraph.engine.engine import OPTIMIZERS

NO_UNITS = np.zeros((0, 6), np.int64)


@pytest.fixture
def given(sweep):
    """The arguments of `prepare` and `run` in a small fit, in which two threads sweep each step alone."""
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


def changed(good, wrong):
    """Return the wrong argument, computed from the good one if `wrong` is a function."""
    return wrong(good) if callable(wrong) else wrong


def shorter(array):
    return array[:-1]


def narrower(array):
    return array[:, :-1].copy()


def of_rows(program):
    return np.full_like(program, KINDS["rows"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"program": narrower}, r"program, units: expected rows of 24 and 6 numbers, got 23 and 6"),
        ({"units": narrower}, r"program, units: expected rows of 24 and 6 numbers, got 24 and 5"),
        ({"n_workers": 0}, r"scratch: expected n_workers >= 1 and 0 x \d+ floats, got \d+"),
        ({"n_workers": -1}, r"scratch: expected n_workers >= 1 and -1 x \d+ floats, got \d+"),
        ({"n_workers": 3}, r"scratch: expected n_workers >= 1 and 3 x \d+ floats, got \d+"),
        ({"scratch": shorter}, r"scratch: expected n_workers >= 1 and 2 x \d+ floats, got \d+"),
        ({"pack_sums": np.zeros(0, np.float32), "pack_stride": 1}, r"pack_sums: expected [12] x 1 floats, got 0"),
        ({"wide": 0}, r"wide, at_once: expected 1, 2 or 4, at most [12] where there are rows, and .*, got 0 and 1"),
        ({"wide": 3, "at_once": 3}, r"wide, at_once: expected 1, 2 or 4, .*, got 3 and 3"),
        ({"wide": 4, "at_once": 4, "program": of_rows}, r"wide, at_once: expected 1, 2 or 4, .*, got 4 and 4"),
        ({"wide": 2}, r"wide, at_once: expected 1, 2 or 4, .*, got 2 and 1"),
        ({"at_once": 0}, r"wide, at_once: expected 1, 2 or 4, .*, got 1 and 0"),
        ({"input_column": lambda good: good // 2}, r"input_column: expected ascending numbers, got 0 after 0"),
        ({"n_tiles": 1}, r"tiles: expected n_tiles >= 2 and 1 x \d+ floats, got \d+"),
        ({"units": NO_UNITS, "at_once": 2}, r"tiles: expected n_tiles >= 4 and 2 x \d+ floats, got \d+"),
        ({"n_tiles": 3}, r"tiles: expected n_tiles >= 2 and 3 x \d+ floats, got \d+"),
        ({"tiles": shorter}, r"tiles: expected n_tiles >= 2 and 2 x \d+ floats, got \d+"),
        ({"sums": lambda good: good[:1]}, r"sums: expected 2 x \d+ floats, got \d+"),
        ({"sums": None}, r"alone: expected sums, units, and no pack_sums with it"),
        ({"units": NO_UNITS}, r"alone: expected sums, units, and no pack_sums with it"),
        ({"pack_sums": np.zeros(1, np.float32)}, r"alone: expected sums, units, and no pack_sums with it"),
    ],
)
def test_prepare_refuses_inconsistent_arguments(sweep, given, changes, message):
    good = given["prepare"]
    assert good["alone"] and good["n_workers"] == good["n_tiles"] == 2
    assert len(sweep.prepare(**good)) == len(given["run"][0])
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.prepare(**{**good, **{name: changed(good[name], wrong) for name, wrong in changes.items()}})


ARGUMENTS = ("prepared", "data_bytes", "data_floats", "step_first", "step_size", "step_rate", "step_decay")
OF_GRADIENT = 17


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("prepared", shorter, r"prepared: expected (\d+) bytes, got (?!\1)\d+"),
        ("prepared", b"", r"prepared: expected \d+ bytes, got 0"),
        ("step_first", shorter, "step_first, step_size, step_rate: expected one length, got 1, 2, 2"),
        ("step_size", shorter, "step_first, step_size, step_rate: expected one length, got 2, 1, 2"),
        ("step_rate", shorter, "step_first, step_size, step_rate: expected one length, got 2, 2, 1"),
        ("step_decay", shorter, "step_decay: expected 2 numbers, got 1"),
        ("step_size", np.array([8, 65]), "prepared: expected memory for 3 tiles, got 2"),
    ],
)
def test_run_refuses_inconsistent_arguments(sweep, given, name, wrong, message):
    good = given["run"]
    assert sweep.run(*good) == -1
    at = ARGUMENTS.index(name)
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.run(*good[:at], changed(good[at], wrong), *good[at + 1 :])


@pytest.mark.parametrize("gradient", [None, np.zeros(0, np.float32)])
def test_run_needs_a_vector_to_add_gradients_to(sweep, given, gradient):
    parameters, called = given["prepare"]["parameters"], given["run"]
    called[0] = sweep.prepare(**{**given["prepare"], "optimizer": OPTIMIZERS["accumulate"]})
    before, called[OF_GRADIENT], called[ARGUMENTS.index("step_decay")] = parameters.copy(), gradient, None
    with pytest.raises(ValueError, match=r"^gradient: expected a vector that gradients are added to, got none$"):
        sweep.run(*called)
    called[OF_GRADIENT] = total = np.zeros_like(parameters)
    assert sweep.run(*called) == -1
    assert total.any() and np.array_equal(parameters, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [2]}, "first, size, loss, right, left_out: expected one length, got 2, 1, 2, 2, 2"),
        ({"left_out": [0, 0, 0]}, "first, size, loss, right, left_out: expected one length, got 2, 2, 2, 2, 3"),
        ({"correct": np.zeros(4, np.uint8)}, "correct: expected 5 bytes, got 4"),
        ({"first": [-1, 2]}, "first, size: expected steps within 5 places, got 2 from -1 on"),
        ({"first": [0, 3]}, "first, size: expected steps within 5 places, got 3 from 3 on"),
        ({"size": [2, 0]}, "first, size: expected steps within 5 places, got 0 from 2 on"),
        ({"size": [2, 2**63 - 1]}, f"first, size: expected steps within 5 places, got {2**63 - 1} from 2 on"),
    ],
)
def test_sum_steps_refuses_steps_outside_the_losses(sweep, changes, message):
    good = {
        "first": [0, 2],
        "size": [2, 3],
        "losses": np.ones(5, np.float32),
        "correct": np.ones(5, np.uint8),
        "loss": np.zeros(2),
        "right": [0, 0],
        "left_out": [0, 0],
    }
    good, wrong = ({name: np.asarray(x) for name, x in given.items()} for given in (good, {**good, **changes}))
    sweep.sum_steps(**good)
    assert good["loss"].tolist() == good["right"].tolist() == [2, 3]
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.sum_steps(**wrong)


def test_move_needs_lists_of_one_length(sweep):
    three, one = np.zeros(3, np.float32), np.zeros(1, np.int32)
    for origin, place in ((one, one[:0]), (one[:0], one)):
        with pytest.raises(
            ValueError, match=f"^origin, place: expected one length, got {len(origin)} and {len(place)}$"
        ):
            sweep.move(three, origin, three, place, 1)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (0, 0)])
def test_as_bytes_needs_an_output_of_the_same_shape(sweep, shape):
    with pytest.raises(ValueError, match=re.escape(f"out: expected shape (2, 3), got {shape}")):
        sweep.as_bytes(np.zeros((2, 3), np.float32), np.zeros(shape, np.uint8), 1)


@pytest.mark.parametrize("wrong", [(0, 4), (4, 4), (-1, 2), (2, 1), (-2, -1)])
def test_are_finite_refuses_ranges_outside_the_numbers(sweep, wrong):
    with pytest.raises(ValueError, match=f"^ranges: expected numbers up to 3, got {wrong[0]} to {wrong[1]}$"):
        sweep.are_finite(np.zeros(3, np.float32), np.array([(0, 3), wrong]))


def test_are_finite_needs_pairs(sweep):
    with pytest.raises(ValueError, match=r"^ranges: expected 2 columns, got 1$"):
        sweep.are_finite(np.zeros(3, np.float32), np.zeros((2, 1), np.int64))


@pytest.mark.parametrize("wrong", [(0, 1), (2**20 + 1, 1), (1, 0), (1, 2**24 + 1)])
def test_hand_over_limits_its_arguments(sweep, wrong):
    message = f"lines, turns: expected 1 or more, at most 2**20 and 2**24, got {wrong[0]}, {wrong[1]}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sweep.hand_over(*wrong)
