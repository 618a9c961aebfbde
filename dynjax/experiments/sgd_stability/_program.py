"""One lane of the test as a pure program: many real runs of SGD near the solution, at one learning rate."""

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
from ...systems import MiniBatches
from ...training import TrainingMap
from .._tasks import mse
from ._config import Config
from ._predictions import CRITERIA, Predictions, num_rates, predict_outputs, predictions

_ALIGNMENT, _RUN, _DIRECTION = range(16, 19)  # what the streams folded into the seed's key are for
_BLOCK = 100  # linearised steps between two normalisations
_HIGHEST = jax.lax.Precision.HIGHEST
_CURVES = ("exponent", "standard_error", "gd_exponent", "mean_square_rate", "lower_bound")


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next; all runs of a lane are stacked."""

    training: Any
    rate_index: Int[Array, ""]
    keys: PRNGKeyArray  # of the batches of each run
    step: Int[Array, ""]
    start: Float[Array, "seeds"]  # residual norms at the start
    peak: Float[Array, "seeds"]
    stop_step: Int[Array, "seeds"]
    status: Int8[Array, ""]


class SGDProgram(AbstractProgram):
    """Runs of SGD from many starts near an interpolation solution, as `dynjax.sweep` runs them over blocks of lanes.

    Args:
        made: the solution and the predictions.
        config: the configuration.
    """

    made: Predictions
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, made: Predictions, config: Config):
        self.made, self.config = made, config
        self.num_segments = config.num_segments

    def _rate(self, index: Int[Array, ""]) -> Float[Array, ""]:
        return self.made.rates[index]

    def _map(self, rate: Float[Array, ""], key: PRNGKeyArray) -> TrainingMap:
        batches = MiniBatches((self.made.inputs, self.made.targets), self.config.batch_size, key=key)
        return TrainingMap(_loss, optax.sgd(rate), batches)

    def _residual(self, model: Any) -> Float[Array, ""]:
        return jnp.linalg.norm(predict_outputs(model, self.made.inputs) - self.made.targets)

    def init(self, lane: dict[str, Array]) -> LaneState:
        """The start of a lane: one displacement for each run, of equal length."""
        index = num_rates(self.config) + lane["check"].astype(jnp.int32)
        rate = self._rate(index)
        seeds = jnp.arange(self.config.num_seeds)
        key = jax.random.key(self.config.seed)
        stream = lambda purpose: jax.vmap(lambda s: jax.random.fold_in(jax.random.fold_in(key, purpose), s))(seeds)
        if self.config.start == "aligned":
            directions = jax.vmap(lambda k: self._aligned(rate, k))(stream(_ALIGNMENT))
        else:
            shape, dtype = self.made.eigenvalues.shape, self.made.eigenvalues.dtype
            directions = _unit(jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(stream(_DIRECTION)))
        models = jax.vmap(self._displaced)(self.config.distance * directions)
        keys = stream(_RUN)
        start = jax.vmap(self._residual)(models)
        return LaneState(
            training=jax.vmap(lambda model, k: self._map(rate, k).init(model))(models, keys),
            rate_index=index,
            keys=keys,
            step=jnp.zeros((), jnp.int32),
            start=start,
            peak=jnp.ones_like(start),
            stop_step=jnp.full(seeds.shape, -1, jnp.int32),
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def _aligned(self, rate: Float[Array, ""], key: PRNGKeyArray) -> Float[Array, "rank"]:
        """The direction of the linearised dynamics after a long time: its growth is stationary from the first step on.

        It starts from the slowest mode, which a decaying run approaches in the end and from which others would take
        1 / (spacing of the slow modes) steps to get there; a growing run leaves it after a few of its own time scales.
        """
        factor, size = self.made.factor, self.config.batch_size
        scale = rate / size
        batches = MiniBatches(jnp.arange(factor.shape[0]), size, key=key)

        def step(w: Array, chosen: Int[Array, "size"]) -> tuple[Array, None]:
            rows = factor[chosen].reshape(-1, w.size)
            return w - scale * jnp.sum(rows * jnp.sum(rows * w, axis=1)[:, None], axis=0), None

        def block(w: Array, n: Array) -> tuple[Array, None]:
            # All batches of a block are drawn at once: one by one they cost more than the steps.
            chosen = jax.vmap(batches.indices)(_BLOCK * n + jnp.arange(_BLOCK))
            return _unit(jax.lax.scan(step, w, chosen)[0]), None

        slowest = jnp.zeros_like(self.made.eigenvalues).at[-1].set(1)
        return jax.lax.scan(block, slowest, jnp.arange(-(-self.config.alignment_steps // _BLOCK)))[0]

    def _displaced(self, w: Float[Array, "rank"]) -> Any:
        """The solution moved by the vector with normal coordinates w: J^T G (w / k), since the basis is J^T G / k."""
        outputs, pull = jax.vjp(lambda p: predict_outputs(p, self.made.inputs), self.made.params)
        scaled = jnp.matmul(self.made.factor, w / self.made.eigenvalues, precision=_HIGHEST)
        with jax.default_matmul_precision("highest"):
            moved = pull(scaled.reshape(outputs.shape))[0]
        return jax.tree_util.tree_map(jnp.add, self.made.params, moved)

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """Some readings of all residuals, each after `reading_interval` steps."""
        length = self.config.num_readings // self.num_segments
        state, residuals = jax.lax.scan(lambda s, _: self._until_reading(s), state, None, length=length)
        records = {"residual": residuals, "start": state.start, "peak": state.peak, "stop_step": state.stop_step}
        return state, records | self._predicted(state.rate_index), state.status

    def _until_reading(self, state: LaneState) -> tuple[LaneState, Float[Array, "seeds"]]:
        """`reading_interval` steps, and the residuals after them; NaN for a run that has escaped before."""
        rate, end = self._rate(state.rate_index), state.step + self.config.reading_interval
        running = state.stop_step < 0

        def step(i: Array, training: Any) -> Any:
            return jax.vmap(lambda k, x: self._map(rate, k).step(state.step + i, x))(state.keys, training)

        def steps(carry: tuple[Array, Any]) -> tuple[Array, Any]:
            return carry[0] + 1, jax.lax.fori_loop(0, self.config.reading_interval, step, carry[1])

        # Once or not at all: a lane whose runs have all escaped is done. (`vmap` would turn a `cond` into both branches, and
        # a loop of single steps with this condition into a copy of all weights at each.)
        going = lambda carry: (carry[0] < 1) & jnp.any(running)
        moved = jax.lax.while_loop(going, steps, (jnp.zeros((), jnp.int32), state.training))[1]
        residual = jnp.where(running, jax.vmap(self._residual)(moved.params), jnp.nan)
        growth = residual / state.start
        escaped = running & ~(growth < self.config.escape)
        state = state._replace(
            training=_select(running & jnp.isfinite(residual), moved, state.training),
            step=end,
            peak=jnp.where(running, jnp.fmax(state.peak, jnp.where(jnp.isnan(growth), jnp.inf, growth)), state.peak),
            stop_step=jnp.where(escaped, end, state.stop_step),
        )
        return state, residual

    def _predicted(self, index: Int[Array, ""]) -> dict[str, Array]:
        """What was predicted, so that a store can be read without computing anything."""
        made, last = self.made, num_rates(self.config)
        records = {"learning_rate": self._rate(index), "grid_rate": made.rates[:last]}
        for name in _CURVES:
            records[name], records[f"grid_{name}"] = made.curves[name][index], made.curves[name][:last]
        return records | {
            "threshold": made.thresholds,
            "threshold_error": made.threshold_errors,
            "solution_residual": made.residual_norm,
            "eigenvalue": made.eigenvalues,
            "regular": made.regular.astype(jnp.int8),
            "rank": jnp.asarray(made.eigenvalues.size, jnp.int32),
            "num_outputs": jnp.asarray(made.targets.size, jnp.int32),
            "num_params": jnp.asarray(made.num_params, jnp.int32),
        }

    def watched(self) -> tuple[str, ...]:
        """The residuals and how far they have grown are what one follows while it runs."""
        return ("residual", "peak")

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        curves = dict.fromkeys(_CURVES, ()) | {f"grid_{name}": ("grid",) for name in _CURVES}
        scalars = ("learning_rate", "solution_residual", "regular", "rank", "num_outputs", "num_params")
        return {
            "residual": ("reading", "seed"),
            "start": ("seed",),
            "peak": ("seed",),
            "stop_step": ("seed",),
            "grid_rate": ("grid",),
            "threshold": ("criterion",),
            "threshold_error": ("criterion",),
            "eigenvalue": ("mode",),
            **curves,
            **dict.fromkeys(scalars, ()),
        }

    def coords(self) -> dict[str, np.ndarray]:
        """Steps of the readings, numbers of the runs and of the rates of the curve, names of the thresholds."""
        return {
            "reading": self.config.reading_interval * np.arange(1, self.config.num_readings + 1),
            "seed": np.arange(self.config.num_seeds),
            "grid": np.arange(num_rates(self.config)),
            "criterion": np.asarray(CRITERIA),
            "mode": np.arange(self.made.eigenvalues.size),
        }


def _loss(model: Any, inputs: Array, targets: Array) -> Float[Array, ""]:
    return mse(predict_outputs(model, inputs), targets)


def _unit(w: Float[Array, "... rank"]) -> Float[Array, "... rank"]:
    norm = jnp.linalg.norm(w, axis=-1, keepdims=True)
    return w / jnp.where(norm > 0, norm, 1)


def _select(condition: Bool[Array, "seeds"], new: Any, old: Any) -> Any:
    """`new` for the runs where the condition holds, leaf by leaf."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree_util.tree_map(pick, new, old)


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: one for each rate of the real runs."""
    return {"check": np.arange(len(config.check_rates), dtype=np.int32)}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are stored but not computed with: the rate in units of the almost sure threshold."""
    return {"factor": np.asarray(config.check_rates)}


def fingerprint(program: SGDProgram) -> str:
    """SHA-256 of the data, so that a store can tell whether they have changed."""
    return data.sha256(np.asarray(program.made.inputs), np.asarray(program.made.targets))


def program(config: Config) -> SGDProgram:
    """The program of a configuration; it finds the solution and makes all predictions, or takes those made last.

    Args:
        config: the configuration.

    Returns:
        An `SGDProgram`; build it where the precision of the configuration is enabled.

    Raises:
        ValueError: if the task or its data cannot be used, or the network cannot fit them.
    """
    return SGDProgram(predictions(config), config)
