"""Fixtures: each build of the sweeps that this processor can run, and more. Profiles of hypothesis: quick, and thorough."""

import importlib
import signal
import sys

import hypothesis
import pytest

import mlgraph_ext

pytest_plugins = ["checkpoint_runs", "mnist_program"]
pytest.register_assert_rewrite("bounds", "fuzz_files", "fuzz_graphs", "fuzz_command_line", "swept", "drawn")

# Examples are run against the one `sweep` that the test has from its fixture.
same_fixture = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "quick", max_examples=40, deadline=None, derandomize=True, suppress_health_check=same_fixture
)
# python -m pytest tests/test_expressions.py --hypothesis-profile=thorough
hypothesis.settings.register_profile(
    "thorough", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=same_fixture
)
hypothesis.settings.load_profile("quick")


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-cases", type=int, default=100, metavar="N", help="cases of each target of tests/test_fuzz.py"
    )
    parser.addoption("--fuzz-first", type=int, default=0, metavar="K", help="the first of them")
    parser.addoption("--cycles", type=int, default=15, metavar="N", help="cycles of tests/test_memory.py")
    parser.addoption("--kills", type=int, default=2, help="kills of each run in tests/test_checkpoint.py (default: 2)")
    parser.addoption("--faults", type=int, default=90, help="faults in tests/test_faults.py (default: 90)")


@pytest.fixture
def python_handles_ctrl_c():
    """A shell has what it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_matplotlib(monkeypatch):
    """As where it is not installed."""
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.pyplot", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(params=mlgraph_ext.AVAILABLE)
def sweep(request, monkeypatch):
    """A build of the kernels, also the one that the package uses while the test runs."""
    module = importlib.import_module(f"mlgraph_ext._sweep_{request.param}")
    monkeypatch.setattr(mlgraph_ext, "sweep", module)
    return module
