"""Lanes in lock-step: what a `vmap` makes of loops and branches, kept under control."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


@jax.custom_batching.custom_vmap
def any_lane(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    """The condition itself; inside `vmap`, whether it holds in any lane, as one value for all of them.

    A `while_loop` whose condition differs from lane to lane becomes one that runs until the last lane has ended and selects, in
    every turn and for everything carried by every lane, between what was and what is new: three passes over all of it. A `cond`
    computes both branches and selects. With `any_lane(condition)` for their condition neither happens: a loop carries on in
    place, and a branch is skipped if no lane takes it. What they compute must then leave a lane as it is where the condition does
    not hold for it.

    Args:
        condition: a boolean scalar.

    Returns:
        A boolean scalar, not batched.
    """
    return condition


@any_lane.def_vmap
def _any_lane_batched(axis_size, in_batched, condition):
    return any_lane(jnp.any(condition) if in_batched[0] else condition), False


def cond_any_lane(
    condition: Bool[Array, ""], on_true: Callable[..., Any], on_false: Callable[..., Any], *operands: Any
) -> Any:
    """`jax.lax.cond`, of which `vmap` leaves out `on_true` where no lane takes it.

    Args:
        condition: a boolean scalar.
        on_true: what costs much.
        on_false: what costs little: it is computed for all lanes whenever their conditions differ.
        operands: arguments of both.

    Returns:
        What `jax.lax.cond` returns, in every lane.
    """
    differ = lambda *operands: jax.lax.cond(condition, on_true, on_false, *operands)
    return jax.lax.cond(any_lane(condition), differ, on_false, *operands)
