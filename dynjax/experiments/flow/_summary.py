"""How close every kind comes to its target at every learning rate, and whether its numbers can be true."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import Status
from ...generative import wasserstein2
from .._text_table import text_table
from ._config import KINDS
from ._target import mixture

CLOSE = 2.0  # times the distance between two samples of the target
_SIGNIFICANT = 4.0  # standard errors below the loss of the exact field
_FEW = 0.25  # of its weight: a mode with less in the samples is missed
_PAIRS, _FRESH = 8, 2  # pairs of samples of the target; samples that each lane is compared with

# every verdict with its tone
VERDICTS = {
    "close": "good",
    "far": "warning",
    "misses modes": "warning",
    "below the floor": "bad",
    "not finite": "bad",
    "unfinished": "neutral",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """All lanes of one kind at one learning rate in numbers.

    Attributes:
        kind: "flow-matching" or "diffusion".
        learning_rate: at the start of training.
        floor: the loss of the exact field on the draws of the test, mean over the seeds.
        excess: loss above that, mean over the seeds; it estimates the mean squared error of the field and is never negative
            but by chance.
        excess_error: standard error of `excess`.
        divergence: Kullback-Leibler divergence of the model from the target, E_p [log p - log q], mean over the seeds.
        divergence_error: standard error of it.
        distance: W2 between samples and fresh samples of the target, median over the seeds.
        reference: W2 between two samples of the target, of as many points.
        least_share: the smallest share of samples in a mode over its weight, median over the seeds.
        commitment: median noise level b / a at which trajectories commit to their mode.
        exact_commitment: the same along the exact field.
        num_lanes: lanes that have come to their end.
        failed: lanes that are not finite any more.
        verdict: one of `VERDICTS`.
    """

    kind: str
    learning_rate: float
    floor: float
    excess: float
    excess_error: float
    divergence: float
    divergence_error: float
    distance: float
    reference: float
    least_share: float
    commitment: float
    exact_commitment: float
    num_lanes: int
    failed: int
    verdict: str

    @property
    def ratio(self) -> float:
        """The distance over that between two samples of the target."""
        return self.distance / self.reference


def summarise(dataset: Any) -> list[Cell]:
    """Compare every kind at every learning rate with the target.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `Cell` for each kind and learning rate, in this order.
    """
    config = json.loads(dataset.attrs["config"])
    kinds = [kind for kind in KINDS if kind in config["kinds"]]
    rates = sorted({float(rate) for rate in config["learning_rates"]})
    far = distances(dataset)
    return [_cell(dataset, config, kind, rate, far) for kind in kinds for rate in rates]


def chosen(dataset: Any, kind: str, learning_rate: float) -> np.ndarray:
    """Which lanes are of one kind and learning rate."""
    same = np.isclose(np.asarray(dataset.learning_rate.values, float), learning_rate, rtol=1e-6)
    return same & (np.asarray(dataset.diffusion.values) == KINDS.index(kind))


def finished(dataset: Any) -> np.ndarray:
    """Which lanes have come to a finite end."""
    return np.all(np.isfinite(np.asarray(dataset.samples.values, float)), (1, 2))


def distances(dataset: Any) -> np.ndarray:
    """W2 of every lane to fresh samples of the target; NaN where a lane has no samples."""
    config = json.loads(dataset.attrs["config"])
    samples = np.asarray(dataset.samples.values, float)
    out = np.full(len(samples), np.nan)
    for lane in np.flatnonzero(finished(dataset)):
        out[lane] = _distance(samples[lane].tobytes(), config["target"], config["variance"], config["seed"])
    return out


@functools.lru_cache(maxsize=4096)
def _distance(samples: bytes, target: str, variance: float, seed: int) -> float:
    points = np.frombuffer(samples).reshape(-1, 2)
    fresh = _target_samples(target, variance, seed, _FRESH, len(points))
    return float(np.mean([wasserstein2(points, other) for other in fresh]))


@functools.lru_cache(maxsize=64)
def reference_distance(target: str, variance: float, seed: int, num_samples: int) -> float:
    """The mean W2 between two samples of the target.

    Args:
        target: as in the configuration.
        variance: as there.
        seed: as there.
        num_samples: points in each.
    """
    samples = _target_samples(target, variance, seed + 1, 2 * _PAIRS, num_samples)
    return float(np.mean([wasserstein2(*samples[2 * i : 2 * i + 2]) for i in range(_PAIRS)]))


@functools.lru_cache(maxsize=64)
def _target_samples(target: str, variance: float, seed: int, count: int, num_samples: int) -> tuple[np.ndarray, ...]:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), count)
        return tuple(np.asarray(mixture(target, variance).sample(num_samples, key)) for key in keys)


def modes_of(config: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """The mode to which each point most likely belongs."""
    with jax.enable_x64(True):
        law = mixture(config["target"], config["variance"])
        return np.asarray(jax.vmap(law.responsibilities)(jnp.asarray(points, float))).argmax(-1)


def _cell(dataset: Any, config: dict[str, Any], kind: str, rate: float, far: np.ndarray) -> Cell:
    here = chosen(dataset, kind, rate)
    good = here & finished(dataset)
    failed = here & (np.asarray(dataset.status.values) == int(Status.NONFINITE))
    excess, error, floor = (
        np.asarray(dataset[name].values[good, -1], float) for name in ("excess", "excess_error", "floor")
    )
    gaps = np.asarray(dataset.log_density.values - dataset.log_likelihood.values, float)[good]
    committed = np.asarray(dataset.commitment.values, float)[good]
    count, broken = int(good.sum()), int(failed.sum())
    distance = _median(far[good])
    reference = reference_distance(config["target"], config["variance"], config["seed"], config["num_samples"])
    share = _median(np.array([_least_share(config, points) for points in dataset.samples.values[good]]))
    impossible = bool(np.any(excess < -_SIGNIFICANT * error))
    return Cell(
        kind=kind,
        learning_rate=rate,
        floor=_mean(floor),
        excess=_mean(excess),
        excess_error=float(np.sqrt(np.sum(error**2)) / max(count, 1)) if count else float("nan"),
        divergence=_mean(gaps),
        divergence_error=float(np.std(gaps, ddof=1) / np.sqrt(gaps.size)) if gaps.size > 1 else float("nan"),
        distance=distance,
        reference=reference,
        least_share=share,
        commitment=_median(committed[:, 0]),
        exact_commitment=_median(committed[:, 1]),
        num_lanes=count + broken,
        failed=broken,
        verdict=_verdict(count, broken, impossible, share, distance / reference),
    )


def _least_share(config: dict[str, Any], points: np.ndarray) -> float:
    size = mixture(config["target"], config["variance"]).num_modes
    return float(np.bincount(modes_of(config, points), minlength=size).min() * size / len(points))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _verdict(count: int, failed: int, impossible: bool, share: float, ratio: float) -> str:
    if not count:
        return "not finite" if failed else "unfinished"
    if impossible:
        return "below the floor"
    if share < _FEW:
        return "misses modes"
    return "close" if ratio <= CLOSE else "far"


COLUMNS = (
    "kind",
    "learning rate",
    "floor",
    "loss above it",
    "divergence",
    "W2 / sample",
    "least mode",
    "commits at",
    "exact",
    "verdict",
)


def table_rows(cells: list[Cell]) -> list[tuple[str, ...]]:
    """The cells as text under `COLUMNS`."""
    shown = lambda value, form: "-" if np.isnan(value) else format(value, form)
    with_error = lambda value, error: shown(value, ".2g") + ("" if np.isnan(error) else f" +- {error:.1g}")
    return [
        (
            cell.kind,
            f"{cell.learning_rate:g}",
            shown(cell.floor, ".4f"),
            with_error(cell.excess, cell.excess_error),
            with_error(cell.divergence, cell.divergence_error),
            shown(cell.ratio, ".2f"),
            shown(cell.least_share, ".2f"),
            shown(cell.commitment, ".3f"),
            shown(cell.exact_commitment, ".3f"),
            cell.verdict,
        )
        for cell in cells
    ]


def table(dataset: Any) -> str:
    """How close every kind comes at every learning rate, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each kind and learning rate.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
