"""One lane as a pure program: a plain deep network, looked at, trained, and looked at again."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int8, PyTree

from ... import data
from ..._core import Status
from ...networks import orthogonal
from ...propagation import gradient_norms, layer_exponents
from ...sweep import AbstractProgram
from ...systems import LayerMap
from .._standing import advanced
from .._tasks import ACTIVATIONS
from ._config import Config
from ._network import CLIP, Layers, Parameters, lifted, outputs, spirals


class View(NamedTuple):
    """What a network does to perturbations.

    Attributes:
        exponents: per layer, over the second half of the layers, mean over the probes.
        gradients: log |dL/dh_l| - log |dL/dh_L| for l = 0, ..., L, mean over the probes.
    """

    exponents: Float[Array, "k"]
    gradients: Float[Array, "layers_1"]


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    parameters: Parameters
    optimizer: PyTree
    active: Bool[Array, "layers"]
    before: View
    points: Float[Array, "n 2"]
    labels: Float[Array, "n"]
    key: Array
    status: Int8[Array, ""]


class DepthProgram(AbstractProgram):
    """Runs of plain deep networks, as `dynjax.sweep` runs them over blocks of lanes.

    All lanes have as many layers as the deepest; those above the depth of a lane hand their input on, so that one compiled
    program serves all depths.

    Args:
        config: the configuration.
    """

    depths: Array
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, config: Config):
        self.depths = jnp.asarray(config.depths, jnp.int32)
        self.config, self.num_segments = config, config.num_segments

    def init(self, lane: dict[str, Array]) -> LaneState:
        """A random network of the lane, and what it does before training."""
        dtype = jnp.dtype(self.config.precision)
        key = jax.random.fold_in(jax.random.key(self.config.seed), lane["seed"])
        data_key, key, probe_key = jax.random.split(key, 3)
        points, labels = spirals(data_key, self.config.num_points, dtype)
        parameters = self._parameters(key, jnp.sqrt(lane["weight_variance"].astype(dtype)), dtype)
        active = jnp.arange(max(self.config.depths)) < lane["depth"]
        return LaneState(
            parameters=parameters,
            optimizer=self._adam().init(parameters),
            active=active,
            before=self._look(parameters, active, points, probe_key),
            points=points,
            labels=labels,
            key=probe_key,
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """Some readings, each after `reading_interval` steps."""
        length = self.config.num_readings // self.num_segments
        state, records = jax.lax.scan(lambda s, _: self._until_reading(s), state, None, length=length)
        return state, records, state.status

    def final(self, state: LaneState) -> dict[str, Array]:
        """Exponents and gradients before and after training."""
        after = self._look(state.parameters, state.active, state.points, state.key)
        alive = jnp.where(state.status == int(Status.NONFINITE), jnp.nan, 1.0).astype(state.points.dtype)
        exponents = jnp.stack([state.before.exponents, after.exponents * alive])
        return {"exponents": exponents, "gradients": jnp.stack([state.before.gradients, after.gradients * alive])}

    def _parameters(self, key: Array, scale: Array, dtype: Any) -> Parameters:
        first, second, third, last = jax.random.split(key, 4)
        width = self.config.width
        keys = jax.random.split(first, max(self.config.depths))  # a shallow network is the beginning of a deep one
        if self.config.law == "orthogonal":
            weight = jax.vmap(lambda key: orthogonal()(key, (width, width), dtype))(keys)
        else:
            weight = jax.vmap(lambda key: jax.random.normal(key, (width, width), dtype))(keys) / width**0.5
        bias = jax.random.normal(second, (keys.shape[0], width), dtype) * self.config.bias_variance**0.5
        readout = jax.random.normal(last, (width,), dtype) / width**0.5
        return Parameters(jax.random.normal(third, (width, 2), dtype), scale * weight, bias, readout)

    def _layers(self, parameters: Parameters, active: Array) -> Layers:
        return Layers(parameters.weight, parameters.bias, active, ACTIVATIONS[self.config.activation])

    def _look(self, parameters: Parameters, active: Array, points: Array, key: Array) -> View:
        """Exponents from the second half of the layers, where signals and frames have settled."""
        chosen = np.linspace(0, self.config.num_points - 1, self.config.num_probes).round().astype(int)
        hidden, stack = lifted(parameters.lift, points[chosen]), LayerMap(self._layers(parameters, active))
        logs = layer_exponents(stack, hidden, k=self.config.num_exponents).increments
        depth = jnp.sum(active)
        late = active & (jnp.arange(active.size) >= depth // 2)
        exponents = jnp.sum(jnp.where(late[:, None], logs, 0), 0) / jnp.sum(late)
        norms = gradient_norms(stack, hidden, key=key).log_norms
        return View(exponents, jnp.mean(norms - norms[:, -1:], 0))

    def _loss(self, parameters: Parameters, state: LaneState) -> tuple[Array, Array]:
        values = outputs(parameters, self._layers(parameters, state.active), state.points)
        right = jnp.sign(values) == state.labels
        return jnp.mean(jax.nn.softplus(-state.labels * values)), jnp.mean(right.astype(values.dtype))

    def _until_reading(self, state: LaneState) -> tuple[LaneState, dict[str, Array]]:
        state = jax.lax.fori_loop(0, self.config.reading_interval, lambda _, s: self._step(s), state)
        loss, accuracy = self._loss(state.parameters, state)
        alive = jnp.where(state.status == int(Status.RUNNING), 1.0, jnp.nan).astype(loss.dtype)
        return state, {"loss": loss * alive, "accuracy": accuracy * alive}

    def _step(self, state: LaneState) -> LaneState:
        """One step; a lane that is not finite any more stands still."""
        (loss, _), slope = jax.value_and_grad(self._loss, has_aux=True)(state.parameters, state)
        updates, optimizer = self._adam().update(slope, state.optimizer)
        new = (optax.apply_updates(state.parameters, updates), optimizer)
        (parameters, optimizer), status = advanced(
            state.status, (loss, slope), new, (state.parameters, state.optimizer)
        )
        return state._replace(parameters=parameters, optimizer=optimizer, status=status)

    def _adam(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(self.config.learning_rate))

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        series = dict.fromkeys(("loss", "accuracy"), ("reading",))
        return series | {"exponents": ("stage", "exponent"), "gradients": ("stage", "layer")}

    def coords(self) -> dict[str, np.ndarray]:
        """Steps of the readings, 0 before and 1 after training, numbers of exponents and layers."""
        return {
            "reading": self.config.reading_interval * np.arange(1, self.config.num_readings + 1),
            "stage": np.arange(2),
            "exponent": np.arange(1, self.config.num_exponents + 1),
            "layer": np.arange(max(self.config.depths) + 1),
        }


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every weight variance at every depth with every seed."""
    axes = (
        np.asarray(config.weight_variances),
        np.asarray(config.depths, np.int32),
        np.arange(config.num_seeds, dtype=np.int32),
    )
    variance, depth, seed = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    return {"weight_variance": variance, "depth": depth, "seed": seed}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are only stored: none."""
    return {}


def fingerprint(program: DepthProgram) -> str:
    """SHA-256 of the depths, the only data there is."""
    return data.sha256(np.asarray(program.depths))


def program(config: Config) -> DepthProgram:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        A `DepthProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.
    """
    return DepthProgram(config)
