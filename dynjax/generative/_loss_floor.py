"""The floor of the conditional flow-matching loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_that, found
from ..reference import mixture_flow_matching_floor
from ._gaussian_mixture import GaussianMixture


class LossFloor(eqx.Module):
    """The least value that a loss can have.

    Attributes:
        value: the floor per dimension.
        standard_error: of the value; 0 where it is computed without random numbers.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]

    def __str__(self) -> str:
        return f"LossFloor({self.value:.6g} +- {self.standard_error:.2g})"


def loss_floor(mixture: GaussianMixture, *, key: PRNGKeyArray | None = None, num_samples: int = 65536) -> LossFloor:
    r"""The least conditional flow-matching loss per dimension, from N(0, I) to a mixture, independently coupled.

    No field can do better than the exact one, whose loss is what x_t does not tell of x_1 - x_0:

        floor = (1/d) int_0^1 E Var(x_1 - x_0 | x_t) dt
              = (1/d) sum_k w_k (pi/2) tr S_k^{1/2} + (1/d) int_0^1 E sum_k r_k |u_k - u|^2 dt,

    u_k the velocities of the components. For a single Gaussian only the first term is there, on the line the second is
    computed by quadrature, and otherwise it is averaged over `num_samples` draws of t and x_t, with a standard error. A model
    whose loss is below the floor by more than the errors has seen its test data or has a mistake. Derived here.

    Args:
        mixture: the law of the data.
        key: of the draws, needed for several modes in dimension 2 and above.
        num_samples: number of draws.

    Returns:
        A `LossFloor`.

    Raises:
        TypeError: if `mixture` is no `GaussianMixture`.
        ValueError: if a key is needed and not given.

    Example:
        ```python
        dj.generative.loss_floor(dj.generative.GaussianMixture([-2.0, 2.0], 0.25)).value      # 2.7704647
        ```
    """
    good = isinstance(mixture, GaussianMixture)
    check_that(good, "mixture", "be a GaussianMixture", found(mixture), TypeError)
    check_count(num_samples, "num_samples", 2)
    zero = jnp.zeros((), mixture.means.dtype)
    if mixture.num_modes == 1:
        return LossFloor(_within(mixture), zero)
    if mixture.size == 1:
        return LossFloor(mixture_flow_matching_floor(mixture.as_line()), zero)
    check_that(key is not None, "key", "be given for several modes in dimension 2 and above", "it is None")
    assert key is not None
    return _monte_carlo(mixture, key, num_samples)


def _within(mixture: GaussianMixture) -> Float[Array, ""]:
    """The part that is there with known components."""
    if mixture.covariances.ndim == 3:
        roots = jnp.sqrt(jnp.linalg.eigvalsh(mixture.covariances))
    else:
        roots = jnp.sqrt(mixture.covariances.reshape(mixture.num_modes, -1))
    return jnp.pi / 2 * jnp.sum(mixture.weights * jnp.mean(roots, -1))


@eqx.filter_jit
def _monte_carlo(mixture: GaussianMixture, key: PRNGKeyArray, num_samples: int) -> LossFloor:
    time_key, noise_key, data_key = jax.random.split(key, 3)
    dtype = mixture.means.dtype
    t = jax.random.uniform(time_key, (num_samples,), dtype)
    noise = jax.random.normal(noise_key, (num_samples, mixture.size), dtype)
    x = (1 - t)[:, None] * noise + t[:, None] * mixture.sample(num_samples, data_key)

    def spread(t: Array, x: Array) -> Array:
        logs, solved = mixture.diffused(t, (1 - t) ** 2).log_parts(x)
        shares = jax.nn.softmax(logs)[:, None]
        velocities = mixture.means + t * mixture.apply_covariances(solved) - (1 - t) * solved
        centred = velocities - jnp.sum(shares * velocities, 0)
        return jnp.sum(shares * centred**2) / mixture.size

    terms = jax.vmap(spread)(t, x)
    return LossFloor(_within(mixture) + jnp.mean(terms), jnp.std(terms, ddof=1) / num_samples**0.5)
