"""One lane as a pure program: a delay equation fitted to a series, then its forecasts, its orbit and its exponents."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray

from ... import data
from ..._core import Status, check_that, tree_all_finite, tree_where
from ...stability import lyapunov_spectrum
from ...sweep import AbstractProgram
from ...systems import DelayFlow, History, trajectory
from ...training import TrainingMap
from ._config import Config
from ._model import DelayModel, measured_past
from ._series import KNOWN, Series, make_series

_WEIGHTS, _BATCHES = range(2)  # what the streams folded into the seed's key are for
_TEST_PART = 0.2
_TEST_WINDOWS = 64
_LEAST_LEADS = 60  # forecasts after training go at least so many samples ahead
_ORBIT = 2_000  # samples of the free run of a learnt equation
_FALL = 0.01  # learning rates end at this part of what they were


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    training: Any
    horizon: Int[Array, ""]
    key: PRNGKeyArray
    step: Int[Array, ""]
    status: Int8[Array, ""]


class FitProgram(AbstractProgram):
    """The fit of a delay equation, as `dynjax.sweep` runs it over blocks of lanes.

    Args:
        config: the configuration.
    """

    series: Series
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)
    num_history: int = eqx.field(static=True)
    num_train: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    def __init__(self, config: Config):
        dtype = jnp.dtype(config.precision)
        self.series = make_series(config.series, config.num_samples, config.noise, dtype)
        self.config, self.num_segments = config, config.num_segments
        self.num_history = check_sizes(config, self.series)
        self.num_train = round((1 - _TEST_PART) * self.series.values.size)
        self.rate = float(np.std(np.asarray(self.series.slopes)))

    @property
    def num_leads(self) -> int:
        """Samples that the forecasts after training go ahead."""
        return max(_LEAST_LEADS, self.config.max_horizon)

    def _forecast(self, model: DelayModel, starts: Array, num_leads: int) -> Float[Array, "windows leads"]:
        """Forecasts from measured histories that end with the samples `starts`."""
        flow = model.flow(self.series.interval, self.num_history)

        def one(start: Array) -> Array:
            def step(x: History, n: Array) -> tuple[History, Array]:
                x = flow.step(n, x)
                return x, x.y[0]

            return jax.lax.scan(step, measured_past(flow, self.series, start), jnp.arange(num_leads))[1]

        return jax.vmap(one)(starts)

    def _errors(self, model: DelayModel, starts: Array, num_leads: int) -> Float[Array, "windows leads"]:
        targets = self.series.values[starts[:, None] + 1 + jnp.arange(num_leads)]
        return self._forecast(model, starts, num_leads) - targets

    def _loss(self, model: DelayModel, starts: Array, reach: Array) -> Float[Array, ""]:
        """Mean square error of forecasts over the first `reach` samples; the part of the last one counts in part."""
        weights = jnp.clip(reach - jnp.arange(self.config.max_horizon), 0, 1)
        square = jnp.mean(self._errors(model, starts, self.config.max_horizon) ** 2, axis=0)
        return jnp.sum(jnp.where(weights > 0, weights * square, 0)) / jnp.sum(weights)

    def _map(self, horizon: Array, key: PRNGKeyArray) -> TrainingMap:
        """Adam on windows of the series, with a learning rate of its own for the delay."""
        config, stream = self.config, jax.random.fold_in(key, _BATCHES)
        last = self.num_train - config.max_horizon

        def batches(n: Array) -> tuple[Array, Array]:
            shape = (config.batch_size,)
            starts = jax.random.randint(jax.random.fold_in(stream, n), shape, self.num_history, last, dtype=jnp.int32)
            grown = n / (config.growth * config.num_steps) if config.growth > 0 else 1.0
            return starts, horizon ** jnp.clip(jnp.asarray(grown, self.series.values.dtype), 0, 1)

        fall = lambda rate: optax.adam(optax.cosine_decay_schedule(rate, config.num_steps, _FALL))
        rates = {"weights": config.learning_rate, "delay": config.delay_learning_rate * self.series.interval}
        optimizer = optax.multi_transform({name: fall(rate) for name, rate in rates.items()}, _kinds)
        return TrainingMap(self._loss, optimizer, batches)

    def init(self, lane: dict[str, Array]) -> LaneState:
        """The start of a lane: weights from its seed, and its delay."""
        key = jax.random.key(lane["seed"])
        model = DelayModel(
            self.series,
            lane["initial_delay"],
            hidden=self.config.hidden,
            decay=self.config.decay,
            rate=self.rate,
            key=jax.random.fold_in(key, _WEIGHTS),
        )
        horizon = lane["horizon"].astype(self.series.values.dtype)
        status = jnp.asarray(int(Status.RUNNING), jnp.int8)
        return LaneState(self._map(horizon, key).init(model), horizon, key, jnp.zeros((), jnp.int32), status)

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """Some readings, each after `reading_interval` steps."""
        length = self.config.num_readings // self.num_segments
        state, records = jax.lax.scan(lambda s, _: self._until_reading(s), state, None, length=length)
        return state, records, state.status

    def _until_reading(self, state: LaneState) -> tuple[LaneState, dict[str, Array]]:
        """`reading_interval` steps, and loss, delay and test errors after them; NaN for a lane that has failed."""
        system, interval = self._map(state.horizon, state.key), self.config.reading_interval

        def step(training: Any, n: Array) -> tuple[Any, Array]:
            moved, loss = system.step_with_loss(n, training)
            low, high = self.config.bounds
            delay = jnp.clip(moved.params.delay, low, high)
            return eqx.tree_at(lambda x: x.params.delay, moved, delay), loss

        training, losses = jax.lax.scan(step, state.training, state.step + jnp.arange(interval, dtype=jnp.int32))
        running = (state.status == int(Status.RUNNING)) & tree_all_finite((training.params, losses))
        status = jnp.where(running, state.status, int(Status.NONFINITE)).astype(jnp.int8)
        training = tree_where(running, training, state.training)
        square = jnp.mean(self._errors(training.params, self._test_starts(), self.config.max_horizon) ** 2, axis=0)
        inside = jnp.arange(self.config.max_horizon) < state.horizon
        records = {
            "loss": jnp.mean(losses),
            "delay": training.params.delay,
            "one_step_error": jnp.sqrt(square[0]),
            "horizon_error": jnp.sqrt(jnp.sum(jnp.where(inside, square, 0)) / state.horizon),
        }
        records = {name: jnp.where(running, value, jnp.nan) for name, value in records.items()}
        return state._replace(training=training, step=state.step + interval, status=status), records

    def _test_starts(self) -> Int[Array, "windows"]:
        """Where the test windows start: spread evenly over the last part of the series."""
        last = self.series.values.size - self.num_leads - 1
        return jnp.asarray(np.linspace(self.num_train, last, _TEST_WINDOWS).astype(np.int32))

    def final(self, state: LaneState) -> dict[str, Array]:
        """Errors against lead, one forecast, a free run, and the exponents of the learnt and of the true equation."""
        model, interval = state.training.params, self.series.interval
        good = state.status != int(Status.NONFINITE)
        starts = self._test_starts()
        error = jnp.sqrt(jnp.mean(self._errors(model, starts, self.num_leads) ** 2, axis=0))
        flow = model.flow(interval, self.num_history)
        start = measured_past(flow, self.series, starts[0])
        orbit = trajectory(flow, start, num_steps=_ORBIT, observe=lambda n, x: x.y[0]).ys[:_ORBIT]
        exponents, errors, status = self._exponents(flow, start)
        records = {"error": error, "orbit": orbit, "exponents": exponents, "exponent_errors": errors}
        records = {name: jnp.where(good, value, jnp.nan) for name, value in records.items()}
        records |= {"exponent_status": status, "observed": self.series.clean[self.num_train :]}
        return records | self._truth()

    def _exponents(self, flow: DelayFlow, start: History) -> tuple[Array, Array, Array]:
        config = self.config
        result = lyapunov_spectrum(flow, start, num_steps=config.exponent_steps, k=config.num_exponents)
        return result.exponents, result.standard_error, result.status

    def _truth(self) -> dict[str, Array]:
        """The exponents of the true equation, by the same steps; NaN where it is not known."""
        unknown = jnp.full((self.config.num_exponents,), jnp.nan, self.series.values.dtype)
        exponents, errors = unknown, unknown
        if self.config.series in KNOWN:
            known = KNOWN[self.config.series]
            flow = known.flow(self.series.interval)
            exponents, errors, _ = self._exponents(flow, flow.init(jnp.asarray(known.start, unknown.dtype)))
        delay = jnp.asarray(self.series.delay, unknown.dtype)
        return {"true_exponents": exponents, "true_exponent_errors": errors, "true_delay": delay}

    def watched(self) -> tuple[str, ...]:
        """What one follows while it runs."""
        return ("horizon_error", "delay")

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        readings: dict[str, tuple[str, ...]] = dict.fromkeys(
            ("loss", "delay", "one_step_error", "horizon_error"), ("reading",)
        )
        names = ("exponents", "exponent_errors", "true_exponents", "true_exponent_errors")
        scalars = dict.fromkeys(("exponent_status", "true_delay"), ())
        series = {"error": ("lead",), "orbit": ("time",), "observed": ("observation",)}
        return readings | dict.fromkeys(names, ("mode",)) | scalars | series

    def coords(self) -> dict[str, np.ndarray]:
        """Steps of the readings, leads and times in units of time, numbers of the exponents."""
        return {
            "reading": self.config.reading_interval * np.arange(1, self.config.num_readings + 1),
            "lead": self.series.interval * np.arange(1, self.num_leads + 1),
            "time": self.series.interval * np.arange(_ORBIT),
            "observation": self.series.interval * np.arange(self.series.values.size - self.num_train),
            "mode": np.arange(self.config.num_exponents),
        }


def _kinds(params: DelayModel) -> Any:
    """Which learning rate a parameter has."""
    return eqx.tree_at(lambda m: m.delay, jax.tree_util.tree_map(lambda _: "weights", params), "delay")


def check_sizes(config: Config, series: Series) -> int:
    """The samples in a history; raises unless the delays fit on the grid and windows into the series."""
    low, high = config.bounds
    check_that(
        low >= series.interval,
        "delay_bounds",
        f"begin at the time between two samples, {series.interval:g}, or later",
        f"found {low:g}",
    )
    num_history = math.ceil(high / series.interval)
    least = math.ceil((num_history + config.max_horizon + 2) / (1 - _TEST_PART))
    least = max(least, math.ceil((max(_LEAST_LEADS, config.max_horizon) + 2) / _TEST_PART))
    found = series.values.size
    check_that(found >= least, "num_samples", f"be at least {least} for these delays and horizons", f"found {found}")
    return num_history


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every horizon with every initial delay and every seed."""
    horizons, delays, seeds = np.meshgrid(
        np.asarray(config.horizons, np.int32),
        np.asarray(config.delays, np.float64),
        np.asarray(config.seeds, np.int32),
        indexing="ij",
    )
    return {"horizon": horizons.ravel(), "initial_delay": delays.ravel(), "seed": seeds.ravel()}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are stored but not computed with: none."""
    return {}


def fingerprint(program: FitProgram) -> str:
    """SHA-256 of the series, so that a store can tell whether it has changed."""
    return data.sha256(np.asarray(program.series.values))


def program(config: Config) -> FitProgram:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        A `FitProgram`; build it where the precision of the configuration is enabled.

    Raises:
        ValueError: if the series cannot be used, or is too short for the delays and horizons.
    """
    return FitProgram(config)
