"""Thick-restart Lanczos for one or both ends of the spectrum of a symmetric operator, on flat vectors.

The projected matrix is not the textbook's tridiagonal or arrowhead: all Gram-Schmidt coefficients that the full
reorthogonalisation computes anyway are kept, so that `A V = (all rows) P` holds to rounding for the rows V that have been
multiplied, whatever has happened: restarts, blocks of start vectors, random replacements after a breakdown, a second start.
Residuals are read off P, without products.

Under `vmap` lanes go on in lock-step until the last one is done. The basis, which is most of what is carried, stays in place:
loops and branches ask `any_lane`, a lane that waits has a row written as it was, and bases are compressed only when some
lane restarts.
"""

import dataclasses
import math
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._core import any_lane, cond_any_lane, tree_where
from ._flat import FlatOperator
from ._jacobi import small_eigh

_LONG = 2**16
_MISS = 1e-4  # probability with which a search that ended early has missed something

_SMALL = 16  # size of a basis for which a Rayleigh-Ritz step costs next to nothing

_ITERATE, _SEARCH, _VERIFY, _DONE = range(4)

Basis: TypeAlias = Float[Array, "rows dim"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static sizes of a run: everything that decides shapes.

    Attributes:
        k: number of eigenvalues wanted at each wanted end.
        both: whether the lower end is wanted, too.
        block: number of start vectors.
        kept: number of Ritz vectors that survive a restart, at least the number wanted.
        step: number of products between two restarts.
        first_look: number of rows multiplied before convergence is looked at.
        max_restarts: bound on the number of restarts.
        searches: whether converged pairs must survive a search for further copies, see `lanczos`.
    """

    k: int
    both: bool
    block: int
    kept: int
    step: int
    first_look: int
    max_restarts: int
    searches: bool

    @property
    def wanted(self) -> int:
        """Number of eigenpairs wanted in all."""
        return 2 * self.k if self.both else self.k

    @property
    def size(self) -> int:
        """Number of basis vectors that take part in a Rayleigh-Ritz step."""
        return self.kept + self.step

    @property
    def parked(self) -> int:
        """Number of rows for directions that are kept orthogonal to, and not multiplied."""
        return self.block if self.searches else 0


class State(NamedTuple):
    """What is carried from look to look beside the basis (rows, dim).

    Rows 0, ..., position - 1 of the basis have been multiplied, the `width` next ones not yet; the last `parked` rows never
    will be. After a restart the first `wanted` rows are the wanted Ritz vectors. The last three belong to a search.
    """

    alive: Bool[Array, " rows"]
    projected: Float[Array, "rows size"]
    current: Float[Array, " dim"]
    position: Int[Array, ""]
    width: Int[Array, ""]
    values: Float[Array, " wanted"]
    residuals: Float[Array, " wanted"]
    scale: Float[Array, ""]
    phase: Int[Array, ""]
    converged: Bool[Array, ""]
    restarts: Int[Array, ""]
    num_products: Int[Array, ""]
    pivot: Float[Array, " ends"]
    growth: Float[Array, " ends"]
    beta: Float[Array, ""]


class Compression(NamedTuple):
    """Whether to restart, whether with a search, and what to keep: coefficients of Ritz vectors and whether they live."""

    wanted: Bool[Array, ""]
    searching: Bool[Array, ""]
    coefficients: Float[Array, "kept size"]
    live: Bool[Array, " kept"]


class Ritz(NamedTuple):
    """Ritz pairs of the multiplied rows: coefficients in the rows of `vectors`, best first in `order`."""

    theta: Float[Array, " size"]
    vectors: Float[Array, "size size"]
    residuals: Float[Array, " size"]
    live: Bool[Array, " size"]
    order: Int[Array, " size"]


class Outcome(NamedTuple):
    """Ritz pairs (wanted,), (wanted, dim), residuals, whether it converged, the scale max |theta|, products spent."""

    values: Float[Array, " wanted"]
    vectors: Float[Array, "wanted dim"]
    residuals: Float[Array, " wanted"]
    done: Bool[Array, ""]
    scale: Float[Array, ""]
    num_products: Int[Array, ""]


def lanczos(
    operator: FlatOperator,
    start: Float[Array, "block dim"],
    noise: Float[Array, " dim"],
    plan: Plan,
    tol: Float[Array, ""],
) -> Outcome:
    """Run thick-restart (block) Lanczos from `start`.

    A residual below `tol` rules out that a simple eigenvalue beyond the returned ones was overlooked, except with the
    probability that the random start had next to no share in it. Further copies of a multiple eigenvalue are
    orthogonal to a single Krylov space, and invisible to it. Therefore, once `k > 1` pairs have converged from
    fewer than k start vectors, a search starts from a random direction orthogonal to everything known (`plan.searches`).

    The search is a Lanczos run with the operator B, which is A restricted to the complement of the known directions; missed
    copies are eigenvectors of B. With p_s its Lanczos polynomial, `p_s(B) z = v_{s+1}` is a unit vector, so an eigenvector u
    of B with eigenvalue x has `|u . z| <= 1 / p_s(x)`; for random z that is rarer than `sqrt(2 dim / pi) / p_s(x)`. As
    soon as that is below 1e-4 at the k-th eigenvalue (p_s grows from there), nothing beyond it was missed: typically after
    three to seven products. Otherwise the search ends after `step` products, if there is nothing beyond so far; a missed
    eigenvalue at distance `e * (spread of B)` beyond the k-th then remains hidden with probability
    below `1.65 sqrt(dim) exp(-(2 s - 1) sqrt(e))`.

    At exit one product with the sum of the wanted vectors, signs at random, checks `A V = (all rows) P`: the discrepancy
    (rounding, directions dropped by repeated searches, an operator that is not linear) is added to the residuals.

    Args:
        operator: the operator.
        start: start vectors, not yet orthonormal.
        noise: a random vector. Breakdown and search take their directions from it, shifted cyclically each time, which is
            cheaper to run and to compile than new draws.
        plan: static sizes.
        tol: residual wanted, relative to max |theta|.

    References:
        Wu and Simon (2000) for the restart. Van Dorsselaer, Hochstenbach and van der Vorst, SIAM J. Matrix Anal. Appl. 22, 837
        (2000) for probabilistic bounds from the Lanczos polynomial. Kuczynski and Wozniakowski (1992), theorem 4.1 in
        its tail form, for the last bound.
    """
    basis, state = lax.while_loop(
        lambda carry: any_lane(carry[1].phase != _DONE),
        lambda carry: _turn(operator, *carry, plan, tol, noise),
        _initial(operator, start, plan),
    )
    return Outcome(
        state.values,
        basis[: plan.wanted],
        state.residuals,
        state.converged,
        state.scale,
        state.num_products,
    )


def _initial(operator: FlatOperator, start: Float[Array, "block dim"], plan: Plan) -> tuple[Basis, State]:
    rows, dtype = plan.size + plan.block + plan.parked, operator.dtype
    basis = jnp.zeros((rows, operator.dim), dtype)

    def put(i, basis):
        w = orthogonalise(basis, start[i])[0]
        return basis.at[i].set(w / norm(w))

    basis = lax.fori_loop(0, plan.block, put, basis)
    ends = 2 if plan.both else 1
    count = jnp.asarray(0)
    return basis, State(
        alive=jnp.arange(rows) < plan.block,
        projected=jnp.zeros((rows, plan.size), dtype),
        current=basis[0],
        position=count,
        width=count + plan.block,
        values=jnp.full((plan.wanted,), jnp.nan, dtype),
        residuals=jnp.full((plan.wanted,), jnp.nan, dtype),
        scale=jnp.zeros((), dtype),
        phase=count + _ITERATE,
        converged=jnp.asarray(False),
        restarts=count,
        num_products=count,
        pivot=jnp.full((ends,), jnp.inf, dtype),
        growth=jnp.zeros((ends,), dtype),
        beta=jnp.zeros((), dtype),
    )


def _turn(
    operator: FlatOperator,
    basis: Basis,
    state: State,
    plan: Plan,
    tol: Float[Array, ""],
    noise: Float[Array, " dim"],
) -> tuple[Basis, State]:
    """Some products, then a look at what they have brought."""
    before, active = state, state.phase != _DONE
    basis, state, column, beta = _expand(operator, basis, state, plan, tol, noise)
    signs = _signs(noise, plan)
    state, compression = lax.cond(
        state.phase == _VERIFY,
        lambda: (_finish(state, plan, signs, column, beta), _no_compression(state, plan)),
        lambda: _consider(state, plan, tol),
    )
    compression = compression._replace(wanted=compression.wanted & active)
    basis, state = lax.cond(
        any_lane(compression.wanted),
        lambda: tree_where(compression.wanted, _restart(basis, state, compression, plan, tol, noise), (basis, state)),
        lambda: (basis, state),
    )
    current = jnp.where(state.phase == _VERIFY, _matmul(signs, basis[: plan.wanted]), state.current)
    return basis, tree_where(active, state._replace(current=current), before)


def _next_stop(state: State, plan: Plan) -> Int[Array, ""]:
    """Where to look next: often where looks are cheap or a few products are most of the work; else when it is full."""
    soon = jnp.maximum(state.position + 1 + state.position // 8, plan.first_look)
    young = (state.restarts == 0) | (plan.size <= _SMALL)
    often = (state.phase == _ITERATE) & young & (soon + 1 < plan.size)
    stop = jnp.where(often, soon, plan.size)
    return jnp.where(state.phase == _VERIFY, state.position + 1, stop)


def _levels(state: State, plan: Plan, tol: Float[Array, ""]) -> Float[Array, " ends"]:
    """The values beyond which a search must find nothing: a tolerance outside of the last wanted value of each end."""
    margin = tol * state.scale
    if plan.both:
        return jnp.stack([state.values[plan.k - 1] + margin, state.values[-1] - margin])
    return state.values[-1:] + margin


def _certified(state: State) -> Bool[Array, ""]:
    """Whether the search has excluded further eigenvalues beyond the wanted ones."""
    enough = math.log(math.sqrt(2 * state.current.size / math.pi) / _MISS)
    return (state.phase == _SEARCH) & jnp.all(state.growth >= enough)


def _expand(
    operator: FlatOperator,
    basis: Basis,
    state: State,
    plan: Plan,
    tol: Float[Array, ""],
    noise: Float[Array, " dim"],
) -> tuple[Basis, State, Float[Array, " rows"], Float[Array, ""]]:
    """Apply the operator to the next rows of the basis, each product making a new row.

    Returns:
        The basis, the state, and the coefficients and the remainder of the last product.
    """
    stop, levels = _next_stop(state, plan), _levels(state, plan, tol)
    outward = jnp.asarray([1, -1][: levels.size], levels.dtype)

    def going(state):
        overtaken = (state.phase == _SEARCH) & jnp.any(state.pivot <= 0)
        at_work = (state.phase != _DONE) & (state.position < stop)
        return at_work & jnp.isfinite(state.scale) & ~overtaken & ~_certified(state)

    def body(carry):
        basis, state, *last = carry
        active, j = going(state), state.position
        w = operator(state.current)
        scale = jnp.maximum(state.scale, norm(w))
        noisy = jnp.roll(noise, state.num_products)
        h, beta, v = _append(basis, w, 10 * operator.eps * scale, noisy, active)
        row = j + state.width
        basis = basis.at[row].set(jnp.where(active, v, basis[row]))
        # The recurrence of p_s at the levels, as pivots of (level - T) and the logarithm of their product over the betas.
        pivot = outward * (levels - h[j]) - jnp.square(state.beta) / state.pivot
        after = state._replace(
            alive=state.alive.at[row].set(norm(v) > 0.5),
            projected=state.projected.at[:, j].set(h).at[row, j].set(beta),
            current=basis[j + 1],
            position=j + 1,
            scale=scale,
            num_products=state.num_products + 1,
            pivot=pivot,
            growth=state.growth + jnp.log(pivot / beta),
            beta=beta,
        )
        return basis, *tree_where(active, (after, h, beta), (state, *last))

    start = (basis, state, jnp.zeros_like(state.projected[:, 0]), jnp.zeros_like(state.beta))
    return lax.while_loop(lambda carry: any_lane(going(carry[1])), body, start)


def _signs(noise: Float[Array, " dim"], plan: Plan) -> Float[Array, " wanted"]:
    return jnp.where(noise[: plan.wanted] < 0, -1, 1).astype(noise.dtype)


def _finish(state: State, plan: Plan, signs, column: Float[Array, " rows"], beta: Float[Array, ""]) -> State:
    """Compare the product of the sum of the wanted vectors with what the projected matrix says."""
    difference = column - _matmul(state.projected[:, : plan.wanted], signs)
    square = jnp.sum(jnp.square(difference)) + jnp.square(beta)
    return state._replace(
        residuals=jnp.sqrt(jnp.square(state.residuals) + square),
        phase=jnp.full_like(state.phase, _DONE),
    )


def _rayleigh_ritz(state: State, plan: Plan) -> Ritz:
    """Ritz pairs of the rows that have been multiplied, with their residuals |P s - theta s|."""
    projected, size = state.projected, plan.size
    # Above the diagonal stand the coefficients that were computed last, and with all of the basis.
    upper = jnp.triu(projected[:size])
    theta, vectors = small_eigh(upper + jnp.triu(upper, 1).T)
    multiplied = state.alive[:size] & (jnp.arange(size) < state.position)
    live = jnp.sum(jnp.where(multiplied, jnp.square(vectors), 0), axis=1) > 0.5
    images = _matmul(vectors, projected.T)
    images = images.at[:, :size].add(-theta[:, None] * vectors)
    return Ritz(theta, vectors, jnp.sqrt(jnp.sum(jnp.square(images), axis=1)), live, _best_first(theta, live, plan))


def _no_compression(state: State, plan: Plan) -> Compression:
    """What `_consider` returns beside the state, where there is nothing to restart."""
    empty = jnp.zeros((plan.kept, plan.size), state.projected.dtype)
    no = jnp.zeros_like(state.converged)
    return Compression(no, no, empty, jnp.zeros((plan.kept,), bool))


def _consider(state: State, plan: Plan, tol: Float[Array, ""]) -> tuple[State, Compression]:
    """Decide how to go on: more products, a restart, a search, or the final check."""
    ritz = _rayleigh_ritz(state, plan)
    scale = jnp.maximum(state.scale, jnp.max(jnp.where(ritz.live, jnp.abs(ritz.theta), 0)))
    first = ritz.order[: plan.wanted]
    values, residuals = ritz.theta[first], ritz.residuals[first]
    # The rest of the tolerance is left for the noise of products, and for the directions that repeated searches drop.
    share = 0.5 if plan.searches else 0.8
    good = jnp.all((residuals <= share * tol * scale) & ritz.live[first])
    same = jnp.all(jnp.abs(values - state.values) <= tol * scale)
    state = state._replace(scale=scale)
    searched = (state.phase == _SEARCH) & (_certified(state) | (good & same))
    full = state.position >= plan.size
    restart = ~searched & (good | full | (state.phase == _SEARCH))
    searching = good & ~searched & plan.searches
    spent = state.restarts + restart
    converged = searched | (good & (not plan.searches))
    given_up = ~converged & (spent >= plan.max_restarts) & restart & (~good | (spent > plan.max_restarts))
    phase = jnp.where(converged | given_up, _VERIFY, jnp.where(searching, _SEARCH, _ITERATE))
    kept = ritz.order[: plan.kept]
    return state._replace(
        values=jnp.where(restart, values, state.values),
        residuals=jnp.where(restart, residuals, state.residuals),
        phase=jnp.where(jnp.isfinite(scale), phase, _DONE),
        converged=converged,
        restarts=spent,
    ), Compression(restart, searching, ritz.vectors[kept], ritz.live[kept])


def _restart(
    basis: Basis,
    state: State,
    compression: Compression,
    plan: Plan,
    tol: Float[Array, ""],
    noise: Float[Array, " dim"],
) -> tuple[Basis, State]:
    """Compress the basis to its best Ritz vectors and what was not multiplied yet.

    Before a search the latter are parked, and a random direction takes their place. If the search finds something, what was
    parked is dropped, and with it the Ritz vectors that are coupled to it: they could never converge.
    """
    kept, size, block = plan.kept, plan.size, plan.block
    parked = slice(size + block, None)
    searching, coefficients = compression.searching, compression.coefficients
    lost = jnp.sqrt(jnp.sum(jnp.square(_matmul(coefficients, state.projected[parked].T)), axis=1))
    keep = compression.live & (lost <= tol * state.scale / 2)
    coefficients = jnp.where(keep[:, None], coefficients, 0)

    compress = lambda rows: _matmul(rows, coefficients.T)
    rows = lambda array: lax.dynamic_slice_in_dim(array, state.position, block)
    old, basis = basis, jnp.zeros_like(basis).at[:kept].set(_matmul(coefficients, basis[:size]))
    alive = jnp.zeros_like(state.alive).at[:kept].set(keep)
    projected = jnp.zeros_like(state.projected)
    projected = projected.at[:kept, :kept].set(_matmul(coefficients, compress(state.projected[:size])))
    following, couplings, there = rows(old), compress(rows(state.projected)), rows(state.alive)
    if plan.searches:
        basis = basis.at[parked].set(jnp.where(searching, following, 0))
        projected = projected.at[parked, :kept].set(jnp.where(searching, couplings, 0))
        alive = alive.at[parked].set(searching & there)
        following, couplings, there = (
            jnp.where(searching, jnp.zeros_like(a), a) for a in (following, couplings, there)
        )
    tail = slice(kept, kept + block)
    basis, alive = basis.at[tail].set(following), alive.at[tail].set(there)
    projected = projected.at[tail, :kept].set(couplings)
    if plan.searches:
        fresh = cond_any_lane(
            searching, lambda: direction(basis, jnp.roll(noise, -1 - state.num_products)), lambda: basis[kept]
        )
        basis, alive = basis.at[kept].set(fresh), alive.at[kept].set(norm(fresh) > 0.5)
    return basis, state._replace(
        alive=alive,
        projected=projected,
        current=basis[kept],
        position=jnp.full_like(state.position, kept),
        width=jnp.where(searching, 1, state.width),
        pivot=jnp.full_like(state.pivot, jnp.inf),
        growth=jnp.zeros_like(state.growth),
        beta=jnp.zeros_like(state.beta),
    )


def _best_first(theta: Float[Array, " size"], live: Bool[Array, " size"], plan: Plan) -> Int[Array, " size"]:
    """Indices of the Ritz values: the wanted ones first (descending, then ascending), then by nearness to a wanted end."""
    down = jnp.argsort(jnp.where(live, -theta, jnp.inf), stable=True)
    rank = jnp.argsort(down)
    if not plan.both:
        return down
    # With fewer than 2k live vectors the ends overlap; ranks from below then count from the number of live ones.
    up = jnp.where(live, jnp.sum(live) - 1 - rank, rank)
    score = jnp.where(live, jnp.minimum(2 * rank, 2 * up + 1), 2 * plan.size + rank)
    score = jnp.where(live & (rank < plan.k), rank - 4 * plan.size, score)
    score = jnp.where(live & (up < plan.k) & (rank >= plan.k), up - 2 * plan.size, score)
    return jnp.argsort(score, stable=True)


def _append(
    basis: Basis,
    w: Float[Array, " dim"],
    threshold: Float[Array, ""],
    noise: Float[Array, " dim"],
    active: Bool[Array, ""],
) -> tuple[Float[Array, " rows"], Float[Array, ""], Float[Array, " dim"]]:
    """Orthonormalise `w` against the rows of `basis`.

    If what is left is not above `threshold`, the span is invariant to rounding: go on with the random direction `noise`,
    uncoupled from it (beta = 0). If there is none left, because the rows span everything, the new row is zero.

    Returns:
        The coefficients `basis @ w`, the norm beta of the rest, and the new row.
    """
    w, h = orthogonalise(basis, w)
    beta = norm(w)
    whole = beta > threshold
    broken = active & ~(whole | jnp.isnan(beta))
    v = cond_any_lane(broken, lambda: direction(basis, noise), lambda: w / jnp.where(whole, beta, 1))
    return h, jnp.where(whole, beta, 0), v


def direction(basis: Float[Array, "rows dim"], noise: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """The unit vector along `noise` orthogonal to the rows of `basis`; zero if they span everything."""
    floor = 10 * jnp.finfo(noise.dtype).eps * math.sqrt(noise.size)

    def project(_, v):
        rest = orthogonalise(basis, v)[0]
        size = norm(rest)
        return jnp.where(size > floor, rest / jnp.where(size > 0, size, 1), 0)

    return lax.fori_loop(0, 2, project, noise / norm(noise))


def orthogonalise(basis, w):
    """Two passes of classical Gram-Schmidt, as two pairs of matrix-vector products."""
    first = _matmul(basis, w)
    w = w - _matmul(first, basis)
    if w.size > _LONG and w.dtype == jnp.float32:
        # A matrix-vector product sums a row in order: with one entry of size 1 in a million small ones, as in a Ritz
        # vector of a diagonal operator, it is off by 2e-5. A reduction sums in a tree (3e-6, at twice the time).
        second = jnp.sum(basis * w, axis=1)
    else:
        second = _matmul(basis, w)
    return w - _matmul(second, basis), first + second


def norm(w):
    return jnp.sqrt(_matmul(w, w))


def _matmul(a: Any, b: Any) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
