"""One lane as a pure program: many runs of gradient descent or of SGD on f(x) = a b x at one learning rate."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray

from ... import data
from ..._core import Status
from ...sweep import AbstractProgram
from ...training import TrainingMap
from ._config import Config

_START, _BATCHES = range(2)  # what the streams folded into the seed's key are for
_SELECTED = 16  # up to so many samples are chosen by comparisons, which on a CPU cost less than a gather


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    weights: tuple[Float[Array, "runs"], Float[Array, "runs"]]  # a and b
    learning_rate: Float[Array, ""]
    stochastic: Bool[Array, ""]
    key: PRNGKeyArray
    step: Int[Array, ""]
    status: Int8[Array, ""]


class BiasProgram(AbstractProgram):
    """Runs on f(x) = a b x, as `dynjax.sweep` runs them over blocks of lanes.

    Args:
        config: the configuration.
    """

    squares: Float[Array, "samples"]
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, config: Config):
        self.squares = jnp.asarray(config.input_squares, jnp.dtype(config.precision))
        self.config, self.num_segments = config, config.num_segments

    def init(self, lane: dict[str, Array]) -> LaneState:
        """The starts, the same in every lane."""
        dtype = self.squares.dtype
        key = jax.random.key(self.config.seed)
        shape = (2, self.config.num_runs)
        a, b = jax.random.uniform(jax.random.fold_in(key, _START), shape, dtype, maxval=self.config.start_high)
        return LaneState(
            weights=(a, b),
            learning_rate=lane["learning_rate"].astype(dtype),
            stochastic=lane["stochastic"] > 0,
            key=jax.random.fold_in(key, _BATCHES),
            step=jnp.zeros((), jnp.int32),
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """`num_steps / num_segments` steps of all runs."""
        length = self.config.num_steps // self.num_segments
        optimizer = optax.sgd(state.learning_rate)

        def step(n: Array, weights: Any) -> Any:
            curvature = self._curvatures(jax.random.fold_in(state.key, n), state.stochastic)
            # The loss is summed over runs: each run sees the gradient of its own loss.
            system = TrainingMap(_loss, optimizer, lambda n: (curvature,))
            a, b = system.step(n, system.init(weights)).params
            alive = (jnp.abs(a) <= self.config.bound) & (jnp.abs(b) <= self.config.bound)
            return jnp.where(alive, a, jnp.nan), jnp.where(alive, b, jnp.nan)

        a, b = jax.lax.fori_loop(0, length, lambda i, weights: step(state.step + i, weights), state.weights)
        state = state._replace(weights=(a, b), step=state.step + length)
        error = a * b - 1
        records = {
            "converged": jnp.mean(jnp.abs(error) <= self.config.tolerance)[None],
            "diverged": jnp.mean(jnp.isnan(error))[None],
        }
        return state, records, state.status

    def _curvatures(self, key: PRNGKeyArray, stochastic: Bool[Array, ""]) -> Float[Array, "runs"]:
        """x^2 of the sample of each run, or the mean of all samples for gradient descent."""
        number = self.squares.size
        chosen = jax.random.randint(key, (self.config.num_runs,), 0, number, dtype=jnp.int32)
        if number > _SELECTED:
            curvature = self.squares[chosen]
        else:
            curvature = jnp.broadcast_to(self.squares[0], chosen.shape)
            for i in range(1, number):
                curvature = jnp.where(chosen == i, self.squares[i], curvature)
        return jnp.where(stochastic, curvature, jnp.mean(self.squares))

    def final(self, state: LaneState) -> dict[str, Array]:
        """The end points of all runs; NaN for those that have diverged."""
        return {"a": state.weights[0], "b": state.weights[1]}

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        return {"converged": ("reading",), "diverged": ("reading",), "a": ("run",), "b": ("run",)}

    def coords(self) -> dict[str, np.ndarray]:
        """Steps after which fractions are recorded, and numbers of the runs."""
        length = self.config.num_steps // self.num_segments
        return {"reading": length * np.arange(1, self.num_segments + 1), "run": np.arange(self.config.num_runs)}


def _loss(weights: tuple[Array, Array], squares: Float[Array, "runs"]) -> Float[Array, ""]:
    """Sum over runs of (a b x - x)^2 / 2."""
    return 0.5 * jnp.sum(squares * (weights[0] * weights[1] - 1) ** 2)


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: gradient descent and SGD for every learning rate."""
    rates, stochastic = np.meshgrid(np.asarray(config.learning_rates, np.float64), [0, 1], indexing="ij")
    return {"learning_rate": rates.ravel(), "stochastic": stochastic.ravel().astype(np.int32)}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are stored but not computed with: the name of the algorithm."""
    return {"algorithm": np.tile(np.asarray(["GD", "SGD"]), len(config.learning_rates))}


def fingerprint(program: BiasProgram) -> str:
    """SHA-256 of the data, so that a store can tell whether they have changed."""
    return data.sha256(np.asarray(program.squares))


def program(config: Config) -> Any:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        A `BiasProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.
    """
    return BiasProgram(config)
