"""Phases as unit phasors in two real arrays, so that no sine or cosine is computed while they move."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_that, found


class Phases(eqx.Module):
    """Phases of oscillators as points on the unit circle, u = cos + i sin.

    Two real arrays instead of a complex one: the loops over them are vectorised, and tangents are real.

    Attributes:
        cos: cosines of the phases, (nodes, ...).
        sin: their sines.
    """

    cos: Float[Array, "nodes *lanes"]
    sin: Float[Array, "nodes *lanes"]

    @classmethod
    def of(cls, angles: Any) -> "Phases":
        """The phasors of angles in radians."""
        angles = jnp.asarray(angles)
        angles = angles if jnp.issubdtype(angles.dtype, jnp.floating) else angles.astype(jnp.result_type(float))
        return cls(jnp.cos(angles), jnp.sin(angles))

    @property
    def angles(self) -> Float[Array, "nodes *lanes"]:
        """The angles in (-pi, pi], in radians."""
        return jnp.arctan2(self.sin, self.cos)

    def __mul__(self, other: "Phases") -> "Phases":
        """Phases add: the product of the phasors."""
        return Phases(self.cos * other.cos - self.sin * other.sin, self.cos * other.sin + self.sin * other.cos)

    def unit(self) -> "Phases":
        """Back to the unit circle."""
        scale = jax.lax.rsqrt(self.cos**2 + self.sin**2)
        return Phases(self.cos * scale, self.sin * scale)


def as_phases(state: Any) -> Phases:
    """The phasors of a state: `Phases`, a real array of angles, or any state with a field `phases` of either kind.

    Raises:
        TypeError: for anything else.
    """
    state = getattr(state, "phases", state)
    if isinstance(state, Phases):
        return state
    good = hasattr(state, "dtype") and not jnp.issubdtype(state.dtype, jnp.complexfloating)
    check_that(good, "state", "hold phases, as `Phases` or as a real array of angles", found(state), TypeError)
    return Phases.of(state)


def powers(phases: Phases, count: int) -> list[Phases]:
    """The phasors u, u^2, ..., u^count, by multiplication."""
    out = [phases]
    for _ in range(count - 1):
        out.append(out[-1] * phases)
    return out
