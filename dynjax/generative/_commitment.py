"""When single trajectories commit to a mode."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from .._core import check_count, check_that, found, is_concrete
from ._field import SolveOptions, as_points, as_times, check_field, over_points, solve, summary, time_span
from ._mixture_field import MixtureField


class Commitment(eqx.Module):
    """When trajectories commit to a mode.

    Attributes:
        times: the time from which on the responsibility of the final mode is above the threshold, `(*batch,)`; the time of the
            noise where it always was, NaN where it is below at the end.
        modes: the mode with the largest responsibility at the end, `(*batch,)`.
        points: the points at the end, `(*batch, d)`.
        status: that of sampling, `(*batch,)`.
    """

    times: Float[Array, "*batch"]
    modes: Int[Array, "*batch"]
    points: Float[Array, "*batch d"]
    status: Int8[Array, "*batch"]

    def __str__(self) -> str:
        return f"Commitment(shape {self.times.shape}, median {jnp.nanmedian(self.times):.4g}, {summary(self.status)})"


def commitment_times(
    field: Any,
    x0: Float[Array, "*batch d"],
    *,
    exact: MixtureField | None = None,
    threshold: Any = 0.9,
    num_times: int = 129,
    num_steps: int | None = None,
    method: str = "rk4",
    rtol: float | None = None,
    atol: float | None = None,
) -> Commitment:
    r"""The time from which each trajectory belongs for good to the mode where it ends.

    With r_k(t, x) the responsibilities of the exact field, x(t) the trajectory and k the mode of the largest r_k at its end, it
    is the last time at which r_k(t, x(t)) is below the threshold: the last crossing seen on a grid of times, interpolated
    linearly in log r_k / (1 - r_k).

    Args:
        field: the field that carries the points: an exact or a trained one.
        x0: points at the time of the noise, `(*batch, d)`.
        exact: the exact field whose responsibilities count, with the same path; `field` itself by default.
        threshold: between 1/2 and 1.
        num_times: size of the grid from noise to data.
        num_steps: fixed Runge-Kutta steps between two times of the grid, in place of the adaptive solver.
        method: of these fixed steps.
        rtol: relative tolerance of the adaptive solver.
        atol: absolute tolerance.

    Returns:
        A `Commitment`.

    Raises:
        TypeError: if no exact field is given.
        ValueError: if the threshold is not a number in [1/2, 1), or points and fields or the times of both fields do not fit.

    Example:
        ```python
        field = dj.generative.GaussianMixture([-2.0, 2.0], 0.25).flow_matching_field()
        jnp.median(dj.generative.commitment_times(field, jax.random.normal(key, (1000, 1))).times)
        ```
    """
    exact = field if exact is None else exact
    must = "be a MixtureField where `field` is none: its responsibilities say which mode is which"
    check_that(isinstance(exact, MixtureField), "exact", must, found(exact), TypeError)
    check_count(num_times, "num_times", 2)
    if is_concrete(threshold):
        good = np.ndim(threshold) == 0 and bool(0.5 <= threshold < 1)
        check_that(good, "threshold", "lie in [1/2, 1)", f"found {threshold}")
    options = SolveOptions(num_steps, method, rtol=rtol, atol=atol).checked()
    x0 = as_points(x0, "x0")
    check_field(field, x0, "x0")
    check_field(exact, x0, "x0")
    spans = time_span(field), time_span(exact)
    if is_concrete(spans):
        (noise, data), others = (tuple(map(float, span)) for span in spans)
        must = f"have noise and data at the times {noise:g} and {data:g} of `field`"
        check_that(np.allclose((noise, data), others), "exact", must, f"they are {others[0]:g} and {others[1]:g}")
    start, stop = as_times(None, field, x0.dtype)
    times = start + (stop - start) * jnp.linspace(0, 1, num_times, dtype=x0.dtype)
    return _commitment(field, exact, x0, times, jnp.asarray(threshold, x0.dtype), options)


@eqx.filter_jit
def _commitment(
    field: Any, exact: MixtureField, x0: Array, times: Array, threshold: Array, options: SolveOptions
) -> Commitment:
    level = jnp.log(threshold) - jnp.log1p(-threshold)

    def single(x: Array) -> Commitment:
        path, _, status = solve(field, x, times, options)
        logs = jax.vmap(lambda t, x: jax.nn.log_softmax(exact.law(t).log_parts(x)[0]))(times, path)
        mode = jnp.argmax(logs[-1])
        own = jnp.arange(logs.shape[1]) == mode
        others = jax.scipy.special.logsumexp(jnp.where(own, -jnp.inf, logs), axis=1)
        odds = jnp.take(logs, mode, axis=1) - others  # infinite for a single mode
        return Commitment(_last_crossing(times, odds, level), mode, path[-1], status)

    return over_points(single, x0)


def _last_crossing(times: Float[Array, "times"], odds: Float[Array, "times"], level: Array) -> Float[Array, ""]:
    below = odds < level
    last = times.shape[0] - 1 - jnp.argmax(below[::-1])
    after = jnp.minimum(last + 1, times.shape[0] - 1)
    gap = odds[after] - odds[last]
    good = jnp.isfinite(gap) & (gap > 0)
    part = jnp.where(good, (level - odds[last]) / jnp.where(good, gap, 1), 1)
    crossing = times[last] + part * (times[after] - times[last])
    crossing = jnp.where(jnp.any(below), crossing, times[0])
    return jnp.where(below[-1] | jnp.isnan(odds[-1]), jnp.nan, crossing)
