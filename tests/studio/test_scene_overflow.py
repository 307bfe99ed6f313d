"""The scene that overflows: it fails soon, and each way out of the failure works."""

import time

import pytest

pytest.importorskip("starlette", reason="needs pip install -e '.[studio]'")

from mlgraph.studio import build
from mlgraph.studio.run import OPTIONS
from mlgraph.studio.session import Session


@pytest.fixture
def failed():
    """A session whose run has just failed."""
    session = Session(*build.overflowing())
    build.new(session, {"data": "overflow"})
    build.play(session)
    run_for(session, 100_000)
    yield session
    session.close()


def run_for(session, steps):
    """Wait for so many steps more, or a failure, and pause."""
    end, target = time.monotonic() + 30, session.run.steps + steps
    while session.run.failure is None and session.run.steps < target:
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
    session.run.pause()
    session.run.wait_until_paused()


def test_it_begins_in_the_cube(failed):
    assert failed.run.status == "failed" and failed.run.steps < 10_000
    assert failed.model.graph[failed.run.failure["node"]].kind == "pow"


@pytest.mark.parametrize("policy", ["disconnect", "skip"])
def test_it_goes_on_without_the_neuron_or_the_examples(failed, policy):
    edges = failed.model.n_edges
    build.play(failed, on_nonfinite=policy)
    run_for(failed, 300)
    assert failed.run.failure is None
    assert (failed.model.n_edges < edges) == (policy == "disconnect")


def test_it_learns_from_the_start_at_half_the_rate(failed):
    failed.run.change(learning_rate=failed.run.options["learning_rate"] / 2)
    failed.reset()
    build.play(failed)
    run_for(failed, 1000)
    assert failed.run.failure is None and failed.run.epochs > 0


def test_other_data_begin_with_the_usual_options(failed):
    build.new(failed, {"data": "circle"})
    assert failed.run.options["optimizer"] == OPTIONS["optimizer"]
