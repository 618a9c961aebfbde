"""Training the networks of one architecture to a bowl, all seeds at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...networks import NeuralODE
from ...propagation import extremum_error_bound
from .._fit import fit
from ._config import Config

_NODES = 10  # Gauss-Legendre nodes along each side


def bowl(x: Float[Array, "... 2"], half_width: float) -> Float[Array, "..."]:
    """The target |x|^2 / half_width^2: a minimum 0 in the middle, at least 1 on the boundary of the square."""
    return (x**2).sum(-1) / half_width**2


def bowl_bound() -> float:
    """The sup error of every map of the square without a local extremum: the bowl is 1 deep."""
    return float(extremum_error_bound(1.0))


def train(models: list[Any], config: Config) -> list[Any]:
    """The same networks after training in the mean square over the square; a lift of rank one is left as it is."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    dtype = jnp.dtype(config.precision)
    x = jnp.asarray(config.half_width * np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2), dtype)
    mass = jnp.asarray(np.outer(weights, weights).ravel() / 4, dtype)
    stacked = jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *models)
    y = bowl(x, config.half_width)
    done = fit(_loss, stacked, x, y, mass, num_steps=config.num_steps, learning_rate=config.learning_rate)
    return [jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], done.model) for i in range(len(models))]


def _loss(models: Any, x: Array, y: Array, mass: Array) -> Array:
    """Summed over networks: each sees the gradient of its own error."""
    outputs = jax.vmap(lambda model: jax.vmap(_with_fixed_lift(model))(x)[:, 0])(models)
    return jnp.sum(((outputs - y) ** 2) @ mass)


def _with_fixed_lift(model: Any) -> Any:
    """A neural ODE whose lift gets no gradient: training would raise its rank."""
    if not isinstance(model, NeuralODE):
        return model
    return eqx.tree_at(lambda m: m.lift, model, jax.lax.stop_gradient(model.lift))
