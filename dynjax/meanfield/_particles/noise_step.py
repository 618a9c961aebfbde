"""Phase noise by counter-based keys: the increment of step n is a function of the key and n."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...systems._system import IntScalarLike


def phase_noise(key: PRNGKeyArray, n: IntScalarLike, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "nodes"]:
    """Standard normal draws of step `n`, in any order of the steps."""
    return jax.random.normal(jax.random.fold_in(key, n), shape, dtype)


def half_increment(
    draws: Float[Array, "nodes *lanes"], noise: Float[Array, "*lanes"], dt: Float[Array, ""]
) -> Float[Array, "nodes *lanes"]:
    """Half the increment sqrt(2 D dt) xi of a step, radians.

    Noise enters a step as a frequency that is constant over it, sqrt(2 D / dt) xi, so that stages in the middle of a step see
    half of it. For additive noise this is the Euler-Maruyama method with "euler" and the stochastic Heun method with "heun"
    (weak order two), and with coupling zero the law is exact.

    Args:
        draws: standard normal numbers.
        noise: D, radians squared per unit of time.
        dt: time per step.
    """
    square = (2 * noise * dt).astype(draws.dtype)
    # The derivative by D is infinite at D = 0; it is taken to be zero there.
    size = jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
    return 0.5 * size * draws
