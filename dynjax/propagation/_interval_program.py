"""Enclosures of whole JAX programs: an interpreter of their jaxprs on intervals, for many cells at once."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ._interval_functions import UNARY
from ._interval_moves import REARRANGEMENTS, add_into, overwrite, rearrange
from ._interval_rules import RULES, Run, Unsupported
from ._intervals import Interval, either, negate, point, square

MAX_TURNS = 20_000  # of a loop; more take minutes here


class IntervalProgram:
    """A traced function of one array, which encloses its outputs over boxes.

    The enclosures are for the function in exact real arithmetic, with the constants that the program holds: rounding to a
    lower precision inside the program does not count as part of it. Loops of fixed length are unrolled.

    Args:
        fn: a function of one array; its outputs are flattened.
        shape: an array or `jax.ShapeDtypeStruct` of the argument.
    """

    def __init__(self, fn: Callable[[Any], Any], shape: Any):
        closed = jax.make_jaxpr(fn)(shape)
        self.jaxpr, self.consts = closed.jaxpr, [_constant(c) for c in closed.consts]

    def __call__(self, lo: np.ndarray, hi: np.ndarray) -> tuple[list[Interval], np.ndarray]:
        """Enclosures over the boxes [lo, hi], both (cells, *shape), and which cells met an undecided branch.

        Raises:
            Unsupported: if the program holds a primitive or a loop that cannot be enclosed.
        """
        run = Run(lo.shape[0])
        boxes = Interval(lo, lo if lo is hi else hi, True)
        outputs = _evaluate(run, self.jaxpr, [*self.consts, boxes])
        return [out.per_cell(run.num_cells) for out in outputs], run.rough


def _constant(value: Any) -> Interval:
    if jax.dtypes.issubdtype(getattr(value, "dtype", np.float64), jax.dtypes.extended):
        raise Unsupported("random keys")
    array = np.asarray(value)
    if array.dtype.kind == "c":
        raise Unsupported("complex numbers")
    return point(array)


def _needed(jaxpr: Any) -> list[Any]:
    """The equations on which the outputs depend."""
    wanted = {v for v in jaxpr.outvars if not hasattr(v, "val")}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(v for v in eqn.invars if not hasattr(v, "val"))
    return kept[::-1]


def _evaluate(run: Run, jaxpr: Any, arguments: Sequence[Interval]) -> list[Interval]:
    """Run the equations of an open jaxpr on intervals; `arguments` are its constants and its inputs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=True))
    read = lambda v: _constant(v.val) if hasattr(v, "val") else values[v]
    for eqn in _needed(jaxpr):
        results = _apply(run, eqn.primitive, [read(v) for v in eqn.invars], eqn.params)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _apply(run: Run, primitive: Any, x: list[Interval], params: dict[str, Any]) -> list[Interval]:
    name = primitive.name
    if name in _CONTROL:
        return _CONTROL[name](run, x, params)
    if name in REARRANGEMENTS:
        return rearrange(run, primitive, x, params)
    if name in ("scatter-add", "scatter_add"):
        return add_into(run, primitive, x, params)
    if name == "scatter":
        return overwrite(run, primitive, x, params)
    body = next((params[k] for k in ("call_jaxpr", "jaxpr", "fun_jaxpr") if k in params), None)
    if body is not None:
        if name not in _CALLS:
            raise Unsupported(f"the primitive `{name}`")
        known_function = _FUNCTIONS.get(_function_name(body))
        return _closed(run, body, x) if known_function is None else [known_function(*x)]
    known = bool(x) and all(a.exact and a.thin and not a.batched for a in x)
    if name in RULES and not (known and name == "div"):
        try:
            return RULES[name](run, _aligned(x) if name in _ENTRYWISE else x, params)
        except NotImplementedError as error:
            raise Unsupported(str(error)) from error
    if known:
        return _integers(primitive, x, params)
    raise Unsupported(f"the primitive `{name}`")


_ENTRYWISE = frozenset(
    "add add_any sub mul div pow atan2 max min lt le gt ge eq ne and or clamp".split()  # noqa: SIM905
)


def _aligned(x: list[Interval]) -> list[Interval]:
    """Scalars among arrays: give a scalar per cell the missing axes behind the axis of cells."""
    ranks = [a.lo.ndim - a.batched for a in x]
    if len(set(ranks)) == 1:
        return x
    most = max(ranks)
    lift = lambda a, rank: a.map(lambda v: v.reshape(v.shape[:1] + (1,) * most)) if a.batched and rank == 0 else a
    return [lift(a, rank) for a, rank in zip(x, ranks, strict=True)]


_CALLS = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call"}
    | {"custom_vjp_call_jaxpr", "core_closed_call", "xla_call"}
)


# Functions of JAX whose programs work on the bits of numbers, by what they compute.
_FUNCTIONS: dict[str, Callable[..., Interval]] = {"exp_neg_sq": lambda a: UNARY["exp"](negate(square(a)))}


def _function_name(body: Any) -> str:
    info = getattr(getattr(body, "jaxpr", body), "debug_info", None)
    return getattr(info, "func_name", "")


def _closed(run: Run, body: Any, x: Sequence[Interval]) -> list[Interval]:
    """A jaxpr with or without constants of its own."""
    if hasattr(body, "consts"):
        return _evaluate(run, body.jaxpr, [*(_constant(c) for c in body.consts), *x])
    return _evaluate(run, body, x)


def _integers(primitive: Any, x: list[Interval], params: dict[str, Any]) -> list[Interval]:
    """Known integers: JAX itself computes them, exactly."""
    with jax.ensure_compile_time_eval():
        out = primitive.bind(*(jax.numpy.asarray(a.lo) for a in x), **params)
    results = [np.asarray(o) for o in (out if primitive.multiple_results else [out])]
    if any(r.dtype.kind not in "iub" for r in results):
        raise Unsupported(f"the primitive `{primitive.name}`")
    return [point(r) for r in results]


def _scan(run: Run, x: list[Interval], params: dict[str, Any]) -> list[Interval]:
    body, length = params["jaxpr"], int(params["length"])
    if length > MAX_TURNS:
        raise Unsupported(f"a scan of {length} turns")
    num_consts, num_carry = _scan_sizes(params)
    consts, carry, inputs = x[:num_consts], x[num_consts : num_consts + num_carry], x[num_consts + num_carry :]
    turns = range(length - 1, -1, -1) if params["reverse"] else range(length)
    outputs: list[list[Interval]] = []
    for turn in turns:
        slices = [_slice(a, turn) for a in inputs]
        results = _closed(run, body, [*consts, *carry, *slices])
        carry = results[:num_carry]
        outputs.append(results[num_carry:])
    if params["reverse"]:
        outputs.reverse()
    if not outputs and len(body.jaxpr.outvars) > num_carry:
        raise Unsupported("a scan of no turns")
    return [*carry, *(_stacked(run, list(column)) for column in zip(*outputs, strict=True))]


def _scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # from JAX 0.12 on
    return len(list(consts)), len(list(carry))


def _slice(a: Interval, turn: int) -> Interval:
    return a.map(lambda v: v[:, turn] if a.batched else v[turn])


def _stacked(run: Run, column: list[Interval]) -> Interval:
    batched = either(*column)
    parts = [a.per_cell(run.num_cells) if batched else a for a in column]
    low = np.stack([a.lo for a in parts], axis=int(batched))
    if all(a.thin for a in parts):
        return Interval(low, low, batched)
    return Interval(low, np.stack([a.hi for a in parts], axis=int(batched)), batched)


def _while(run: Run, x: list[Interval], params: dict[str, Any]) -> list[Interval]:
    num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body, carry = x[:num_cond], x[num_cond : num_cond + num_body], x[num_cond + num_body :]
    for _ in range(MAX_TURNS):
        (go_on,) = _closed(run, params["cond_jaxpr"], [*cond, *carry])
        if not go_on.thin or go_on.batched:
            raise Unsupported("a loop whose end depends on the point (an adaptive solver, an iteration to a tolerance)")
        if not bool(go_on.lo):
            return carry
        carry = _closed(run, params["body_jaxpr"], [*body, *carry])
    raise Unsupported(f"a loop of more than {MAX_TURNS} turns")


def _cond(run: Run, x: list[Interval], params: dict[str, Any]) -> list[Interval]:
    which, *operands = x
    branches = params["branches"]
    if which.thin and not which.batched:
        return _closed(run, branches[min(max(int(which.lo), 0), len(branches) - 1)], operands)
    results = [_closed(run, branch, operands) for branch in branches]
    which = which.per_cell(run.num_cells)
    reachable = [(which.lo <= k) & (which.hi >= k) for k in range(len(branches))]
    return [_joined(run, outputs, reachable) for outputs in zip(*results, strict=True)]


def _joined(run: Run, outputs: Sequence[Interval], reachable: list[np.ndarray]) -> Interval:
    """The hull, in each cell, of one output over the branches that may be taken there."""
    if any(a.exact for a in outputs):
        raise Unsupported("a branch that returns integers")
    low = np.full(outputs[0].per_cell(run.num_cells).lo.shape, np.inf)
    high = -low
    for output, taken in zip(outputs, reachable, strict=True):
        each = output.per_cell(run.num_cells)
        mask = taken.reshape(-1, *(1,) * (low.ndim - 1))
        low, high = np.where(mask, np.minimum(low, each.lo), low), np.where(mask, np.maximum(high, each.hi), high)
    return Interval(low, high, True)


_CONTROL: dict[str, Callable[[Run, list[Interval], dict[str, Any]], list[Interval]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
