"""Arrays of intervals in double precision with outward rounding, on the host: the arithmetic of proofs.

NumPy and not XLA, on purpose: every operation is rounded as IEEE 754 says, nothing is fused, reordered or compiled.
Additions, products and quotients are off by half a unit in the last place and are widened by two, library functions by
`FUNCTION_ULPS`, sums and matrix products by their a-priori bound.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

EPS = 2.0**-52
TINY = float(np.finfo(np.float64).tiny)
BASIC_ULPS = 2
FUNCTION_ULPS = 16


class Interval(NamedTuple):
    """Lower and upper bounds. `lo is hi` for numbers known exactly; booleans hold (surely true, possibly true).

    `batched`: the first axis runs over cells. An operand without it is the same for all cells.
    """

    lo: np.ndarray
    hi: np.ndarray
    batched: bool

    @property
    def thin(self) -> bool:
        """Whether the value is known exactly."""
        return self.lo is self.hi

    @property
    def exact(self) -> bool:
        """Whether the arithmetic on it is exact: integers and booleans."""
        return self.lo.dtype.kind in "iub"

    @property
    def magnitude(self) -> np.ndarray:
        """The largest absolute value."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> "Interval":
        """Apply a rearrangement of entries, which is exact."""
        lo = move(self.lo)
        return Interval(lo, lo if self.thin else move(self.hi), self.batched)

    def per_cell(self, num_cells: int) -> "Interval":
        """The same with an axis of cells in front."""
        if self.batched:
            return self
        spread = lambda a: np.broadcast_to(a, (num_cells, *a.shape))
        lo = spread(self.lo)
        return Interval(lo, lo if self.thin else spread(self.hi), True)


def point(value: Any, batched: bool = False) -> Interval:
    """An exactly known value; floating-point numbers of every precision are doubles here."""
    array = np.asarray(value)
    array = array if array.dtype.kind in "iub" else array.astype(np.float64)
    return Interval(array, array, batched)


def outward(lo: np.ndarray, hi: np.ndarray, batched: bool, ulps: float = BASIC_ULPS) -> Interval:
    """Widen by `ulps` units in the last place; a bound that is not a number becomes infinite."""
    with np.errstate(all="ignore"):
        low = lo - (ulps * EPS) * np.abs(lo) - TINY
        high = hi + (ulps * EPS) * np.abs(hi) + TINY
    if np.isnan(low).any() or np.isnan(high).any():
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    return Interval(low, high, batched)


def either(*operands: Interval) -> bool:
    """Whether the result of an operation has an axis of cells."""
    return any(x.batched for x in operands)


def add(a: Interval, b: Interval) -> Interval:
    """The sum."""
    if a.exact:
        return _exactly(np.add, a, b)
    with np.errstate(all="ignore"):
        return outward(a.lo + b.lo, a.hi + b.hi, either(a, b))


def subtract(a: Interval, b: Interval) -> Interval:
    """The difference."""
    if a.exact:
        return _exactly(np.subtract, a, b)
    with np.errstate(all="ignore"):
        return outward(a.lo - b.hi, a.hi - b.lo, either(a, b))


def negate(a: Interval) -> Interval:
    """-a, which is exact."""
    return a.map(np.negative) if a.thin else Interval(-a.hi, -a.lo, a.batched)


def multiply(a: Interval, b: Interval) -> Interval:
    """The product."""
    if a.exact:
        return _exactly(np.multiply, a, b)
    with np.errstate(all="ignore"):
        if a.thin or b.thin:
            p, q = a.lo * b.lo, a.hi * b.hi
            return outward(np.minimum(p, q), np.maximum(p, q), either(a, b))
        p, q, r, s = a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi
        low = np.minimum(np.minimum(p, q), np.minimum(r, s))
        return outward(low, np.maximum(np.maximum(p, q), np.maximum(r, s)), either(a, b))


def divide(a: Interval, b: Interval) -> Interval:
    """The quotient; the whole line where the divisor may be zero."""
    with np.errstate(all="ignore"):
        zero = (b.lo <= 0) & (b.hi >= 0)
        p, q, r, s = a.lo / b.lo, a.lo / b.hi, a.hi / b.lo, a.hi / b.hi
        low = np.where(zero, -np.inf, np.minimum(np.minimum(p, q), np.minimum(r, s)))
        high = np.where(zero, np.inf, np.maximum(np.maximum(p, q), np.maximum(r, s)))
    return outward(low, high, either(a, b))


def absolute(a: Interval) -> Interval:
    """|a|, which is exact."""
    if a.thin:
        return a.map(np.abs)
    low = np.maximum(np.maximum(a.lo, -a.hi), 0)
    return Interval(low, a.magnitude, a.batched)


def square(a: Interval) -> Interval:
    """A product of a number with itself, which two independent factors would overestimate."""
    if a.exact:
        return _exactly(np.multiply, a, a)
    size = absolute(a)
    with np.errstate(all="ignore"):
        result = outward(size.lo * size.lo, size.hi * size.hi, a.batched)
    return clipped(result, 0.0, np.inf)


def power(a: Interval, exponent: int) -> Interval:
    """a**exponent for an integer."""
    if a.exact:
        return a.map(lambda x: x**exponent)
    if exponent < 0:
        return divide(point(1.0), power(a, -exponent))
    if exponent % 2 == 0:
        a = absolute(a)
    with np.errstate(all="ignore"):
        # Each of at most 2 log2(exponent) products inside `np.power` or the C library adds half a unit.
        result = outward(a.lo**exponent, a.hi**exponent, a.batched, FUNCTION_ULPS + exponent)
    return clipped(result, 0.0, np.inf) if exponent % 2 == 0 else result


def clipped(a: Interval, least: float, largest: float) -> Interval:
    """Intersect with the range of a function."""
    return Interval(np.clip(a.lo, least, largest), np.clip(a.hi, least, largest), a.batched)


def total(a: Interval, axes: tuple[int, ...]) -> Interval:
    """Sum over `axes` (counted with the axis of cells), with the a-priori error bound n eps sum|x|."""
    count = int(np.prod([a.lo.shape[axis] for axis in axes], initial=1))
    if a.exact:
        return a.map(lambda x: x.sum(axis=axes))
    with np.errstate(all="ignore"):
        slack = (count + 2) * EPS * a.magnitude.sum(axis=axes) + count * TINY
        return outward(a.lo.sum(axis=axes) - slack, a.hi.sum(axis=axes) + slack, a.batched)


def contract(subscripts: str, a: Interval, b: Interval) -> Interval:
    """`np.einsum(subscripts, a, b)` for two operands of which at least one is known exactly.

    Midpoint and radius: |A M - exact| <= (n + 8) eps |A|(|M| + R) for sums of n products.
    """
    if b.thin and not a.thin:
        left, right = subscripts.split("->")[0].split(",")
        return contract(f"{right},{left}->{subscripts.split('->')[1]}", b, a)
    assert a.thin
    names = subscripts.split("->")[0].split(",")[0]
    summed = [n for n in names if n not in subscripts.split("->")[1]]
    count = int(np.prod([a.lo.shape[names.index(n)] for n in summed], initial=1))
    with np.errstate(all="ignore"):
        middle = b.lo if b.thin else 0.5 * b.lo + 0.5 * b.hi
        result = np.einsum(subscripts, a.lo, middle)
        spread = np.maximum(b.hi - middle, middle - b.lo) * (1 + 4 * EPS)
        size = np.abs(a.lo)
        slack = (count + 8) * EPS * np.einsum(subscripts, size, np.abs(middle) + spread) + 4 * count * TINY
        if not b.thin:
            slack = slack + np.einsum(subscripts, size, spread)
        return outward(result - slack, result + slack, either(a, b))


def hull(a: Interval, b: Interval) -> Interval:
    """The smallest interval that holds both."""
    return Interval(np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi), either(a, b))


def _exactly(operation: Callable[..., np.ndarray], a: Interval, b: Interval) -> Interval:
    if not (a.thin and b.thin):
        raise NotImplementedError("arithmetic on integers that depend on the point")
    result = operation(a.lo, b.lo)
    return Interval(result, result, either(a, b))
