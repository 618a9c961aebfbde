"""A lane that is not finite any more stands still and says so."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int8, PyTree

from .._core import Status, tree_all_finite, tree_where


def advanced(status: Int8[Array, ""], seen: Any, new: PyTree, old: PyTree) -> tuple[PyTree, Int8[Array, ""]]:
    """The new state of a running lane whose loss and gradient are finite, otherwise the old one.

    Args:
        status: of the lane.
        seen: what must be finite.
        new: pytree of arrays.
        old: one of the same structure.

    Returns:
        (state, status): the status turns from `RUNNING` to `NONFINITE` where something is not finite.
    """
    running = status == int(Status.RUNNING)
    alive = running & tree_all_finite(seen)
    kept = tree_where(alive, new, old)
    return kept, jnp.where(running & ~alive, int(Status.NONFINITE), status).astype(jnp.int8)
