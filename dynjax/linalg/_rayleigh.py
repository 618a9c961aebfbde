"""Rayleigh quotients at eigenvectors, with the derivative of the eigenvalues."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._flat import FlatOperator


@eqx.filter_custom_jvp
def rayleigh_quotients(
    operator: FlatOperator, vectors: Float[Array, "k dim"]
) -> tuple[Float[Array, " k"], Float[Array, "k dim"]]:
    """The quotients `v . A v` at unit vectors v, and the images `A v`.

    With v an eigenvector the quotient is stationary in v, so `v . dA v` is the whole derivative of the eigenvalue
    (Hellmann-Feynman). The images carry no derivative. One product after the other: on a CPU a block of five Hessian
    products of a small network took 36 ms, five single ones 24 ms, and there are few of them anywhere.
    """
    images = lax.map(operator, vectors)
    return jnp.sum(vectors * images, axis=1), images


@rayleigh_quotients.def_jvp
def _rayleigh_quotients_jvp(primals, tangents):
    operator, vectors = primals
    tangent, _ = tangents
    vectors = _first_order_only(operator, vectors)
    images, changes = eqx.filter_jvp(lambda a: lax.map(a, vectors), (operator,), (tangent,))
    values, rates = jnp.sum(vectors * images, axis=1), jnp.sum(vectors * changes, axis=1)
    return (values, images), (rates, jnp.zeros_like(images))


@eqx.filter_custom_jvp
def _first_order_only(operator, vectors):
    """The vectors; differentiating the first derivative meets them as functions of the operator, which they are."""
    del operator
    return vectors


@_first_order_only.def_jvp
def _first_order_only_jvp(primals, tangents):
    raise NotImplementedError(
        "Second derivatives of eigenvalues are not supported: they need the derivative of the eigenvectors. "
        "Differentiate a gradient by finite differences, or use the dense matrix and `jnp.linalg.eigh`."
    )
