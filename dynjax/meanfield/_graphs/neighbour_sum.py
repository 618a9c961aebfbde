"""Sums over neighbours that JAX can differentiate in both modes, batch and transpose, all by gathers.

JAX would transpose a gather into a scatter-add. `jax.custom_vjp` cannot be differentiated in forward mode, and
`jax.custom_derivatives.linear_call` cannot be batched (JAX 0.10). A linear solve that is none can do all three: the
block matrix [[1, 0], [-A, 1]] has the inverse [[1, 0], [A, 1]], so that solving with the right-hand side (x, 0) gives
(x, A x). JAX asks for the solution and for that of the transposed system, which we know, and it uses the matrix for higher
derivatives only.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .neighbour_lists import NeighbourLists

X = TypeVar("X", bound=Array)


def linear_map(
    forward: Callable[[Array], Array], backward: Callable[[Array], Array], native: Callable[[Array], Array], x: Array
) -> Array:
    """A x for a linear map given by the product `forward` and the product with the transpose, `backward`.

    Args:
        forward: x -> A x. Not differentiated.
        backward: y -> A^T y. Not differentiated.
        native: x -> A x again, in terms that JAX differentiates by what A depends on; computed for mixed second derivatives
            only.
        x: the argument.
    """
    image = jax.eval_shape(native, x)
    if x.size == 0:
        return jnp.zeros(image.shape, image.dtype)

    def matrix(pair):
        # The zeros give each row and each column a derivative: JAX (0.10) trips over one that has none.
        product = native(pair[0] + _zeros_from(pair[1], x.shape))
        return pair[0] + _zeros_from(product, x.shape), pair[1] - product

    def solve(_, pair):
        return pair[0], pair[1] + forward(pair[0])

    def transposed_solve(_, pair):
        return pair[0] + backward(pair[1]), pair[1]

    # JAX transposes a solve only if all of its right-hand side is linear in the argument, zeros too; and it differentiates
    # the transposed one only if both parts of the solution are used. XLA drops the zeros.
    right = (x, _zeros_from(x, image.shape))
    same, product = jax.lax.custom_linear_solve(matrix, right, solve, transposed_solve)
    return product + _zeros_from(same, image.shape)


def _zeros_from(x: Array, shape: tuple[int, ...]) -> Array:
    """Zeros that count as a linear function of `x`; unlike 0 * x, whatever x is."""
    first = x.reshape(-1)[0]
    return jnp.broadcast_to(jnp.where(False, first, jnp.zeros_like(first)), shape)


def neighbour_sum(
    lists: NeighbourLists, reverse: NeighbourLists, columns: Float[Array, "nodes columns"]
) -> Float[Array, "nodes columns"]:
    """The sum over the list of each node; `reverse` holds the lists of the transposed graph."""
    return linear_map(lists.sum, reverse.sum, lists.native_sum, columns)


@jax.custom_jvp
def weighted_sum(
    lists: NeighbourLists,
    reverse: NeighbourLists,
    slots: Int[Array, "slots"],
    weights: Float[Array, "slots"],
    columns: Float[Array, "nodes columns"],
) -> Float[Array, "nodes columns"]:
    """The weighted sum over the list of each node, as a linear function of the columns.

    Args:
        lists: the graph.
        reverse: its transpose.
        slots: for each slot of `reverse` the slot of `lists` that holds the same edge.
        weights: one for each slot of `lists`.
        columns: F.
    """

    def backward(values):
        return reverse.sum(values, weights.at[slots].get(mode="promise_in_bounds", unique_indices=True))

    return linear_map(lambda x: lists.sum(x, weights), backward, lambda x: lists.native_sum(x, weights), columns)


@jax.custom_jvp
def _sum_by_weights(
    lists: NeighbourLists,
    reverse: NeighbourLists,
    slots: Int[Array, "slots"],
    weights: Float[Array, "slots"],
    columns: Float[Array, "nodes columns"],
) -> Float[Array, "nodes columns"]:
    """The same number, as a linear function of the weights: its transpose gives the product of the two ends of each edge."""
    return linear_map(
        lambda w: lists.sum(columns, w),
        lambda values: lists.pair_products(values, columns),
        lambda w: lists.native_sum(columns, w),
        weights,
    )


def _bilinear(function):
    def rule(primals, tangents):
        lists, reverse, slots, weights, columns = primals
        *_, weights_dot, columns_dot = tangents
        value = function(*primals)
        parts = []
        if not isinstance(columns_dot, jax.custom_derivatives.SymbolicZero):
            parts.append(weighted_sum(lists, reverse, slots, weights, columns_dot))
        if not isinstance(weights_dot, jax.custom_derivatives.SymbolicZero):
            parts.append(_sum_by_weights(lists, reverse, slots, weights_dot, columns))
        return value, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(value)

    return rule


weighted_sum.defjvp(_bilinear(weighted_sum), symbolic_zeros=True)
_sum_by_weights.defjvp(_bilinear(_sum_by_weights), symbolic_zeros=True)
