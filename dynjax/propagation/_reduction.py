"""The ordinary differential equation that a delay equation of small memory capacity reduces to."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8

from .._core import Function, Status, check_count, check_positive, check_that, found, is_concrete
from ..networks import lipschitz_bound
from ..systems import Flow
from ._special_solution import chebyshev_terms, evaluate_special, special_solution
from ._target import as_box, as_dtype

_SWEEPS = 400
_MOST_AXES = 3
_SIZES = {1: 49, 2: 21, 3: 11}
_PROBES = 64


class PointwiseField(eqx.Module):
    """The reduced vector field, computed anew at each point: some hundred evaluations of the delay field per window and sweep."""

    delayed_field: Any
    delay: Float[Array, ""]
    strength: Float[Array, ""]
    num_windows: int = eqx.field(static=True)
    num_sweeps: int = eqx.field(static=True)

    def __call__(self, t: Any, h: Float[Array, "m"]) -> Float[Array, "m"]:
        """The slope, the same at all times."""
        del t
        return self.solution(h).slope

    def solution(self, c: Float[Array, "m"]) -> Any:
        """The special solution through c."""
        field = lambda y, v: self.delayed_field(jnp.zeros((), y.dtype), y, (v,))
        return special_solution(field, c, self.delay, self.strength, self.num_windows, self.num_sweeps)


class ChebyshevField(eqx.Module):
    """The reduced vector field as a Chebyshev polynomial on a box; outside it has the value of the nearest point of the box."""

    coefficients: Float[Array, "*degrees m"]
    lower: Float[Array, "m"]
    upper: Float[Array, "m"]

    def __call__(self, t: Any, h: Float[Array, "m"]) -> Float[Array, "m"]:
        """The slope, the same at all times."""
        del t
        place = jnp.clip((2 * h - self.lower - self.upper) / (self.upper - self.lower), -1, 1)
        value = self.coefficients
        for axis in range(h.shape[0]):
            value = jnp.tensordot(chebyshev_terms(place[axis], value.shape[0]), value, 1)
        return value


class ReducedODE(eqx.Module):
    """The flow of the special solutions of a delay equation.

    Attributes:
        field: `field(t, h)`, the reduced vector field g, in the form that `NeuralODE(field=...)` takes.
        pointwise: the same without interpolation.
        contraction: K tau e < 1. Solutions of the delay equation approach special ones at least like exp(-t / tau).
        error: estimated largest error of `field` on the box: bound of the fixed-point iteration at the nodes, plus the largest
            difference to pointwise values at points between them. Without a box the bound at the point (1, ..., 1).
        status: `OK`; `INACCURATE` where `error` exceeds the square root of the precision times the size of the field;
            `NONFINITE`.
    """

    field: ChebyshevField | PointwiseField
    pointwise: PointwiseField
    contraction: Float[Array, ""]
    error: Float[Array, ""]
    status: Int8[Array, ""]

    def __call__(self, h: Float[Array, "m"]) -> Float[Array, "m"]:
        """The reduced vector field g(h)."""
        return self.field(0.0, h)

    def flow(self, dt: Any, *, method: str = "rk4") -> Flow:
        """The reduced equation h' = g(h) as a system."""
        return Flow(_Term(self.field), dt, method=method)

    def special_solution(self, c: Float[Array, "m"], ts: Float[Array, "num_times"]) -> Float[Array, "num_times m"]:
        """The special solution with y(0) = c at times t <= 0; NaN after 0 and more than `pointwise.num_windows` delays back."""
        values = self.pointwise.solution(jnp.asarray(c)).values
        ages = -jnp.asarray(ts, values.dtype) / self.pointwise.delay
        return jax.vmap(lambda age: evaluate_special(values, age))(ages)

    def __str__(self) -> str:
        kind = "on a box" if isinstance(self.field, ChebyshevField) else "pointwise"
        return (
            f"ReducedODE({kind}, contraction K tau e = {float(self.contraction):.4g}, error {float(self.error):.1e}, "
            f"status {Status(int(self.status)).name})"
        )


class _Term(eqx.Module):
    field: Any

    def __call__(self, t: Any, y: Array, args: Any) -> Array:
        return self.field(t, y)


def reduce_to_ode(
    dde: Any,
    *,
    delay: Any = None,
    lipschitz: Any = None,
    lower: Any = None,
    upper: Any = None,
    size: int | None = None,
    num_nodes: int | None = None,
    dtype: Any = None,
) -> ReducedODE:
    r"""The ordinary differential equation h' = g(h) of the special solutions of y'(t) = f(y(t), y(t - tau)), for K tau e < 1.

    Through every point c runs one solution that exists on the whole line with sup_{t <= 0} |y(t)| exp(t / tau) finite, and every
    solution approaches one of these at a rate exp(-t / tau) or faster. They form a flow with as many dimensions as the
    state: a delay equation of small memory is in the long run an ordinary one, with its obstructions. For small delays
    g(c) = f(c, c) - tau f_v(c, c) f(c, c) + ...

    g(c) = f(c, y(-tau)) comes from the special solution through c, found by Picard iteration on about 37 windows of 14 Chebyshev
    points (17 windows in single precision), a contraction by K tau e: log(eps) / log(K tau e) sweeps, at most 400. With a box in
    one to three dimensions g is then interpolated by a Chebyshev polynomial, cheap to evaluate; without one each
    evaluation of g iterates anew.

    Args:
        dde: a `NeuralDDE` with one delay, or a field `f(t, y, (v,))`. It must not depend on t.
        delay: tau; that of the model by default.
        lipschitz: K with |f(y, v) - f(y', v')| <= K max(|y - y'|, |v - v'|) in the sup norm; for fields of
            `dynjax.networks` a certified bound by default. It decides whether the reduction holds, and enters the error estimate.
        lower: corner of a box of states to interpolate on, a number or `(m,)`.
        upper: the opposite corner.
        size: m, for a plain field; by default that of the box, or 1.
        num_nodes: Chebyshev points for each axis; 49, 21 or 11 by default, in one, two, three dimensions.
        dtype: floating dtype of the computation; JAX's default if not given.

    Returns:
        A `ReducedODE`.

    Raises:
        ValueError: if K tau e >= 1, the model has several delays or depends on time, K or tau is missing, or the box does not
            fit.
        TypeError: if `dde` is not callable.

    Example:
        ```python
        field = lambda t, y, delayed: 0.1 * jnp.sin(2 * y) - 0.25 * jnp.tanh(delayed[0]) - 0.02
        reduced = dj.propagation.reduce_to_ode(field, delay=0.6, lipschitz=0.45, lower=-2.0, upper=2.0)
        reduced(jnp.array([0.5])), reduced.error
        ```

    References:
        Kuehn and Kuntz, arXiv:2505.07244 (2025), theorem 4.5; Driver, On Ryabov's asymptotic characterization of the solutions of
        quasi-linear differential equations with small delays (1968).
    """
    dtype = as_dtype(dtype)
    field, tau, dim = _as_field(dde, delay, size, (lower, upper))
    check_positive(tau, "delay")
    strength = _strength(dde, field, lipschitz)
    check_positive(strength, "lipschitz")
    contraction = float(strength) * float(tau) * math.e
    check_that(
        contraction < 1,
        "lipschitz",
        "give K tau e below 1, or there need be no special solution",
        f"K tau e = {contraction:.6g}",
    )
    eps = float(jnp.finfo(dtype).eps)
    sweeps = min(_SWEEPS, max(3, math.ceil(math.log(eps) / math.log(contraction))))
    windows = math.ceil(-math.log(eps)) + 1
    pointwise = PointwiseField(field, jnp.asarray(tau, dtype), jnp.asarray(strength, dtype), windows, sweeps)
    q = jnp.asarray(contraction, dtype)
    if lower is None and upper is None:
        one = _solve(pointwise, jnp.ones((1, dim), dtype))
        return ReducedODE(pointwise, pointwise, q, one[1][0], _status(one[1][0], one[0], eps))
    check_that(dim <= _MOST_AXES, "lower", f"be None above {_MOST_AXES} dimensions", f"there are {dim}")
    check_that(lower is not None and upper is not None, "upper", "be given with `lower`", "one of them is None")
    box = as_box(lower, upper, dim, dtype)
    check_count(num_nodes if num_nodes is not None else 2, "num_nodes", 2)
    grid = _interpolate(pointwise, box, _SIZES[dim] if num_nodes is None else num_nodes)
    return ReducedODE(grid[0], pointwise, q, grid[1], _status(grid[1], grid[2], eps))


def _as_field(dde: Any, delay: Any, size: int | None, box: tuple[Any, Any]) -> tuple[Any, Any, int]:
    """The delayed field f(t, y, (v,)), its delay, and the length of the state."""
    if hasattr(dde, "widths") and hasattr(dde, "delays"):
        check_that(dde.delays.shape == (1,), "dde", "have one delay", f"it has {dde.delays.shape[0]}")
        timed = getattr(dde.field, "time_dependent", False) or getattr(dde.field, "time_pieces", 1) > 1
        check_that(not timed, "dde", "not depend on time", "its field does")
        return dde.field, (dde.delays[0] if delay is None else delay), dde.widths[1]
    check_that(callable(dde), "dde", "be a NeuralDDE or a field `f(t, y, delayed)`", found(dde), TypeError)
    check_that(delay is not None, "delay", "be given for a plain field", "it is None")
    dim = max(1 if corner is None else int(np.size(corner)) for corner in box) if size is None else size
    check_count(dim, "size")
    arrays_only = isinstance(dde, eqx.Module) and all(eqx.is_array(leaf) for leaf in jax.tree_util.tree_leaves(dde))
    return (dde if arrays_only else Function(dde)), delay, dim


def _strength(dde: Any, field: Any, lipschitz: Any) -> Any:
    if lipschitz is not None:
        check_that(is_concrete(lipschitz), "lipschitz", "be known", "it is traced")
        return lipschitz
    try:
        return lipschitz_bound(field, "sup")
    except TypeError as error:
        raise ValueError(
            "Argument `lipschitz` must be given where no bound for the field is known, but it is None."
        ) from error


def _status(error: Array, values: Array, eps: float) -> Int8[Array, ""]:
    size = jnp.max(jnp.abs(values))
    code = jnp.where(error <= eps**0.5 * jnp.maximum(size, eps), int(Status.OK), int(Status.INACCURATE))
    return jnp.where(jnp.isfinite(error) & jnp.isfinite(size), code, int(Status.NONFINITE)).astype(jnp.int8)


@eqx.filter_jit
def _solve(pointwise: PointwiseField, points: Float[Array, "points m"]) -> tuple[Array, Array]:
    """Slopes and error bounds at several points."""

    def one(c: Array) -> tuple[Array, Array]:
        solution = pointwise.solution(c)
        return solution.slope, solution.error

    return jax.lax.map(one, points, batch_size=_PROBES)


def _interpolate(
    pointwise: PointwiseField, box: tuple[Array, Array], num_nodes: int
) -> tuple[ChebyshevField, Array, Array]:
    """The Chebyshev interpolant, its error and the values at the nodes."""
    lower, upper = box
    dim = lower.shape[0]
    place = lambda unit: lower + (jnp.asarray(unit, lower.dtype) + 1) / 2 * (upper - lower)
    x = np.cos(np.pi * (np.arange(num_nodes) + 0.5) / num_nodes)
    nodes = np.stack(np.meshgrid(*[x] * dim, indexing="ij"), -1)
    values, bounds = _solve(pointwise, place(nodes.reshape(-1, dim)))
    inverse = np.linalg.inv(np.polynomial.chebyshev.chebvander(x, num_nodes - 1))
    coefficients = values.reshape(*nodes.shape[:-1], dim)
    for axis in range(dim):
        coefficients = jnp.moveaxis(jnp.tensordot(jnp.asarray(inverse, lower.dtype), coefficients, (1, axis)), 0, axis)
    field = ChebyshevField(coefficients, lower, upper)
    probes = place(np.random.default_rng(0).uniform(-1, 1, (_PROBES, dim)))
    exact, probe_bounds = _solve(pointwise, probes)
    off = jnp.max(jnp.abs(jax.vmap(lambda c: field(0.0, c))(probes) - exact))
    return field, off + jnp.maximum(jnp.max(bounds), jnp.max(probe_bounds)), values
