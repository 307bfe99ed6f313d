"""Fuzzing: damaged files, random graphs, random command lines. The number of a case alone determines it.

The default tests run five cases of each target, the slow tests a hundred; options choose others:

    python -m pytest -m slow tests/test_fuzz.py --fuzz-cases 25000
    python -m pytest -m slow tests/test_fuzz.py -k model --fuzz-first 1234 --fuzz-cases 1

A case passes if it returns a correct result or raises a documented error of one line, memory stays below a limit,
and its inputs are unchanged. If a case kills the process, the file `case` in the test's folder has its number.
"""

import zlib

import numpy as np
import pytest
from fuzz_command_line import fuzz_command_line
from fuzz_files import damaged_model, fuzz_checkpoint, fuzz_model
from fuzz_graphs import fuzz_graph

TARGETS = {  # the function, and outcomes that are frequent
    "model": (fuzz_model, ["refused", "read"]),
    "checkpoint": (fuzz_checkpoint, ["refused", "read"]),
    "graph": (fuzz_graph, ["mistakes", "none"]),
    "command_line": (fuzz_command_line, ["status 0", "status 2"]),
}


@pytest.mark.filterwarnings("ignore:the numbers in column", "ignore:fit. the run diverged")
@pytest.mark.parametrize("default_cases", [5, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target, default_cases, tmp_path, monkeypatch, pytestconfig):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    fuzz, frequent = TARGETS[target]
    first = pytestconfig.getoption("--fuzz-first")
    cases = pytestconfig.getoption("--fuzz-cases") or default_cases
    outcomes = []
    for case in range(first, first + cases):
        (tmp_path / "case").write_text(f"{case}\n")
        try:
            outcomes.append(fuzz(np.random.default_rng([zlib.crc32(target.encode()), case]), tmp_path))
        except Exception as error:
            raise AssertionError(f"{target}: case {case}: {type(error).__name__}: {error}") from error
    assert cases < 100 or all(outcomes.count(outcome) > cases // 50 for outcome in frequent)


def test_the_number_of_a_case_determines_it():
    contents = [damaged_model(np.random.default_rng([1, case])) for case in range(20)]
    assert contents == [damaged_model(np.random.default_rng([1, case])) for case in range(20)]
    assert len(set(contents)) > 15
