"""Effective dimension of a positive semidefinite operator, bracketed by two quadrature rules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_positive
from ._density import check_order, tridiagonalise
from ._estimate import Estimate, estimate_mean
from ._flat import FlatOperator, check_operator, flatten_operator
from ._trace import check_num_probes


def effective_dimension(
    operator: lx.AbstractLinearOperator,
    regularisation: float | Float[Array, "..."],
    *,
    num_probes: int,
    order: int,
    key: PRNGKeyArray,
) -> Estimate:
    r"""Effective dimension of a positive semidefinite operator by stochastic Lanczos quadrature.

    $$d(z) = \mathrm{tr}\, A (A + z I)^{-1} = \sum_i \frac{\lambda_i}{\lambda_i + z}.$$

    For a positive semidefinite A the Gauss rule of each probe lies above the true value, and the Gauss-Radau rule with a
    node at zero below it. The estimate is the middle of the two; their distance shrinks like
    `exp(-4 order sqrt(z / largest eigenvalue))`, and half of it enters the standard error, so that an `order` too small for
    a small z shows.

    Args:
        operator: square symmetric positive semidefinite operator. With negative eigenvalues the bracket is void, and one
            near `-regularisation` makes the sum meaningless.
        regularisation: z > 0, in the units of the eigenvalues; an array gives the whole curve from the same products.
        num_probes: number of probes, in lock-step.
        order: number of quadrature nodes per probe. Cost: `num_probes * order` products and as many vectors of memory.
        key: random key.

    Returns:
        An `Estimate`, shaped like `regularisation`. Not differentiable with respect to the operator.

    Raises:
        TypeError: if `operator` is not a lineax operator on floating-point arrays.
        ValueError: if it is not square, if a count is below 1, or if `regularisation` is not positive.

    Example:
        `effective_dimension(operator, jnp.logspace(-3, 1, 20), num_probes=16, order=60, key=key)`

    References:
        MacKay, Neural Comput. 4, 415 (1992) (the number of well-determined parameters). Golub and Meurant, Matrices, Moments
        and Quadrature with Applications (2010), sections 6.2 and 7.3.
    """
    check_operator(operator)
    check_num_probes(num_probes)
    check_order(order)
    check_positive(regularisation, "regularisation")
    return _effective_dimension(operator, regularisation, num_probes, order, key)


@eqx.filter_jit
def _effective_dimension(operator, regularisation, num_probes, order, key) -> Estimate:
    flat = flatten_operator(operator).detached()
    z = jnp.asarray(regularisation, flat.dtype)
    keys = jax.random.split(key, num_probes)
    low, high = jax.vmap(lambda k: _bracket(flat, z, order, k))(keys)
    middle = estimate_mean(flat.dim * (low + high) / 2)
    half_width = flat.dim * jnp.mean(jnp.abs(high - low), axis=0) / 2
    return Estimate(middle.value, jnp.hypot(middle.standard_error, half_width), num_probes)


def _bracket(flat: FlatOperator, z, order: int, key) -> tuple[Array, Array]:
    """Lower and upper bound of v . A (A + z)^-1 v for one random unit vector v."""
    probe = jax.random.normal(key, (flat.dim,), flat.dtype)
    diagonal, off_diagonal = tridiagonalise(flat, probe / jnp.linalg.norm(probe), order)
    low = _first_entry(_with_node_at_zero(diagonal, off_diagonal), off_diagonal, z)
    return low, _first_entry(diagonal, off_diagonal, z)


def _first_entry(diagonal: Float[Array, " order"], off_diagonal: Float[Array, " order"], z: Array) -> Array:
    """First diagonal entry of T (T + z)^-1, the quadrature rule of T for x / (x + z), as a continued fraction."""

    def level(rest, entries):
        alpha, beta = entries
        return alpha - beta**2 / (rest + z), None

    last = jnp.broadcast_to(diagonal[-1], z.shape)
    first, _ = lax.scan(level, last, (diagonal[:-1], off_diagonal[:-1]), reverse=True)
    return first / (first + z)


def _with_node_at_zero(
    diagonal: Float[Array, " order"], off_diagonal: Float[Array, " order"]
) -> Float[Array, " order"]:
    """The diagonal with its last entry changed so that zero is an eigenvalue: the pivots of T = L D L^T end in zero."""
    floor = jnp.finfo(diagonal.dtype).eps * jnp.max(jnp.abs(diagonal))
    tiny = jnp.where(floor > 0, floor, 1)

    def pivot(previous, entries):
        alpha, beta = entries
        # A pivot at rounding level has the sign that a positive semidefinite matrix gives it.
        return jnp.maximum(alpha - beta**2 / previous, tiny), None

    couplings = off_diagonal[:-1]
    if diagonal.size == 1:
        return jnp.zeros_like(diagonal)
    last, _ = lax.scan(pivot, jnp.maximum(diagonal[0], tiny), (diagonal[1:-1], couplings[:-1]))
    return diagonal.at[-1].set(couplings[-1] ** 2 / last)
