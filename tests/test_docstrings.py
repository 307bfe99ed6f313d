"""The examples in docstrings run as written after ``import mlgraph`` and ``import numpy as np``."""

import doctest
import importlib
import pkgutil
from importlib.util import find_spec

import numpy as np
import pytest

import mlgraph

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(mlgraph.__path__, "mlgraph.")
    if not name.startswith("mlgraph.app") and (name != "mlgraph.sklearn" or find_spec("sklearn"))
]
SHOWN = "Graph Graph.neurons Graph.one_edit Function Gradients.flat Neuron Model Model.trace Model.inspect Model.ablate"
SHOWN += " Network Model.fit load GradualPruning Drawing"


def examples(name):
    found = doctest.DocTestFinder().find(importlib.import_module(name), globs={"mlgraph": mlgraph, "np": np})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", [name for name in MODULES if examples(name)])
def test_examples(name, tmp_path, monkeypatch):
    if name.startswith("mlgraph.exchange."):
        pytest.importorskip(name.rpartition(".")[2].partition("_")[0])  # each file is called after its library
    monkeypatch.chdir(tmp_path)
    for test in examples(name):
        out = []
        doctest.DocTestRunner().run(test, out=out.append)
        assert not out, "".join(out)


def test_main_classes_and_methods_have_an_example():
    found = {test.name.removeprefix(name + ".") for name in MODULES for test in examples(name)}
    assert found >= set(SHOWN.split())
