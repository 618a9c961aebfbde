"""Fixed points and cycles of any system, with their multipliers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, Int8, PyTree

from .._core import Status, check_positive, check_that
from ..systems import AbstractSystem
from ._cycle import DENSE_DIM, Cycle, check_cycle, multipliers
from ._newton import newton, shortest_solutions

_LEADING = 6  # multipliers of systems too large for all of them


class FixedPoint(eqx.Module):
    """A fixed point, or a point of a cycle, and its stability.

    Everything but `x`, `residual`, `status`, `num_steps` is NaN (`stable` false, `least_period` 0) unless `status` is `OK`.

    Attributes:
        x: the point, a pytree like the start.
        residual: |step^period(x) - x|.
        status: `OK`; `NOT_CONVERGED`, `MAX_STEPS` or `NONFINITE`.
        num_steps: Newton steps taken.
        multipliers: eigenvalues of the derivative of step^period, the largest modulus first, of a complex pair the one
            with positive imaginary part first.
        spectral_radius: the largest modulus.
        exponents: log |multiplier| / (period * dt), rates per unit of time.
        stable: whether all multipliers lie inside the unit circle, by more than rounding. A point of a curve of fixed
            points, which has a multiplier 1, is not stable in this sense.
        margin: 1 - spectral_radius.
        least_period: the smallest divisor of the period after which the orbit closes already.
        complete: whether all multipliers were computed.
    """

    x: PyTree
    residual: Float[Array, ""]
    status: Int8[Array, ""]
    num_steps: Int[Array, ""]
    multipliers: Complex[Array, " k"]
    spectral_radius: Float[Array, ""]
    exponents: Float[Array, " k"]
    stable: Bool[Array, ""]
    margin: Float[Array, ""]
    least_period: Int[Array, ""]
    complete: bool = eqx.field(static=True)

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the status is `OK`."""
        return self.status == int(Status.OK)

    @property
    def kind(self) -> str:
        """The kind of the point, in a word; it looks at values, so it is not for traced code.

        All multipliers inside the unit circle: "sink"; all outside: "source" ("unstable" if only some were computed); some
        inside, some outside: "saddle"; none outside and some on it, to rounding: "neutral"; without convergence "unknown".
        """
        if not bool(self.converged):
            return "unknown"
        size = np.abs(np.asarray(self.multipliers))
        if bool(self.stable):
            return "sink"
        slack = _slack(self.multipliers, self.complete)
        if size[0] <= 1 + slack:
            return "neutral"
        if np.all(size > 1 + slack):
            return "source" if self.complete else "unstable"
        return "saddle"

    @property
    def crossing(self) -> str:
        """How the leading multiplier leaves, or would leave, the unit circle; not for traced code.

        Real and negative: "flip"; real and positive: "fold" (transcritical and pitchfork bifurcations have the same
        multiplier); complex: "Neimark-Sacker"; without convergence "unknown".
        """
        if not bool(self.converged):
            return "unknown"
        leading = complex(self.multipliers[0])
        if leading.imag != 0:
            return "Neimark-Sacker"
        return "flip" if leading.real < 0 else "fold"

    def __str__(self) -> str:
        if not bool(self.converged):
            return f"FixedPoint(status {Status(int(self.status)).name}, residual {float(self.residual):.1e})"
        return (
            f"FixedPoint({self.kind} of period {int(self.least_period)}, spectral radius "
            f"{float(self.spectral_radius):.6g} ({self.crossing}), residual {float(self.residual):.1e})"
        )


def _slack(values: Complex[Array, " k"], complete: bool) -> float:
    """The error of multipliers near the unit circle: rounding for all of them, the tolerance of `eigs` for a few."""
    eps = float(jnp.finfo(values.dtype).eps)
    return 100 * eps * values.shape[0] if complete else 10 * eps ** (2 / 3)


def fixed_point(
    system: AbstractSystem,
    x0: PyTree,
    *,
    period: int = 1,
    n: Any = 0,
    tol: Any = None,
    max_steps: int = 50,
    num_multipliers: int | None = None,
) -> FixedPoint:
    r"""A fixed point of `step`, or a point of a cycle, near `x0`, by Newton's method; stable ones and unstable ones alike.

    $$F(x) = \mathrm{step}(n + p - 1, \dots \mathrm{step}(n, x)) - x = 0.$$

    Up to 64 dimensions the Jacobian matrix is formed (`dim` tangents) and the shortest Newton step taken, so that points
    on curves of fixed points, such as minima of overparameterised networks, are found too; above, steps come from GMRES and
    the leading multipliers from `eigs`, both matrix-free. Steps are halved where the residual would grow.

    For a `Flow` the fixed points of a Runge-Kutta step are the equilibria of the vector field (at very large `dt` there may be
    further, spurious ones), its multipliers are R(dt * eigenvalue) with the stability function R of the method, and
    `exponents` are Re(eigenvalue) up to the order of the method. For periodic orbits use `floquet_multipliers`.

    Where a system depends on `n`, this is a fixed point of that stretch of steps: a cycle if the dependence has the period
    `period`. Integer leaves (an optimiser's counter), keys and functions keep the values that they have in `x0`. Near the
    fixed points of optimisers with second moments the step holds a square root at zero: there Newton's method seldom works.

    Args:
        system: any system but a `DelayFlow`; a `RandomMap` only if its noise is constant.
        x0: start of Newton's method, a state.
        period: steps after which the orbit closes, static.
        n: the step number of the first step.
        tol: the residual counts as zero at `tol * (1 + |x|)`; eps^(3/4) by default. Newton's method goes on to rounding
            anyway.
        max_steps: bound on the number of Newton steps, static.
        num_multipliers: how many; all by default up to 64 dimensions, above 6.

    Returns:
        A `FixedPoint`. Divergence is a status and no exception.

    Raises:
        TypeError: if `system` cannot have fixed points of this sense, or the state is complex.
        ValueError: if counts, tolerances or shapes do not fit.

    Example:
        ```python
        cycle = dj.stability.fixed_point(dj.systems.logistic(3.2), jnp.array(0.5), period=2)
        cycle.multipliers, cycle.stable            # 0.16, True
        ```

    References:
        Kuznetsov, Elements of Applied Bifurcation Theory (2004), chapters 4 and 10.
    """
    check_cycle(system, x0, n, period)
    good = isinstance(max_steps, int) and max_steps >= 1
    check_that(good, "max_steps", "be an integer of at least 1", f"found {max_steps!r}")
    if tol is not None:
        check_positive(tol, "tol")
    cycle = Cycle(system, x0, n, period)
    return find_cycle(cycle, x0, tol, max_steps, check_number(num_multipliers, cycle.raveler.size), DENSE_DIM)


def check_number(num_multipliers: int | None, dim: int) -> int:
    """How many multipliers to compute."""
    if num_multipliers is None:
        return dim if dim <= DENSE_DIM else _LEADING
    good = isinstance(num_multipliers, int) and 1 <= num_multipliers <= dim
    check_that(good, "num_multipliers", f"be from 1 to the dimension {dim}", f"found {num_multipliers!r}")
    return num_multipliers


@eqx.filter_jit
def find_cycle(cycle: Cycle, x0: PyTree, tol: Any, max_steps: int, count: int, dense_dim: int) -> FixedPoint:
    """Newton's method and the multipliers; the matrix is formed up to `dense_dim` dimensions."""
    flat = cycle.ravel(x0)
    dense = flat.size <= dense_dim

    def residual(x: Array) -> Array:
        return cycle.advance(x) - x

    def directions(x: Array, value: Array) -> tuple[Array, ...]:
        if dense:
            return shortest_solutions(cycle.jacobian(x) - jnp.eye(x.size, dtype=x.dtype), -value)
        return (_krylov_step(residual, x, value),)

    eps = jnp.finfo(flat.dtype).eps
    tol = jnp.asarray(eps**0.75 if tol is None else tol, flat.dtype)
    root = newton(residual, directions, flat, tol, max_steps)
    values, found_all = multipliers(cycle, root.x, count, dense)
    status = jnp.where(found_all | (root.status != int(Status.OK)), root.status, int(Status.NOT_CONVERGED))
    good = status == int(Status.OK)
    nan = jnp.asarray(jnp.nan, flat.dtype)
    sizes = jnp.where(good, jnp.abs(values), nan)
    return FixedPoint(
        x=cycle.state(root.x),
        residual=root.residual,
        status=status.astype(jnp.int8),
        num_steps=root.num_steps,
        multipliers=jnp.where(good, values, nan),
        spectral_radius=sizes[0],
        exponents=jnp.log(sizes) / (cycle.period * jnp.abs(cycle.system.dt).astype(flat.dtype)),
        stable=good & (sizes[0] < 1 - _slack(values, count == flat.size)),
        margin=1 - sizes[0],
        least_period=jnp.where(good, _least_period(cycle, root.x), 0),
        complete=count == flat.size,
    )


def _krylov_step(residual: Any, x: Float[Array, " dim"], value: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """The Newton step by GMRES; an inexact one is as good, the next step corrects it."""
    _, push = jax.linearize(residual, x)
    operator = lx.FunctionLinearOperator(push, jax.eval_shape(lambda: x))
    rtol = float(jnp.finfo(x.dtype).eps) ** 0.5
    solver = lx.GMRES(rtol=rtol, atol=0.0, restart=min(x.size, 60), max_steps=min(x.size, 60) * 10)
    return lx.linear_solve(operator, -value, solver, throw=False).value


def _least_period(cycle: Cycle, x: Float[Array, " dim"]) -> Int[Array, ""]:
    """The smallest divisor of the period after which the orbit has returned."""
    least = jnp.asarray(cycle.period)
    close = jnp.finfo(x.dtype).eps ** 0.5 * (1 + jnp.linalg.norm(x))
    for divisor in range(cycle.period - 1, 0, -1):
        if cycle.period % divisor == 0:
            returns = jnp.linalg.norm(cycle.advance(x, divisor) - x) <= close
            least = jnp.where(returns, divisor, least)
    return least
