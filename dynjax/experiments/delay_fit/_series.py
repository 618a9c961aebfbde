"""The series that delay equations are fitted to: standard ones, of which the truth is known, or one from a file."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ... import data
from ..._core import check_that
from ...systems import DelayFlow, evolve, mackey_glass, trajectory

_TRANSIENT = 100  # delays before the first sample
_FINE = 10  # steps between two samples
_SPACING = 1e-3  # times may be uneven by this part of the interval
_STENCIL = (45 / 60, -9 / 60, 1 / 60)  # central differences of order six


class KnownSeries(NamedTuple):
    """A delay equation to make a series with.

    Attributes:
        flow: `flow(dt)`, the equation.
        start: the constant past that it starts from.
        delay: its delay.
        interval: time between two samples.
        initial_delays: where a fit starts by default.
        names: the equation in words.
    """

    flow: Callable[[Any], DelayFlow]
    start: float
    delay: float
    interval: float
    initial_delays: tuple[float, ...]
    names: str


def _hutchinson(dt: Any) -> DelayFlow:
    """Hutchinson's equation y' = 1.8 y (1 - y(t - 1)), which has a limit cycle.

    A cycle does not determine its delay: (y(t), y(t - s)) is a closed curve for other s too, and where it does not cross
    itself some network gives the slope as a function on it.
    """
    return DelayFlow(lambda t, y, delayed, args: 1.8 * y * (1 - delayed), 1.0, dt)


KNOWN = {
    "mackey-glass": KnownSeries(mackey_glass, 1.2, 17.0, 1.0, (12.0, 15.0, 21.0, 26.0), "the Mackey-Glass equation"),
    "hutchinson": KnownSeries(_hutchinson, 0.5, 1.0, 0.1, (0.8, 1.3), "Hutchinson's equation with r = 1.8"),
}


class Series(eqx.Module):
    """A scalar series, shifted to mean 0 and scaled to deviation 1.

    Attributes:
        values: the samples, noise included.
        slopes: their time derivatives, by central differences of order six.
        clean: the samples without noise (those of a file as they are).
        interval: time between two samples.
        mean: what was subtracted.
        deviation: what was divided by.
        delay: the true delay; NaN if it is not known.
    """

    values: Float[Array, "samples"]
    slopes: Float[Array, "samples"]
    clean: Float[Array, "samples"]
    interval: float = eqx.field(static=True)
    mean: float = eqx.field(static=True)
    deviation: float = eqx.field(static=True)
    delay: float = eqx.field(static=True)


def make_series(name: str, num_samples: int, noise: float, dtype: Any) -> Series:
    """The series of a name, or of a file.

    Args:
        name: a key of `KNOWN`, or the path of an npz file with `x`, equally spaced times, and `y`, values.
        num_samples: samples to make, or to use at most.
        noise: standard deviation of what is added to the samples, in units of theirs.
        dtype: of the arrays.

    Returns:
        A `Series`; the same arguments give the same one.

    Raises:
        ValueError: if the file cannot be used, its times are not equally spaced, or its values are all the same.
    """
    if name in KNOWN:
        known = KNOWN[name]
        raw, interval, delay = _solve(known, num_samples), known.interval, known.delay
    else:
        raw, interval = _read(name, num_samples)
        delay = float("nan")
    mean, deviation = float(raw.mean()), float(raw.std())
    check_that(deviation > 0, "series", "hold different values", f"those of {name!r} are all {mean:g}")
    clean = (raw - mean) / deviation
    values = clean + noise * np.random.default_rng(0).standard_normal(clean.size)
    padded = np.pad(values, 3, mode="reflect", reflect_type="odd")
    slopes = sum(
        w * (padded[3 + i : padded.size - 3 + i] - padded[3 - i : padded.size - 3 - i])
        for i, w in enumerate(_STENCIL, start=1)
    )
    return Series(
        values=jnp.asarray(values, dtype),
        slopes=jnp.asarray(slopes / interval, dtype),
        clean=jnp.asarray(clean, dtype),
        interval=interval,
        mean=mean,
        deviation=deviation,
        delay=delay,
    )


def _solve(known: KnownSeries, num_samples: int) -> np.ndarray:
    """Samples of a solution after its transient, in double precision whatever the sweep has."""
    with jax.enable_x64(True):
        flow = known.flow(known.interval / _FINE)
        transient = round(_TRANSIENT * known.delay / known.interval) * _FINE
        start = evolve(flow, flow.init(jnp.asarray(known.start)), num_steps=transient)
        orbit = trajectory(flow, start, num_steps=num_samples * _FINE, save_every=_FINE, observe=lambda n, x: x.y)
        return np.asarray(orbit.ys)[:num_samples]


def _read(path: str, num_samples: int) -> tuple[np.ndarray, float]:
    """Values of a file, and the time between them."""
    times, values = (np.asarray(part, np.float64).squeeze() for part in data.load(path))
    check_that(
        times.ndim == 1 and times.shape == values.shape and times.size >= 100,
        "series",
        "hold at least 100 times `x` and as many values `y`",
        f"{path!r} has {times.shape} and {values.shape}",
    )
    steps = np.diff(times)
    interval = float(np.mean(steps))
    even = interval > 0 and float(np.max(np.abs(steps - interval))) <= _SPACING * interval
    check_that(even, "series", "have equally spaced, increasing times", f"those of {path!r} are not")
    return values[:num_samples], interval
