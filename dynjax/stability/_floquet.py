"""Periodic orbits of flows, and their Floquet multipliers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int, Int8, PyTree

from .._core import Status, check_positive, check_that, found
from ..systems import Flow, trajectory
from ._cycle import Cycle, check_cycle, multipliers
from ._newton import newton, shortest_solutions

_LONGEST_SEARCH = 1_000_000  # steps in which the orbit must come back, where no period is given


class PeriodicOrbit(eqx.Module):
    """A periodic orbit of a numerical flow, and its stability.

    The numbers about stability are NaN (`stable` false, `trivial` -1) unless `status` is `OK`.

    Attributes:
        x: the point of the orbit at the start, a pytree like the start.
        period: T, in units of time.
        orbit: the states at the times t0 + i T / num_steps, each leaf with a leading axis of num_steps + 1.
        residual: |phi_T(x) - x|.
        status: `OK`; `NOT_CONVERGED` (an equilibrium included), `MAX_STEPS` or `NONFINITE`.
        num_steps: Newton steps taken.
        multipliers: eigenvalues of the monodromy matrix D phi_T(x), the largest modulus first, of a complex pair the one
            with positive imaginary part first. Those below eps |D phi_T| are rounding.
        exponents: log |multiplier| / T, the Lyapunov exponents of the orbit.
        trivial: which multiplier is the 1 along the orbit of an autonomous flow (the nearest to 1); -1 for a forced flow.
        stable: whether all multipliers, but for the trivial one, lie inside the unit circle by more than rounding.
        margin: 1 - the largest modulus, but for the trivial one.
    """

    x: PyTree
    period: Float[Array, ""]
    orbit: PyTree
    residual: Float[Array, ""]
    status: Int8[Array, ""]
    num_steps: Int[Array, ""]
    multipliers: Complex[Array, " dim"]
    exponents: Float[Array, " dim"]
    trivial: Int[Array, ""]
    stable: Bool[Array, ""]
    margin: Float[Array, ""]

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the status is `OK`."""
        return self.status == int(Status.OK)

    def __str__(self) -> str:
        if not bool(self.converged):
            return f"PeriodicOrbit(status {Status(int(self.status)).name}, residual {float(self.residual):.1e})"
        return (
            f"PeriodicOrbit(period {float(self.period):.9g}, {'stable' if bool(self.stable) else 'not stable'}, "
            f"margin {float(self.margin):.3g}, residual {float(self.residual):.1e})"
        )


def floquet_multipliers(
    flow: Flow,
    x0: PyTree,
    *,
    num_steps: int,
    period: Any = None,
    period_guess: Any = None,
    tol: Any = None,
    max_steps: int = 50,
) -> PeriodicOrbit:
    r"""A periodic orbit near `x0` by shooting, and its Floquet multipliers; stable ones and unstable ones alike.

    One period is `num_steps` steps of `flow`'s Runge-Kutta method of size T / num_steps; the orbit is periodic under these
    steps to rounding, and its multipliers are those of their derivative, the product of the tangents of all steps.

    - A forced flow, `period=T` given: $\phi_T(x) = x$, by Newton's method in x. The force starts at the flow's `t0`.
    - An autonomous flow, `period=None`: Newton's method in (x, T) with the phase condition that a step is orthogonal to the
      orbit. One multiplier is 1 (for the numerical orbit too, to far more digits than the order of the method) and is left out
      of the verdict.

    Periods and multipliers converge with the order of the method in T / num_steps; "dopri5" and "tsit5" give the most
    digits. It is single shooting: over one period no multiplier should exceed about 1e8 (in double precision). The orbit may run
    round several times if the guess says so. Each Newton step costs `dim` tangents over one period and a dense
    factorisation: meant for up to some hundred dimensions.

    Args:
        flow: the flow; its `dt` serves the search for a guess only.
        x0: a point near the orbit.
        num_steps: Runge-Kutta steps in a period, static.
        period: T of the force, in units of time; `None` for an autonomous flow.
        period_guess: an approximate period of an autonomous flow. Without it the orbit of `x0` is followed with the flow's own
            `dt` until it comes back to the plane through `x0` across the flow, near `x0`: `x0` must then lie close to a
            stable orbit, so let a transient pass before.
        tol: the residual counts as zero at `tol * (1 + |x|)`; eps^(3/4) by default.
        max_steps: bound on the number of Newton steps, static.

    Returns:
        A `PeriodicOrbit`. Divergence is a status and no exception.

    Raises:
        TypeError: if `flow` is no `Flow`, or the state is complex.
        ValueError: if counts, periods or shapes do not fit.

    Example:
        ```python
        van_der_pol = dj.Flow(lambda t, y, args: jnp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), 0.01, method="tsit5")
        orbit = dj.stability.floquet_multipliers(van_der_pol, jnp.array([2.0, 0.0]), num_steps=1000)
        orbit.period, orbit.multipliers            # 6.663286859, (1, 8.6e-4)
        ```

    References:
        Kuznetsov, Elements of Applied Bifurcation Theory (2004), sections 1.5 and 10.1.
    """
    check_that(isinstance(flow, Flow), "flow", "be a `Flow`", found(flow), TypeError)
    check_cycle(flow, x0, 0, 1)
    for name, count in (("num_steps", num_steps), ("max_steps", max_steps)):
        good = isinstance(count, int) and not isinstance(count, bool) and count >= 1
        check_that(good, name, "be an integer of at least 1", f"found {count!r}")
    for name, value in (("period", period), ("period_guess", period_guess), ("tol", tol)):
        if value is not None:
            check_positive(value, name)
    both = period is not None and period_guess is not None
    check_that(not both, "period_guess", "be left out where `period` is given", "both were given")
    if period is None:
        return _autonomous(flow, x0, period_guess, num_steps, tol, max_steps)
    return _forced(flow, x0, period, num_steps, tol, max_steps)


def _timed(cycle: Cycle, period: Array) -> Cycle:
    """The cycle with steps that fill `period`."""
    return eqx.tree_at(lambda c: c.system.dt, cycle, period / cycle.period)


def _tolerance(tol: Any, dtype: Any) -> Array:
    return jnp.asarray(float(jnp.finfo(dtype).eps) ** 0.75 if tol is None else tol, dtype)


@eqx.filter_jit
def _forced(flow: Flow, x0: PyTree, period: Any, num_steps: int, tol: Any, max_steps: int) -> PeriodicOrbit:
    cycle = Cycle(flow, x0, 0, num_steps)
    flat = cycle.ravel(x0)
    period = jnp.asarray(period, flat.dtype)
    cycle = _timed(cycle, period)

    def directions(x: Array, value: Array) -> tuple[Array, ...]:
        return shortest_solutions(cycle.jacobian(x) - jnp.eye(x.size, dtype=x.dtype), -value)

    root = newton(lambda x: cycle.advance(x) - x, directions, flat, _tolerance(tol, flat.dtype), max_steps)
    return _result(cycle, root.x, period, root, root.status, autonomous=False)


@eqx.filter_jit
def _autonomous(flow: Flow, x0: PyTree, guess: Any, num_steps: int, tol: Any, max_steps: int) -> PeriodicOrbit:
    cycle = Cycle(flow, x0, 0, num_steps)
    flat = cycle.ravel(x0)
    guess = _first_return(cycle, flat) if guess is None else jnp.asarray(guess, flat.dtype)

    def residual(z: Array) -> Array:
        x, period = z[:-1], z[-1]
        value = _timed(cycle, period).advance(x) - x
        # The last entry is the phase condition, which every Newton step satisfies by itself.
        return jnp.where(period > 0, jnp.append(value, 0), jnp.nan)

    def directions(z: Array, value: Array) -> tuple[Array, ...]:
        x, period = z[:-1], z[-1]
        timed = _timed(cycle, period)
        along = timed.advance(x, 1) - x
        by_period = jax.jvp(lambda t: _timed(cycle, t).advance(x), (period,), (jnp.ones_like(period),))[1]
        upper = jnp.concatenate([timed.jacobian(x) - jnp.eye(x.size, dtype=x.dtype), by_period[:, None]], axis=1)
        length = jnp.sqrt(jnp.sum(along * along))
        lower = jnp.append(along / jnp.where(length > 0, length, 1), 0)
        return shortest_solutions(jnp.concatenate([upper, lower[None]]), -value)

    root = newton(residual, directions, jnp.append(flat, guess), _tolerance(tol, flat.dtype), max_steps)
    x, period = root.x[:-1], root.x[-1]
    timed = _timed(cycle, period)
    # An equilibrium has every period.
    speed = jnp.linalg.norm(timed.advance(x, 1) - x) * num_steps
    moves = speed > jnp.finfo(x.dtype).eps ** 0.5 * (1 + jnp.linalg.norm(x))
    status = jnp.where((root.status == int(Status.OK)) & ~moves, int(Status.NOT_CONVERGED), root.status)
    return _result(timed, x, period, root, status, autonomous=True)


def _first_return(cycle: Cycle, start: Float[Array, " dim"]) -> Float[Array, ""]:
    """The time after which the orbit of `start` crosses the plane through it again in the same sense, near `start`.

    Near: at less than half of the largest distance that was seen so far. NaN if that does not happen in time.
    """
    step = lambda x: cycle.advance(x, 1)
    normal = step(start) - start

    def going(carry: Any) -> Array:
        x, _, farthest, before, here, n = carry
        near = jnp.linalg.norm(x - start) < farthest / 2
        return ~((before < 0) & (here >= 0) & near) & (n < _LONGEST_SEARCH) & jnp.isfinite(here)

    def body(carry: Any) -> Any:
        x, _, farthest, _, here, n = carry
        new = step(x)
        farthest = jnp.maximum(farthest, jnp.linalg.norm(new - start))
        return new, x, farthest, here, jnp.sum(normal * (new - start)), n + 1

    zero = jnp.zeros((), start.dtype)
    carry = lax.while_loop(going, body, (start, start, zero, zero, zero, jnp.asarray(0)))
    _, _, _, before, here, n = carry
    back = jnp.where(here > before, here / (here - before), 0)
    found_it = (n < _LONGEST_SEARCH) & jnp.isfinite(here)
    return jnp.where(found_it, (n - back) * jnp.abs(cycle.system.dt).astype(start.dtype), jnp.nan)


def _result(cycle: Cycle, x: Array, period: Array, root: Any, status: Array, autonomous: bool) -> PeriodicOrbit:
    values, all_found = multipliers(cycle, x, x.size, dense=True)
    status = jnp.where(all_found | (status != int(Status.OK)), status, int(Status.NOT_CONVERGED))
    good = status == int(Status.OK)
    nan = jnp.asarray(jnp.nan, x.dtype)
    sizes = jnp.where(good, jnp.abs(values), nan)
    trivial = jnp.argmin(jnp.abs(values - 1)) if autonomous else jnp.asarray(-1)
    others = jnp.max(jnp.where(jnp.arange(x.size) == trivial, 0, sizes))
    slack = 100 * x.size * float(jnp.finfo(x.dtype).eps)
    state = cycle.state(x)
    orbit = trajectory(cycle.system, state, num_steps=cycle.period)
    return PeriodicOrbit(
        x=state,
        period=period,
        orbit=orbit.ys,
        residual=root.residual,
        status=status.astype(jnp.int8),
        num_steps=root.num_steps,
        multipliers=jnp.where(good, values, nan),
        exponents=jnp.log(sizes) / period,
        trivial=jnp.where(good, trivial, -1),
        stable=good & (others < 1 - slack),
        margin=1 - others,
    )
