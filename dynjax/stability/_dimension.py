"""Dimensions and entropies from a Lyapunov spectrum."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def kaplan_yorke_dimension(exponents: Float[Array, " k"], *, complete: bool = True) -> Float[Array, ""]:
    r"""The Kaplan-Yorke (Lyapunov) dimension of a spectrum in descending order.

    D = j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|, with j the largest number for which the sum is not negative;
    0 where lambda_1 < 0. It can be traced.

    Args:
        exponents: the exponents, descending, `(k,)`; -inf is allowed at the end.
        complete: whether they are the whole spectrum. Of an incomplete one whose sums never become negative the dimension
            is not determined, and NaN; of a complete one it is then the dimension of the space.

    Returns:
        D, a scalar.

    References:
        Kaplan and Yorke (1979); Frederickson, Kaplan, Yorke and Yorke, The Liapunov dimension of strange attractors (1983).
    """
    exponents = jnp.asarray(exponents)
    k = exponents.shape[0]
    sums = jnp.cumsum(exponents)
    count = jnp.sum(jnp.cumprod(jnp.where(sums >= 0, 1, 0)))
    before = jnp.where(count > 0, sums[jnp.maximum(count - 1, 0)], 0)
    following = exponents[jnp.minimum(count, k - 1)]
    dimension = count + before / jnp.abs(jnp.where(count < k, following, 1))
    everything = jnp.asarray(k if complete else jnp.nan, exponents.dtype)
    dimension = jnp.where(count == k, everything, dimension)
    return jnp.where(jnp.any(jnp.isnan(exponents)), jnp.nan, dimension).astype(exponents.dtype)


def kolmogorov_sinai_entropy(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    """The sum of the positive exponents: the entropy per unit of time by Pesin's formula, an upper bound by Ruelle's.

    The formula holds for invariant measures that are smooth along unstable directions (SRB measures).

    References:
        Pesin (1977); Ruelle (1978); Eckmann and Ruelle, Ergodic theory of chaos and strange attractors (1985), section IV.
    """
    return jnp.sum(jnp.maximum(jnp.asarray(exponents), 0))
