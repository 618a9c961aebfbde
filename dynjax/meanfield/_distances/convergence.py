"""How errors fall with the size of a system: slope, constant, confidence intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PRNGKeyArray
from scipy.special import stdtrit

from ..._core import Status, check_count, check_that, found, is_concrete
from .dobrushin import DobrushinCertificate


class ConvergenceReport(eqx.Module):
    """A fit error = constant * size^slope; `str` of it is a table.

    Attributes:
        sizes: (sizes,).
        errors: root mean squares over the replicates, (sizes,).
        slope: of log error against log size.
        slope_error: its standard error.
        slope_interval: its confidence interval, (2,).
        constant: C of the fit of the root mean squares, C * size^slope.
        constant_interval: its confidence interval at the fitted slope and the geometric mean of the sizes, (2,).
        confidence: level of the intervals.
        dobrushin: a certificate that belongs to the runs, or None.
        status: `OK`; `NONFINITE` if an error is not finite, `INACCURATE` if one is zero (no power law is fitted then).
    """

    sizes: Float[Array, "sizes"]
    errors: Float[Array, "sizes"]
    slope: Float[Array, ""]
    slope_error: Float[Array, ""]
    slope_interval: Float[Array, "2"]
    constant: Float[Array, ""]
    constant_interval: Float[Array, "2"]
    confidence: float = eqx.field(static=True)
    dobrushin: DobrushinCertificate | None
    status: Int8[Array, ""]

    def __str__(self) -> str:
        level = f"{100 * self.confidence:g} %"
        low, high = (float(end) for end in self.slope_interval)
        below, above = (float(end) for end in self.constant_interval)
        lines = [f"{'size':>12} {'error':>12} {'fit':>12}"]
        for size, error in zip(np.asarray(self.sizes), np.asarray(self.errors), strict=True):
            lines.append(f"{size:>12g} {error:>12.4g} {float(self.constant) * size ** float(self.slope):>12.4g}")
        lines.append(f"slope {float(self.slope):.4f} ({level}: {low:.4f} to {high:.4f})")
        lines.append(f"constant {float(self.constant):.4g} ({level}: {below:.4g} to {above:.4g})")
        if self.dobrushin is not None:
            lines.append(str(self.dobrushin))
        return "\n".join(lines)


def convergence_report(
    sizes: Any, errors: Any, *, confidence: float = 0.95, dobrushin: DobrushinCertificate | None = None
) -> ConvergenceReport:
    r"""Fit a power law to errors at several sizes.

    Least squares of log error on log size. With replicates the slope and its standard error come from all of them, every
    replicate one observation: if errors at all sizes have one law up to their scale, their logarithms scatter equally. The
    interval is Student's t with (observations - 2) degrees of freedom. The constant is that of the root mean squares, so
    that it is an error and not a typical logarithm: log C = mean(log rms - slope log size).

    Args:
        sizes: N, at least two different ones.
        errors: (sizes,), or (sizes, replicates), at least three observations; positive.
        confidence: level of the intervals.
        dobrushin: a certificate to keep with the report.

    Returns:
        A `ConvergenceReport`; NaN where an error is zero or not finite, see its status.

    Raises:
        ValueError: if the shapes do not fit, there are too few observations, or a size or the level is out of range.

    Example:
        ```python
        print(convergence_report([100, 400, 1600], errors))
        ```
    """
    check_that(0 < confidence < 1, "confidence", "be between 0 and 1", f"found {confidence}")
    errors = jnp.asarray(errors)
    errors = errors if jnp.issubdtype(errors.dtype, jnp.floating) else errors.astype(jnp.result_type(float))
    sizes = jnp.asarray(sizes, errors.dtype)
    good = sizes.ndim == 1 and errors.ndim in (1, 2) and errors.shape[:1] == sizes.shape
    check_that(good, "errors", "have the shape (sizes,) or (sizes, replicates)", f"{found(errors)} for {found(sizes)}")
    if is_concrete(sizes):
        values = np.asarray(sizes)
        check_that(bool(np.all(values > 0)), "sizes", "be positive", "one is not")
        check_that(np.unique(values).size >= 2, "sizes", "hold two different sizes at least", f"found {values}")
    replicates = errors.reshape(sizes.shape[0], -1)
    count = replicates.size
    check_that(count >= 3, "errors", "be three at least", f"found {count}")

    x = jnp.log(sizes)
    center = jnp.mean(x)
    x = x - center
    logs = jnp.log(replicates)
    spread = replicates.shape[1] * jnp.sum(x**2)
    slope = jnp.sum(x[:, None] * logs) / spread
    scatter = logs - jnp.mean(logs) - slope * x[:, None]
    variance = jnp.sum(scatter**2) / (count - 2)
    slope_error = jnp.sqrt(variance / spread)
    rms = jnp.sqrt(jnp.mean(replicates**2, axis=1))
    level = jnp.mean(jnp.log(rms))
    quantile = float(stdtrit(count - 2, 0.5 + confidence / 2))
    both = jnp.asarray([-quantile, quantile], errors.dtype)
    constant = level - slope * center
    bad = ~jnp.all(jnp.isfinite(replicates))
    flat = jnp.any(replicates <= 0)
    mask = lambda value: jnp.where(bad | flat, jnp.nan, value)
    status = jnp.where(bad, int(Status.NONFINITE), jnp.where(flat, int(Status.INACCURATE), int(Status.OK)))
    return ConvergenceReport(
        sizes=sizes,
        errors=rms,
        slope=mask(slope),
        slope_error=mask(slope_error),
        slope_interval=mask(slope + both * slope_error),
        constant=mask(jnp.exp(constant)),
        constant_interval=mask(jnp.exp(constant + both * jnp.sqrt(variance / count))),
        confidence=float(confidence),
        dobrushin=dobrushin,
        status=status.astype(jnp.int8),
    )


def convergence_study(
    particles: Callable[[int, PRNGKeyArray], Any],
    limit: Any,
    sizes: Sequence[int],
    *,
    num_replicates: int = 8,
    key: PRNGKeyArray,
    distance: Callable[[Any, Any], Any] | None = None,
    confidence: float = 0.95,
    dobrushin: DobrushinCertificate | None = None,
) -> ConvergenceReport:
    """Run particles at several sizes against their limit and fit the rate of convergence.

    Each size is one compiled program, in which the replicates are mapped.

    Args:
        particles: `particles(num_nodes, key)`, what a run of that size is judged by: an order parameter, phases, a series. It is
            traced over the key.
        limit: the same of the limit.
        sizes: numbers of particles, static.
        num_replicates: independent runs of each size.
        key: seeds the runs; those of different sizes are independent.
        distance: `distance(run, limit)`, a number; the largest modulus of the difference by default.
        confidence: level of the intervals.
        dobrushin: a certificate to keep with the report.

    Raises:
        ValueError: if a count is not positive, or `distance` does not return a number.

    Example:
        ```python
        report = convergence_study(run, limit.order_parameter(state), [100, 400, 1600], key=key)
        report.slope, report.slope_interval
        ```
    """
    check_count(num_replicates, "num_replicates")
    for size in sizes:
        check_count(size, "sizes")
    measure = _largest if distance is None else distance

    def errors(size: int, key: PRNGKeyArray) -> Float[Array, "replicates"]:
        run = lambda key: jnp.asarray(measure(particles(size, key), limit))
        values = jax.jit(jax.vmap(run))(jax.random.split(key, num_replicates))
        check_that(values.ndim == 1, "distance", "return a number", f"found the shape {values.shape[1:]}")
        return values

    keys = jax.random.split(key, len(sizes))
    table = jnp.stack([errors(int(size), keys[i]) for i, size in enumerate(sizes)])
    return convergence_report([int(size) for size in sizes], table, confidence=confidence, dobrushin=dobrushin)


def _largest(run: Any, limit: Any) -> Float[Array, ""]:
    return jnp.max(jnp.abs(jnp.asarray(run) - jnp.asarray(limit)))
