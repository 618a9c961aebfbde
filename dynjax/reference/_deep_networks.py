"""Deep networks of finite width with fresh Gaussian weights in every layer: depth is time."""

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma
from jaxtyping import Array, Float

from .._core import check_positive, check_that
from ._arrays import check_count, floats
from ._gaussian_products import gaussian_product_exponents


def deep_linear_exponents(
    width: int, weight_variance: Float[Array, ""] | float = 1.0, *, initialization: str = "gaussian"
) -> Float[Array, "width"]:
    r"""The layer-to-layer spectrum of a deep linear network.

    Args:
        width: N, the same for all layers.
        weight_variance: sigma_w^2. Gaussian weights have variance sigma_w^2 / N, orthogonal ones are sigma_w times an
            orthogonal matrix.
        initialization: "gaussian" (`gaussian_product_exponents` with variance sigma_w^2 / N) or "orthogonal" (log sigma_w).

    Returns:
        The exponents per layer, descending.
    """
    check_count(width, "width")
    check_positive(weight_variance, "weight_variance")
    known = initialization in ("gaussian", "orthogonal")
    check_that(known, "initialization", 'be "gaussian" or "orthogonal"', f"found {initialization!r}")
    (variance,) = floats(weight_variance)
    if initialization == "orthogonal":
        return jnp.full(width, jnp.log(variance) / 2)
    return gaussian_product_exponents(width, variance / width)


def relu_network_exponent(width: int, weight_variance: Float[Array, ""] | float = 2.0) -> Float[Array, ""]:
    r"""The top exponent of a deep ReLU network without biases, Gaussian weights of variance sigma_w^2 / N.

    lambda_1 = (1/2) (log(sigma_w^2 / N) + log 2 + E psi(M/2)), where M, the number of active units of a layer, is
    Binomial(N, 1/2) given M >= 1: a layer's preactivations are independent Gaussians given the layer before, so that
    abs(phi(h))^2 is chi-square with M degrees of freedom. Derived here. Without the condition the exponent is -inf, as all units
    of a layer are off with probability 2^-N. At the critical sigma_w^2 = 2 it is about -5 / (4N), not 0.

    Args:
        width: N.
        weight_variance: sigma_w^2.

    Returns:
        lambda_1 per layer, given survival.

    Example:
        ```python
        relu_network_exponent(50)   # -0.0258694
        ```
    """
    check_count(width, "width")
    check_positive(weight_variance, "weight_variance")
    (variance,) = floats(weight_variance)
    active = np.arange(1, width + 1)
    log_binomial = [math.lgamma(width + 1) - math.lgamma(m + 1) - math.lgamma(width - m + 1) for m in active]
    weights = np.exp(np.array(log_binomial) - width * math.log(2)) / -math.expm1(-width * math.log(2))
    # log(M/N) - 1/M ... nearly cancels log 2: sum deviations from log(N/4) = log of half the mean of M.
    deviation = digamma(jnp.asarray(active / 2, variance.dtype)) - math.log(width / 4)
    return (jnp.log(variance / 2) + jnp.sum(jnp.asarray(weights, variance.dtype) * deviation)) / 2
