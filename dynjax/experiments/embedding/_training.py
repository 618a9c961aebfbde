"""Neural ODEs of given widths trained to the maps; all maps of one pair of sizes and all restarts in one program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...networks import NeuralODE
from .._fit import fit
from ._config import Config
from ._targets import Target, quadrature

_NODES = {1: 48, 2: 12}
_FINER = 4  # times as many Runge-Kutta steps when errors are measured


def trained(targets: list[Target], state_size: int, config: Config) -> list[NeuralODE]:
    """The best of some networks for each of the targets, which have equal sizes.

    Args:
        targets: at least one.
        state_size: m.
        config: the configuration.

    Returns:
        One model for each target, with the finer steps that are measured.
    """
    dtype, first = jnp.dtype(config.precision), targets[0]
    points, mass = (jnp.asarray(part, dtype) for part in quadrature(first.in_size, _NODES[first.in_size]))
    values = jnp.stack([jax.vmap(target.function)(points) for target in targets])
    widths = (first.in_size, state_size, first.out_size)
    key = jax.random.key(config.seed)
    make = lambda seed: NeuralODE(
        widths, key=jax.random.fold_in(key, seed), hidden=(config.width,), time_dependent=True, num_steps=config.ode_steps,
        dtype=dtype,
    )  # fmt: skip
    number = config.num_restarts
    models = [make(seed) for _ in targets for seed in range(number)]
    stacked = jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *models)
    data = (points, jnp.repeat(values, number, axis=0), mass)
    ends = fit(_loss, stacked, *data, num_steps=config.num_steps, learning_rate=config.learning_rate).model
    errors = eqx.filter_jit(_errors)(ends, *data)
    misfits = np.nan_to_num(np.asarray(errors), nan=np.inf).reshape(len(targets), number)
    best = number * np.arange(len(targets)) + np.argmin(misfits, axis=1)
    finer = NeuralODE(widths, key=key, hidden=(config.width,), time_dependent=True, num_steps=_FINER * config.ode_steps,
                      dtype=dtype)  # fmt: skip
    return [_with_arrays(finer, jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], ends)) for i in best]


def _with_arrays(like: NeuralODE, model: NeuralODE) -> NeuralODE:
    """The arrays of one model in the other, which differs in its number of steps alone."""
    where: Any = lambda m: (m.lift, m.field, m.readout)
    return eqx.tree_at(where, like, where(model))


def _errors(
    models: Any, x: Float[Array, "nodes d"], y: Float[Array, "lanes nodes q"], mass: Array
) -> Float[Array, "lanes"]:
    """Mean square errors over the cube."""
    outputs = jax.vmap(lambda model: jax.vmap(model)(x))(models)
    return jnp.sum((outputs - y) ** 2, -1) @ mass


def _loss(models: Any, x: Array, y: Array, mass: Array) -> Array:
    return jnp.sum(_errors(models, x, y, mass))
