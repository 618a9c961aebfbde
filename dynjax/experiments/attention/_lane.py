"""What one lane shows: growth of modes, the first plateau and its life, the end; from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import numpy as np

from ._scales import cap_angle, scales

_TIGHT = 0.1  # clusters have formed when tokens are this close to their centres, in angles of a cap
_SEEN = 0.3  # the modulus at which a mode is read as the dominant one; random tokens reach a third of it
_CLEAN = 0.01  # squares of the largest mode must be below this part of a mode for that to grow by itself
_FEWEST = 6  # readings of a fit
_ORDERED = 0.3  # root mean square of the largest mode, above which the uniform state is gone


@dataclasses.dataclass(frozen=True)
class Lane:
    """One lane in numbers; times in units of 1 / rate of the fastest mode.

    Attributes:
        beta: inverse temperature.
        seed: of the start.
        dominant_mode: the largest Fourier mode when the first one reached 0.3; 0 if none did, or off the circle.
        rates: fitted growth rates of the modes while they grow alone, in units of the fastest; NaN where there are too few
            readings.
        formed: time at which tokens had gathered in tight clusters; infinite where they had not.
        clusters: clusters then; 0 where there are none.
        lifetime: for how long that number of clusters stayed, a lower bound if `censored`.
        censored: whether it was still there at the end.
        final_clusters: clusters at the end.
        order: root mean square of the largest mode over the second half of the time; NaN off the circle.
        energy_drop: the largest decrease of the energy between two readings, over its largest value.
        finished: whether the lane has all readings.
    """

    beta: float
    seed: int
    dominant_mode: int
    rates: np.ndarray
    formed: float
    clusters: int
    lifetime: float
    censored: bool
    final_clusters: int
    order: float
    energy_drop: float
    finished: bool

    @property
    def ordered(self) -> bool:
        """Whether the uniform state is gone at the end."""
        return self.order >= _ORDERED


def read_lane(dataset: Any, lane: int) -> Lane:
    """A lane in numbers.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        lane: its number.
    """
    row = dataset.isel(lane=lane)
    time = np.asarray(dataset.reading.values, float)
    energy, spread = np.asarray(row.energy.values, float), np.asarray(row.spread.values, float)
    clusters = np.asarray(row.clusters.values)
    finished = bool(np.all(np.isfinite(energy)))
    dominant, rates, order = 0, np.zeros(0), float("nan")
    if "modes" in dataset:
        modes = np.asarray(row.modes.values, float)
        dominant, rates = _dominant(modes), _rates(time, modes)
        late = time >= time[-1] / 2
        order = float(np.sqrt(np.max(np.mean(modes[late] ** 2, axis=0))))
    cap = float(cap_angle(scales(float(row.beta), json.loads(dataset.attrs["config"])["kind"]).fastest_mode))
    formed = _formed(spread, cap, energy)
    number, lifetime, censored = 0, float("nan"), False
    if formed is not None:
        number = int(clusters[formed])
        others = np.flatnonzero(clusters[formed:] != number)
        censored = others.size == 0
        last = formed + (others[0] if others.size else clusters.size - formed) - 1
        lifetime = float(time[last] - time[formed])
    return Lane(
        beta=float(row.beta),
        seed=int(row.seed),
        dominant_mode=dominant,
        rates=rates,
        formed=float("inf") if formed is None else float(time[formed]),
        clusters=number,
        lifetime=lifetime,
        censored=censored,
        final_clusters=int(clusters[-1]),
        order=order,
        energy_drop=float(np.max(np.maximum(-np.diff(energy), 0)) / np.max(energy)) if finished else float("nan"),
        finished=finished,
    )


def _formed(spread: np.ndarray, cap: float, energy: np.ndarray) -> int | None:
    """The first reading with tight clusters; tokens that have not moved yet are none, however many there are."""
    with np.errstate(invalid="ignore"):
        tight = np.flatnonzero((spread <= _TIGHT * cap) & (energy > energy[0]))
    return int(tight[0]) if tight.size else None


def _dominant(modes: np.ndarray) -> int:
    with np.errstate(invalid="ignore"):
        large = np.flatnonzero(np.max(modes, axis=1) >= _SEEN)
    return int(np.argmax(modes[large[0]])) + 1 if large.size else 0


def _rates(time: np.ndarray, modes: np.ndarray) -> np.ndarray:
    """Slopes of the logarithms from the start until products of other modes, at most the largest squared, matter."""
    largest = np.max(modes, axis=1)
    rates = np.full(modes.shape[1], np.nan)
    for number, mode in enumerate(modes.T):
        with np.errstate(invalid="ignore"):
            clean = (largest**2 <= _CLEAN * mode) & (mode > 0)
        length = int(np.argmin(clean)) if not clean.all() else clean.size
        if length >= _FEWEST:
            rates[number] = np.polyfit(time[:length], np.log(mode[:length]), 1)[0]
    return rates
