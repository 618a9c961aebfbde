"""A proof that a list of critical points is complete: branch and bound with interval Newton tests."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ._interval_program import IntervalProgram
from ._intervals import Interval, add, contract, point, subtract
from ._morse_search import Landscape, scalar

CELLS_AT_ONCE = 512
_RADII = 2.0 ** -np.arange(1, 44)  # half-widths of trial boxes around a zero, in units of the sides of the box
_SMALLEST = 2.0**-40  # a cell of this size in units of the box is not split any more
_POLISH_STEPS = 2


class Zero(NamedTuple):
    """A zero of the gradient that is proved: it lies in [inner_lo, inner_hi] and is the only one in [outer_lo, outer_hi]."""

    inner_lo: np.ndarray
    inner_hi: np.ndarray
    outer_lo: np.ndarray
    outer_hi: np.ndarray


class Proof(NamedTuple):
    """What the search of the whole box gave."""

    complete: bool
    reason: str
    zeros: list[Zero]
    num_cells: int


class Bounds:
    """Enclosures of the gradient and the Hessian of a scalar map over boxes.

    Raises:
        Unsupported: (of `_interval_rules`) if the map cannot be traced into something that has enclosures.
    """

    def __init__(self, landscape: Landscape):
        gradient = jax.grad(scalar(landscape.function))
        like = jax.ShapeDtypeStruct((landscape.dim,), landscape.dtype)
        self.dim = landscape.dim
        self._gradient = IntervalProgram(gradient, like)
        self._both = IntervalProgram(lambda x: (gradient(x), jax.jacfwd(gradient)(x)), like)
        self._both(*(2 * (landscape.lower.astype(np.float64)[None],)))  # so that what has no enclosure shows now

    def gradient(self, x: np.ndarray) -> Interval:
        """The gradient at points, with its rounding errors."""
        (value,), rough = self._gradient(x, x)
        return _whole_where(value, rough)

    def at(self, x: np.ndarray) -> tuple[Interval, Interval]:
        """Gradient and Hessian at one point (d,), each with a leading axis of length 1."""
        cell = x[None]
        return self.both(cell, cell)

    def both(self, lo: np.ndarray, hi: np.ndarray) -> tuple[Interval, Interval]:
        """Gradient and Hessian over boxes; the Hessian is unbounded where a branch is undecided."""
        (gradient, hessian), rough = self._both(lo, hi)
        return gradient, _whole_where(hessian, rough)


def _whole_where(value: Interval, rough: np.ndarray) -> Interval:
    if not rough.any():
        return value
    mask = rough.reshape(-1, *(1,) * (value.lo.ndim - 1))
    return Interval(np.where(mask, -np.inf, value.lo), np.where(mask, np.inf, value.hi), True)


def isolate(bounds: Bounds, x: np.ndarray, size: np.ndarray) -> Zero | None:
    """Prove a zero near `x`: Krawczyk's test in boxes of 43 sizes around it at once.

    With Y an approximate inverse of the Hessian at x, the weighted norm of I - Y H(X) below 1 makes the gradient injective on
    X; Krawczyk's operator K(X) = x - Y g(x) + (I - Y H(X))(X - x) inside X gives existence. The smallest box of the second
    kind encloses the zero, the largest of the first kind is where it is the only one.
    """
    x = _polished(bounds, x)
    half = _RADII[:, None] * size
    boxes = x - half, x + half
    _, hessian = bounds.both(*boxes)
    inverse = _inverse(bounds.at(x)[1])
    if not np.all(np.isfinite(inverse)):
        return None
    deviation = _deviation(inverse, hessian)
    reach = np.einsum("nij,nj->ni", deviation, half) * (1 + 1e-12)
    regular = np.all(reach < half, axis=1)
    shift = _shift(inverse, bounds.gradient(x[None]))
    lo, hi = x + shift.lo[0] - reach, x + shift.hi[0] + reach
    inside = np.all((lo > boxes[0]) & (hi < boxes[1]), axis=1) & regular
    if not inside.any():
        return None
    # Both properties are inherited by boxes inside a regular one, so the extreme sizes suffice.
    smallest, largest = int(np.max(np.nonzero(inside))), int(np.min(np.nonzero(regular)))
    return Zero(lo[smallest], hi[smallest], boxes[0][largest], boxes[1][largest])


def _polished(bounds: Bounds, x: np.ndarray) -> np.ndarray:
    """A few Newton steps in double precision, on the midpoints of the enclosures."""
    for _ in range(_POLISH_STEPS):
        gradient, hessian = bounds.at(x)
        inverse = _inverse(hessian)[0]
        step = inverse @ (0.5 * (gradient.lo + gradient.hi))[0]
        if not np.all(np.isfinite(step)):
            return x
        x = x - step
    return x


def _inverse(hessian: Interval) -> np.ndarray:
    """Inverses of the midpoints, NaN where there is none."""
    with np.errstate(all="ignore"):
        middle = 0.5 * hessian.lo + 0.5 * hessian.hi
        middle = 0.5 * (middle + np.swapaxes(middle, 1, 2))
    good = np.all(np.isfinite(middle), axis=(1, 2))
    identity = np.eye(middle.shape[1])
    safe = np.where(good[:, None, None], middle, identity)
    norm = np.max(np.abs(safe), axis=(1, 2))
    safe = safe / np.where(norm > 0, norm, 1)[:, None, None]
    good &= np.abs(np.linalg.det(safe)) > 1e-14
    inverses = np.linalg.inv(np.where(good[:, None, None], safe, identity))
    return np.where(good[:, None, None], inverses / np.where(norm > 0, norm, 1)[:, None, None], np.nan)


def _deviation(inverse: np.ndarray, hessian: Interval) -> np.ndarray:
    """Upper bounds of the entries of |I - Y H(X)|; infinite where something is not finite."""
    y = np.where(np.isfinite(inverse), inverse, 0.0)
    if y.shape[0] == 1:
        product = contract("ij,ajk->aik", point(y[0]), hessian)
    else:
        product = contract("aij,ajk->aik", point(y, batched=True), hessian)
    difference = subtract(point(np.eye(y.shape[1])), product)
    known = np.all(np.isfinite(inverse), axis=(1, 2))[:, None, None]
    return np.where(known, difference.magnitude, np.inf)


def _shift(inverse: np.ndarray, gradient: Interval) -> Interval:
    """-Y g(x)."""
    y = np.where(np.isfinite(inverse), inverse, 0.0)
    return contract("aij,aj->ai", point(-y, batched=True), gradient)


def prove(landscape: Landscape, bounds: Bounds, candidates: np.ndarray, max_cells: int) -> Proof:
    """Decide every part of the box, or say what could not be decided."""
    search = _Search(landscape, bounds, max_cells)
    for x in candidates.astype(np.float64):
        search.add_zero(x)
    reason = search.run()
    return Proof(not reason, reason, search.zeros, search.num_cells)


class _Search:
    """The cells that are left, and the zeros that are known."""

    def __init__(self, landscape: Landscape, bounds: Bounds, max_cells: int):
        self.lower, self.upper = landscape.lower.astype(np.float64), landscape.upper.astype(np.float64)
        self.size = self.upper - self.lower
        self.bounds, self.max_cells = bounds, max_cells
        self.zeros: list[Zero] = []
        self.num_cells = 0
        self.cells = [(self.lower[None], self.upper[None])]

    def run(self) -> str:
        """Why it ended early; empty if every cell is decided."""
        while self.cells:
            if self.num_cells >= self.max_cells:
                left = sum(lo.shape[0] for lo, _ in self.cells)
                return f"{left} cells were left undecided after the budget of {self.max_cells} (`max_cells`)"
            lo, hi = self._take()
            self.num_cells += lo.shape[0]
            lo, hi = self._undecided(lo, hi)
            stuck = np.max((hi - lo) / self.size, axis=1, initial=0) < _SMALLEST if lo.shape[0] else np.zeros(0, bool)
            if stuck.any():
                place = np.array2string(lo[np.argmax(stuck)], precision=6)
                return f"a critical point near {place} is degenerate or on the boundary, or rounding hides it"
            if lo.shape[0]:
                self.cells.append((lo, hi))
        return self._boundary_reason()

    def add_zero(self, x: np.ndarray) -> Zero | None:
        """Prove a zero near `x` and remember it, unless it is known."""
        zero = isolate(self.bounds, x, self.size)
        if zero is None:
            return None
        for known in self.zeros:
            if _within(zero.inner_lo, zero.inner_hi, known):
                return known
        self.zeros.append(zero)
        return zero

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        """The newest cells, up to a number; depth first keeps the list short."""
        parts, count = [], 0
        while self.cells and count < CELLS_AT_ONCE:
            lo, hi = self.cells.pop()
            rest = CELLS_AT_ONCE - count
            if lo.shape[0] > rest:
                self.cells.append((lo[rest:], hi[rest:]))
                lo, hi = lo[:rest], hi[:rest]
            parts.append((lo, hi))
            count += lo.shape[0]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _settled(self, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        """Which cells lie where a known zero is the only one."""
        settled = np.zeros(lo.shape[0], bool)
        for zero in self.zeros:
            settled |= np.all((lo >= zero.outer_lo) & (hi <= zero.outer_hi), axis=1)
        return settled

    def _undecided(self, lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drop the cells that are decided, shrink and split the others."""
        open_ = ~self._settled(lo, hi)
        lo, hi = lo[open_], hi[open_]
        if not lo.shape[0]:
            return lo, hi
        gradient, hessian = self.bounds.both(lo, hi)
        open_ = np.all((gradient.lo <= 0) & (gradient.hi >= 0), axis=1)
        lo, hi = lo[open_], hi[open_]
        if not lo.shape[0]:
            return lo, hi
        return self._newton_test(lo, hi, Interval(hessian.lo[open_], hessian.hi[open_], True))

    def _newton_test(self, lo: np.ndarray, hi: np.ndarray, hessian: Interval) -> tuple[np.ndarray, np.ndarray]:
        centre = 0.5 * lo + 0.5 * hi
        half = np.maximum(hi - centre, centre - lo) * (1 + 1e-15)
        value = self.bounds.gradient(centre)
        with np.errstate(all="ignore"):
            reach = np.einsum("nij,nj->ni", hessian.magnitude, half) * (1 + 1e-12)
        reach = np.where(np.isnan(reach), np.inf, reach)
        open_ = np.all((value.lo <= reach) & (value.hi >= -reach), axis=1)
        lo, hi, centre, half = (a[open_] for a in (lo, hi, centre, half))
        hessian = Interval(hessian.lo[open_], hessian.hi[open_], True)
        value = Interval(value.lo[open_], value.hi[open_], True)
        if not lo.shape[0]:
            return lo, hi
        inverse = _inverse(hessian)
        with np.errstate(all="ignore"):
            reach = np.einsum("nij,nj->ni", _deviation(inverse, hessian), half) * (1 + 1e-12)
        reach = np.where(np.isnan(reach), np.inf, reach)
        image = add(add(point(centre, batched=True), _shift(inverse, value)), Interval(-reach, reach, True))
        new_lo, new_hi = np.maximum(lo, image.lo), np.minimum(hi, image.hi)
        open_ = np.all(new_lo <= new_hi, axis=1)
        found = open_ & np.all((image.lo > lo) & (image.hi < hi), axis=1)
        for i in np.nonzero(found)[0]:
            open_[i] = not self._enter(lo[i], hi[i], new_lo[i], new_hi[i])
        return self._split(new_lo[open_], new_hi[open_], lo[open_], hi[open_], hessian.magnitude[open_])

    def _enter(self, lo: np.ndarray, hi: np.ndarray, new_lo: np.ndarray, new_hi: np.ndarray) -> bool:
        """Whether the one zero of the cell [lo, hi], which lies in [new_lo, new_hi], is among the known ones now."""
        if any(_is_that_of(zero, lo, hi, new_lo, new_hi) for zero in self.zeros):
            return True
        zero = self.add_zero(0.5 * (new_lo + new_hi))
        # Newton's method may have run off to another zero; then the cell stays open and shrinks.
        return zero is not None and _is_that_of(zero, lo, hi, new_lo, new_hi)

    def _split(
        self, lo: np.ndarray, hi: np.ndarray, old_lo: np.ndarray, old_hi: np.ndarray, slope: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Halve each cell in the direction in which the gradient varies most, unless Newton has just shrunk it well."""
        if not lo.shape[0]:
            return lo, hi
        width, old = hi - lo, old_hi - old_lo
        shrunk = np.max(width / np.where(old > 0, old, 1), axis=1) < 0.6
        with np.errstate(all="ignore"):
            smear = np.max(slope, axis=1) * width
        smear = np.where(np.all(np.isfinite(smear), axis=1)[:, None], smear, width / self.size)
        # A direction that is much shorter than the others is left alone.
        smear = np.where(width / self.size < 1e-3 * np.max(width / self.size, axis=1)[:, None], -1.0, smear)
        axis = np.argmax(smear, axis=1)
        rows = np.arange(lo.shape[0])
        middle = 0.5 * lo[rows, axis] + 0.5 * hi[rows, axis]
        left_hi, right_lo = hi.copy(), lo.copy()
        left_hi[rows, axis] = middle
        right_lo[rows, axis] = middle
        keep = ~shrunk
        return (
            np.concatenate([lo[shrunk], lo[keep], right_lo[keep]]),
            np.concatenate([hi[shrunk], left_hi[keep], hi[keep]]),
        )

    def _boundary_reason(self) -> str:
        """A zero that may or may not lie in the box leaves the list open."""
        for zero in self.zeros:
            apart = np.any((zero.inner_hi < self.lower) | (zero.inner_lo > self.upper))
            inside = np.all((zero.inner_lo > self.lower) & (zero.inner_hi < self.upper))
            if not (apart or inside):
                place = np.array2string(0.5 * (zero.inner_lo + zero.inner_hi), precision=6)
                return f"a critical point near {place} is on the boundary, up to rounding"
        return ""


def _is_that_of(zero: Zero, lo: np.ndarray, hi: np.ndarray, new_lo: np.ndarray, new_hi: np.ndarray) -> bool:
    """Whether `zero` is the zero of a cell: either lies where the other is the only one."""
    inside = bool(np.all(zero.inner_lo >= lo) and np.all(zero.inner_hi <= hi))
    return inside or _within(new_lo, new_hi, zero)


def _within(lo: np.ndarray, hi: np.ndarray, zero: Zero) -> bool:
    return bool(np.all(lo >= zero.outer_lo) and np.all(hi <= zero.outer_hi))


def inside_of(zero: Zero, landscape: Landscape) -> bool:
    """Whether the zero lies in the open box for sure."""
    return bool(np.all((zero.inner_lo > landscape.lower) & (zero.inner_hi < landscape.upper)))


def centre_of(zero: Zero, dtype: Any) -> np.ndarray:
    """The middle of the enclosure."""
    return (0.5 * (zero.inner_lo + zero.inner_hi)).astype(dtype)
