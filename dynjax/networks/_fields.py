"""Vector fields made of multilayer perceptrons."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_that
from ._affine import as_hidden
from ._mlp import MLP


class MLPField(eqx.Module):
    """The vector field F(t, y, (v_1, ..., v_r)) = MLP(y, v_1, ..., v_r[, t]).

    Args:
        size: length m of the state `y` and of every delayed state `v_j`.
        num_delays: r; 0 for an ordinary differential equation.
        hidden: widths of the hidden layers.
        activation: function applied after every hidden layer.
        time_dependent: whether the time is one more input.
        key: seeds the parameters.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if a size is not positive.
    """

    mlp: MLP
    size: int = eqx.field(static=True)
    num_delays: int = eqx.field(static=True)
    time_dependent: bool = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        num_delays: int = 0,
        hidden: Sequence[int] = (16,),
        activation: Callable[[Any], Any] = jnp.tanh,
        time_dependent: bool = False,
        key: PRNGKeyArray,
        dtype: Any = None,
    ):
        check_count(size, "size")
        check_count(num_delays, "num_delays", 0)
        inputs = size * (1 + num_delays) + bool(time_dependent)
        self.mlp = MLP((inputs, *as_hidden(hidden), size), activation=activation, key=key, dtype=dtype)
        self.size, self.num_delays, self.time_dependent = size, num_delays, bool(time_dependent)

    def __call__(
        self, t: Any, y: Float[Array, "size"], delayed: Sequence[Float[Array, "size"]] = ()
    ) -> Float[Array, "size"]:
        """The slope at time `t`; `delayed` holds one state for each delay."""
        check_delayed(delayed, self.num_delays)
        parts = [y, *delayed]
        if self.time_dependent:
            parts.append(jnp.asarray(t, y.dtype)[None])
        return self.mlp(jnp.concatenate(parts) if len(parts) > 1 else y)


def check_delayed(delayed: Sequence[Any], num_delays: int) -> None:
    """Raise unless there is one delayed state for each delay."""
    check_that(
        len(delayed) == num_delays, "delayed", f"hold {num_delays} states, one for each delay", f"found {len(delayed)}"
    )
