"""One lane of the sweep as a pure program: start, a segment of training and readings, the final spectrum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray

from ... import curvature, data, linalg
from ..._core import Raveler, Status, check_that, tree_random, tree_structure, tree_where
from ...sweep import AbstractProgram
from ...systems import FullBatch, MiniBatches
from ...training import TrainingMap, edge_ratio, stability_threshold
from .._optimizers import ADAPTIVE, make_optimizer
from .._tasks import Task, make_task
from ._config import Config

_INIT, _BATCHES, _PROBES, _SHARPNESS = range(4)  # what the streams folded into a lane's key are for
_KRYLOV = 10  # basis of a warm-started reading: a look at the residual after six products, then after each
_RESTARTS = 40  # bound on the work that one lane can ask of its block; what is left unconverged shows in the residual


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    training: Any
    vectors: Any  # top eigenvectors of the last reading, the start of the next
    learning_rate: Float[Array, ""]
    threshold: Float[Array, ""]
    key: PRNGKeyArray
    step: Int[Array, ""]
    first_loss: Float[Array, ""]
    status: Int8[Array, ""]
    stop_step: Int[Array, ""]


class EdgeProgram(AbstractProgram):
    """Training at one learning rate with sharpness readings, as `dynjax.sweep` runs it over blocks of lanes.

    Args:
        task: data, network and loss.
        config: the configuration.
    """

    inputs: Float[Array, "samples in_size"]
    targets: Array
    loss: Callable[..., Any] = eqx.field(static=True)
    network: Callable[..., Any] = eqx.field(static=True)
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, task: Task, config: Config):
        dtype = jnp.dtype(config.precision)
        self.inputs = jnp.asarray(task.inputs, dtype)
        is_label = np.issubdtype(task.targets.dtype, np.integer)
        self.targets = jnp.asarray(task.targets, jnp.int32 if is_label else dtype)
        self.loss, self.network = task.loss, task.network
        self.config = config
        self.num_segments = config.num_readings // config.segment_readings

    @property
    def _batch_size(self) -> int:
        return self.config.batch_size or self.inputs.shape[0]

    @property
    def _batched(self) -> bool:
        return self._batch_size < self.inputs.shape[0]

    @property
    def _adaptive(self) -> bool:
        return self.config.optimizer in ADAPTIVE

    def _optimizer(self, learning_rate: Any) -> Any:
        config = self.config
        return make_optimizer(config.optimizer, learning_rate, momentum=config.momentum, beta2=config.beta2)

    def _map(self, learning_rate: Any, key: PRNGKeyArray) -> TrainingMap:
        if self._batched:
            batches: Any = MiniBatches(
                (self.inputs, self.targets), self._batch_size, key=jax.random.fold_in(key, _BATCHES)
            )
        else:
            batches = FullBatch(self.inputs, self.targets)
        return TrainingMap(self.loss, self._optimizer(learning_rate), batches)

    def init(self, lane: dict[str, Array]) -> LaneState:
        """The start of a lane: initial weights from its seed, an empty optimiser state, a random start vector."""
        dtype = self.inputs.dtype
        learning_rate = lane["learning_rate"].astype(dtype)
        key = jax.random.key(lane["seed"])
        model = self.network(jax.random.fold_in(key, _INIT), dtype)
        sharp_key = jax.random.fold_in(key, _SHARPNESS)
        vector = tree_random(sharp_key, tree_structure(model))
        first = self.loss(model, self.inputs, self.targets)
        status = jnp.where(jnp.isfinite(first), int(Status.RUNNING), int(Status.NONFINITE)).astype(jnp.int8)
        return LaneState(
            training=self._map(learning_rate, key).init(model),
            vectors=(vector, vector) if self._adaptive else (vector,),
            learning_rate=learning_rate,
            threshold=stability_threshold(self._optimizer(learning_rate)).astype(dtype),
            key=key,
            step=jnp.zeros((), jnp.int32),
            first_loss=first,
            status=status,
            stop_step=jnp.full((), -1, jnp.int32),
        )

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """`segment_readings` readings, each followed by `reading_interval` steps."""

        def reading(state: LaneState, _: None) -> tuple[LaneState, tuple[dict[str, Array], Array]]:
            state, seen = self._read(state)
            state, losses = jax.lax.scan(lambda s, _: self._step(s), state, None, length=self.config.reading_interval)
            return state, (seen, losses)

        state, (records, losses) = jax.lax.scan(reading, state, None, length=self.config.segment_readings)
        records["loss"] = losses.reshape(-1)
        records["threshold"] = state.threshold
        records["stop_step"] = state.stop_step
        return state, records, state.status

    def _step(self, state: LaneState) -> tuple[LaneState, Array]:
        """One optimiser step; a lane that has stopped stays as it is and records NaN."""
        moved, loss = self._map(state.learning_rate, state.key).step_with_loss(state.step, state.training)
        finite = jnp.isfinite(loss)
        diverged = finite & (loss > self.config.divergence * state.first_loss)
        running = state.status == int(Status.RUNNING)
        status = jnp.where(
            running & ~finite, int(Status.NONFINITE), jnp.where(running & diverged, int(Status.DIVERGED), state.status)
        ).astype(jnp.int8)
        goes_on = status == int(Status.RUNNING)
        stopped_now = running & ~goes_on
        state = state._replace(
            training=tree_where(goes_on, moved, state.training),
            step=state.step + 1,
            status=status,
            stop_step=jnp.where(stopped_now, state.step, state.stop_step),
        )
        return state, jnp.where(goes_on, loss, jnp.nan)

    def _read(self, state: LaneState) -> tuple[LaneState, dict[str, Array]]:
        """Sharpness, edge ratio and, for batches, the batch sharpness at the present weights."""
        running = state.status == int(Status.RUNNING)
        vectors, records = self._lane_by_lane(EdgeProgram._read_sharpness)(self, state)
        if self._batched:
            records |= self._read_batches(state)
        records = {name: jnp.where(running, value, jnp.nan) for name, value in records.items()}
        return state._replace(vectors=tree_where(running, vectors, state.vectors)), records

    @staticmethod
    def _lane_by_lane(fn: Callable[..., Any]) -> Callable[..., Any]:
        """`fn`, of which `vmap` makes a loop on a CPU.

        Lanes need different numbers of products. In lock-step each waits for the slowest, and every iteration passes the bases
        of all of them through memory, where the caches of a CPU hold one: 200 steps and 10 readings of a network with 9,034
        parameters took 0.47 s so for 8 lanes and 5.5 s for 64, against 0.41 s and 3.6 s lane by lane.
        """
        return jax.custom_batching.sequential_vmap(fn) if jax.default_backend() == "cpu" else fn

    def _read_sharpness(self, state: LaneState) -> tuple[Any, dict[str, Array]]:
        params, opt_state = state.training.params, state.training.opt_state
        options = {
            "tol": self.config.sharpness_tolerance,
            "key": jax.random.fold_in(jax.random.fold_in(state.key, _SHARPNESS), state.step),
            "num_krylov": min(_KRYLOV, Raveler(params).size),
            "max_restarts": _RESTARTS,
        }
        data = (self.inputs, self.targets)
        edge = edge_ratio(
            self.loss, self._optimizer(state.learning_rate), params, opt_state, *data, v0=state.vectors[-1], **options
        )
        if not self._adaptive:
            records = {
                "sharpness": edge.sharpness,
                "sharpness_residual": edge.residual,
                "edge_ratio": edge.edge_ratio,
            }
            return (edge.vector,), records
        raw = curvature.sharpness(self.loss, params, *data, v0=state.vectors[0], **options)
        # Before its first step an adaptive optimiser has seen no gradient, and preconditions with nothing.
        begun = state.step > 0
        records = {
            "sharpness": raw.value,
            "sharpness_residual": raw.residual,
            "preconditioned_sharpness": jnp.where(begun, edge.sharpness, jnp.nan),
            "preconditioned_residual": jnp.where(begun, edge.residual, jnp.nan),
            "edge_ratio": jnp.where(begun, edge.edge_ratio, jnp.nan),
        }
        return (raw.vector, edge.vector), records

    def _read_batches(self, state: LaneState) -> dict[str, Array]:
        params = state.training.params
        probe = curvature.batch_sharpness(
            self.loss,
            params,
            self.inputs,
            self.targets,
            batch_size=self._batch_size,
            num_batches=self.config.batch_sharpness_batches,
            key=jax.random.fold_in(jax.random.fold_in(state.key, _PROBES), state.step),
        )
        return {
            "batch_sharpness": probe.value,
            "batch_sharpness_error": probe.standard_error,
            "full_loss": self.loss(params, self.inputs, self.targets),
        }

    def final(self, state: LaneState) -> dict[str, Array]:
        """Nodes and weights of the spectral density of the Hessian at the last weights."""
        if self.config.density_probes == 0:
            return {}
        operator = curvature.hessian(self.loss, state.training.params, self.inputs, self.targets)
        density = linalg.spectral_density(
            operator,
            num_probes=self.config.density_probes,
            order=self.config.density_order,
            key=jax.random.fold_in(state.key, _PROBES),
        )
        return {"density_nodes": density.nodes, "density_weights": density.weights}

    def watched(self) -> tuple[str, ...]:
        """Loss and edge ratio are what one follows while it runs."""
        return ("loss", "edge_ratio")

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        dims: dict[str, tuple[str, ...]] = {
            "loss": ("step",),
            "sharpness": ("reading",),
            "edge_ratio": ("reading",),
            "sharpness_residual": ("reading",),
            "threshold": (),
            "stop_step": (),
        }
        if self._adaptive:
            dims |= dict.fromkeys(("preconditioned_sharpness", "preconditioned_residual"), ("reading",))
        if self._batched:
            dims |= dict.fromkeys(("batch_sharpness", "batch_sharpness_error", "full_loss"), ("reading",))
        if self.config.density_probes:
            dims |= {"density_nodes": ("probe", "node"), "density_weights": ("probe", "node")}
        return dims

    def coords(self) -> dict[str, np.ndarray]:
        """Step numbers of the losses and of the readings; probes and nodes of the spectral density."""
        coords = {
            "step": np.arange(self.config.num_steps),
            "reading": self.config.reading_interval * np.arange(self.config.num_readings),
        }
        if self.config.density_probes:
            coords["probe"] = np.arange(self.config.density_probes)
            coords["node"] = np.arange(self.config.density_order)
        return coords


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every learning rate with every seed, as one array for each coordinate."""
    rates, seeds = np.meshgrid(np.asarray(config.learning_rates, np.float64), np.asarray(config.seeds), indexing="ij")
    return {"learning_rate": rates.ravel(), "seed": seeds.ravel().astype(np.int32)}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are stored but not computed with: the optimiser."""
    return {"optimizer": np.full(len(config.learning_rates) * len(config.seeds), config.optimizer)}


def fingerprint(program: EdgeProgram) -> str:
    """SHA-256 of the data, so that a store can tell whether they have changed."""
    return data.sha256(np.asarray(program.inputs), np.asarray(program.targets))


def program(config: Config) -> EdgeProgram:
    """The program of a configuration; it loads the task's data.

    Args:
        config: the configuration.

    Returns:
        An `EdgeProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.

    Raises:
        ValueError: if the task or its data cannot be used, or a batch is larger than the data.
    """
    task = make_task(
        config.task,
        hidden=config.widths,
        activation=config.activation,
        loss=config.loss,
        num_samples=config.num_samples,
        degree=config.degree,
    )
    if config.batch_size is not None:
        check_that(
            config.batch_size <= len(task.inputs),
            "batch_size",
            f"be at most the number of samples {len(task.inputs)}",
            f"found {config.batch_size}",
        )
    return EdgeProgram(task, config)
