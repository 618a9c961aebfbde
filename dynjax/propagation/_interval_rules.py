"""How each JAX primitive acts on intervals: a table from names to rules `rule(run, operands, params) -> results`.

A shape in `params` speaks of one cell. Where an operand is batched, its first axis runs over the cells and every axis
of the primitive moves up by one.
"""

import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._interval_functions import UNARY, arctangent2, real_power
from ._intervals import (
    Interval,
    absolute,
    add,
    contract,
    divide,
    either,
    hull,
    multiply,
    negate,
    outward,
    point,
    power,
    square,
    subtract,
    total,
)


class Unsupported(Exception):
    """The program holds something that has no enclosure here."""


class Run:
    """One evaluation: the number of cells, and which of them met an undecided branch.

    A value that jumps (a comparison, a sign, a rounding) has a derivative that says nothing about the jump. Cells on which
    such a value is undecided keep valid bounds for the values themselves, but not a mean value theorem: they are `rough`.
    """

    def __init__(self, num_cells: int):
        self.num_cells = num_cells
        self.rough = np.zeros(num_cells, bool)

    def mark(self, undecided: np.ndarray, batched: bool) -> None:
        """Remember the cells in which any entry of `undecided` holds."""
        if batched:
            self.rough |= undecided.reshape(self.num_cells, -1).any(axis=1)
        elif undecided.any():
            self.rough[:] = True

    def decision(self, surely: np.ndarray, possibly: np.ndarray, batched: bool) -> Interval:
        """A truth value."""
        undecided = surely != possibly
        if not undecided.any():
            # What is the same in all cells may serve as an index further on.
            same = batched and bool(np.all(surely == surely[:1]))
            surely = surely[0] if same else surely
            return Interval(surely, surely, batched and not same)
        self.mark(undecided, batched)
        return Interval(surely, possibly, batched)


Operands = Sequence[Interval]
Rule = Callable[[Run, Operands, dict[str, Any]], list[Interval]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule into the table."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def _enter(name: str, function: Callable[..., Interval]) -> None:
    RULES[name] = lambda run, x, params: [function(*x)]


def _extreme(choose: Any, a: Interval, b: Interval) -> Interval:
    low = choose(a.lo, b.lo)
    return Interval(low, low if a.thin and b.thin else choose(a.hi, b.hi), either(a, b))


_SIMPLE: dict[str, Callable[..., Interval]] = {
    **UNARY,
    "add": add,
    "add_any": add,
    "neg": negate,
    "abs": absolute,
    "atan2": arctangent2,
    "pow": real_power,
    "square": square,
    "one_minus_square": lambda a: subtract(point(np.ones(())), square(a)),
    "copy_p": lambda a: a,
    "name": lambda a: a,
    "device_put": lambda a: a,
    "stop_gradient": lambda a: a,
    "real": lambda a: a,
    "reduce_precision": lambda a: a,
    "max": lambda a, b: _extreme(np.maximum, a, b),
    "min": lambda a, b: _extreme(np.minimum, a, b),
}
for _name, _function in _SIMPLE.items():
    _enter(_name, _function)


@rule("optimization_barrier")
def _barrier(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return list(x)


@rule("sub")
def _sub(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    if x[0] is x[1] and not x[0].exact and np.isfinite(x[0].lo).all() and np.isfinite(x[0].hi).all():
        return [point(np.zeros_like(x[0].lo), x[0].batched)]
    return [subtract(x[0], x[1])]


@rule("mul")
def _mul(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return [square(x[0]) if x[0] is x[1] else multiply(x[0], x[1])]


@rule("div")
def _div(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    if x[0].exact:
        raise Unsupported("a quotient of integers")
    return [divide(x[0], x[1])]


@rule("integer_pow")
def _integer_pow(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return [power(x[0], int(params["y"]))]


@rule("clamp")
def _clamp(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    least, value, largest = x
    return [_extreme(np.minimum, _extreme(np.maximum, value, least), largest)]


def _stepwise(function: Callable[[np.ndarray], np.ndarray]) -> Rule:
    def enclosure(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
        low = function(x[0].lo)
        high = low if x[0].thin else function(x[0].hi)
        run.mark(low != high, x[0].batched)
        return [Interval(low, high, x[0].batched)]

    return enclosure


RULES.update({"sign": _stepwise(np.sign), "floor": _stepwise(np.floor), "ceil": _stepwise(np.ceil)})
RULES["round"] = _stepwise(np.round)


def _comparison(strict: bool, swap: bool) -> Rule:
    def enclosure(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
        a, b = (x[1], x[0]) if swap else (x[0], x[1])
        surely = a.hi < b.lo if strict else a.hi <= b.lo
        possibly = a.lo < b.hi if strict else a.lo <= b.hi
        if x[0] is x[1]:
            surely = possibly = np.full_like(surely, not strict)
        return [run.decision(surely, possibly, either(*x))]

    return enclosure


RULES.update({"lt": _comparison(True, False), "le": _comparison(False, False)})
RULES.update({"gt": _comparison(True, True), "ge": _comparison(False, True)})


@rule("eq")
def _eq(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    a, b = x
    possibly = (a.lo <= b.hi) & (b.lo <= a.hi)
    surely = (a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo)
    if a is b:
        surely = possibly
    return [run.decision(surely, possibly, either(a, b))]


@rule("ne")
def _ne(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return _not(run, _eq(run, x, params), params)


@rule("not")
def _not(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    if x[0].lo.dtype != bool:
        return [x[0].map(np.invert)]
    return [Interval(~x[0].hi, ~x[0].lo, x[0].batched) if not x[0].thin else x[0].map(np.logical_not)]


def _monotone_logic(function: Any) -> Rule:
    def enclosure(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
        if x[0].lo.dtype != bool:
            raise Unsupported("bit operations on integers")
        low = function(x[0].lo, x[1].lo)
        thin = x[0].thin and x[1].thin
        return [Interval(low, low if thin else function(x[0].hi, x[1].hi), either(*x))]

    return enclosure


RULES.update({"and": _monotone_logic(np.logical_and), "or": _monotone_logic(np.logical_or)})


@rule("is_finite")
def _is_finite(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    surely = np.isfinite(x[0].lo) & np.isfinite(x[0].hi)
    return [run.decision(surely, np.ones_like(surely), x[0].batched)]


@rule("select_n")
def _select(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    which, *cases = x
    if len(cases) != 2 or which.lo.dtype != bool:
        raise Unsupported("a choice among more than two cases")
    no, yes = cases
    batched = either(*x)
    if batched:
        which, no, yes = (c.per_cell(run.num_cells) for c in x)
    shape = (slice(None),) * which.lo.ndim + (None,) * (no.lo.ndim - which.lo.ndim)
    surely, possibly = which.lo[shape], which.hi[shape]
    joined = hull(no, yes)
    low = np.where(surely, yes.lo, np.where(possibly, joined.lo, no.lo))
    if which.thin and no.thin and yes.thin:
        return [Interval(low, low, batched)]
    return [Interval(low, np.where(surely, yes.hi, np.where(possibly, joined.hi, no.hi)), batched)]


@rule("convert_element_type")
def _convert(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    a, dtype = x[0], params["new_dtype"]
    if not isinstance(dtype, np.dtype) and not isinstance(dtype, type):
        dtype = np.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return [a.map(lambda v: v.astype(np.float64))] if a.exact else [a]
    if a.exact and (a.thin or a.lo.dtype == bool):
        return [a.map(lambda v: v.astype(dtype))]
    raise Unsupported("an integer or truth value made of a number that depends on the point")


@rule("iota")
def _iota(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    shape, axis = params["shape"], params["dimension"]
    line = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    kind = np.float64 if jnp.issubdtype(params["dtype"], jnp.floating) else params["dtype"]
    return [point(np.broadcast_to(line, shape).astype(kind))]


def _axes(a: Interval, params: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(i) + a.batched for i in params["axes"])


@rule("reduce_sum")
def _reduce_sum(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return [total(x[0], _axes(x[0], params))]


def _reduction(function: Any) -> Rule:
    def enclosure(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
        return [x[0].map(partial(function, axis=_axes(x[0], params)))]

    return enclosure


RULES.update({"reduce_max": _reduction(np.max), "reduce_min": _reduction(np.min)})
RULES.update({"reduce_and": _reduction(np.all), "reduce_or": _reduction(np.any)})


@rule("reduce_prod")
def _reduce_prod(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    result = x[0]
    for axis in sorted(_axes(x[0], params), reverse=True):
        lows, highs = np.moveaxis(result.lo, axis, 0), np.moveaxis(result.hi, axis, 0)
        product = point(np.ones(lows.shape[1:]), result.batched)
        for low, high in zip(lows, highs, strict=True):
            product = multiply(product, Interval(low, high, result.batched))
        result = product
    return [result]


@rule("cumsum")
def _cumsum(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    a = x[0]
    axis = params["axis"] + a.batched

    def running(v: np.ndarray) -> np.ndarray:
        return np.flip(np.cumsum(np.flip(v, axis), axis=axis), axis) if params["reverse"] else np.cumsum(v, axis=axis)

    if a.exact:
        return [a.map(running)]
    slack = (a.lo.shape[axis] + 2) * np.finfo(np.float64).eps * running(a.magnitude)
    return [outward(running(a.lo) - slack, running(a.hi) + slack, a.batched)]


@rule("dot_general")
def _dot_general(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    """Batch axes first, then the free axes of the left and of the right operand."""
    a, b = x
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    letters = iter(string.ascii_lowercase[1:])
    rank = lambda v: v.lo.ndim - v.batched
    names_a, names_b = [""] * rank(a), [""] * rank(b)
    for i, j in [*zip(left_batch, right_batch, strict=True), *zip(left, right, strict=True)]:
        names_a[i] = names_b[j] = next(letters)
    names_a = [n or next(letters) for n in names_a]
    names_b = [n or next(letters) for n in names_b]
    batch = [names_a[i] for i in left_batch]
    free = [n for n in [*names_a, *names_b] if (n in names_a) != (n in names_b)]
    cell = "a" if either(a, b) else ""
    first, second = ("a" * v.batched + "".join(n) for v, n in ((a, names_a), (b, names_b)))
    subscripts = f"{first},{second}->{cell}{''.join([*batch, *free])}"
    if a.exact:
        if not (a.thin and b.thin):
            raise Unsupported("a product of integers that depend on the point")
        result = np.einsum(subscripts, a.lo, b.lo)
        return [Interval(result, result, bool(cell))]
    return [contract(subscripts, a, b) if a.thin or b.thin else _product_of_intervals(subscripts, a, b)]


def _product_of_intervals(subscripts: str, a: Interval, b: Interval) -> Interval:
    """Align both operands on all axes, multiply entry by entry and sum: sharper than midpoint and radius."""
    (first, second), out = subscripts.split("->")[0].split(","), subscripts.split("->")[1]
    summed = [n for n in first if n not in out]
    names = [*out, *summed]

    def aligned(v: Interval, own: str) -> Interval:
        order = [own.index(n) for n in names if n in own]
        index = tuple(slice(None) if n in own else None for n in names)
        moved = v.map(lambda w: w.transpose(order)[index])
        return Interval(moved.lo, moved.hi, "a" in out)

    product = multiply(aligned(a, first), aligned(b, second))
    return total(product, tuple(range(len(out), len(names)))) if summed else product
