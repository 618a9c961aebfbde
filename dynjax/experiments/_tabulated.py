"""Sweeps over lanes that a host function has computed beforehand: each lane looks its own rows up."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int8

from .._core import Status
from ..sweep import AbstractProgram


class TabulatedProgram(AbstractProgram):
    """The program of an experiment whose numbers come from functions that cannot be traced, such as `classify`.

    Args:
        table: records of all lanes, each of shape (lanes, ...).
        dims: the dimensions of every record behind "lane".
        axes: the coordinate of every dimension.
    """

    table: dict[str, Array]
    axes: dict[str, Array]
    names: tuple[tuple[str, tuple[str, ...]], ...] = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, table: Mapping[str, Any], dims: Mapping[str, tuple[str, ...]], axes: Mapping[str, Any]):
        self.table = {name: jnp.asarray(value) for name, value in table.items()}
        self.axes = {name: jnp.asarray(value) for name, value in axes.items()}
        self.names = tuple((name, tuple(dims[name])) for name in table)
        self.num_segments = 1

    def init(self, lane: dict[str, Array]) -> dict[str, Array]:
        """The row of a lane."""
        return {"row": lane["row"].astype(jnp.int32), "status": jnp.asarray(int(Status.RUNNING), jnp.int8)}

    def segment(self, state: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array], Int8[Array, ""]]:
        """All records of a lane, at once."""
        return state, {name: value[state["row"]] for name, value in self.table.items()}, state["status"]

    def watched(self) -> tuple[str, ...]:
        """Nothing: medians over different kinds of lanes say little."""
        return ()

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        return dict(self.names)

    def coords(self) -> dict[str, np.ndarray]:
        """The coordinates of these dimensions."""
        return {name: np.asarray(value) for name, value in self.axes.items()}
