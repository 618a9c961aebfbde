"""Trained networks of a store as modules."""

import json
from typing import Any

import jax
import jax.numpy as jnp

from ...networks import Affine, NeuralDDE
from ._config import Config
from ._program import REFINED, empty_field, with_weights


def network(dataset: Any, lane: int) -> NeuralDDE:
    """The best network of a lane, for the tools that take a model.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        lane: its number.

    Returns:
        A `NeuralDDE` of widths (1, 1, 1) with delay 1, in the precision of the store where that is enabled. It takes the steps
        with which the error was measured.

    Raises:
        ValueError: if the lane is not finished.

    Example:
        ```python
        model = memory_capacity.network(runs, 0)
        print(dj.memory_capacity(model, lambda x: x**2))
        ```
    """
    values = dataset.isel(lane=lane)
    if not bool(jnp.isfinite(float(values.mse))):
        raise ValueError(f"Argument `lane` must name a finished lane, but lane {lane} has no network.")
    options: Any = json.loads(dataset.attrs["config"])
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    config = Config(**options)
    dtype = jnp.dtype(config.precision)
    horizon = float(values.horizon)
    field = empty_field(config, float(values.memory), horizon, jax.random.key(0))
    return NeuralDDE(
        (1, 1, 1),
        horizon=horizon,
        key=jax.random.key(0),
        field=with_weights(field, jnp.asarray(values.weights.values, dtype)),
        lift=Affine(jnp.ones((1, 1), dtype)),
        readout=Affine(
            jnp.full((1, 1), float(values.final_gain), dtype), jnp.full(1, float(values.final_offset), dtype)
        ),
        engine="stages",
        steps_per_delay=REFINED * config.steps_per_delay,
        dtype=dtype,
    )
