"""Growth of volumes under SGD: the sum of all exponents, and the lower bound of the first one that it gives."""

import itertools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._batch_indices import independent_batches
from ._normal_space import NormalSpace

_MAX_BATCHES = 20_000
_NUM_SAMPLED = 4096
_AT_ONCE = 256


class VolumeGrowth(NamedTuple):
    """The sum of all exponents per step, and its standard error: 0 where all batches were visited."""

    total: Float[Array, "rates"]
    standard_error: Float[Array, "rates"]


def all_batches(num_samples: int, batch_size: int, most: int = _MAX_BATCHES) -> Int[Array, "batches size"] | None:
    """Every batch without replacement, or None if there are more than `most`."""
    if math.comb(num_samples, batch_size) > most:
        return None
    return jnp.asarray(np.array(list(itertools.combinations(range(num_samples), batch_size))))


def volume_growth(
    space: NormalSpace, learning_rates: Float[Array, "rates"], batch_size: int, key: PRNGKeyArray
) -> VolumeGrowth:
    """E log |det(I - (eta/B) K_xi,xi)| over batches xi: over all of them if there are few, over 4096 independent ones if not.

    By Sylvester's identity this is the mean log determinant of a step on the normal space. It holds for reshuffled batches
    too, each of which is uniformly distributed. -inf where a batch is singular to rounding.
    """
    batches = all_batches(space.num_samples, batch_size)
    exact = batches is not None
    if batches is None:
        batches = independent_batches(key, _NUM_SAMPLED, space.num_samples, batch_size)
    mean, spread = _mean_and_spread(space, learning_rates, batches)
    error = jnp.zeros_like(mean) if exact else spread / math.sqrt(batches.shape[0])
    return VolumeGrowth(mean, error)


@eqx.filter_jit
def batch_eigenvalues(space: NormalSpace, batches: Int[Array, "batches size"]) -> Float[Array, "batches values"]:
    """The eigenvalues of K_xi,xi for each batch, at most r of which are not zero."""

    def eigenvalues(batch: Int[Array, "size"]) -> Float[Array, "values"]:
        rows = space.factor[batch].reshape(-1, space.rank)
        rows = rows if rows.shape[0] <= space.rank else rows.T
        return jnp.linalg.eigvalsh(jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST))

    return jax.lax.map(eigenvalues, batches, batch_size=_AT_ONCE)


@jax.jit
def log_distance_from_one(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Log |1 - x|, for small x too; -inf where x is 1 to rounding."""
    small = jnp.abs(x) < 0.5
    gap = jnp.abs(1 - x)
    singular = gap <= 16 * jnp.finfo(x.dtype).eps
    far = jnp.where(singular, -jnp.inf, jnp.log(jnp.where(singular | small, 1, gap)))
    return jnp.where(small, jnp.log1p(-jnp.where(small, x, 0)), far)


@eqx.filter_jit
def _mean_and_spread(
    space: NormalSpace, learning_rates: Float[Array, "rates"], batches: Int[Array, "batches size"]
) -> tuple[Float[Array, "rates"], Float[Array, "rates"]]:
    """Mean and standard deviation over batches of the log determinant."""
    scales = learning_rates / batches.shape[1]
    values = batch_eigenvalues(space, batches)
    logs = jnp.sum(log_distance_from_one(values[:, None, :] * scales[:, None]), axis=2)
    lost = jnp.any(logs == -jnp.inf, axis=0)
    finite = jnp.where(lost, 0, logs)
    mean = jnp.mean(finite, axis=0)
    spread = jnp.std(finite - mean, axis=0, ddof=1) if logs.shape[0] > 1 else jnp.zeros_like(mean)
    return jnp.where(lost, -jnp.inf, mean), spread
