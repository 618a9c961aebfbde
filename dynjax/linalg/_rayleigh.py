"""Rayleigh quotients at eigenvectors, with the derivative of the eigenvalues."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._flat import FlatOperator


@eqx.filter_custom_jvp
def rayleigh_quotients(
    operator: FlatOperator, vectors: Float[Array, "k dim"]
) -> tuple[Float[Array, " k"], Float[Array, "k dim"]]:
    """The quotients `v . A v` at unit vectors v, and the images `A v`.

    With v an eigenvector the quotient is stationary in v, so `v . dA v` is the whole derivative of the eigenvalue
    (Hellmann-Feynman). The images carry no derivative.
    """
    images = jax.vmap(operator)(vectors)
    return jnp.sum(vectors * images, axis=1), images


@rayleigh_quotients.def_jvp
def _rayleigh_quotients_jvp(primals, tangents):
    operator, vectors = primals
    tangent, _ = tangents
    vectors = _first_order_only(operator, vectors)
    images, changes = eqx.filter_jvp(lambda a: jax.vmap(a)(vectors), (operator,), (tangent,))
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
