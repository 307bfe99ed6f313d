"""The checks of `mlgraph.testing` can fail: they find every fault that is put in."""

import numpy as np
import pytest
from graphs import INF, NAN, every_parameter, into_domain

import mlgraph
from mlgraph.graph import ops
from mlgraph.testing import derivatives as testing


@pytest.fixture
def wrong_sine(monkeypatch):
    """An op table in which the derivative of sine is off by one part in a thousand."""
    op = ops.OPS["sin"]
    changed = op._replace(derivatives=lambda y, x: (op.derivatives(y, x)[0] * 1.001,))
    monkeypatch.setattr(ops, "BY_CODE", tuple(changed if o is op else o for o in ops.BY_CODE))


def test_checks_notice_a_wrong_derivative(wrong_sine):
    g = mlgraph.Graph()
    z = mlgraph.sin(g.input() * g.parameter(2.0))
    x = np.linspace(-1, 1, 20)[:, None]
    with pytest.raises(
        AssertionError, match=r"<J\^T u, v> = \S+ by the reference, <u, J v> = \S+ by differences.*tolerance"
    ):
        testing.check_reference(z, x)
    with pytest.raises(AssertionError, match=r"gradient \(example, input\) 0, 0: the sweep gives .*tolerance"):
        testing.check_against_reference(z, x)
    testing.check_gradients(z, x)  # the kernels are right, and the table's derivatives not in use


@pytest.mark.parametrize("part", ["inputs", "parameters"])
def test_checks_notice_a_wrong_gradient(monkeypatch, part):
    _, n = every_parameter()
    x = np.random.default_rng(0).normal(size=(20, 2))
    vjp = mlgraph.Function.vjp

    def wrong(self, *args, **options):
        gradients = vjp(self, *args, **options)
        getattr(gradients, part).flat[0] += 0.05 * np.abs(getattr(gradients, part)).max()
        return gradients

    testing.check_gradients(n["z"], x)
    monkeypatch.setattr(mlgraph.Function, "vjp", wrong)
    with pytest.raises(AssertionError, match="by the sweep in float32"):
        testing.check_gradients(n["z"], x)
    with pytest.raises(AssertionError, match=r"gradient \("):
        testing.check_against_reference(n["z"], x)
    other = {"inputs": "parameters", "parameters": "inputs"}[part]
    testing.check_gradients(n["z"], x, **{part: False})
    with pytest.raises(AssertionError):
        testing.check_gradients(n["z"], x, **{other: False})


def test_checks_notice_a_wrong_value(monkeypatch):
    _, n = every_parameter()
    call = mlgraph.Function.__call__
    monkeypatch.setattr(mlgraph.Function, "__call__", lambda self, x, **o: call(self, x, **o) * np.float32(1 + 1e-4))
    with pytest.raises(AssertionError, match=r"value without gradient \(example, output\) 0, 0: .*; 5 of 5 differ"):
        testing.check_against_reference(n["z"], np.ones((5, 2)))


def scaled(op, by):
    return op._replace(derivatives=lambda y, *x: by * np.stack(np.broadcast_arrays(*op.derivatives(y, *x))))


FAULTS = {
    "none": lambda op: op,
    "value": lambda op: op._replace(value=lambda *x: op.value(*x) * 1.001),
    "derivative": lambda op: scaled(op, 1.001),
    "sign": lambda op: scaled(op, -1.0),
    "swapped derivatives": lambda op: op._replace(derivatives=lambda y, *x: op.derivatives(y, *x)[::-1]),
    "swapped arguments": lambda op: op._replace(value=lambda *x: op.value(*x[::-1])),
}


class FaultySweep:
    """In the place of the kernels: the reference with another op table, its numbers rounded to float32."""

    def __init__(self, monkeypatch):
        self.monkeypatch, self.table = monkeypatch, ops.BY_CODE
        monkeypatch.setattr(mlgraph.Function, "vjp", lambda f, x, u, **options: self.run(f, x, u))
        monkeypatch.setattr(mlgraph.Function, "__call__", lambda f, x, **options: self.run(f, x, None).values)

    def change(self, op, fault):
        self.table = tuple(FAULTS[fault](o) if o is op else o for o in ops.BY_CODE)

    def run(self, f, x, u):
        with self.monkeypatch.context() as context:
            context.setattr(ops, "BY_CODE", self.table)
            e = testing.expect(f, x, u)
        return mlgraph.engine.function.Gradients(
            *(a.astype(np.float32) for a in (e.values, e.inputs, e.parameters)), None
        )


@pytest.mark.parametrize("fault", [*FAULTS][1:])
def test_faults_of_ops_are_found(monkeypatch, fault):
    sweep, rng, found = FaultySweep(monkeypatch), np.random.default_rng(0), []
    for op in ops.BY_CODE:
        g = mlgraph.Graph()
        inputs = g.inputs(arity := op.arity if op.arity > 0 else 4)
        f = g.compile(g.operation(op.name, *into_domain(op.name, inputs, rng.normal)))
        x, u = rng.normal(size=(50, arity)).astype(np.float32), rng.normal(size=(50, 1)).astype(np.float32)
        sweep.change(op, "none")
        testing.check_against_reference(f, x, u)
        right = sweep.run(f, x, u)
        sweep.change(op, fault)
        if any((a != b).any() for a, b in zip(right[:3], sweep.run(f, x, u)[:3], strict=True)):
            with pytest.raises(AssertionError, match="tolerance"):
                testing.check_against_reference(f, x, u)
            found.append(op.name)
    # Swapping changes nothing where there is one argument, or where all arguments are treated alike.
    assert len(found) == {"swapped derivatives": 10, "swapped arguments": 4}.get(fault, len(ops.BY_CODE))


def test_what_may_overflow_cannot_be_checked():
    g = mlgraph.Graph()
    z = mlgraph.exp(g.input() * 50)
    testing.check_gradients(z, [[1.0]])
    with pytest.raises(AssertionError, match="tolerance inf"):
        testing.check_gradients(z, [[2.0]])


def test_checks_need_a_node():
    with pytest.raises(ValueError, match="function: expected at least one node, got none"):
        testing.check_gradients([], [[1.0]])


def test_bounds_hold_what_must_not_be_finite(sweep):
    """Certain infinities and NaN are held to be just that; what depends on rounding is not."""
    g = mlgraph.Graph()
    x = g.input()
    f = g.compile([1 / x, mlgraph.log(x), x - x + mlgraph.exp(x * 1e9), mlgraph.sqrt(mlgraph.exp(x) - 1)])
    expected = testing.check_against_reference(f, [[0.0], [-1.0], [NAN], [2.0], [INF]])
    np.testing.assert_array_equal(expected.values[:, 0], [INF, -1, NAN, 0.5, 0])
    np.testing.assert_array_equal(np.isinf(expected.values_error)[:, :2], False)
    assert np.isinf(expected.values_error[0, 3])  # the square root of 0, or of less


def test_bounds_hold_a_neuron_of_terms_that_cancel(sweep):
    g = mlgraph.Graph()
    expected = testing.check_against_reference(g.add_neuron(g.inputs(3), weights=[1e8, 1, -1e8]), [[1, 1, 1]])
    assert expected.values == 1 and 1 <= expected.values_error < 1e3


def test_bounds_hold_logarithms_close_to_zero(sweep):
    g = mlgraph.Graph()
    x = -np.log(2) + np.linspace(-1e-3, 1e-3, 40).reshape(20, 2)
    assert testing.check_against_reference(mlgraph.logsumexp(*g.inputs(2)), x).values_error.max() < 1e-5


def test_nodes_stand_for_their_function():
    g = mlgraph.Graph()
    x = g.input()
    nodes, data = [x * x, x + 1.0], [[2.0], [3.0]]
    for expected in (testing.expect(nodes, data), testing.expect(g.compile(nodes), data)):
        np.testing.assert_array_equal(expected.values, [[4, 3], [9, 4]])


def test_a_layer_stands_for_its_neurons():
    net = mlgraph.Network(2, seed=0)
    layer = net.add_layer(3, "tanh")
    for nodes in (layer, iter(layer)):
        assert testing.check_against_reference(nodes, [[1.0, 2.0]]).values.shape == (1, 3)
