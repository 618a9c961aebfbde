"""Modified Bessel functions of integer order, to full relative accuracy and with all derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from .._core import check_that, found
from ._arrays import floats

_MOST_TERMS = 20_000


def bessel_ie(order: Int[Array, "..."] | int, x: Float[Array, "..."] | float) -> Float[Array, "..."]:
    r"""I_k(x) exp(-|x|), the modified Bessel function of the first kind without its growth.

    I_0 comes from `jax.scipy.special`; the ratios I_j / I_{j-1} from their continued fraction, backwards, which loses
    nothing for orders far above or below x. It takes about sqrt(k^2 + 40 x) terms, so the time grows like the root of x;
    above x = 10^7 the number of terms is cut and the accuracy falls off.

    Args:
        order: k, integers of any sign, traced or not; broadcast against `x`.
        x: real.

    Returns:
        An array of the broadcast shape. Differentiable in `x` to any order, through
        2 I_k' = I_{k-1} + I_{k+1}.

    Raises:
        TypeError: if `order` is not of an integer dtype.

    Example:
        ```python
        bessel_ie(1, 5.0) / bessel_ie(0, 5.0)   # 0.8933831, the order parameter of noisy identical oscillators at K r
        / D = 5
        ```

    References:
        Gautschi 1967, Computational aspects of three-term recurrence relations, SIAM Review 9.
    """
    integers = jnp.asarray(order)
    good = jnp.issubdtype(integers.dtype, jnp.integer)
    check_that(good, "order", "be an integer", found(order), TypeError)
    (x,) = floats(x)
    integers, x = jnp.broadcast_arrays(integers, x)
    return _scaled(integers, x)


def bessel_i(order: Int[Array, "..."] | int, x: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """I_k(x) for integers k: `bessel_ie` times exp(|x|). It overflows where I_k does."""
    (x,) = floats(x)
    return bessel_ie(order, x) * jnp.exp(jnp.abs(x))


def bessel_ratio(x: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """I_1(x) / I_0(x): the mean of cos for the density proportional to exp(x cos), odd and increasing from -1 to 1."""
    (x,) = floats(x)
    return jax.scipy.special.i1e(x) / jax.scipy.special.i0e(x)


@jax.custom_jvp
@jax.jit
def _scaled(order: Int[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    size, k = jnp.abs(x), jnp.abs(order)
    largest = jnp.max(size, initial=0)
    reach = jnp.sqrt(jnp.max(k, initial=0).astype(x.dtype) ** 2 + 40 * largest) + 40
    terms = jnp.minimum(reach, _MOST_TERMS).astype(jnp.int32)

    def down(i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio, product = carry
        j = terms - i
        ratio = size / (2 * j.astype(x.dtype) + size * ratio)
        return ratio, jnp.where(j <= k, product * ratio, product)

    # At a large index the ratio solves r (2 j + x r) = x nearly.
    last = terms.astype(x.dtype) + 1
    start = size / (last + jnp.sqrt(last**2 + size**2))
    _, product = lax.fori_loop(0, terms, down, (start, jnp.ones_like(x)))
    sign = jnp.where((x < 0) & (k % 2 == 1), -1, 1).astype(x.dtype)
    return sign * product * jax.scipy.special.i0e(x)


@_scaled.defjvp
def _scaled_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (order, x), (_, dot) = primals, tangents
    value = _scaled(order, x)
    slope = (_scaled(order - 1, x) + _scaled(order + 1, x)) / 2 - jnp.sign(x) * value
    return value, slope * dot
