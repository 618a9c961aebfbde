"""Delay equations whose solutions are known: exactly, or to twelve digits from two meshes of another method."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    field: Callable[..., Any]
    history: Callable[[Any], Any]
    delays: Any
    end: float
    final: Any
    y0: Any = None
    start: float = 0.0

    @property
    def initial(self) -> Any:
        return self.history(self.start) if self.y0 is None else self.y0


def constant(value: Any) -> Callable[[Any], Any]:
    return lambda t: jnp.asarray(value) + 0 * t


def _mackey_glass(t, y, delayed, args):
    return 0.2 * delayed[0] / (1 + delayed[0] ** 10) - 0.1 * y


def _infection(t, y, delayed, args):
    one, ten = delayed
    return jnp.stack([-y[0] * one[1] + ten[1], y[0] * one[1] - y[1], y[1] - ten[1]])


def _enzyme(t, y, delayed, args):
    z = 1 / (1 + 0.0005 * delayed[0][3] ** 3)
    return jnp.stack([10.5 - z * y[0], z * y[0] - y[1], y[1] - y[2], y[2] - 0.5 * y[3]])


def hutchinson(t, y, delayed, args):
    return 1.5 * y * (1 - delayed[0])


def pure_delay(t, y, delayed, args):
    return -delayed[0]


def characteristic(root: complex) -> Callable[[Any], Any]:
    """The history Re exp(root t)."""
    return lambda t: jnp.exp(root.real * t) * jnp.cos(root.imag * t)


_ROOT_1 = -0.318131505204764135 + 1.33723570143068941j
_ROOT_2 = -0.0924843222914664 + 1.99728269103946j

PROBLEMS = {
    "P1": Problem(pure_delay, constant(1.0), 1.0, 10.0, 10493 / 518400),
    "P2": Problem(lambda t, y, d, args: -d[0] - d[1], constant(0.0), (1 / 3, 1 / 5), 1.0, -8407 / 243000, 1.0),
    "P3a": Problem(pure_delay, characteristic(_ROOT_1), 1.0, 10.0, 0.0287560616327280384),
    "P3b": Problem(
        lambda t, y, d, args: -y - 2 * d[0], characteristic(_ROOT_2), 1.0, 10.0, float(np.exp(_ROOT_2 * 10).real)
    ),
    "P4": Problem(lambda t, y, d, args: -jnp.pi / 2 * d[0], lambda t: jnp.cos(jnp.pi * t / 2), 1.0, 100.0, 1.0),
    "P5": Problem(hutchinson, constant(0.5), 1.0, 20.0, 0.794988745209076),
    "P6": Problem(lambda t, y, d, args: -1.4 * d[0] * (1 + y), constant(0.1), 1.0, 10.0, -0.0447196597785372),
    "P7a": Problem(_mackey_glass, constant(1.2), 17.0, 100.0, 1.01372401652411),
    "P7b": Problem(_mackey_glass, constant(0.5), 14.0, 100.0, 0.82818774781058),
    "P8": Problem(
        _infection,
        constant([5.0, 0.1, 1.0]),
        (1.0, 10.0),
        40.0,
        (0.09124912056635, 0.02029950033507, 5.9884513790986),
    ),
    "P9": Problem(
        _enzyme,
        constant([60.0, 10.0, 10.0, 20.0]),
        4.0,
        40.0,
        (64.6057332413204, 11.825675585526, 9.977666773556, 17.098612606471),
    ),
}

STEPS_5_5 = 0.0435112847222222222  # y(5.5) of P1
SLOPE_5_5 = 0.779947916666666667  # dy(5.5)/dtau of P1 at tau = 1
