"""What the theory says before any step of SGD is made: the solution, its thresholds, and the exponent at every rate."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ... import data
from ..._core import check_that
from ...training import critical_learning_rate, find_interpolation, normal_space, sgd_stability
from .._tasks import Task, make_task
from ._config import Config

CRITERIA: tuple[Literal["almost_sure", "mean_square", "gd"], ...] = ("almost_sure", "mean_square", "gd")
_INIT, _THRESHOLD, _EXPONENT = range(3)  # what the streams folded into the seed's key are for
# Rates of the curve over all thresholds, around the almost sure one, and at the kinks of the two others.
_WIDE, _NEAR, _KINKS = 14, 14, 6

# The last predictions that were made: the sweep asks for its program more than once.
_KEPT: dict[tuple[Config, str], "Predictions"] = {}


class Predictions(eqx.Module):
    """An interpolation solution and everything that is predicted of SGD there.

    Attributes:
        inputs: the data, (N, in_size).
        targets: (N, C).
        params: the solution, a network.
        factor: rows G of the Jacobian in orthonormal coordinates of the normal space, (N, C, rank).
        eigenvalues: of the tangent kernel, descending.
        residual_norm: |f - y| at the solution.
        thresholds: the critical learning rates in the order of `CRITERIA`.
        threshold_errors: their standard errors.
        rates: learning rates of the curve, then those of the real runs.
        curves: for each of them "exponent", "standard_error", "gd_exponent", "mean_square_rate", "lower_bound".
        regular: whether the hypotheses of the theorem that can be checked hold at all these rates.
        num_checks: how many rates belong to the real runs.
        num_params: size of the network.
    """

    inputs: Float[Array, "samples in_size"]
    targets: Float[Array, "samples outputs"]
    params: PyTree
    factor: Float[Array, "samples outputs rank"]
    eigenvalues: Float[Array, "rank"]
    residual_norm: Float[Array, ""]
    thresholds: Float[Array, "3"]
    threshold_errors: Float[Array, "3"]
    rates: Float[Array, "rates"]
    curves: dict[str, Float[Array, "rates"]]
    regular: Array
    num_checks: int = eqx.field(static=True)
    num_params: int = eqx.field(static=True)


def predict_outputs(model: Any, inputs: Array) -> Float[Array, "samples outputs"]:
    """The network on all samples."""
    return jax.vmap(model)(inputs)


def task_of(config: Config) -> Task:
    """Data and network of a configuration."""
    task = make_task(config.task, hidden=config.widths, activation=config.activation, num_samples=config.num_samples)
    check_that(
        config.batch_size <= len(task.inputs),
        "batch_size",
        f"be at most the number of samples {len(task.inputs)}",
        f"found {config.batch_size}",
    )
    return task


def predictions(config: Config, say: Callable[[str], None] | None = None) -> Predictions:
    """Find an interpolation solution and predict what SGD does there.

    The predictions that were made last are kept in memory for the next call.

    Args:
        config: the configuration.
        say: is told what is being computed.

    Returns:
        `Predictions`; call it where the precision of the configuration is enabled.

    Raises:
        ValueError: if the task cannot be used, or the network cannot fit the data.
    """
    task = task_of(config)
    key = (config, data.sha256(task.inputs, task.targets))
    if key not in _KEPT:
        made = _predict(config, task, say or (lambda text: None))
        _KEPT.clear()
        _KEPT[key] = made
    return _KEPT[key]


def _predict(config: Config, task: Task, say: Callable[[str], None]) -> Predictions:
    dtype = jnp.dtype(config.precision)
    key = jax.random.key(config.seed)
    inputs, targets = jnp.asarray(task.inputs, dtype), jnp.asarray(task.targets, dtype)
    start = task.network(jax.random.fold_in(key, _INIT), dtype)
    size = sum(leaf.size for leaf in jax.tree_util.tree_leaves(start))
    say(f"looking for parameters that fit {len(inputs)} samples, among {size} parameters")
    solution = find_interpolation(predict_outputs, start, inputs, targets)
    check_that(
        bool(solution.converged),
        "task",
        "be one that the network can fit to rounding",
        f"the residual is {float(solution.residual_norm):.1e}; use wider layers or fewer samples",
    )
    space = normal_space(predict_outputs, solution.params, inputs)
    say(f"residual {float(solution.residual_norm):.1e}, rank {space.rank}; looking for the critical learning rates")
    found = [
        critical_learning_rate(
            predict_outputs, solution.params, inputs, batch_size=config.batch_size, criterion=criterion,
            key=jax.random.fold_in(key, _THRESHOLD), num_steps=config.threshold_steps,
        )
        for criterion in CRITERIA
    ]  # fmt: skip
    thresholds = jnp.stack([one.value for one in found])
    check_that(
        bool(jnp.isfinite(thresholds[0])),
        "task",
        "have an almost sure threshold",
        "the exponent changes its sign at no learning rate that was tried",
    )
    checks = thresholds[0] * jnp.asarray(config.check_rates, dtype)
    rates = jnp.concatenate([_grid(config, np.asarray(thresholds)).astype(dtype), checks])
    say(f"critical learning rates {_listed(thresholds)}; computing the exponent at {rates.size} rates")
    curve = sgd_stability(
        predict_outputs, solution.params, inputs, learning_rates=rates, batch_size=config.batch_size,
        num_steps=config.exponent_steps, key=jax.random.fold_in(key, _EXPONENT), targets=targets,
    )  # fmt: skip
    names = ("exponent", "standard_error", "gd_exponent", "mean_square_rate", "lower_bound")
    return Predictions(
        inputs=inputs,
        targets=targets,
        params=solution.params,
        factor=space.factor,
        eigenvalues=space.eigenvalues,
        residual_norm=solution.residual_norm,
        thresholds=thresholds,
        threshold_errors=jnp.stack([one.standard_error for one in found]),
        rates=rates,
        curves={name: getattr(curve, name) for name in names},
        regular=jnp.all(curve.regular),
        num_checks=len(config.check_rates),
        num_params=size,
    )


def num_rates(config: Config) -> int:
    """Rates of the curve."""
    return _WIDE + _NEAR + _KINKS if config.learning_rates is None else len(config.learning_rates)


def _grid(config: Config, thresholds: np.ndarray) -> Float[Array, "rates"]:
    """The rates of the curve, ascending."""
    if config.learning_rates is not None:
        return jnp.asarray(sorted(config.learning_rates))
    wide = np.geomspace(0.5 * thresholds.min(), 1.3 * thresholds.max(), _WIDE)
    # Points at the kinks, which lines between distant rates would smear.
    kinks = np.outer(thresholds[1:], [0.999, 1, 1.02]).ravel()
    near = thresholds[0] * np.linspace(0.85, 1.25, _NEAR)
    return jnp.asarray(np.sort(np.concatenate([wide, near, kinks])))


def _listed(thresholds: Float[Array, "3"]) -> str:
    return ", ".join(f"{float(v):.4g} ({name.replace('_', ' ')})" for name, v in zip(CRITERIA, thresholds, strict=True))
