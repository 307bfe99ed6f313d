"""Fuzzing: damaged files, random graphs, random command lines. A case's number alone determines it.

The default tests run five cases of each target, the slow tests a hundred; options choose others:

    python -m pytest -m slow tests/test_fuzz.py --fuzz-cases 25000
    python -m pytest -m slow tests/test_fuzz.py -k model --fuzz-first 1234 --fuzz-cases 1

A case passes if it returns a right answer or raises a documented error of one line, memory stays within a bound,
and its inputs are unchanged. If a case kills the process, the file `case` in the test's folder has its number.
"""

import os
import tracemalloc
import zlib

import numpy as np
import pytest
from fuzz_command_line import fuzz_command_line
from fuzz_files import damaged_model, fuzz_checkpoint, fuzz_dataset, fuzz_idx, fuzz_model
from fuzz_graphs import fuzz_graph

TARGETS = {
    "idx": (fuzz_idx, {"refused", "read"}),
    "dataset": (fuzz_dataset, {"refused", "read"}),
    "model": (fuzz_model, {"refused", "read"}),
    "checkpoint": (fuzz_checkpoint, {"refused", "read"}),
    "graph": (fuzz_graph, {"mistakes", "none"}),
    "command_line": (fuzz_command_line, {"status 0", "status 2"}),
}


@pytest.mark.parametrize("default_cases", [5, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target, default_cases, tmp_path, monkeypatch, pytestconfig, record_property):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    fuzz, outcomes = TARGETS[target]
    first = pytestconfig.getoption("--fuzz-first")
    cases = pytestconfig.getoption("--fuzz-cases") or default_cases
    counts = dict.fromkeys(outcomes, 0)
    progress = os.open(tmp_path / "case", os.O_CREAT | os.O_WRONLY)
    traced = target in ("idx", "dataset", "model")
    if traced:
        tracemalloc.start()
    try:
        for case in range(first, first + cases):
            os.pwrite(progress, f"{case:9}\n".encode(), 0)
            try:
                outcome = fuzz(np.random.default_rng([zlib.crc32(target.encode()), case]), tmp_path)
            except Exception as error:
                raise AssertionError(f"{target}: case {case}: {type(error).__name__}: {error}") from error
            counts[outcome] = counts.get(outcome, 0) + 1
    finally:
        os.close(progress)
        if traced:
            tracemalloc.stop()
    record_property("outcomes", counts)
    print(f"\n{target}: {cases} cases from {first}: {counts}")
    assert cases < 100 or all(counts[outcome] > cases // 50 for outcome in outcomes), counts


def test_number_of_a_case_determines_it():
    contents = [damaged_model(np.random.default_rng([1, case])) for case in range(20)]
    assert contents == [damaged_model(np.random.default_rng([1, case])) for case in range(20)]
    assert len(set(contents)) > 15
