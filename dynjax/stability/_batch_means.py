"""Error bars of time averages: overlapping batch means over a stationary, correlated series."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import check_that, found
from ..linalg import student_factor


class SeriesStatistics(eqx.Module):
    """A time average with its error bar. Arrays have the shape of one entry of the series.

    Attributes:
        mean: the average; minus infinity where one entry of the series is.
        standard_error: its standard error; infinite where the series is too short to tell, 0 where the mean is -inf.
        autocorrelation_time: integrated autocorrelation time 1 + 2 sum_j rho_j, in samples; 1 for independent samples.
        effective_sample_size: number of samples divided by the autocorrelation time.
        drift: the mean of the second half minus that of the first, in standard errors of such a difference; far from
            [-3, 3] where the series has not settled.
        num_samples: number of samples that were averaged.
        degrees_of_freedom: those of the standard error, about 1.5 times the number of batches that do not overlap.
    """

    mean: Float[Array, "..."]
    standard_error: Float[Array, "..."]
    autocorrelation_time: Float[Array, "..."]
    effective_sample_size: Float[Array, "..."]
    drift: Float[Array, "..."]
    num_samples: int = eqx.field(static=True)
    degrees_of_freedom: float = eqx.field(static=True)

    def interval(self, confidence: float = 0.95) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Lower and upper end of the two-sided Student interval at the given confidence."""
        half = student_factor(1 + self.degrees_of_freedom, confidence) * self.standard_error
        return self.mean - half, self.mean + half

    def required_samples(self, standard_error: float) -> Float[Array, "..."]:
        """Number of samples after which the standard error would be the given one: it falls as 1 / sqrt(samples)."""
        return self.num_samples * (self.standard_error / standard_error) ** 2

    def __str__(self) -> str:
        """Mean and standard error."""
        return f"{self.mean} +- {self.standard_error} ({self.num_samples} samples)"


def batch_size_for(num_bins: int) -> int:
    """Bins in a batch: the square root of their number."""
    return max(1, math.isqrt(num_bins))


def batch_means(
    series: Float[Array, "num_bins ..."],
    *,
    samples_per_bin: int = 1,
    sample_variance: Float[Array, "..."] | None = None,
) -> SeriesStatistics:
    r"""Mean of a stationary series and its standard error, correlations taken into account.

    With m bins x_1, ..., x_m and batches of b = floor(sqrt(m)) of them, overlapping, whose means are y_1, ..., y_{m-b+1},

        SE^2 = b / ((m - b) (m - b + 1)) * sum_j (y_j - mean)^2 .

    This is right as soon as correlations have died out within a batch, and has about 1.5 m / b degrees of freedom.

    Args:
        series: means over consecutive bins of `samples_per_bin` samples each, along the leading axis. -inf is allowed (a
            product that has met a singular factor) and makes the mean -inf; NaN makes everything NaN.
        samples_per_bin: samples behind each entry, static.
        sample_variance: variance of one sample, like one entry of the series; that of the series, times
            `samples_per_bin` (the value for independent samples), if not given. Only the autocorrelation time needs it.

    Returns:
        A `SeriesStatistics`. The cost is that of a few passes over the series.

    Raises:
        ValueError: if the series is empty.

    References:
        Meketon and Schmeiser, Overlapping batch means: something for nothing? (1984). Flegal and Jones, Batch means and
        spectral variance estimators in Markov chain Monte Carlo (2010), equation (4).
    """
    series = jnp.asarray(series)
    check_that(series.ndim > 0 and series.shape[0] > 0, "series", "hold at least one bin", found(series))
    num = series.shape[0]
    size = batch_size_for(num)
    lost = jnp.any(series == -jnp.inf, axis=0)
    centred, mean = _centre(jnp.where(lost, 0, series))
    sums = jnp.concatenate([jnp.zeros_like(centred[:1]), jnp.cumsum(centred, axis=0)])
    batches = (sums[size:] - sums[:-size]) / size
    if num == 1:
        variance = jnp.full(mean.shape, jnp.inf, mean.dtype)  # of the mean of all bins
    else:
        variance = jnp.sum(batches**2, axis=0) * size / ((num - size) * (num - size + 1))
    total = num * samples_per_bin
    if sample_variance is None:
        sample_variance = samples_per_bin * jnp.sum(centred**2, axis=0) / max(num - 1, 1)
    time = _ratio(variance * total, jnp.where(lost, 0, sample_variance), empty=1.0)
    half = num // 2
    gap = (sums[num] - sums[num - half] - sums[half]) / max(half, 1)
    error = jnp.where(lost, 0, jnp.sqrt(variance))
    return SeriesStatistics(
        mean=jnp.where(lost, -jnp.inf, mean),
        standard_error=error,
        autocorrelation_time=time,
        effective_sample_size=total / time,
        drift=_ratio(gap, 2 * error, empty=0.0),
        num_samples=total,
        degrees_of_freedom=max(1.0, 1.5 * (num / size - 1)),
    )


def _centre(series: Float[Array, "num ..."]) -> tuple[Float[Array, "num ..."], Float[Array, "..."]]:
    """The series without its mean, and the mean, to rounding: the mean of what is left is added once more."""
    mean = jnp.mean(series, axis=0)
    rest = jnp.mean(series - mean, axis=0)
    return series - mean - rest, mean + rest


def _ratio(a: Float[Array, "..."], b: Float[Array, "..."], empty: float) -> Float[Array, "..."]:
    """The quotient a / b, and `empty` where b is zero."""
    zero: Bool[Array, "..."] = b == 0
    return jnp.where(zero, empty, a / jnp.where(zero, 1, b))
