"""How a neural delay equation is solved: what has to be known before it is traced."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from .._core import check_count, check_that, is_concrete

_STEPS = 8  # at least so many fixed steps in the shorter of the smallest delay and the horizon
_MOST_STEPS = 256  # no more of them in the smallest delay for the sake of corners in time
_MOST_MULTIPLES = 100  # delays with a larger common denominator get the adaptive engine by default
_CLOSE = 1e-9
_SHRINK = 2  # trainable delays may get so many times shorter
_MOST_SEGMENTS = 20_000


class Plan(NamedTuple):
    """The static part of a delay model.

    Attributes:
        engine: "stages" or "segments".
        lags: the delays in a unit in which they are integers, if there is one; `None` where only traced values are known.
        span: the horizon in that unit.
        steps_per_delay: for "stages".
        max_segments: for "segments" with traced values.
        rtol: for "segments".
        atol: for "segments".
        max_steps: for "segments".
        adjoint: for "segments".
    """

    engine: str
    lags: tuple[float, ...] | None
    span: float
    steps_per_delay: int | None
    max_segments: int | None
    rtol: float | None
    atol: float | None
    max_steps: int
    adjoint: str

    def options(self) -> dict[str, Any]:
        """The arguments of `ddesolve` that belong to the engine."""
        if self.engine == "stages":
            return {"steps_per_delay": self.steps_per_delay}
        names = ("max_segments", "rtol", "atol", "max_steps", "adjoint")
        return {name: getattr(self, name) for name in names}


def make_plan(
    engine: str | None,
    delay: Any,
    horizon: Any,
    trainable: bool,
    steps_per_delay: int | None,
    max_segments: int | None,
    time_pieces: int,
    options: tuple[float | None, float | None, int, str],
) -> Plan:
    """The plan for delays and a horizon as the user gave them.

    Raises:
        ValueError: if the engine is unknown or does not fit to the delays.
    """
    check_that(engine in (None, "stages", "segments"), "engine", 'be "stages" or "segments"', f"found {engine!r}")
    check_that(options[3] in ("reverse", "forward"), "adjoint", 'be "reverse" or "forward"', f"found {options[3]!r}")
    check_count(options[2], "max_steps", 2)
    if max_segments is not None:
        check_count(max_segments, "max_segments")
    if steps_per_delay is not None:
        check_count(steps_per_delay, "steps_per_delay")
    known = is_concrete((delay, horizon))
    lags, common = (None, False) if trainable or not known else _in_units(delay)
    if engine is None:
        engine = "stages" if common else "segments"
    if engine == "segments":
        check_that(
            steps_per_delay is None, "steps_per_delay", 'be None for `engine="segments"`', f"found {steps_per_delay}"
        )
        span = 0.0 if lags is None else lags[0] * float(horizon) / _first(delay)
        if lags is None and max_segments is None:
            max_segments = _room(delay, horizon, known)
        return Plan("segments", lags, span, None, max_segments, *options)
    why = "they are trainable" if trainable else "they are traced" if not known else f"found {delay}"
    check_that(common, "delay", 'hold fixed multiples of one number for `engine="stages"`', why)
    assert lags is not None
    span = lags[0] * float(horizon) / _first(delay)
    steps = _default_steps(lags, span, time_pieces) if steps_per_delay is None else steps_per_delay
    return Plan("stages", lags, span, steps, None, *options)


def _first(delay: Any) -> float:
    return float(np.atleast_1d(np.asarray(delay, float))[0])


def _in_units(delay: Any) -> tuple[tuple[float, ...], bool]:
    """The delays as integers in a common unit, and True; or as multiples of the first one, and False."""
    values = np.atleast_1d(np.asarray(delay, float))
    fractions = [Fraction(value / values[0]).limit_denominator(_MOST_MULTIPLES) for value in values]
    close = all(abs(float(f) * values[0] - value) <= _CLOSE * value for f, value in zip(fractions, values, strict=True))
    denominator = math.lcm(*(f.denominator for f in fractions))
    if not close or denominator > _MOST_MULTIPLES:
        return tuple(float(value / values[0]) for value in values), False
    integers = [int(f * denominator) for f in fractions]
    divisor = math.gcd(*integers)
    return tuple(float(i // divisor) for i in integers), True


def _default_steps(lags: Sequence[float], span: float, time_pieces: int) -> int:
    """Steps for the smallest delay: enough of them, and such that the corners of a piecewise field are ends of steps."""
    smallest = min(lags)
    steps = math.ceil(_STEPS * max(1.0, smallest / span))
    steps = max(1, math.ceil(steps / smallest)) * int(smallest)
    if time_pieces == 1:
        return steps
    # With T = (a / b) units and b k steps in each unit all steps are equal, and T holds a k of them.
    ratio = Fraction(span).limit_denominator(_MOST_MULTIPLES)
    if abs(float(ratio) - span) > _CLOSE * span:
        return steps
    a, b = ratio.numerator, ratio.denominator
    every = 2 * time_pieces // math.gcd(2 * time_pieces, a)
    k = every * math.ceil(steps / smallest / (b * every))
    aligned = b * k * int(smallest)
    return aligned if aligned <= max(_MOST_STEPS, steps) else steps


def _room(delay: Any, horizon: Any, known: bool) -> int:
    """How many sums of delays lie below the horizon, also after the delays have shrunk."""
    check_that(
        known,
        "max_segments",
        "be given where a delay or the horizon is traced, so that it cannot be derived",
        "it is not",
    )
    values = np.atleast_1d(np.asarray(delay, float)) / _SHRINK
    needed = _count(list(values), float(horizon), _MOST_SEGMENTS)
    check_that(
        needed <= _MOST_SEGMENTS, "max_segments", "be given", f"more than {_MOST_SEGMENTS} sums of delays lie below T"
    )
    return needed


def _count(delays: list[float], end: float, most: int) -> int:
    """The number of sums n_1 tau_1 + ... + n_r tau_r below `end`, no more than `most + 1`."""
    first, *rest = delays
    if end <= 0:
        return 0
    if not rest:
        return min(math.ceil(end / first - _CLOSE), most + 1)
    total, n = 0, 0
    while n * first < end * (1 - _CLOSE) and total <= most:
        total += _count(rest, end - n * first, most)
        n += 1
    return min(total, most + 1)
