"""Exponents with error bars from the chunks of a run."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import betainc
from jaxtyping import Array, Float

from ..stability import TimeAverage, time_average
from ._sgd_cocycle import Growth


def vector_statistics(growth: Growth) -> TimeAverage:
    """Mean growth of each vector, (rates, k)."""
    return time_average(growth.logs)


@eqx.filter_jit
def averaged_statistics(growth: Growth) -> TimeAverage:
    r"""Mean growth of the first vector, (rates,), with its average over the next sample as a control variate.

    The growth x that was seen and its conditional mean y, averaged over the sample to come, have the same mean. Of all
    x + beta (y - x), 0 <= beta <= 1, the one with the smallest variance is taken, for each rate, as estimated by `time_average`.
    """
    x, y = growth.logs[:, :, 0], growth.averages
    usable = jnp.isfinite(x) & jnp.isfinite(y)
    gap = jnp.where(usable, y - x, 0)
    own, other, between = (
        time_average(s).standard_error ** 2 for s in (jnp.where(usable, x, 0), jnp.where(usable, y, 0), gap)
    )
    covariance = (own + other - between) / 2
    good = jnp.isfinite(between) & (between > 0) & jnp.all(usable, axis=0)
    beta = jnp.where(good, (own - covariance) / jnp.where(good, between, 1), 0)
    return time_average(x + jnp.clip(beta, 0, 1) * gap)


@eqx.filter_jit
def sign_confidence(
    mean: Float[Array, "..."], standard_error: Float[Array, "..."], degrees_of_freedom: float
) -> Float[Array, "..."]:
    """The probability that a Student variable with this mean and error has the sign of the mean: 1/2 to 1."""
    exact = standard_error == 0
    ratio = jnp.where(exact, 0, mean / jnp.where(exact, 1, standard_error))
    nu = jnp.asarray(degrees_of_freedom, mean.dtype)
    tail = betainc(nu / 2, jnp.asarray(0.5, mean.dtype), nu / (nu + jax.lax.square(ratio))) / 2
    return jnp.where(exact, jnp.where(mean == 0, 0.5, 1.0), 1 - tail)
