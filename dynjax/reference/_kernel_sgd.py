"""Stochastic gradient descent at interpolation with a given tangent kernel K_ij = <grad f_i, grad f_j>."""

import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._core import check_positive, check_that
from ._arrays import check_count, check_square, check_vector, descending, floats

_MAX_BATCHES = 200_000


def orthogonal_sgd_exponents(
    squared_norms: Float[Array, "samples"], learning_rate: Float[Array, ""] | float, *, batch_size: int = 1
) -> Float[Array, "samples"]:
    r"""The spectrum of SGD on samples with orthogonal gradients: (B/N) log abs(1 - (eta/B) K_ii), descending.

    Each gradient direction is an eigenvector of every factor and takes part in a step with probability B/N. The loss is
    (1/2N) sum (f_i - y_i)^2, batches are drawn without replacement. Gradient descent has log abs(1 - (eta/N) K_ii), which is
    `gradient_descent_exponents(squared_norms / N, eta)`.

    Args:
        squared_norms: K_ii = abs(grad f_i)^2.
        learning_rate: eta > 0.
        batch_size: B, at most N.

    Returns:
        The exponents per step on the normal space; -inf where (eta/B) K_ii = 1.
    """
    check_vector(squared_norms, "squared_norms")
    samples = jnp.shape(squared_norms)[0]
    _check_batch_size(batch_size, samples)
    check_positive(learning_rate, "learning_rate")
    k, eta = floats(squared_norms, learning_rate)
    return descending(batch_size / samples * jnp.log(jnp.abs(1 - eta / batch_size * k)))


def two_gradient_sgd_exponents(angle: Float[Array, ""] | float) -> Float[Array, "2"]:
    """((1/2) log abs(cos theta), -inf): SGD on two samples with unit gradients at an angle, eta = 1, batch size 1.

    The factors are the projections I - g_i g_i^T; a step contracts by abs(cos theta) whenever the sample changes.
    """
    (theta,) = floats(angle)
    return jnp.stack([jnp.log(jnp.abs(jnp.cos(theta))) / 2, jnp.full((), -jnp.inf, theta.dtype)])


def sgd_exponent_sum(
    kernel: Float[Array, "samples samples"], learning_rate: Float[Array, ""] | float, *, batch_size: int = 1
) -> Float[Array, ""]:
    r"""The sum of all exponents of SGD on the normal space: E log abs det(I_B - (eta/B) K_xi,xi) over batches xi.

    By Sylvester's identity this is the mean log determinant of I - (eta/B) J_xi^T J_xi, for any network and any rank of the
    kernel; for B = 1 the mean of log abs(1 - eta K_ii). Batches are drawn without replacement and independently.

    Args:
        kernel: K = J J^T, symmetric.
        learning_rate: eta > 0.
        batch_size: B. All binomial(N, B) batches are visited, in chunks; more than 200000 are refused.

    Returns:
        The sum per step.

    Raises:
        ValueError: if there are too many batches.
    """
    check_square(kernel, "kernel")
    samples = jnp.shape(kernel)[0]
    _check_batch_size(batch_size, samples)
    check_positive(learning_rate, "learning_rate")
    count = math.comb(samples, batch_size)
    check_that(count <= _MAX_BATCHES, "batch_size", f"leave at most {_MAX_BATCHES} batches", f"there are {count}")
    k, eta = floats(kernel, learning_rate)
    batches = np.array(list(itertools.combinations(range(samples), batch_size)))

    def log_determinant(batch: Any) -> Array:
        block = jnp.eye(batch_size, dtype=k.dtype) - eta / batch_size * k[batch[:, None], batch]
        return jnp.log(jnp.abs(block[0, 0])) if batch_size == 1 else jnp.linalg.slogdet(block)[1]

    return jnp.mean(lax.map(log_determinant, jnp.asarray(batches), batch_size=1024))


def _check_batch_size(batch_size: int, samples: int) -> None:
    check_count(batch_size, "batch_size")
    check_that(batch_size <= samples, "batch_size", f"be at most the {samples} samples", f"found {batch_size}")
