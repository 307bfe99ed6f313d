"""Checks of derivatives: against finite differences, and of the compiled sweep against the reference.

No tolerance is guessed. `expect` bounds the float32 error of each number of a sweep, with
intervals. The reference computes in float64, whose unit roundoff is 2**-29 times that of float32;
its error is bounded by 4 * 2**-29 times the float32 bound.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph._support.checks import float_array, real, whole
from mlgraph._support.threads import checked_threads
from mlgraph.engine import reference
from mlgraph.engine.examples import unscaled
from mlgraph.engine.function import Function
from mlgraph.graph.ids import is_iterable
from mlgraph.graph.randomness import checked_seed, seed_for
from mlgraph.graph.views import Node
from mlgraph.testing import _intervals as intervals

__all__ = ["Expected", "check_against_reference", "check_gradients", "check_reference", "expect"]

Functions = Function | Node | Iterable[Node]

TO_FLOAT64 = 4 * 2.0**-29
"""Factor from a float32 bound to a float64 bound. The 4 allows for numpy's different order of operations."""


class Expected(NamedTuple):
    """Results of a sweep in float64, with bounds on the distance of float32 results from them.

    Attributes
    ----------
    values, values_error : float64, shape (batch, outputs)
    inputs, inputs_error : float64, shape (batch, inputs)
    parameters, parameters_error : float64, shape (len(graph.parameters),)
        In the layout of `graph.parameters`. The error is NaN for padding and for parameters that no
        output needs.
    """

    values: Float64
    values_error: Float64
    inputs: Float64
    inputs_error: Float64
    parameters: Float64
    parameters_error: Float64


def check_gradients(
    function: Functions,
    x: npt.ArrayLike,
    *,
    inputs: bool = True,
    parameters: bool = True,
    seed: int | None = None,
    step: float = 1e-6,
    n_threads: int | None = None,
) -> None:
    """Compare the gradient of the compiled float32 sweep with central differences.

    For a random cotangent u and a random tangent v, two inner products must agree: ``<J^T u, v>``,
    computed by one backward sweep, and ``<u, J v>``, computed by float64 differences of the outputs
    along v. This costs a few sweeps for any number of inputs and parameters. The signs of v are
    those of the gradient, so that no terms of the sum cancel and a mistake in any term shows.

    Parameters
    ----------
    function : Function, Node or sequence of Node
        What to check. Nodes are compiled.
    x : array_like, shape (batch, inputs)
        Examples. They should not lie on a kink, such as relu at 0 or a tie of max, where the
        derivative is a convention.
    inputs, parameters : bool
        Which derivatives to check.
    seed : int, optional
        Seed of u and v. By default drawn from the graph's own generator; errors name it.
    step : float
        Length of the difference step: its root mean square over the examples.
    n_threads : int, optional
        Number of threads of the sweep.

    Raises
    ------
    AssertionError
        If the products differ by more than the sum of three bounds, or if that sum is infinite
        because a value may overflow. The bounds are: the float32 error of each derivative
        (`expect`) times its component of v; the truncation error of the differences, estimated from
        the change of the slope and curvature of each example when the step doubles; and the float64
        rounding error divided by the step.
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x, y = g.add_inputs(2)
    >>> mlgraph.testing.check_gradients(mlgraph.sin(x) * y, [[1.0, 2.0], [0.5, -3.0]])
    """
    f, step = _compiled(function), _checked_step(step)
    checked_threads(n_threads)
    with f.graph.lock:  # a compilation by another thread would move the parameters
        u, seed = _cotangent(f, x, None, seed)
        gradients, expected = f.vjp(x, u, n_threads=n_threads), expect(f, x, u, ulps=1)
        errors = (expected.inputs_error, expected.parameters_error)
        _compare_products(
            f, x, u, gradients[1:3], errors, expected, (inputs, parameters), seed, step, "the float32 sweep"
        )


def check_reference(
    function: Functions,
    x: npt.ArrayLike,
    *,
    inputs: bool = True,
    parameters: bool = True,
    seed: int | None = None,
    step: float = 1e-6,
) -> None:
    """Compare the gradient of the float64 reference with central differences, without the kernels.

    Parameters and exceptions are those of `check_gradients`. The tolerance is smaller: it contains
    the float64 error of the derivatives instead of the float32 error.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x, y = g.add_inputs(2)
    >>> mlgraph.testing.check_reference(mlgraph.sin(x) * y, [[1.0, 2.0], [0.5, -3.0]])
    """
    f, step = _compiled(function), _checked_step(step)
    with f.graph.lock:
        u, seed = _cotangent(f, x, None, seed)
        expected = expect(f, x, u, ulps=1)
        errors = (expected.inputs_error * TO_FLOAT64, expected.parameters_error * TO_FLOAT64)
        gradients = (expected.inputs, expected.parameters)
        _compare_products(f, x, u, gradients, errors, expected, (inputs, parameters), seed, step, "the reference")


def check_against_reference(
    function: Functions,
    x: npt.ArrayLike,
    cotangent: npt.ArrayLike | None = None,
    *,
    seed: int | None = None,
    n_threads: int | None = None,
) -> Expected:
    """Compare each value and derivative of the compiled sweep with the float64 reference.

    Parameters
    ----------
    function : Function, Node or sequence of Node
        What to check. Nodes are compiled.
    x : array_like, shape (batch, inputs)
        Examples.
    cotangent : array_like, shape (batch, outputs), optional
        Random by default.
    seed : int, optional
        Seed of a random cotangent. By default drawn from the graph's own generator.
    n_threads : int, optional
        Number of threads of the sweep.

    Returns
    -------
    Expected
        The results of the reference and their bounds, as from `expect`.

    Raises
    ------
    AssertionError
        If a number with a finite bound (`expect`) is further from the reference than that, or if
        only one of the two is finite. The gradient of a parameter may be infinite in one and NaN in
        the other, since the examples are summed in different orders.
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x, y = g.add_inputs(2)
    >>> mlgraph.testing.check_against_reference(mlgraph.sin(x) * y, [[1.0, 2.0]]).values
    array([[1.68294197]])
    """
    f = _compiled(function)
    checked_threads(n_threads)
    u, _ = _cotangent(f, x, cotangent, seed)
    with f.graph.lock:
        expected, gradients, values = expect(f, x, u), f.vjp(x, u, n_threads=n_threads), f(x, n_threads=n_threads)
    _compare("value (example, output)", gradients.values, expected.values, expected.values_error)
    _compare("value without gradient (example, output)", values, expected.values, expected.values_error)
    _compare("gradient (example, input)", gradients.inputs, expected.inputs, expected.inputs_error)
    with np.errstate(invalid="ignore"):  # infinities become NaN
        got, want = gradients.parameters + 0 * gradients.parameters, expected.parameters + 0 * expected.parameters
    _compare("gradient (parameter)", got, want, expected.parameters_error)
    return expected


def expect(function: Functions, x: npt.ArrayLike, cotangent: npt.ArrayLike | None = None, *, ulps: int = 0) -> Expected:
    """Compute the results in float64, and bounds on the distance of float32 results from them.

    Parameters
    ----------
    function : Function, Node or sequence of Node
        What to compute. Nodes are compiled.
    x : array_like, shape (batch, inputs)
        Examples.
    cotangent : array_like, shape (batch, outputs), optional
        Ones by default.
    ulps : int
        Minimum error of an op in units in the last place. With 0, results that float32 computes
        exactly have no error. With 1, the bounds also hold near `x`, where results are not exact,
        as finite differences require.

    Returns
    -------
    Expected

    Raises
    ------
    TypeError, ValueError
        If `function` is neither a Function nor nodes, if there is no example, if `x` or `cotangent`
        are not real numbers or have another shape, or if `ulps` is not an integer of at least 0.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> expected = mlgraph.testing.expect(mlgraph.exp(g.add_input()), [[1.0]])
    >>> expected.values
    array([[2.71828183]])
    >>> bool(expected.values_error < 1e-5)
    True
    """
    f = _compiled(function)
    data = _read(f, x)
    with f.graph.lock:
        plan, p = f.engine(True).plan, f.graph.parameters.astype(np.float64)
    slots = plan.slot[f.output_ids]
    u, _ = _cotangent(f, x, np.ones((len(data), len(slots))) if cotangent is None else cotangent, 0)
    with np.errstate(all="ignore"):
        values = reference.forward(plan, p, data)
        _, adjoints = reference.loss("cotangent", [slots[0], *slots], values, target=u)
        gradient = reference.backward(plan, p, values, adjoints)
        bounds = intervals.Sweeps(plan, p, values, slots, u, whole("ulps", ulps, 0))
        columns, own = plan.input_column, slice(0, len(plan.input_column))
        inputs, inputs_error = np.zeros((2, len(data), f.n_inputs))
        inputs[:, columns] = adjoints[own].T
        inputs_error[:, columns] = intervals.distance(adjoints[own], bounds.adjoints(own)).T
        values_error = intervals.distance(values[slots], bounds.values[:, slots]).T
        gradient_error = np.where(bounds.has_gradient, intervals.distance(gradient, bounds.gradient), np.nan)
    return Expected(values[slots].T, values_error, inputs, inputs_error, gradient, gradient_error)


# --- comparisons ----------------------------------------------------------------------------------


def _compiled(function: Functions) -> Function:
    if isinstance(function, Function):
        return function
    given: Any = function
    nodes = list(given) if is_iterable(given) else [given]
    if not nodes:
        raise ValueError("function: expected at least one node, got none")
    if not isinstance(nodes[0], Node):
        raise TypeError(f"function: expected a Function or nodes, got {type(nodes[0]).__name__}")
    return Function(nodes[0].graph, nodes)


def _read(f: Function, x: npt.ArrayLike) -> Float64:
    """Read the examples in float64, as the sweep does."""
    examples = unscaled(x, f.n_inputs)
    examples.check_any()
    return examples.read(slice(None), slice(None))


def _cotangent(f: Function, x: npt.ArrayLike, given: npt.ArrayLike | None, seed: int | None) -> tuple[Float64, int]:
    """Return the given cotangent, or a random one; and the seed, which is drawn if a random one needs it."""
    shape, seed = (len(_read(f, x)), len(f.output_ids)), checked_seed(seed)
    if given is not None:
        return float_array("cotangent", given, shape, nan=True).astype(np.float64), 0
    seed = seed_for(f.graph, seed)
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(np.float64), seed


def _checked_step(step: float) -> float:
    return real("step", step, "a positive number", sys.float_info.min, sys.float_info.max)


def _compare(what: str, got: npt.NDArray[Any], want: Float64, error: Float64) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.abs(got.astype(np.float64) - want) <= error
    good = finite | (got == want) | (np.isnan(got) & np.isnan(want)) | ~np.isfinite(error)
    if not good.all():
        i = tuple(np.argwhere(~good)[0].tolist())
        raise AssertionError(
            f"{what} {', '.join(map(str, i))}: the sweep gives {got[i]!s}, the reference {want[i]!s}, "
            f"tolerance {error[i]:.3g}; {np.count_nonzero(~good)} of {good.size} exceed their tolerance"
        )


def _compare_products(
    f: Function,
    x: npt.ArrayLike,
    u: Float64,
    gradients: Sequence[npt.NDArray[Any]],
    errors: Sequence[Float64],
    expected: Expected,
    wanted: Sequence[bool],
    seed: int,
    step: float,
    name: str,
) -> None:
    """Compare the inner products of `check_gradients`; `name` says in the message where the gradients are from."""
    rng = np.random.default_rng((seed, 1))
    tangents, product, tolerance = [], 0.0, 0.0
    for gradient, error, want in zip(gradients, errors, wanted, strict=True):
        g = gradient.astype(np.float64)
        v = want * np.abs(rng.standard_normal(g.shape)) * np.where(g == 0, rng.choice([-1.0, 1.0], g.shape), np.sign(g))
        tangents.append(v)
        if want:
            product += float(np.sum(g * v))
            tolerance += float(np.nansum(error * np.abs(v)))

    plan, data, p = f.engine(True).plan, _read(f, x), f.graph.parameters.astype(np.float64)
    step /= float(np.sqrt(np.sum(tangents[0] ** 2) / max(1, len(data)) + np.sum(tangents[1] ** 2))) or 1.0

    def weighted(t: float) -> Float64:
        values = reference.forward(plan, p + t * tangents[1], data + t * tangents[0])
        return np.asarray(np.sum(u.T * values[plan.slot[f.output_ids]], axis=0))

    with np.errstate(all="ignore"):
        here, ends = weighted(0.0), [(weighted(h), weighted(-h), h) for h in (step, 2 * step)]
        (slope, turn), (wider, wider_turn) = (((a - b) / (2 * h), (a - 2 * here + b) / h) for a, b, h in ends)
        difference = float(np.sum(slope))
        # With a smooth function, the first term is three times the truncation error. With a kink
        # within the step, both terms are as large as the error.
        tolerance += float(np.sum(np.abs(slope - wider) + np.abs(turn - wider_turn / 2)))
        rounding = float(np.sum(np.abs(u) * (expected.values_error * TO_FLOAT64 + 2.0**-52 * np.abs(expected.values))))
        for gradient, at, want in zip(gradients, (data, p), wanted, strict=True):
            # The points at which the function is evaluated are rounded, too.
            rounding += want * float(np.sum(np.abs(gradient * at))) * 2.0**-52
    tolerance += rounding / step
    if not (abs(product - difference) <= tolerance < np.inf):
        raise AssertionError(
            f"<J^T u, v> = {product:.9g} from {name}, <u, J v> = {difference:.9g} from differences: "
            f"they differ by {abs(product - difference):.3g}, tolerance {tolerance:.3g}, seed {seed}"
        )
