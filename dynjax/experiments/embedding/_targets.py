"""The maps to be embedded, on the cube [-1, 1]^d, and how far networks without augmentation stay away from them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...propagation import embedding_obstruction, extremum_error_bound, monotone_error_bound


class Target(NamedTuple):
    """A map R^d -> R^q.

    Attributes:
        name: as stored.
        formula: as shown.
        in_size: d.
        out_size: q.
        function: of one sample (d,), with values (q,).
        gap: how far a strict extremum of a component lies beyond its values on the boundary of the unit ball; 0 for none.
        increasing: whether it is an increasing map of the line.
    """

    name: str
    formula: str
    in_size: int
    out_size: int
    function: Callable[[Float[Array, "d"]], Float[Array, "q"]]
    gap: float = 0.0
    increasing: bool = False


def _twist(x: Float[Array, "2"]) -> Float[Array, "2"]:
    angle = jnp.pi * (1 - jnp.sum(x**2) / 2)
    return jnp.stack([jnp.cos(angle) * x[0] - jnp.sin(angle) * x[1], jnp.sin(angle) * x[0] + jnp.cos(angle) * x[1]])


TARGETS = (
    Target("square", "x²", 1, 1, lambda x: x**2, gap=1.0),
    Target("sine", "sin πx", 1, 1, lambda x: jnp.sin(jnp.pi * x)),
    Target(
        "climb", "x + 0.9 sin(2πx) / 2π", 1, 1, lambda x: x + 0.45 * jnp.sin(2 * jnp.pi * x) / jnp.pi, increasing=True
    ),
    Target("bowl", "|x|²", 2, 1, lambda x: jnp.sum(x**2)[None], gap=1.0),
    Target("twist", "rotation by π(1 − |x|²/2)", 2, 2, _twist),
    Target("fold", "(|x|², x₁x₂)", 2, 2, lambda x: jnp.stack([jnp.sum(x**2), x[0] * x[1]]), gap=1.0),
)


def find_target(name: str) -> Target:
    """The target of a name."""
    return next(target for target in TARGETS if target.name == name)


def sup_bound(target: Target, state_size: int) -> float:
    """The sup error of every neural ODE of this state size with full-rank layers, at least; 0 where nothing is known."""
    if state_size > target.in_size:
        return 0.0
    if target.in_size == 1:
        return float(monotone_error_bound(target.function, norm="sup"))
    return float(extremum_error_bound(target.gap))


def mean_square_bound(target: Target, state_size: int) -> float:
    """The same for the mean square over [-1, 1]; known for scalar maps alone."""
    if state_size > target.in_size or target.in_size > 1:
        return 0.0
    return float(monotone_error_bound(target.function))


def representable(target: Target, state_size: int) -> bool | None:
    """Whether some neural ODE of this state size is exactly the map; None where the ranks at 0 do not exclude it."""
    obstruction = embedding_obstruction(target.in_size, state_size, target.out_size)
    if obstruction.universal or (target.increasing and state_size == 1):
        return True
    jacobian = jax.jacfwd(target.function)(jnp.zeros(target.in_size))
    return False if obstruction.excludes(jacobian) or sup_bound(target, state_size) > 0 else None


def box_grid(dim: int, number: int) -> np.ndarray:
    """A grid of [-1, 1]^dim with `number` points along each side, shape (number^dim, dim); the first coordinate runs fastest."""
    axis = np.linspace(-1, 1, number)
    return np.stack(np.meshgrid(*[axis] * dim, indexing="xy"), -1).reshape(-1, dim)


def quadrature(dim: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes of [-1, 1]^dim and their weights, which sum to one."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    points: Any = np.stack(np.meshgrid(*[nodes] * dim, indexing="xy"), -1).reshape(-1, dim)
    mass = weights if dim == 1 else np.outer(weights, weights).ravel()
    return points, mass / 2**dim
