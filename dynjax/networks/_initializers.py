"""Weight initialisations: functions `(key, (fan_out, fan_in), dtype) -> weight`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Initializer = Callable[[PRNGKeyArray, tuple[int, int], Any], Float[Array, "fan_out fan_in"]]


def _normal(variance: Callable[[int, int], float], gain: float) -> Initializer:
    def init(key: PRNGKeyArray, shape: tuple[int, int], dtype: Any) -> Array:
        fan_out, fan_in = shape
        return gain * variance(fan_in, fan_out) ** 0.5 * jax.random.normal(key, shape, dtype)

    return init


def lecun_normal(gain: float = 1.0) -> Initializer:
    """Normal weights of variance gain^2 / fan_in (LeCun et al., 1998)."""
    return _normal(lambda fan_in, fan_out: 1 / fan_in, gain)


def he_normal(gain: float = 1.0) -> Initializer:
    """Normal weights of variance 2 gain^2 / fan_in (He et al., 2015, eq. 10), critical for ReLU."""
    return _normal(lambda fan_in, fan_out: 2 / fan_in, gain)


def xavier_normal(gain: float = 1.0) -> Initializer:
    """Normal weights of variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio, 2010, eq. 12)."""
    return _normal(lambda fan_in, fan_out: 2 / (fan_in + fan_out), gain)


def lecun_uniform(gain: float = 1.0) -> Initializer:
    """Uniform weights on +-gain / sqrt(fan_in): what Equinox and PyTorch linear layers start from."""

    def init(key: PRNGKeyArray, shape: tuple[int, int], dtype: Any) -> Array:
        bound = gain / shape[1] ** 0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def orthogonal(gain: float = 1.0) -> Initializer:
    """Gain times a Haar-distributed matrix with orthonormal rows or columns (Saxe et al., 2014)."""

    def init(key: PRNGKeyArray, shape: tuple[int, int], dtype: Any) -> Array:
        rows, columns = max(shape), min(shape)
        q, r = jnp.linalg.qr(jax.random.normal(key, (rows, columns), dtype))
        q = q * jnp.sign(jnp.diagonal(r))
        return gain * (q if shape[0] >= shape[1] else q.T)

    return init
