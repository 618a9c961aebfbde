"""What is read off a store before anything is judged: its configuration and its lanes as a table."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...stability import time_average
from ._config import Config


def stored_config(dataset: Any) -> Config:
    """The configuration of a store."""
    values: dict[str, Any] = json.loads(dataset.attrs["config"])
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Config(**fields)


def averages(dataset: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Time averages behind the burn-in and their standard errors, (couplings, seeds, sizes), by coupling and seed."""
    config = stored_config(dataset)
    series = table_of(dataset, np.asarray(dataset[name].values, float)[:, config.first_averaged :])
    with jax.enable_x64(True):
        found = time_average(jnp.asarray(np.moveaxis(series, 2, 0)))
    return np.asarray(found.mean), np.asarray(found.standard_error)


def table_of(dataset: Any, values: np.ndarray) -> np.ndarray:
    """Lanes as (couplings, seeds, ...) in increasing order."""
    coupling, seed = np.asarray(dataset.coupling.values), np.asarray(dataset.seed.values)
    order = np.lexsort((seed, coupling))
    return values[order].reshape(len(np.unique(coupling)), len(np.unique(seed)), *values.shape[1:])


def first_finite(values: np.ndarray, axis: int) -> np.ndarray:
    """Entries that agree along an axis wherever they are known."""
    known = np.isfinite(values)
    first = np.take_along_axis(values, np.expand_dims(known.argmax(axis=axis), axis), axis=axis)
    return np.squeeze(first, axis)
