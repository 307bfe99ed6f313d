"""Kernels refuse arrays and numbers that do not fit together before they access memory."""

import gc
import re

import numpy as np
import pytest
from swept import data, layered

from mlgraph.compiler.instructions import Instruction
from mlgraph.compiler.plan import Plan
from mlgraph.compiler.units import units_of
from mlgraph.engine.engine import OPTIMIZERS
from mlgraph.engine.losses import LOSSES
from mlgraph.engine.steps import Steps
from mlgraph_ext import _topology

NUMBERS = np.zeros(3, np.float32)


def floats(*shape):
    return np.zeros(shape, np.float32)


def prepared(sweep, **changes):
    """A sweep of a small network on two threads, prepared as `fit` does it."""
    net = layered((140, 33, 10))
    plan, vector = Plan(net.graph, net.output_ids), net.graph.storage.vector
    first = changes.pop("moments", floats(len(vector)))
    options = {
        "units": units_of(plan, True, 2),
        "optimizer": OPTIMIZERS["momentum"],
        "hyper": (0.9, 0.0, 0.0),
        "n_workers": 2,
        "n_tiles": 2,
        "sparse": True,
        "ahead": True,
        "backward": True,
        "first_zeroed": plan.first_zeroed,
        "loss": LOSSES["squared_error"],
        "loss_slots": plan.slot[[net.output_ids[0], *net.output_ids]],
        "value_slots": plan.slot[net.output_ids],
    }
    vectors = changes.pop("vectors", (vector, first, None, None))
    program = changes.pop("program", None) or sweep.Program(plan)
    return sweep.Sweep(program, vectors, sweep.Buffers(), **{**options, **changes})


STEPS = Steps(np.array([0, 8]), np.array([8, 8]), floats(2))
TARGET = floats(16, 10)


def batch(sweep, **changes):
    return sweep.Batch(**{"bytes": np.ones((16, 140), np.uint8), "floats": None, "target": TARGET, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": np.zeros((2, 5), int)}, "units: expected rows of 6 numbers, got 5"),
        ({"units": np.array([[9, 0, 0, 1, 0, 1]])}, "units: expected parts of instructions, got"),
        ({"units": np.array([[1, 0, 0, 999, 0, 1]])}, "units: expected parts of instructions, got"),
        ({"units": np.array([[1, 0, 0, 1, 0, 9]])}, "units: expected parts of instructions, got"),
        ({"vectors": (floats(3), None, None, None)}, "vectors: expected [0-9]+ parameters, got fewer"),
        ({"moments": None}, "vectors: expected [0-9]+ moments, got fewer"),
        ({"moments": floats(3)}, "vectors: expected [0-9]+ moments, got fewer"),
        ({"optimizer": 7}, "optimizer: expected 0 to 3, got 7"),
        ({"optimizer": OPTIMIZERS["adam"]}, "vectors: expected [0-9]+ moments, got fewer"),
        ({"n_workers": 0}, "n_workers, wide, at_once: expected 1 or more"),
        ({"wide": 3, "at_once": 3}, "n_workers, wide, at_once: expected 1 or more"),
        ({"wide": 4, "at_once": 2}, "n_workers, wide, at_once: expected 1 or more"),
        ({"n_tiles": 1}, "n_tiles: expected 2 or more, got 1"),
        ({"units": None, "at_once": 2}, "n_tiles: expected 4 or more, got 2"),
        ({"sparse": False}, "sparse, as_bytes, ahead, in_packs: expected what the program allows"),
        ({"as_bytes": True, "sparse": False, "ahead": False}, "sparse, as_bytes, ahead, in_packs: expected"),
        ({"units": None, "in_packs": True}, "sparse, as_bytes, ahead, in_packs: expected"),
        ({"columns": np.arange(3, dtype=np.int32)}, "columns: expected 140 numbers, got 3"),
        ({"columns": np.zeros(140, np.int32)}, "columns: expected ascending numbers, got 0 in place 1"),
        ({"first_zeroed": -1}, "first_zeroed, loss_slots: expected slots within"),
        ({"loss_slots": None}, "first_zeroed, loss_slots: expected slots within"),
        ({"value_slots": np.array([10**6], np.int32)}, "slots: expected numbers below"),
        ({"value_slots": np.array([-1], np.int32)}, "slots: expected numbers below"),
        ({"value_slots": np.array([3], np.int32)}, "slots: expected 140 or more, as the inputs have none, got 3"),
        ({"adjoint_slots": np.array([150], np.int32), "backward": False}, "adjoint_slots: expected a backward sweep"),
    ],
)
def test_a_sweep_refuses_what_does_not_fit_together(sweep, changes, message):
    assert sweep.Call(prepared(sweep), batch(sweep), STEPS, seed=0).run() == -1
    with pytest.raises(ValueError, match=f"^{message}"):
        prepared(sweep, **changes)


def test_a_program_refuses_instructions_that_do_not_lie_within_its_tables(sweep):
    net = layered((140, 33, 10))
    for column, wrong in (
        ("dst", 10**6),
        ("size", -1),
        ("args", 10**6),
        ("weights", -1),
        ("n_weights", 1),
        ("kind", 9),
    ):
        plan = Plan(net.graph, net.output_ids)
        plan.program[0, Instruction._fields.index(column)] = wrong
        with pytest.raises(ValueError, match=r"^program: expected instructions within the tables, got \["):
            sweep.Program(plan)
    plan = Plan(net.graph, net.output_ids)
    plan.program = plan.program[:, 1:].copy()
    with pytest.raises(ValueError, match=r"^program: expected rows of 24 numbers, got 23$"):
        sweep.Program(plan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes": None}, "bytes, floats: expected one of them"),
        ({"floats": floats(16, 140)}, "bytes, floats: expected one of them"),
        ({"label": np.zeros(3, np.int32)}, "label: expected 16 numbers, one for each example, got 3"),
        ({"label": np.full(16, -1, np.int32)}, "label: expected 0 or more, got -1"),
        ({"target": floats(2, 10)}, "target: expected 16 numbers, one for each example, got 2"),
        ({"weight": floats(1)}, "weight: expected 16 numbers, one for each example, got 1"),
    ],
)
def test_a_batch_refuses_what_does_not_fit_together(sweep, changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        batch(sweep, **changes)


@pytest.mark.parametrize(
    ("answers", "steps", "options", "message"),
    [
        ({"bytes": np.ones((16, 139), np.uint8)}, None, {}, "batch: expected more than 139 columns"),
        ({"target": None}, None, {}, "target: expected 10 columns, one for each output, got 0"),
        ({"target": floats(16, 9)}, None, {}, "target: expected 10 columns, one for each output, got 9"),
        ({}, {"first": np.zeros(1, int)}, {}, "steps: expected 1 numbers of each kind, got others"),
        ({}, {"rate": floats(1)}, {}, "steps: expected 2 numbers of each kind, got others"),
        ({}, {"decay": floats(1)}, {}, "steps: expected 2 numbers of each kind, got others"),
        ({}, {"size": np.array([8, 9])}, {}, "steps: expected steps within 16 examples, got 9 from 8 on"),
        ({}, {"size": np.array([8, 0])}, {}, "steps: expected at least one example in every step, got 0"),
        ({}, {"first": np.array([-1, 8])}, {}, "steps: expected steps within 16 examples, got 8 from -1"),
        ({}, {"order": np.full(16, 16)}, {}, "order: expected numbers below 16, got 16"),
        ({}, {}, {"losses": floats(15)}, "losses, correct: expected 16 numbers, one for each example, got fewer"),
        ({}, {}, {"losses": floats(16), "correct": np.zeros(2, np.uint8)}, "losses, correct: expected 16 numbers"),
        ({}, {}, {"values": floats(16, 9)}, r"values, adjoints: expected shape \(16, 10\), got \(16, 9\)"),
        ({}, {}, {"values": floats(15, 10)}, r"values, adjoints: expected shape \(16, 10\), got \(15, 10\)"),
        ({}, {}, {"highest": np.zeros(3, int)}, "highest: expected 16 numbers, one for each example, got 3"),
    ],
)
def test_a_call_refuses_what_does_not_fit_together(sweep, answers, steps, options, message):
    steps = None if steps is None else STEPS._replace(**steps)
    with pytest.raises(ValueError, match=f"^{message}"):
        sweep.Call(prepared(sweep), batch(sweep, **answers), steps, **options)


def test_a_call_refuses_steps_of_more_tiles_than_its_sweep_has_memory_for(sweep):
    many = batch(sweep, bytes=np.ones((99, 140), np.uint8), target=floats(99, 10))
    with pytest.raises(ValueError, match=r"^steps: expected at most 2 tiles, got 4$"):
        sweep.Call(prepared(sweep), many)


@pytest.mark.parametrize("gradient", [None, NUMBERS])
def test_a_call_needs_a_vector_to_add_gradients_to(sweep, gradient):
    adding = prepared(sweep, optimizer=OPTIMIZERS["accumulate"])
    with pytest.raises((ValueError, TypeError), match=r"^gradient: expected a vector of "):
        sweep.Call(adding, batch(sweep), STEPS, gradient=gradient)


def test_labels_that_the_loss_has_no_output_for_are_refused(sweep):
    classes = prepared(sweep, loss=LOSSES["softmax_cross_entropy"])
    with pytest.raises(ValueError, match=r"^label: expected numbers below 10, got 10$"):
        sweep.Call(classes, batch(sweep, label=np.full(16, 10, np.int32)))


def test_a_call_outlives_the_arrays_and_objects_that_it_was_made_from(sweep):
    net, x = layered((140, 33, 10)), data(16, 140, 10, "sparse")[0]
    values, expected = floats(16, 10), net.forward(x)
    plan = Plan(net.graph, net.output_ids)
    made = sweep.Sweep(
        sweep.Program(plan),
        (net.graph.storage.vector.copy(), None, None, None),
        sweep.Buffers(),
        value_slots=plan.slot[net.output_ids],
    )
    call = sweep.Call(made, sweep.Batch(x.copy(), None), values=values)
    del made, plan
    gc.collect()
    assert call.run() == -1 == call.run()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


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


def test_calls_at_the_same_time_have_one_worker_and_memory_of_their_own(sweep):
    with pytest.raises(ValueError, match=r"^calls: expected calls of one worker, got 2$"):
        sweep.run_each([sweep.Call(prepared(sweep), batch(sweep), STEPS)], 2)
    alone = sweep.Call(prepared(sweep, units=None, n_workers=1), batch(sweep))
    with pytest.raises(RuntimeError, match=r"^sweep: its buffers are in use by another call$"):
        sweep.run_each([alone, alone], 2)
    assert alone.run() == -1
    with pytest.raises(TypeError):
        sweep.run_each([None], 2)
    assert sweep.run_each([], 2) is None
