"""The maps to be learnt, functions on [-1, 1]."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp

TargetName = Literal["square", "cube", "sine"]


class Target(NamedTuple):
    """A scalar map on [-1, 1].

    Attributes:
        formula: how it is written.
        function: the map itself, applied to arrays of any shape.
    """

    formula: str
    function: Callable[[Any], Any]


TARGETS: dict[str, Target] = {
    "square": Target("x²", lambda x: x**2),
    "cube": Target("x³", lambda x: x**3),
    "sine": Target("sin πx", lambda x: jnp.sin(jnp.pi * x)),
}
assert tuple(TARGETS) == get_args(TargetName)
