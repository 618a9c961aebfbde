"""Fixed steps for a delay equation whose field changes at known times: ends of steps lie at all of them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Mesh(NamedTuple):
    """Steps in units of the delay; the mesh of each delay is that of the one before.

    Attributes:
        marks: ends of steps in one delay, from 0 to 1.
        phases: for each delay the phase of the field in each step; -1 after the end.
    """

    marks: tuple[float, ...]
    phases: tuple[tuple[int, ...], ...]


def plan_mesh(switch: float, stop: float, span: float, steps_per_delay: int) -> Mesh:
    """The mesh for a field that changes at `switch` and `stop`, up to `span`, with at least so many steps in a delay."""
    close = 1e-14
    inner = {value - math.floor(value) for value in (switch, stop, span)}
    cuts = [0.0, *sorted(value for value in inner if close < value < 1 - close), 1.0]
    marks = [0.0]
    for left, right in zip(cuts[:-1], cuts[1:], strict=True):
        if right - left > close:
            count = max(1, math.ceil(steps_per_delay * (right - left) - close))
            marks += [float(left + (right - left) * (i + 1) / count) for i in range(count)]
    middles = (np.array(marks[1:]) + np.array(marks[:-1])) / 2
    phase = lambda t: -1 if t > span else 0 if t < switch else 1 if t < stop else 2
    windows = max(1, math.ceil(span - close))
    return Mesh(tuple(marks), tuple(tuple(phase(float(n + m)) for m in middles) for n in range(windows)))


def march(slope: Callable[..., Array], y0: Float[Array, "m"], delay: Float[Array, ""], mesh: Mesh) -> Float[Array, "m"]:
    """The state at the end, from `y0` on the past, by the method of Dormand and Prince of order eight.

    The delayed value of stage i of a step is stage i of the step one delay earlier: nothing is interpolated, and the order
    stays eight.

    Args:
        slope: `slope(phase, t, y, (delayed,))`.
        y0: the constant past.
        delay: the delay.
        mesh: the steps.
    """
    matrix, weights, nodes = (jnp.asarray(part, y0.dtype) for part in _dopri8())
    marks = jnp.asarray(mesh.marks, y0.dtype)
    sizes = jnp.asarray(np.diff(mesh.marks), y0.dtype) * delay.astype(y0.dtype)

    def step(y: Array, row: Any) -> tuple[Array, Array]:
        t, size, phase, past = row
        size = jnp.where(phase < 0, 0, size)

        # A loop, since fourteen copies of the field would take long to compile.
        def stage(slopes: Array, row: Any) -> tuple[Array, Array]:
            i, weight, node, delayed = row
            value = y + weight @ slopes
            return slopes.at[i].set(size * slope(phase, t + node * size, value, (delayed,))), value

        rows = (jnp.arange(nodes.shape[0]), matrix, nodes, past)
        slopes, stages = jax.lax.scan(stage, jnp.zeros((nodes.shape[0], *y.shape), y.dtype), rows)
        return y + weights @ slopes, stages

    def window(carry: tuple[Array, Array], row: Any) -> tuple[tuple[Array, Array], None]:
        y, past = carry
        number, phases = row
        times = (number + marks[:-1]) * delay.astype(y.dtype)
        return jax.lax.scan(step, y, (times, sizes, phases, past)), None

    past = jnp.broadcast_to(y0, (sizes.shape[0], nodes.shape[0], *y0.shape))
    numbers = jnp.arange(len(mesh.phases), dtype=y0.dtype)
    (y, _), _ = jax.lax.scan(window, (y0, past), (numbers, jnp.asarray(mesh.phases)))
    return y


def _dopri8() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix, weights and nodes of the method."""
    tableau = diffrax.Dopri8().tableau
    nodes = np.concatenate([[0.0], np.asarray(tableau.c)])
    matrix = np.zeros((nodes.size, nodes.size))
    for i, row in enumerate(tableau.a_lower):
        matrix[i + 1, : i + 1] = np.asarray(row)
    return matrix, np.asarray(tableau.b_sol), nodes
