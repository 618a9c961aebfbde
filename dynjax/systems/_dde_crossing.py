"""Where a delayed time meets a breakpoint, or a kink of the vector field: there a segment ends."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import tree_all_finite
from ._dde_windows import Inputs, Setup, Sight, View, lags, real_field
from ._flow import as_slope

PLAIN = -1  # the end of a segment where nothing happens
FINISH = -2  # the end of all, t1

_ULPS = 64


class Bounds(NamedTuple):
    """What each delayed time may not pass within a segment, and the sides of the kinks that the state is on."""

    lower: Float[Array, " r"]
    upper: Float[Array, " r"]
    sides: Int[Array, " c"]
    near: Float[Array, ""]


class Ledger(NamedTuple):
    """Breakpoints as integers.

    Attributes:
        orders: of the breakpoint at the beginning of each segment: the lowest derivative of the solution that jumps.
        labels: how often each delay was crossed on the way from the root (last column) to the breakpoint. Two that agree in
            value and label are one and the same, also in their derivatives.
        first: the order that t0 hands on. There history and solution are always told apart, even where nothing jumps.
    """

    orders: Int[Array, "num_segments_1"]
    labels: Int[Array, "num_segments_1 r_1"]
    first: Int[Array, ""]


ROUGHEST = 0
SMOOTHEST = 1_000_000
_KINK = 2  # f has a kink there, y' too


def empty_ledger(num_segments: int, r: int, smooth_start: Bool[Array, ""]) -> Ledger:
    """The breakpoint at t0, and room for others."""
    orders = jnp.full((num_segments + 1,), SMOOTHEST, jnp.int32).at[0].set(ROUGHEST)
    first = jnp.where(smooth_start, SMOOTHEST, ROUGHEST).astype(jnp.int32)
    return Ledger(orders, jnp.zeros((num_segments + 1, r + 1), jnp.int32), first)


def starts_smoothly(inputs: Inputs, times: Float[Array, " r"], setup: Setup) -> Bool[Array, ""]:
    """Whether a neutral solution leaves its history, at the delayed `times`, without a jump in y or y'.

    Breakpoints of a neutral equation never become smoother. Where delays come back to old ones again and again there are
    soon more than can be stepped on, so that those which carry no jump of the slope must not be followed.
    """
    if not setup.neutral:
        return jnp.asarray(False)
    push = lambda t: jax.jvp(inputs.history, (t,), (jnp.ones_like(t),))
    past, slope = push(inputs.start)
    delayed = tuple(push(jnp.minimum(times[j], inputs.start)) for j in range(len(inputs.delays)))
    rate = as_slope(inputs.field(inputs.start, inputs.y0, delayed, inputs.args), inputs.y0)

    def same(a: Array, b: Array) -> Array:
        return jnp.all(jnp.abs(a - b) <= 10 * (setup.atol + setup.rtol * jnp.abs(b)))

    leaves = jax.tree_util.tree_leaves
    pairs = [*zip(leaves(past), leaves(inputs.y0), strict=True), *zip(leaves(rate), leaves(slope), strict=True)]
    return jnp.all(jnp.stack([same(a, b) for a, b in pairs]))


def nearness(inputs: Inputs) -> Array:
    """Times this close are one."""
    scale = jnp.maximum(jnp.abs(inputs.start), jnp.abs(inputs.end))
    return jax.lax.stop_gradient(_ULPS * jnp.finfo(inputs.start.dtype).eps * scale)


def see(where: Int[Array, " r"], ledger: Ledger, k: Array, overlap: Bool[Array, ""], setup: Setup) -> Sight:
    """The windows of segment k, whose delayed times begin in the pieces `where`.

    A view ends at the next breakpoint that is not smooth, at the beginning of the segment itself unless it may overlap with
    its own past, and where the window is full.
    """
    marks = where[:, None] + 1 + jnp.arange(setup.window)  # (r, window)
    full = jnp.arange(setup.window) == setup.window - 1
    rough = ledger.orders[jnp.clip(marks, 0, setup.num_segments)] <= setup.smooth
    stop = (marks <= k) & (rough | full | ((marks == k) & ~overlap))
    open_end = setup.num_segments + 1
    return Sight(where, jnp.min(jnp.where(stop, marks, open_end), axis=1))


def bounds(inputs: Inputs, begins: Array, sight: Sight, sides: Array, setup: Setup) -> Bounds:
    """The breakpoints at the two ends of each view."""
    lower = jnp.where(sight.base < 0, -jnp.inf, begins[jnp.maximum(sight.base, 0)])
    open_end = sight.above > setup.num_segments
    upper = jnp.where(open_end, jnp.inf, begins[jnp.minimum(sight.above, setup.num_segments)])
    return Bounds(lower, upper, sides, nearness(inputs))


def kink_values(inputs: Inputs, t: Array, y: PyTree) -> Float[Array, " c"]:
    """All kink functions."""
    values = [jnp.asarray(kappa(t, y, inputs.args), inputs.start.dtype) for kappa in inputs.kinks]
    return jnp.stack(values) if values else jnp.zeros((0,), inputs.start.dtype)


def crossed(inputs: Inputs, limits: Bounds, t: Array, y: PyTree) -> Bool[Array, " 2r_c"]:
    """Which delayed times are above their view, which below, and which kinks were passed."""
    times = t - lags(inputs, t, y)
    over, under = times > limits.upper + limits.near, times < limits.lower - limits.near
    return jnp.concatenate([over, under, kink_values(inputs, t, y) * limits.sides < 0])


def first_crossing(flags_at: Any, left: Array, right: Array) -> tuple[Array, Bool[Array, " 2r_c"]]:
    """By bisection the time in (left, right] from which on `flags_at(s)` holds for some flag, and the flags there."""
    num_halvings = jnp.finfo(right.dtype).nmant + 2

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + 0.5 * (high - low)
        passed = jnp.any(flags_at(middle))
        return jnp.where(passed, low, middle), jnp.where(passed, middle, high)

    _, end = jax.lax.fori_loop(0, num_halvings, halve, (left, right))
    return end, flags_at(end)


class Landing(NamedTuple):
    """The end of a segment: its time and state, and whether these and the slope there are finite."""

    time: Float[Array, ""]
    state: PyTree
    finite: Bool[Array, ""]


def land(
    inputs: Inputs, begins: Array, sight: Sight, hit: Array, end: Array, y: PyTree, packed: tuple[View, Setup, Inputs]
) -> Landing:
    """One Newton step from the located end to the crossing `hit`.

    In value the step is as small as the error of the location. Its derivative is that of the implicit function theorem, and
    that is the whole derivative of the breakpoint: `end` itself has none.
    """
    slope = real_field(end, y, packed)

    def gaps(t: Array, y: PyTree) -> Float[Array, " 2r_c_1"]:
        times = t - lags(inputs, t, y)
        mark = lambda index: begins[jnp.clip(index, 0, begins.shape[0] - 1)]
        return jnp.concatenate([times - mark(sight.above), times - mark(sight.base), kink_values(inputs, t, y)])

    frozen = jax.lax.stop_gradient
    _, rates = jax.jvp(gaps, (frozen(end), frozen(y)), (jnp.ones_like(end), frozen(slope)))
    pick = lambda values, finish: jnp.where(
        hit == FINISH, finish, jnp.where(hit == PLAIN, 0, values[jnp.maximum(hit, 0)])
    )
    gap, rate = pick(gaps(end, y), end - inputs.end), frozen(pick(rates, jnp.ones_like(end)))
    steep = jnp.abs(rate) > jnp.finfo(rate.dtype).eps
    move = jnp.where(steep & (hit != PLAIN), -gap / jnp.where(steep, rate, 1), 0)
    state = jax.tree_util.tree_map(lambda leaf, d: leaf + (frozen(d) * move).astype(leaf.dtype), y, slope)
    return Landing(end + move, state, tree_all_finite((end + move, state, slope)))


def move_on(
    inputs: Inputs,
    ledger: Ledger,
    begins: Array,
    sight: Sight,
    sides: Array,
    k: Array,
    hit: Array,
    landing: Landing,
    setup: Setup,
) -> tuple[Ledger, Int[Array, " r"], Int[Array, " c"]]:
    """After segment k: the new breakpoint k + 1, the pieces in which the delayed times are now, the sides of the kinks."""
    r = sight.base.shape[0]
    unit = jnp.eye(r, r + 1, dtype=jnp.int32)
    times = landing.time - lags(inputs, landing.time, landing.state)
    targets = jnp.concatenate([jnp.clip(sight.above, 0, k), jnp.maximum(sight.base, 0)])  # above, then below
    wanted = ledger.labels[targets] + jnp.concatenate([unit, unit])
    at = jnp.clip(hit, 0, 2 * r - 1)
    delay_hit = (hit >= 0) & (hit < 2 * r)
    near = jnp.abs(jnp.concatenate([times, times]) - begins[targets]) <= nearness(inputs)
    number, there = jnp.arange(2 * r), jnp.concatenate([sight.above <= k, sight.base >= 0])
    together = there & near & jnp.all(wanted == wanted[at], axis=1) & ((number < r) == (at < r))
    met = delay_hit & (together | (number == at))
    where = _places(begins, sight, times, k)
    where = jnp.where(met[:r], sight.above, jnp.where(met[r:], sight.base - 1, where)).astype(jnp.int32)
    before = jnp.where(targets[at] == 0, ledger.first, ledger.orders[targets[at]])
    order = jnp.where(delay_hit, before + (0 if setup.neutral else 1), SMOOTHEST)
    order = jnp.where(hit >= 2 * r, _KINK, jnp.minimum(order, SMOOTHEST)).astype(jnp.int32)
    root = jnp.where(jnp.arange(r + 1) == r, k + 1, 0).astype(jnp.int32)
    label = jnp.where(delay_hit, wanted[at], root)
    orders, labels = ledger.orders.at[k + 1].set(order), ledger.labels.at[k + 1].set(label)
    ledger = ledger._replace(orders=orders, labels=labels)
    now = jnp.sign(kink_values(inputs, landing.time, landing.state)).astype(sides.dtype)
    passed = jnp.arange(sides.shape[0]) == hit - 2 * r
    return ledger, where, jnp.where(passed, -sides, jnp.where(sides == 0, now, sides))


def _places(begins: Array, sight: Sight, times: Array, k: Array) -> Int[Array, " r"]:
    """The pieces that hold the times, of those in view. A time on a breakpoint is placed by `move_on`, by what was met."""
    top = jnp.where(sight.above <= k, sight.above - 1, k)
    inside = jnp.sum((begins[None, :] <= times[:, None]) & (jnp.arange(begins.shape[0]) <= k), axis=1) - 1
    return jnp.clip(inside, jnp.minimum(sight.base, top), top)
