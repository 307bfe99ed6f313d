"""Sparse rows: which of them form quads, and what must not pass from one row to another.

`test_white_sweep` compares their losses and gradients with the reference.
"""

import sys

import numpy as np
import pytest
from processes import run
from swept import check, data

import mlgraph
import mlgraph_ext


def test_neurons_with_equal_sources_form_quads():
    """Quads have four neurons, or three where only three are left. Builds with short vectors have none."""
    alike = np.concatenate([np.arange(n, 0, -1) for n in range(1, 9)]).astype(np.int32)
    out = np.empty(len(alike), np.uint8)
    mlgraph_ext.sweep.find_quads(alike, out)
    in_quads = [int(part.sum()) for part in np.split(out, np.cumsum(range(1, 8)))]
    assert in_quads == ([0, 0, 3, 4, 4, 4, 7, 8] if mlgraph_ext.ISA in ("v3", "v4") else [0] * 8)


@pytest.mark.parametrize("together", [3, 4])
@pytest.mark.parametrize("n", [5, 64])
def test_infinite_weight_affects_only_its_own_row_of_a_quad(sweep, together, n):
    """An infinite weight times a delta of zero is NaN; neighbours in the quad must not get it."""
    g = mlgraph.Graph()
    x = g.add_inputs(3)
    hidden = [g.add_neuron(x[:2], "relu", weights=[1.0, 2.0]) for _ in range(together)]
    last = [g.add_neuron([*hidden, x[2]], weights=np.ones(together + 1)) for _ in range(2)]
    function = g.compile(last)
    hidden[-1].weights[0] = np.inf
    rows = np.tile(np.float32([0.5, 0.25, 1.0]), (n, 1))
    np.testing.assert_array_equal(function.vjp(rows).inputs, np.tile(np.float32([np.inf, 4.0 * together, 2.0]), (n, 1)))


def test_repeated_source_gets_the_adjoint_of_each_edge(sweep):
    """Only neurons written out can have a repeated source."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.add_inputs(6)
    hidden = [g.add_neuron(x, "tanh", weights=rng.normal(size=6)) for _ in range(8)]
    sources = hidden + hidden[:3]
    outputs = [mlgraph.sum(*[g.add_parameter(rng.normal() / 4) * node for node in sources]) for _ in range(9)]
    plan = check(mlgraph.Model(g, outputs, "softmax_cross_entropy"), *data(50, 6, 9, "float"))
    assert [ins.arity for _, ins in plan.trained] == [6, 11]


READ_ONLY = """
import ctypes, mmap
import numpy as np
import mlgraph
from mlgraph.models.running import engine_of

net = mlgraph.Network(9, seed=0)
net.add_layer(5, "tanh")
net.add_layer(3, "softmax")
net.prune(0.3)
engine_of(net)
storage = net.graph.storage
room = mmap.mmap(-1, mmap.PAGESIZE)
own = np.frombuffer(room, np.float32)[: len(storage.vector)]
own[:] = storage.vector
storage.vector = own
x, y = np.eye(9, dtype=np.float32), np.arange(9) % 3
expected = net.gradients(x, y).parameters
PROT_READ = 1
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(own.ctypes.data), ctypes.c_size_t(mmap.PAGESIZE), PROT_READ) == 0
np.testing.assert_array_equal(net.gradients(x, y).parameters, expected)
print("as before")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses mprotect of Linux")
def test_gradients_do_not_write_parameters():
    """Not even with the same value: another thread may write a weight at the same time."""
    assert run(READ_ONLY) == ["as", "before"]
