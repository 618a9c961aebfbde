"""Enclosures of elementary functions: monotone ones by their ends, even and periodic ones by their extrema."""

import math
from collections.abc import Callable

import numpy as np

from ._intervals import FUNCTION_ULPS, Interval, absolute, clipped, divide, either, outward, power

_Ufunc = Callable[[np.ndarray], np.ndarray]


def increasing(function: _Ufunc, least: float = -np.inf, largest: float = np.inf) -> Callable[[Interval], Interval]:
    """The enclosure of an increasing function with values in [least, largest]."""

    def enclosure(a: Interval) -> Interval:
        with np.errstate(all="ignore"):
            low = function(a.lo)
            return clipped(outward(low, low if a.thin else function(a.hi), a.batched, FUNCTION_ULPS), least, largest)

    return enclosure


def decreasing(function: _Ufunc, least: float = -np.inf, largest: float = np.inf) -> Callable[[Interval], Interval]:
    """The enclosure of a decreasing function with values in [least, largest]."""

    def enclosure(a: Interval) -> Interval:
        with np.errstate(all="ignore"):
            return clipped(outward(function(a.hi), function(a.lo), a.batched, FUNCTION_ULPS), least, largest)

    return enclosure


def even(function: _Ufunc, least: float) -> Callable[[Interval], Interval]:
    """The enclosure of an even function that increases with |x|."""
    rising = increasing(function, least)
    return lambda a: rising(absolute(a))


def _wave(function: _Ufunc, maximum: float) -> Callable[[Interval], Interval]:
    """Sine or cosine: maxima at `maximum` + 2 pi k, minima half a period later."""

    def touches(a: Interval, phase: float) -> np.ndarray:
        # The slack makes an extremum within rounding of an end count as inside.
        slack = 1e-12 * (1 + a.magnitude)
        return np.ceil((a.lo - slack - phase) / (2 * math.pi)) <= np.floor((a.hi + slack - phase) / (2 * math.pi))

    def enclosure(a: Interval) -> Interval:
        with np.errstate(all="ignore"):
            unknown = ~(a.magnitude < 1e8) | ~(a.hi - a.lo < 6.0)
            p, q = function(a.lo), function(a.hi)
            bounds = outward(np.minimum(p, q), np.maximum(p, q), a.batched, FUNCTION_ULPS)
            low = np.where(unknown | touches(a, maximum + math.pi), -1.0, bounds.lo)
            high = np.where(unknown | touches(a, maximum), 1.0, bounds.hi)
        return clipped(Interval(low, high, a.batched), -1.0, 1.0)

    return enclosure


sine = _wave(np.sin, math.pi / 2)
cosine = _wave(np.cos, 0.0)


def tangent(a: Interval) -> Interval:
    """The quotient of sine and cosine: crude, but right across poles."""
    return divide(sine(a), cosine(a))


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), monotone in floating point up to rounding."""
    return 1.0 / (1.0 + np.exp(-x))


def error_function(x: np.ndarray) -> np.ndarray:
    """The error function of SciPy, on which JAX depends anyway."""
    from scipy import special

    return special.erf(x)


def complementary_error_function(x: np.ndarray) -> np.ndarray:
    """1 - erf without cancellation."""
    from scipy import special

    return special.erfc(x)


def _reciprocal_root(x: np.ndarray) -> np.ndarray:
    return 1.0 / np.sqrt(np.maximum(x, 0.0))


def real_power(a: Interval, b: Interval) -> Interval:
    """a**b. For a > 0 it is monotone in each argument, so that the corners bound it; else only constant integers b."""
    if b.thin and np.all(b.lo == np.round(b.lo)) and np.size(b.lo) and np.all(b.lo == b.lo.flat[0]):
        return _integer_power(a, float(b.lo.flat[0]))
    with np.errstate(all="ignore"):
        corners = [x**y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
        low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
        inside = np.broadcast_to(a.lo > 0, low.shape)
        largest_log = np.abs(np.log(np.maximum(high, 1e-300))) + np.abs(np.log(np.maximum(low, 1e-300)))
        low, high = np.where(inside, low, -np.inf), np.where(inside, high, np.inf)
    # The C library's pow is accurate to a unit or two, whatever the size of the logarithm; the term is a reserve.
    return outward(low, high, either(a, b), FUNCTION_ULPS + float(np.nanmax(largest_log, initial=0.0)))


def _integer_power(a: Interval, exponent: float) -> Interval:
    if abs(exponent) > 64:
        raise NotImplementedError("a power above 64")
    return power(a, int(exponent))


UNARY: dict[str, Callable[[Interval], Interval]] = {
    "exp": increasing(np.exp, 0.0),
    "exp2": increasing(np.exp2, 0.0),
    "expm1": increasing(np.expm1, -1.0),
    "log": increasing(np.log),
    "log1p": increasing(np.log1p),
    "tanh": increasing(np.tanh, -1.0, 1.0),
    "logistic": increasing(logistic, 0.0, 1.0),
    "sqrt": increasing(lambda x: np.sqrt(np.maximum(x, 0.0)), 0.0),
    "rsqrt": decreasing(_reciprocal_root, 0.0),
    "cbrt": increasing(np.cbrt),
    "sinh": increasing(np.sinh),
    "cosh": even(np.cosh, 1.0),
    "asinh": increasing(np.arcsinh),
    "atan": increasing(np.arctan, -math.pi / 2 - 1e-15, math.pi / 2 + 1e-15),
    "asin": increasing(np.arcsin),
    "acos": decreasing(np.arccos),
    "atanh": increasing(np.arctanh),
    "acosh": increasing(np.arccosh, 0.0),
    "erf": increasing(error_function, -1.0, 1.0),
    "erfc": decreasing(complementary_error_function, 0.0, 2.0),
    "sin": sine,
    "cos": cosine,
    "tan": tangent,
}


def arctangent2(y: Interval, x: Interval) -> Interval:
    """The angle of (x, y) where x > 0; the full circle elsewhere."""
    ratio = UNARY["atan"](divide(y, x))
    right = np.broadcast_to(x.lo > 0, ratio.lo.shape)
    turn = math.pi * (1 + 1e-15)
    return Interval(np.where(right, ratio.lo, -turn), np.where(right, ratio.hi, turn), ratio.batched)
