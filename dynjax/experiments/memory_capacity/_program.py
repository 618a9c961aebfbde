"""One lane as a pure program: train the field of a scalar neural delay equation under a hard Lipschitz bound."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int8, PyTree

from ... import data
from ..._core import Status, tree_all_finite, tree_where
from ...networks import LipschitzField
from ...sweep import AbstractProgram
from ...systems import ddesolve
from ._config import Config
from ._targets import TARGETS

REFINED = 4  # times as many steps and nodes measure the error of a trained network
_GRID = 129  # points at which the learnt map is stored


class Readout(NamedTuple):
    """The best affine readout of states, and what it leaves.

    Attributes:
        gain: its slope.
        offset: its value at the state 0.
        mse: mean square error.
    """

    gain: Float[Array, ""]
    offset: Float[Array, ""]
    mse: Float[Array, ""]


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    field: LipschitzField
    optimizer: PyTree
    best_field: LipschitzField
    best_mse: Float[Array, ""]
    horizon: Float[Array, ""]
    status: Int8[Array, ""]


class MemoryProgram(AbstractProgram):
    """Training runs of scalar neural delay equations, as `dynjax.sweep` runs them over blocks of lanes.

    Time is measured in delays. All lanes are solved up to the longest horizon on one mesh, and each reads the states at
    its own, so that one compiled program serves the whole diagram.

    Args:
        config: the configuration.
    """

    nodes: Float[Array, "nodes"]
    weights: Float[Array, "nodes"]
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, config: Config):
        nodes, weights = gauss_legendre(config.num_nodes)
        dtype = jnp.dtype(config.precision)
        self.nodes, self.weights = jnp.asarray(nodes, dtype), jnp.asarray(weights, dtype)
        self.config, self.num_segments = config, config.num_segments

    def init(self, lane: dict[str, Array]) -> LaneState:
        """Random weights; the same for all horizons and memories of a seed."""
        dtype = self.nodes.dtype
        key = jax.random.fold_in(jax.random.key(self.config.seed), lane["seed"])
        horizon = lane["horizon"].astype(dtype)
        field = empty_field(self.config, lane["memory"].astype(dtype), horizon, key)
        return LaneState(
            field=field,
            optimizer=self._adam().init(_trained(field)),
            best_field=field,
            best_mse=jnp.asarray(jnp.inf, dtype),
            horizon=horizon,
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """Some readings, each after `reading_interval` steps."""
        length = self.config.num_readings // self.num_segments
        state, readings = jax.lax.scan(lambda s, _: self._until_reading(s), state, None, length=length)
        return state, readings | {"best_mse": state.best_mse}, state.status

    def final(self, state: LaneState) -> dict[str, Array]:
        """The best network, on a finer mesh and at more nodes, with the readout fitted there."""
        nodes, weights = (jnp.asarray(part, self.nodes.dtype) for part in gauss_legendre(REFINED * self.nodes.size))
        points = jnp.concatenate([nodes, self._grid()])
        steps = REFINED * self.config.steps_per_delay
        states = self._states(state.best_field, state.horizon, points, diffrax.Tsit5(), steps)
        readout = fit_readout(states[: nodes.size], self._values(nodes), weights)
        on_grid = states[nodes.size :]
        # NaN where there never was a finite loss, so that an untrained network is not taken for a result.
        known = jnp.where(jnp.isfinite(state.best_mse), 1.0, jnp.nan).astype(states.dtype)
        return {
            "mse": readout.mse * known,
            "final_gain": readout.gain * known,
            "final_offset": readout.offset * known,
            "smallest_slope": smallest_slope(on_grid, self._grid()) * known,
            "learnt": (readout.offset + readout.gain * on_grid) * known,
            "weights": ravel_pytree(_trained(state.best_field))[0],
        }

    def _until_reading(self, state: LaneState) -> tuple[LaneState, dict[str, Array]]:
        """`reading_interval` steps, and what the network is like after them."""
        state = jax.lax.fori_loop(0, self.config.reading_interval, lambda _, s: self._step(s), state)
        readout, slope = self._loss(_trained(state.field), state.field, state.horizon)[1]
        alive = jnp.where(state.status == int(Status.RUNNING), 1.0, jnp.nan).astype(slope.dtype)
        return state, {"loss": readout.mse * alive, "gain": readout.gain * alive, "slope": slope * alive}

    def _step(self, state: LaneState) -> LaneState:
        """One step of Adam, and the best network so far; a lane that is not finite any more stands still."""
        trained = _trained(state.field)
        (loss, _), gradient = jax.value_and_grad(self._loss, has_aux=True)(trained, state.field, state.horizon)
        updates, optimizer = self._adam().update(gradient, state.optimizer)
        new = state._replace(
            field=_with(state.field, optax.apply_updates(trained, updates)),
            optimizer=optimizer,
            best_field=tree_where(loss < state.best_mse, state.field, state.best_field),
            best_mse=jnp.minimum(loss, state.best_mse),
        )
        alive = (state.status == int(Status.RUNNING)) & tree_all_finite((loss, gradient))
        failed = (state.status == int(Status.RUNNING)) & ~alive
        status = jnp.where(failed, int(Status.NONFINITE), state.status).astype(jnp.int8)
        return tree_where(alive, new, state)._replace(status=status)

    def _loss(self, trained: PyTree, field: LipschitzField, horizon: Array) -> tuple[Array, tuple[Readout, Array]]:
        """Mean square error after the best affine readout."""
        steps = self.config.steps_per_delay
        states = self._states(_with(field, trained), horizon, self.nodes, diffrax.Bosh3(), steps)
        readout = fit_readout(states, self._values(self.nodes), self.weights)
        return readout.mse, (readout, smallest_slope(states, self.nodes))

    def _states(
        self, field: LipschitzField, horizon: Array, points: Array, solver: diffrax.AbstractERK, steps: int
    ) -> Float[Array, "points"]:
        """y(T) for every input, y = input on the past."""
        folded = field.fold()
        slopes = jax.vmap(lambda t, y, v: folded(t, y, (v,)), (None, 0, 0))
        start = points[:, None]
        times = np.sort(np.asarray(self.config.horizons))
        solution = ddesolve(
            lambda t, y, delayed, _: slopes(t, y, delayed[0]),
            0.0,
            float(times[-1]),
            start,
            history=lambda t: start,
            delays=1.0,
            ts=times,
            solver=solver,
            engine="stages",
            steps_per_delay=steps,
        )
        chosen = (jnp.asarray(times, points.dtype) == horizon).astype(points.dtype)
        return jnp.sum(chosen[:, None] * solution.ys[..., 0], 0)

    def _values(self, points: Array) -> Array:
        return TARGETS[self.config.target].function(points)

    def _grid(self) -> Array:
        return jnp.linspace(-1, 1, _GRID, dtype=self.nodes.dtype)

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.config.learning_rate)

    def watched(self) -> tuple[str, ...]:
        """The best error so far and the gain are what one follows while it runs."""
        return ("best_mse", "gain")

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        series = dict.fromkeys(("loss", "gain", "slope"), ("reading",))
        scalars = ("best_mse", "mse", "final_gain", "final_offset", "smallest_slope")
        return {**series, **dict.fromkeys(scalars, ()), "learnt": ("x",), "weights": ("weight",)}

    def coords(self) -> dict[str, np.ndarray]:
        """Steps of the readings, the inputs at which the learnt map is stored, numbers of the weights."""
        return {
            "reading": self.config.reading_interval * np.arange(1, self.config.num_readings + 1),
            "x": np.linspace(-1, 1, _GRID),
            "weight": np.arange(num_weights(self.config)),
        }


def gauss_legendre(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [-1, 1], and weights of the mean over that interval."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return nodes, weights / 2


def fit_readout(states: Float[Array, "points"], values: Float[Array, "points"], weights: Array) -> Readout:
    """Weighted least squares for values = gain * states + offset.

    The variance of the states is raised by the precision: a spread below its square root, of which rounding is a part worth
    mentioning, is not amplified to a signal.
    """
    centre, level = weights @ states, weights @ values
    spread = weights @ (states - centre) ** 2
    gain = weights @ ((states - centre) * (values - level)) / (spread + jnp.finfo(states.dtype).eps)
    rest = values - level - gain * (states - centre)
    return Readout(gain, level - gain * centre, weights @ rest**2)


def smallest_slope(states: Float[Array, "points"], points: Float[Array, "points"]) -> Float[Array, ""]:
    """The smallest difference quotient of neighbours, which is that of all pairs if the states are monotone."""
    return jnp.min(jnp.abs(jnp.diff(states)) / jnp.diff(points))


def empty_field(config: Config, lipschitz: Any, horizon: Any, key: Any) -> LipschitzField:
    """The field of a lane with random weights, in units of the delay."""
    return LipschitzField(
        lipschitz,
        "sup",
        size=1,
        num_delays=1,
        hidden=(config.width,),
        time_pieces=config.time_pieces,
        horizon=horizon,
        key=key,
        dtype=jnp.dtype(config.precision),
    )


def num_weights(config: Config) -> int:
    """The number of trained weights: three for each hidden unit, and one more with two for the inputs and a bias."""
    return config.time_pieces * (4 * config.width + 3)


def with_weights(field: LipschitzField, vector: Array) -> LipschitzField:
    """The field with its weights from one vector, as `MemoryProgram.final` stores them."""
    return _with(field, ravel_pytree(_trained(field))[1](vector))


def _trained(field: LipschitzField) -> PyTree:
    return field.weights, field.biases


def _with(field: LipschitzField, trained: PyTree) -> LipschitzField:
    return eqx.tree_at(_trained, field, trained)


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every horizon with every memory capacity and every seed."""
    axes = (np.asarray(config.horizons), np.asarray(config.memories), np.arange(config.num_seeds, dtype=np.int32))
    horizon, memory, seed = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    return {"horizon": horizon, "memory": memory, "seed": seed}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are only stored: none."""
    return {}


def fingerprint(program: MemoryProgram) -> str:
    """SHA-256 of inputs and values, so that a store can tell whether they have changed."""
    return data.sha256(np.asarray(program.nodes), np.asarray(program._values(program.nodes)))


def program(config: Config) -> MemoryProgram:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        A `MemoryProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.
    """
    return MemoryProgram(config)
