"""Fixtures: each build of the sweeps that this processor can run."""

import importlib

import pytest

import mlgraph_ext


@pytest.fixture(params=mlgraph_ext.AVAILABLE)
def sweep(request, monkeypatch):
    """A build of the kernels, also the one that the package uses while the test runs."""
    module = importlib.import_module(f"mlgraph_ext._sweep_{request.param}")
    monkeypatch.setattr(mlgraph_ext, "sweep", module)
    return module
