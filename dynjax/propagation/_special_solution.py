"""The special solution of a delay equation through a point, as the fixed point of a contraction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_NODES = 14  # Chebyshev points in a window


class Rule(NamedTuple):
    """Chebyshev points of a window, newest first, and how to integrate over it.

    Attributes:
        places: distance from the newer end in delays, from 0 to 1.
        integrals: (nodes, nodes), integrals from each point to the newer end.
    """

    places: np.ndarray
    integrals: np.ndarray


def chebyshev_rule(num_nodes: int = _NODES) -> Rule:
    """Spectral integration on Chebyshev-Lobatto points."""
    x = np.cos(np.pi * np.arange(num_nodes) / (num_nodes - 1))  # 1 at the newer end
    coefficients = np.linalg.inv(np.polynomial.chebyshev.chebvander(x, num_nodes - 1))
    primitive = np.stack(
        [np.polynomial.chebyshev.chebval(x, np.polynomial.chebyshev.chebint(row)) for row in np.eye(num_nodes)], 1
    )
    at_end = np.array(
        [np.polynomial.chebyshev.chebval(1.0, np.polynomial.chebyshev.chebint(row)) for row in np.eye(num_nodes)]
    )
    return Rule((1 - x) / 2, (at_end[None] - primitive) @ coefficients / 2)


class SpecialSolution(NamedTuple):
    """A solution that exists at all times t <= 0 and grows more slowly than exp(-t / tau) backwards.

    Attributes:
        values: (windows, nodes, m), at the Chebyshev points of [-tau, 0], [-2 tau, -tau], and so on.
        slope: y'(0), the value of the reduced vector field.
        error: bound on the error of `slope` for exact integration, from the last change and from the end of the past.
    """

    values: Float[Array, "windows nodes m"]
    slope: Float[Array, "m"]
    error: Float[Array, ""]


def special_solution(
    field: Callable[[Any, Any], Any],
    c: Float[Array, "m"],
    delay: Array,
    strength: Array,
    num_windows: int,
    num_sweeps: int,
) -> SpecialSolution:
    r"""The special solution with y(0) = c of y'(t) = f(y(t), y(t - tau)).

    y is the fixed point of (P y)(t) = c - int_t^0 f(y(s), y(s - tau)) ds, which contracts by K tau e in the norm
    sup |y(t)| exp(t / tau). Before the last window y is continued by its value there. With q = K tau e, a last change d in this
    norm and the largest slope r in the last window of N, the error of y is at most (q d + q exp(-N) tau r) / (1 - q) up to the
    variation further back, and that of f(c, y(-tau)) at most K e times as much.

    Args:
        field: f(y, v).
        c: the state at time 0.
        delay: tau.
        strength: K.
        num_windows: N.
        num_sweeps: iterations.
    """
    rule = chebyshev_rule()
    places, integrals = jnp.asarray(rule.places, c.dtype), jnp.asarray(rule.integrals, c.dtype)
    every = jax.vmap(jax.vmap(field))

    def slopes(values: Array) -> Array:
        oldest = jnp.broadcast_to(values[-1, -1], values.shape[1:])
        return every(values, jnp.concatenate([values[1:], oldest[None]]))

    def sweep(values: Array, _: None) -> tuple[Array, Array]:
        parts = delay * jnp.einsum("ij,njm->nim", integrals, slopes(values), precision=jax.lax.Precision.HIGHEST)
        before = jnp.concatenate([jnp.zeros_like(parts[:1, -1]), jnp.cumsum(parts[:-1, -1], 0)])
        new = c - before[:, None] - parts
        return new, jnp.max(weight * jnp.max(jnp.abs(new - values), -1))

    weight = jnp.exp(-(jnp.arange(num_windows, dtype=c.dtype)[:, None] + places))
    start = jnp.broadcast_to(c, (num_windows, places.shape[0], *c.shape))
    values, changes = jax.lax.scan(sweep, start, length=num_sweeps)
    q = strength * delay * jnp.e
    drift = jnp.max(jnp.abs(slopes(values)[-1]))
    error = strength * jnp.e * q * (changes[-1] + jnp.exp(-float(num_windows)) * delay * drift) / (1 - q)
    return SpecialSolution(values, field(c, values[0, -1]), error)


def evaluate_special(values: Float[Array, "windows nodes m"], age: Array) -> Float[Array, "m"]:
    """The state `age` delays before time 0, by its Chebyshev polynomial; NaN further back than the windows reach."""
    num_windows, num_nodes = values.shape[:2]
    places = chebyshev_rule(num_nodes).places
    inverse = np.linalg.inv(np.polynomial.chebyshev.chebvander(1 - 2 * places, num_nodes - 1))
    window = jnp.clip(jnp.ceil(age).astype(int) - 1, 0, num_windows - 1)
    terms = chebyshev_terms(1 - 2 * (age - window), num_nodes)
    value = terms @ (jnp.asarray(inverse, values.dtype) @ values[window])
    return jnp.where((age >= 0) & (age <= num_windows), value, jnp.nan)


def chebyshev_terms(x: Array, size: int) -> Float[Array, " size"]:
    """T_0(x), ..., T_{size - 1}(x), by their recurrence, which has derivatives at the ends too."""

    def step(pair: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        return (pair[1], 2 * x * pair[1] - pair[0]), pair[0]

    return jax.lax.scan(step, (jnp.ones_like(x), x), length=size)[1]
