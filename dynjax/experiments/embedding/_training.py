"""Neural ODEs of given widths trained to the maps; all maps of one pair of sizes and all restarts in one program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ...networks import NeuralODE
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
    ends, errors = _fit(
        stacked, points, jnp.repeat(values, number, axis=0), mass, config.learning_rate, config.num_steps
    )
    misfits = np.nan_to_num(np.asarray(errors), nan=np.inf).reshape(len(targets), number)
    best = number * np.arange(len(targets)) + np.argmin(misfits, axis=1)
    finer = NeuralODE(widths, key=key, hidden=(config.width,), time_dependent=True, num_steps=_FINER * config.ode_steps,
                      dtype=dtype)  # fmt: skip
    return [_with_arrays(finer, jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], ends)) for i in best]


def _with_arrays(like: NeuralODE, model: NeuralODE) -> NeuralODE:
    """The arrays of one model in the other, which differs in its number of steps alone."""
    where: Any = lambda m: (m.lift, m.field, m.readout)
    return eqx.tree_at(where, like, where(model))


@eqx.filter_jit
def _fit(
    models: Any, x: Float[Array, "nodes d"], y: Float[Array, "lanes nodes q"], mass: Array, rate: float, num_steps: int
) -> tuple[Any, Float[Array, "lanes"]]:
    """Adam in the mean square over the cube, for all networks at once."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))

    def errors(models: Any) -> Float[Array, "lanes"]:
        outputs = jax.vmap(lambda model: jax.vmap(model)(x))(models)
        return jnp.sum((outputs - y) ** 2, -1) @ mass

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        models, state = carry
        updates, state = optimizer.update(jax.grad(lambda m: jnp.sum(errors(m)))(models), state)
        return (optax.apply_updates(models, updates), state), None

    models = jax.lax.scan(step, (models, optimizer.init(models)), None, length=num_steps)[0][0]
    return models, errors(models)
