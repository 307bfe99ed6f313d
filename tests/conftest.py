"""Fixtures that several folders share, command-line options, and two profiles of hypothesis."""

import signal
import sys

import hypothesis
import pytest

import mlgraph_ext

pytest_plugins = ["checkpoint_runs", "mnist_program"]
pytest.register_assert_rewrite("bounds", "fuzz_files", "fuzz_graphs", "fuzz_command_line", "swept", "drawn")

# All examples of a test may share one value of its fixtures: fixtures here hold no state that an example changes.
same_fixture = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=same_fixture
)
# python -m pytest tests/engine/test_expressions.py --hypothesis-profile=thorough
hypothesis.settings.register_profile(
    "thorough", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=same_fixture
)
hypothesis.settings.load_profile("quick")


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-cases", type=int, metavar="N", help="cases of each target of tests/test_fuzz.py (default: 5, slow: 100)"
    )
    parser.addoption("--fuzz-first", type=int, default=0, metavar="K", help="number of the first case")
    parser.addoption("--cycles", type=int, default=15, metavar="N", help="cycles of tests/models/test_memory.py")
    parser.addoption(
        "--kills", type=int, default=2, help="kills of each run in tests/training/test_checkpoint.py (default: 2)"
    )
    parser.addoption("--faults", type=int, default=90, help="faults in tests/training/test_faults.py (default: 90)")


@pytest.fixture
def python_handles_ctrl_c():
    """Restore Python's handler of SIGINT: shells make background processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_matplotlib(monkeypatch):
    """Make imports of matplotlib fail."""
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.pyplot", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(params=[mlgraph_ext.ISA])
def sweep():
    """Return the build of the kernels in use; set MLGRAPH_ISA to test another, as .ci/run does."""
    return mlgraph_ext.sweep
