"""What the classification theorems ask of weights and activations, checked on the model at hand."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._interval_program import IntervalProgram
from ._interval_rules import Unsupported

_REACH = 6.0  # an unknown activation is looked at on [-6, 6]
_PIECES = 1024


class Hypothesis(eqx.Module):
    """One hypothesis of a theorem.

    Attributes:
        name: what is asked.
        holds: whether it is so; None where that cannot be found out from the model.
        detail: the evidence.
    """

    name: str = eqx.field(static=True)
    holds: bool | None = eqx.field(static=True)
    detail: str = eqx.field(static=True)

    def __str__(self) -> str:
        mark = {True: "holds", False: "FAILS", None: "not decided"}[self.holds]
        return f"{self.name}: {mark} ({self.detail})"


# Strictly monotone with a derivative that does not vanish, and the number of continuous derivatives (at most 2).
_KNOWN: dict[Any, tuple[bool, int]] = {
    jnp.tanh: (True, 2),
    jax.lax.tanh: (True, 2),
    jax.nn.sigmoid: (True, 2),
    jax.nn.softplus: (True, 2),
    jax.nn.log_sigmoid: (True, 2),
    jax.nn.identity: (True, 2),
    jnp.arctan: (True, 2),
    jnp.arcsinh: (True, 2),
    jnp.sinh: (True, 2),
    jnp.exp: (True, 2),
    jax.scipy.special.erf: (True, 2),
    jax.nn.soft_sign: (True, 1),
    jax.nn.elu: (True, 1),
    jax.nn.celu: (True, 1),
    jax.nn.selu: (True, 0),
    jax.nn.leaky_relu: (True, 0),
    jax.nn.relu: (False, 0),
    jax.nn.relu6: (False, 0),
    jax.nn.hard_tanh: (False, 0),
    jnp.abs: (False, 0),
    jnp.sin: (False, 2),
    jnp.cos: (False, 2),
    jax.nn.silu: (False, 2),
    jax.nn.gelu: (False, 2),
    jnp.square: (False, 2),
}


def activation_hypotheses(activation: Callable[[Any], Any], order: int, *, monotone: bool) -> list[Hypothesis]:
    """That the activation has `order` continuous derivatives and, if asked, that its derivative never vanishes."""
    (is_monotone, smooth), evidence = (
        (_KNOWN[activation], "from a table") if activation in _KNOWN else _inspected(activation)
    )
    name = getattr(activation, "__name__", type(activation).__name__)
    result = [
        Hypothesis(f"the activation is C^{order}", None if smooth is None else smooth >= order, f"`{name}`, {evidence}")
    ]
    if monotone:
        result.append(
            Hypothesis("the derivative of the activation never vanishes", is_monotone, f"`{name}`, {evidence}")
        )
    return result


def _inspected(activation: Callable[[Any], Any]) -> tuple[tuple[bool | None, int | None], str]:
    """An activation in no table: enclosures of its first two derivatives on pieces of [-6, 6]."""
    first = jax.grad(lambda z: jnp.reshape(activation(z), ()))
    edges = np.linspace(-_REACH, _REACH, _PIECES + 1)
    try:
        program = IntervalProgram(
            lambda z: (first(z), jax.grad(first)(z)), jax.ShapeDtypeStruct((), jnp.result_type(float))
        )
        (slope, second), rough = program(edges[:-1], edges[1:])
    except Unsupported as error:
        return (None, None), f"not decided: {error}"
    smooth = None if rough.any() or not np.isfinite(second.lo + second.hi).all() else 2
    if np.all(slope.lo > 0) or np.all(slope.hi < 0):
        return (True, smooth), "by interval arithmetic on [-6, 6]"
    values = np.asarray(jax.vmap(first)(jnp.asarray(edges)))
    changes = bool(np.any(values > 0) and np.any(values < 0)) or bool(np.any(values == 0))
    return (False if changes else None, smooth), "by sampling on [-6, 6]"


def rank_hypothesis(name: str, rank: int, wanted: int, shape: tuple[int, ...]) -> Hypothesis:
    """That a matrix has the rank `wanted`."""
    return Hypothesis(
        name,
        rank == wanted,
        f"rank {rank} of {wanted}, shape {shape}, tolerance max(shape) eps of the largest singular value",
    )


def affine_part(layer: Callable[[Any], Any], size: int, dtype: Any) -> tuple[np.ndarray, bool]:
    """The Jacobian of a layer at 0, and whether the layer is affine as far as two further points tell."""
    jacobian = jax.jacfwd(layer)
    at_zero = np.asarray(jacobian(jnp.zeros(size, dtype)), np.float64)
    points = jnp.asarray(np.linspace(-1.3, 1.7, 2 * size).reshape(2, size), dtype)
    others = np.asarray(jax.vmap(jacobian)(points), np.float64)
    scale = max(float(np.abs(at_zero).max()), float(np.finfo(np.float64).tiny))
    loose = float(jnp.finfo(dtype).eps) ** 0.5
    return at_zero, bool(np.all(np.abs(others - at_zero) <= loose * scale))
