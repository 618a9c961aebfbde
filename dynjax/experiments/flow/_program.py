"""One lane as a pure program: a flow is trained, tested against the exact field all the way, and sampled from."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray, PyTree

from ... import data
from ..._core import Status, tree_where
from ...generative import (
    GaussianMixture,
    MixtureField,
    ScoreField,
    VelocityField,
    commitment_times,
    log_likelihood,
    sample,
    sampling_exponents,
    stiffness,
)
from ...sweep import AbstractProgram
from .._standing import advanced
from ._config import KINDS, NUM_INTERVALS, Config
from ._target import exact_fields, mixture

_TRAINED, _EXACT = 0, 1


class Draw(NamedTuple):
    """One term of a loss: |scale net(s, x) - target|^2, for flow matching and diffusions alike.

    Attributes:
        s: the time that the network sees.
        x: the state.
        scale: what its output is multiplied by.
        target: what that should be.
    """

    s: Float[Array, ""]
    x: Float[Array, "d"]
    scale: Float[Array, ""]
    target: Float[Array, "d"]


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    network: PyTree
    optimizer: PyTree
    diffusion: Bool[Array, ""]
    learning_rate: Float[Array, ""]
    key: Array
    step: Int[Array, ""]
    status: Int8[Array, ""]


class FlowProgram(AbstractProgram):
    """Runs of generative flows, as `dynjax.sweep` runs them over blocks of lanes.

    Both kinds train the same network on the same states; what they compare its output with differs by numbers only. So one
    compiled program serves both and trains each once; only what is looked at in the end is computed for both.

    Args:
        config: the configuration.
    """

    law: GaussianMixture
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, config: Config):
        self.law = mixture(config.target, config.variance)
        self.config, self.num_segments = config, config.num_segments

    def init(self, lane: dict[str, Array]) -> LaneState:
        """A random network."""
        key = jax.random.fold_in(jax.random.key(self.config.seed), lane["seed"])
        network_key, key = jax.random.split(key)
        network = self._velocity(network_key).network
        parameters = eqx.filter(network, eqx.is_inexact_array)
        learning_rate = lane["learning_rate"].astype(self.law.means.dtype)
        return LaneState(
            network=parameters,
            optimizer=self._adam(learning_rate).init(parameters),
            diffusion=lane["diffusion"].astype(bool),
            learning_rate=learning_rate,
            key=key,
            step=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """Some readings, each after `reading_interval` steps."""
        length = self.config.num_readings // self.num_segments
        state, records = jax.lax.scan(lambda s, _: self._until_reading(s), state, None, length=length)
        return state, records, state.status

    def final(self, state: LaneState) -> dict[str, Array]:
        """Samples, likelihoods and the dynamics of sampling."""
        alive = state.status != int(Status.NONFINITE)
        network = jax.tree_util.tree_map(lambda leaf: jnp.where(alive, leaf, 0), state.network)
        noise_key, point_key = jax.random.split(jax.random.fold_in(state.key, 2))
        noise = jax.random.normal(noise_key, (self.config.num_samples, 2), self.law.means.dtype)
        points = self.law.sample(self.config.num_samples, point_key)
        seen = [
            self._look(trained, exact, noise, points)
            for trained, exact in zip(self._fields(network), exact_fields(self.law), strict=True)
        ]
        chosen = tree_where(state.diffusion, *reversed(seen))
        return {name: jnp.where(alive, value, jnp.nan) for name, value in chosen.items()}

    def draws(self, diffusion: Array, x: Float[Array, "n 2"], key: PRNGKeyArray) -> Draw:
        """The terms of the loss at data `x`: those of `flow_matching_loss` or `score_matching_loss` with the same key."""
        time_key, noise_key = jax.random.split(key)
        s = jax.random.uniform(time_key, x.shape[:1], x.dtype)
        z = jax.random.normal(noise_key, x.shape, x.dtype)
        straight, preserving = (jax.vmap(field.path.coefficients)(s) for field in exact_fields(self.law))
        pick = lambda a, b: jnp.where(diffusion, b, a)[..., None]
        a = pick(straight.signal, preserving.signal)
        b = jnp.sqrt(pick(straight.noise_variance, preserving.noise_variance))
        state = a * x + b * z
        return Draw(
            s=s,
            x=state,
            scale=jnp.where(diffusion, a * b, 1)[..., 0],
            target=jnp.where(diffusion, b * state - z, x - z),
        )

    def _look(self, trained: Any, exact: MixtureField, noise: Array, points: Array) -> dict[str, Array]:
        """What a trained field and the exact one do with the same noise."""
        steps = self.config.sampling_steps // NUM_INTERVALS
        start, stop = jnp.asarray(exact.noise_time, noise.dtype), jnp.asarray(exact.data_time, noise.dtype)
        times = start + (stop - start) * jnp.linspace(0, 1, NUM_INTERVALS + 1, dtype=noise.dtype)
        few = noise[: self.config.num_paths]
        backwards = log_likelihood(trained, points, times=times[::-1], num_steps=steps).value
        paths, exponents, committed, norms = [], [], [], []
        for field in (trained, exact):
            found = sampling_exponents(field, few, times, num_steps=steps)
            paths.append(found.path)
            exponents.append(found.exponents[:, -1])
            committed.append(
                self._noise_level(
                    exact, commitment_times(field, few, exact=exact, num_times=NUM_INTERVALS + 1, num_steps=steps).times
                )
            )
            norms.append(jnp.max(stiffness(field, found.path, times).norm, 0))
        return {
            "samples": sample(trained, noise, times=times, num_steps=steps).points,
            "log_likelihood": backwards,
            "log_density": jax.vmap(self.law.log_density)(points),
            "path": jnp.stack(paths),
            "exponents": jnp.stack(exponents),
            "commitment": jnp.stack(committed),
            "stiffness": jnp.stack(norms),
        }

    def _noise_level(self, field: MixtureField, times: Float[Array, "n"]) -> Float[Array, "n"]:
        """The noise level b / a, the clock that all paths have in common; cut where there is no signal, to stay finite."""
        known = jax.vmap(field.path.coefficients)(jnp.nan_to_num(times))
        level = jnp.sqrt(known.noise_variance) / jnp.maximum(known.signal, 1e-6)
        return jnp.where(jnp.isnan(times), jnp.nan, level)

    def _velocity(self, key: PRNGKeyArray) -> VelocityField:
        return VelocityField(2, hidden=self._hidden(), key=key, dtype=self.law.means.dtype)

    def _network(self, parameters: PyTree) -> Any:
        """The network with these parameters; all else of it depends on the configuration alone."""
        return eqx.combine(parameters, self._velocity(jax.random.key(0)).network)

    def _fields(self, parameters: PyTree) -> tuple[VelocityField, ScoreField]:
        """The parameters as the network of a velocity and as that of a score."""
        key = jax.random.key(0)
        score = ScoreField(2, hidden=self._hidden(), key=key, dtype=self.law.means.dtype)
        put = lambda field: eqx.tree_at(lambda f: f.network, field, self._network(parameters))
        return put(self._velocity(key)), put(score)

    def _outputs(self, parameters: PyTree, draws: Draw) -> Float[Array, "n 2"]:
        """What the loss compares with the targets."""
        return draws.scale[:, None] * jax.vmap(self._network(parameters))(draws.s, draws.x)

    def _hidden(self) -> tuple[int, ...]:
        return (self.config.width,) * self.config.num_layers

    def _until_reading(self, state: LaneState) -> tuple[LaneState, dict[str, Array]]:
        def step(carry: tuple[LaneState, Array], _: None) -> tuple[tuple[LaneState, Array], None]:
            state, loss = self._step(carry[0])
            return (state, carry[1] + loss), None

        interval = self.config.reading_interval
        zero = jnp.zeros((), self.law.means.dtype)
        (state, total), _ = jax.lax.scan(step, (state, zero), None, length=interval)
        alive = jnp.where(state.status == int(Status.RUNNING), 1.0, jnp.nan).astype(zero.dtype)
        records = {"loss": total / interval} | self._test(state)
        return state, {name: value * alive for name, value in records.items()}

    def _test(self, state: LaneState) -> dict[str, Array]:
        """The loss above that of the exact field on the same draws, with its standard error, and the error of the field."""
        point_key, draw_key = jax.random.split(jax.random.fold_in(state.key, 1))
        draws = self.draws(state.diffusion, self.law.sample(self.config.num_tests, point_key), draw_key)
        best = jax.vmap(self._exact_output, (None, 0, 0))(state.diffusion, draws.s, draws.x)
        mine = self._outputs(state.network, draws)
        square = lambda v: jnp.mean(v**2, -1)
        above = square(mine - draws.target) - square(best - draws.target)
        return {
            "excess": jnp.mean(above),
            "excess_error": jnp.std(above, ddof=1) / above.size**0.5,
            "field_error": jnp.mean(square(mine - best)),
            "floor": jnp.mean(square(best - draws.target)),
        }

    def _exact_output(self, diffusion: Array, s: Array, x: Array) -> Float[Array, "2"]:
        """What the scaled output of the network should be at a state."""
        straight, preserving = exact_fields(self.law)
        b = jnp.sqrt(preserving.path.coefficients(s).noise_variance)
        return jnp.where(diffusion, b * (preserving.score(s, x) + x), straight(s, x))

    def _loss(self, parameters: PyTree, draws: Draw) -> Array:
        return jnp.mean((self._outputs(parameters, draws) - draws.target) ** 2)

    def _step(self, state: LaneState) -> tuple[LaneState, Array]:
        """One step; a lane that is not finite any more stands still."""
        point_key, draw_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(state.key, 0), state.step))
        draws = self.draws(state.diffusion, self.law.sample(self.config.batch_size, point_key), draw_key)
        loss, slope = jax.value_and_grad(self._loss)(state.network, draws)
        updates, optimizer = self._adam(state.learning_rate).update(slope, state.optimizer)
        new = (optax.apply_updates(state.network, updates), optimizer)
        (network, optimizer), status = advanced(state.status, (loss, slope), new, (state.network, state.optimizer))
        state = state._replace(network=network, optimizer=optimizer, status=status, step=state.step + 1)
        return state, loss

    def _adam(self, learning_rate: Array) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(learning_rate, self.config.num_steps))

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        series = dict.fromkeys(("loss", "excess", "excess_error", "field_error", "floor"), ("reading",))
        return series | {
            "samples": ("sample", "axis"),
            "log_likelihood": ("sample",),
            "log_density": ("sample",),
            "path": ("source", "trajectory", "time", "axis"),
            "exponents": ("source", "trajectory", "axis"),
            "commitment": ("source", "trajectory"),
            "stiffness": ("source", "time"),
        }

    def coords(self) -> dict[str, np.ndarray]:
        """Steps of the readings, numbers of points, the part of the path, and 0 for trained, 1 for exact fields."""
        return {
            "reading": self.config.reading_interval * np.arange(1, self.config.num_readings + 1),
            "sample": np.arange(self.config.num_samples),
            "axis": np.arange(2),
            "source": np.array([_TRAINED, _EXACT]),
            "trajectory": np.arange(self.config.num_paths),
            "time": np.linspace(0, 1, NUM_INTERVALS + 1),
        }


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every kind at every learning rate with every seed."""
    axes = (
        np.asarray([KINDS.index(kind) for kind in config.kinds], np.int32),
        np.asarray(config.learning_rates),
        np.arange(config.num_seeds, dtype=np.int32),
    )
    diffusion, rate, seed = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    return {"diffusion": diffusion, "learning_rate": rate, "seed": seed}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are only stored: the kind in words."""
    return {"kind": np.asarray([KINDS[index] for index in lanes(config)["diffusion"]])}


def fingerprint(program: FlowProgram) -> str:
    """SHA-256 of the law, from which all data come."""
    return data.sha256(*(np.asarray(part) for part in (program.law.means, program.law.covariances)))


def program(config: Config) -> FlowProgram:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        A `FlowProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.
    """
    return FlowProgram(config)
