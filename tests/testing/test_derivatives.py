"""The checks of `mlgraph.testing` accept correct derivatives and notice every fault."""

import numpy as np
import pytest
from graphs import INF, NAN, every_parameter, into_domain

import mlgraph
from mlgraph import testing
from mlgraph.graph import ops


def scaled(op, by):
    return op._replace(derivatives=lambda y, *x: by * np.stack(np.broadcast_arrays(*op.derivatives(y, *x))))


def test_a_wrong_derivative_in_the_reference_is_noticed(monkeypatch):
    changed = [scaled(op, 1.001) if op.name == "sin" else op for op in ops.BY_CODE]
    monkeypatch.setattr(ops, "BY_CODE", tuple(changed))
    g = mlgraph.Graph(seed=0)
    z = mlgraph.sin(g.add_input() * g.add_parameter(2.0))
    x = np.linspace(-1, 1, 20)[:, None]
    products = r"<J\^T u, v> = \S+ from the reference, <u, J v> = \S+ from differences.*tolerance"
    with pytest.raises(AssertionError, match=products):
        testing.check_reference(z, x)
    with pytest.raises(AssertionError, match=r"gradient \(example, input\) 0, 0: the sweep gives .*tolerance"):
        testing.check_against_reference(z, x)
    testing.check_gradients(z, x)  # the kernels do not use the table


@pytest.mark.parametrize("part", ["inputs", "parameters"])
def test_a_wrong_gradient_of_the_sweep_is_noticed(monkeypatch, part):
    _, n = every_parameter()
    x = np.random.default_rng(0).normal(size=(20, 2))
    vjp = mlgraph.Function.vjp

    def wrong(self, *args, **options):
        gradients = vjp(self, *args, **options)
        getattr(gradients, part).flat[0] += 0.05 * np.abs(getattr(gradients, part)).max()
        return gradients

    testing.check_gradients(n["z"], x)
    monkeypatch.setattr(mlgraph.Function, "vjp", wrong)
    with pytest.raises(AssertionError, match="from the float32 sweep"):
        testing.check_gradients(n["z"], x)
    with pytest.raises(AssertionError, match=r"gradient \("):
        testing.check_against_reference(n["z"], x)
    other = {"inputs": "parameters", "parameters": "inputs"}[part]
    testing.check_gradients(n["z"], x, **{part: False})
    with pytest.raises(AssertionError):
        testing.check_gradients(n["z"], x, **{other: False})


def test_a_wrong_value_of_the_sweep_is_noticed(monkeypatch):
    _, n = every_parameter()
    call = mlgraph.Function.__call__
    monkeypatch.setattr(mlgraph.Function, "__call__", lambda self, x, **o: call(self, x, **o) * np.float32(1 + 1e-4))
    with pytest.raises(AssertionError, match=r"value without gradient \(example, output\) 0, 0: .*; 5 of 5 exceed"):
        testing.check_against_reference(n["z"], np.ones((5, 2)))


FAULTS = {
    "value": lambda op: op._replace(value=lambda *x: op.value(*x) * 1.001),
    "derivative": lambda op: scaled(op, 1.001),
    "sign": lambda op: scaled(op, -1.0),
    "swapped derivatives": lambda op: op._replace(derivatives=lambda y, *x: op.derivatives(y, *x)[::-1]),
    "swapped arguments": lambda op: op._replace(value=lambda *x: op.value(*x[::-1])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_every_op_are_noticed(monkeypatch, fault):
    """The reference with a fault, rounded to float32, takes the place of the kernels."""
    rng, noticed, table = np.random.default_rng(0), [], list(ops.BY_CODE)

    def sweep(f, x, u=None, **options):
        with monkeypatch.context() as context:
            context.setattr(ops, "BY_CODE", tuple(table))
            e = testing.expect(f, x, u)
        return mlgraph.Gradients(*(a.astype(np.float32) for a in (e.values, e.inputs, e.parameters)), None)

    monkeypatch.setattr(mlgraph.Function, "vjp", sweep)
    monkeypatch.setattr(mlgraph.Function, "__call__", lambda f, x, **options: sweep(f, x).values)
    for code, op in enumerate(ops.BY_CODE):
        g = mlgraph.Graph()
        inputs = g.add_inputs(arity := op.arity if op.arity > 0 else 4)
        f = g.compile(g.add_operation(op.name, *into_domain(op.name, inputs, rng.normal)))
        x, u = rng.normal(size=(50, arity)).astype(np.float32), rng.normal(size=(50, 1)).astype(np.float32)
        testing.check_against_reference(f, x, u)
        right = sweep(f, x, u)
        table[code] = FAULTS[fault](op)
        if any((a != b).any() for a, b in zip(right[:3], sweep(f, x, u)[:3], strict=True)):
            with pytest.raises(AssertionError, match="tolerance"):
                testing.check_against_reference(f, x, u)
            noticed.append(op.name)
        table[code] = op
    # Swapping changes nothing if there is one argument, or if all arguments are treated alike; nor does scaling 0.
    unchanged = {"floor", "sign"} if fault in ("derivative", "sign") else set()
    changed = len(ops.BY_CODE) - len(unchanged)
    assert len(noticed) == {"swapped derivatives": 10, "swapped arguments": 4}.get(fault, changed)
    assert not unchanged.intersection(noticed)


def test_derivatives_of_values_that_may_overflow_cannot_be_checked():
    g = mlgraph.Graph(seed=0)
    z = mlgraph.exp(g.add_input() * 50)
    testing.check_gradients(z, [[1.0]])
    with pytest.raises(AssertionError, match="tolerance inf"):
        testing.check_gradients(z, [[2.0]])


def test_certain_infinities_and_nans_are_checked(sweep):
    g = mlgraph.Graph(seed=0)
    x = g.add_input()
    f = g.compile([1 / x, mlgraph.log(x), x - x + mlgraph.exp(x * 1e9), mlgraph.sqrt(mlgraph.exp(x) - 1)])
    expected = testing.check_against_reference(f, [[0.0], [-1.0], [NAN], [2.0], [INF]])
    np.testing.assert_array_equal(expected.values[:, 0], [INF, -1, NAN, 0.5, 0])
    np.testing.assert_array_equal(np.isinf(expected.values_error)[:, :2], False)
    assert np.isinf(expected.values_error[0, 3])  # the square root of 0, or of a negative number


def test_bounds_are_as_small_as_the_rounding_errors(sweep):
    g = mlgraph.Graph(seed=0)
    x = g.add_inputs(3)
    cancelling = testing.check_against_reference(g.add_neuron(x, weights=[1e8, 1, -1e8]), [[1, 1, 1]])
    assert cancelling.values == 1 and 1 <= cancelling.values_error < 1e3
    near_zero = -np.log(3) + np.linspace(-1e-3, 1e-3, 60).reshape(20, 3)
    assert testing.check_against_reference(mlgraph.logsumexp(*x), near_zero).values_error.max() < 1e-5
    exact = testing.expect([x[0] * 3, mlgraph.max(*x)], [[1.0, 2.0, 5.0]])
    assert exact.values.tolist() == [[3.0, 5.0]] and not exact.values_error.any()
    assert testing.expect(x[0] * 3, [[1.0, 2.0, 5.0]], ulps=1).values_error > 0


def test_nodes_and_layers_can_be_checked():
    net = mlgraph.Network(2, seed=0)
    layer = net.add_layer(3, "tanh")
    for function in (net.graph.compile(layer.neurons), layer.neurons, layer, iter(layer)):
        assert testing.check_against_reference(function, [[1.0, 2.0]]).values.shape == (1, 3)
    with pytest.raises(ValueError, match="function: expected at least one node, got none"):
        testing.check_gradients([], [[1.0]])
