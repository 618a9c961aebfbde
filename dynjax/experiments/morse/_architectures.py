"""The six architectures R^2 -> R."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...networks import MLP, Affine, NeuralODE
from ._config import Config


class Architecture(NamedTuple):
    """One kind of network.

    Attributes:
        name: as stored.
        title: as shown.
        profile: what `classify` calls it while all its matrices have the ranks they start with.
        allowed: the Morse classes that its theorem leaves; for the bottleneck of width 1 < 2 and the lift of rank 1 the map is
            constant along lines, so that all its critical points are degenerate.
        make: a random network of it.
        extremum: whether it can have a strict local extremum; if not, the error for a bowl is at least half its depth.
    """

    name: str
    title: str
    profile: str
    allowed: tuple[str, ...]
    make: Callable[[Config, PRNGKeyArray], Any]
    extremum: bool


def _scaled(model: Any, gain: float) -> Any:
    return jax.tree_util.tree_map(lambda a: gain * a, model)


def _perceptron(*widths: int) -> Callable[[Config, PRNGKeyArray], MLP]:
    return lambda config, key: _scaled(MLP(widths, key=key, dtype=config.precision), config.gain)


def _ode(state: int, *, flat: bool = False) -> Callable[[Config, PRNGKeyArray], NeuralODE]:
    """The field and the lift carry the gain, the readout does not: it would only stretch the map."""

    def make(config: Config, key: PRNGKeyArray) -> NeuralODE:
        lift = _flat_lift(state, key, config) if flat else None
        model = NeuralODE((2, state, 1), horizon=config.horizon, key=key, hidden=(8,), lift=lift,
                          num_steps=config.ode_steps, dtype=config.precision)  # fmt: skip
        scaled = (_scaled(model.field, config.gain), _scaled(model.lift, config.gain))
        return eqx.tree_at(lambda m: (m.field, m.lift), model, scaled)

    return make


def _flat_lift(state: int, key: PRNGKeyArray, config: Config) -> Affine:
    """A lift of rank one: it sees the input along one direction alone."""
    left, right = jax.random.split(jax.random.fold_in(key, 1))
    dtype = jnp.dtype(config.precision)
    seen = jax.random.normal(right, (2,), dtype)
    return Affine(jnp.outer(jax.random.normal(left, (state,), dtype), seen / jnp.linalg.norm(seen)))


ARCHITECTURES = (
    Architecture("mlp", "MLP, non-augmented: 2-2-2-1", "non-augmented", ("C1",), _perceptron(2, 2, 2, 1), False),
    Architecture("mlp-augmented", "MLP, augmented: 2-10-1", "augmented", ("C1", "C2"), _perceptron(2, 10, 1), True),
    Architecture(
        "mlp-bottleneck", "MLP, bottleneck: 2-1-8-1", "bottleneck", ("C1", "C3"), _perceptron(2, 1, 8, 1), False
    ),
    Architecture("ode", "neural ODE, non-augmented: 2-2-1", "non-augmented", ("C1",), _ode(2), False),
    Architecture("ode-augmented", "neural ODE, augmented: 2-3-1", "augmented", ("C1", "C2"), _ode(3), True),
    Architecture(
        "ode-degenerate", "neural ODE, lift of rank 1: 2-3-1", "degenerate", ("C1", "C3"), _ode(3, flat=True), False
    ),
)


def networks(architecture: Architecture, config: Config) -> list[Any]:
    """The networks of an architecture, one for each seed."""
    key = jax.random.fold_in(jax.random.key(config.seed), ARCHITECTURES.index(architecture))
    return [architecture.make(config, jax.random.fold_in(key, seed)) for seed in range(config.num_seeds)]
