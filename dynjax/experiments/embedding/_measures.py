"""What is measured of one model: errors, the Lipschitz constant of its field, its gain, and paths of its state."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...networks import NeuralODE
from ...propagation import DelayEmbedding, critical_solution
from ._targets import Target, box_grid, quadrature

POINTS = 441  # on which outputs are stored: 441 on the line, 21 x 21 in the plane
TIMES = 33
PATHS = 21
MOST_STATES, MOST_OUTPUTS = 4, 2
_FINE = {1: 2001, 2: 61}  # points along each side for the sup error
_QUADRATURE = {1: 192, 2: 32}


def plot_points(dim: int) -> np.ndarray:
    """The points whose outputs are stored, (441, dim)."""
    return box_grid(dim, POINTS if dim == 1 else round(POINTS**0.5))


def path_starts(dim: int) -> np.ndarray:
    """The inputs whose paths are stored, (21, dim): along the line, or around a circle."""
    if dim == 1:
        return np.linspace(-1, 1, PATHS)[:, None]
    angle = 2 * np.pi * np.arange(PATHS) / (PATHS - 1)
    return 0.8 * np.stack([np.cos(angle), np.sin(angle)], -1)


def measure(model: Any, target: Target, dtype: Any) -> dict[str, Any]:
    """All records of one model that depend on the model.

    Args:
        model: a `NeuralODE` with fixed steps, or a `DelayEmbedding`.
        target: what it should be.
        dtype: of the computation.
    """
    d, q = target.in_size, target.out_size
    nodes, mass = quadrature(d, _QUADRATURE[d])
    parts = [plot_points(d), box_grid(d, _FINE[d]), nodes]
    x = jnp.asarray(np.concatenate(parts), dtype)
    made, times, states, steepest = _evaluate(model, x, jnp.asarray(path_starts(d), dtype))
    shown, fine, rest = np.split(np.asarray(made), np.cumsum([len(part) for part in parts])[:-1])
    wanted = np.split(np.asarray(_images(target, x)), np.cumsum([len(part) for part in parts])[:-1])
    outputs = np.full((POINTS, MOST_OUTPUTS), np.nan)
    outputs[:, :q] = shown
    path = np.full((TIMES, PATHS, MOST_STATES), np.nan)
    path[..., : states.shape[-1]] = np.asarray(states)
    misfit = np.asarray(rest - wanted[2], np.float64)
    norm = lambda weight: float(np.linalg.norm(np.asarray(weight), 2))
    return {
        "state_size": np.int32(model.widths[1]),
        "sup_error": float(np.max(np.abs(fine - wanted[1]))),
        "mean_square": float(mass @ np.sum(misfit**2, -1)),
        "lipschitz": float(steepest),
        "gain": norm(model.lift.weight) * norm(model.readout.weight),
        "output": outputs,
        "path": path,
        "time_of_path": np.asarray(times, np.float64),
    }


def _images(target: Target, x: Float[Array, "points d"]) -> Float[Array, "points q"]:
    return jax.vmap(target.function)(x)


@eqx.filter_jit
def _evaluate(model: Any, x: Float[Array, "points d"], starts: Float[Array, "paths d"]) -> tuple[Array, ...]:
    """Outputs, times and states of the paths, and the Lipschitz constant of the field, in one program.

    The last is the largest norm of the derivative of the field along the solutions, from the points that are stored; for
    delay equations it is K, in the delayed state.
    """
    outputs = jax.vmap(model)(x)
    if isinstance(model, DelayEmbedding):
        return outputs, *_delay_paths(model, starts), model.field.lipschitz
    many = jnp.concatenate([starts, x[:POINTS]])
    times, states = _flow_paths(model, many)
    slope = lambda t, h: jnp.linalg.norm(jax.jacfwd(lambda y: model.field(t, y))(h), 2)
    along = lambda part: jnp.max(jax.vmap(lambda h: slope(part[0], h))(part[1]))
    return outputs, times, states[:, : len(starts)], jnp.max(jax.lax.map(along, (times, states)))


def _flow_paths(model: NeuralODE, x: Float[Array, "paths d"]) -> tuple[Array, Array]:
    """The states at equidistant times."""
    inner = -(-(model.num_steps or 1) // (TIMES - 1))
    number = inner * (TIMES - 1)
    flow = model.flow(model.horizon / number)

    def record(h: Array, n: Array) -> tuple[Array, Array]:
        after = jax.lax.fori_loop(0, inner, lambda i, h: jax.vmap(lambda y: flow.step(inner * n + i, y))(h), h)
        return after, after

    start = jax.vmap(model.lift)(x)
    states = jax.lax.scan(record, start, jnp.arange(TIMES - 1))[1]
    times = jnp.linspace(0, 1, TIMES, dtype=start.dtype) * model.horizon
    return times, jnp.concatenate([start[None], states])


def _delay_paths(model: DelayEmbedding, x: Float[Array, "paths d"]) -> tuple[Array, Array]:
    """In closed form: w(t) times the start until T*, then a straight line to the end of the drive, then rest."""
    field = model.field
    times = jnp.linspace(0, 1, TIMES, dtype=x.dtype) * model.horizon
    start = jax.vmap(model.lift)(x)
    decay = critical_solution(field.lipschitz * field.delay, times / field.delay)
    drive = field.rate * jax.vmap(field.target)(x)
    drive = jnp.pad(drive, ((0, 0), (0, start.shape[1] - drive.shape[1])))
    spent = jnp.clip(times - field.switch, 0, field.stop - field.switch)
    early = (times < field.switch)[:, None, None]
    return times, jnp.where(early, decay[:, None, None] * start, spent[:, None, None] * drive)
