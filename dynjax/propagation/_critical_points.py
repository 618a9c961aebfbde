"""Critical points of a scalar map in a box, with their Morse indices, and the proof that there are no others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray

from .._core import Function, Status, check_count, check_that, found, is_concrete
from ._degree import boundary_degree
from ._interval_rules import Unsupported
from ._morse_merge import merge
from ._morse_proof import Bounds, Proof, Zero, centre_of, inside_of, prove
from ._morse_search import Judgement, Landscape, judge, low_discrepancy, newton

_SAMPLES_PER_START = 8


class CriticalPoints(eqx.Module):
    """The critical points of a scalar map f in a box.

    Attributes:
        points: `(P, d)`, sorted by Morse index.
        values: f at the points.
        gradient_norm: |grad f| at the points.
        morse_index: the number of negative eigenvalues of the Hessian (beyond rounding, where degenerate).
        eigenvalues: `(P, d)`, those of the Hessian, ascending.
        degenerate: whether the Hessian is singular as far as the precision can tell: its smallest eigenvalue is below
            8 sqrt(eps) of the largest (here or, if that is larger, typically in the box), *and* Kantorovich's test fails. Of a
            curve or surface of critical points at most 16 points stand for all.
        kantorovich: beta eta L, with beta = |H^-1|, eta = beta (|grad f| + rounding) and an estimate of the Lipschitz constant L
            of the Hessian by differences; at most 1/2 says that Newton's method converges from here to an isolated,
            nondegenerate critical point.
        certified: whether Krawczyk's interval test *proves* a nondegenerate critical point here. It can say so only where the
            map has interval enclosures.
        degree: the sum of (-1)^index; None where a point is degenerate.
        boundary_degree: the degree of the gradient on the boundary of the box; None above three dimensions and where the
            gradient vanishes on the boundary.
        degree_matches: whether both are equal, as they must be if nothing was missed; None where one is None. True does not
            mean complete: a missed pair of minimum and saddle has degree 0.
        complete: whether it is proved that the box holds no other critical point.
        incomplete_reason: why it is not; empty otherwise.
        num_starts: Newton iterations that were started.
        num_restarts: rounds after the first.
        num_cells: cells that the proof looked at.
        status: `OK`; `NOT_CONVERGED` if the degrees still differ; `INACCURATE` if a point passed neither as degenerate nor
            as nondegenerate; `NONFINITE` if the map and its derivatives are finite nowhere.
    """

    points: Float[Array, "P d"]
    values: Float[Array, " P"]
    gradient_norm: Float[Array, " P"]
    morse_index: Int[Array, " P"]
    eigenvalues: Float[Array, "P d"]
    degenerate: Bool[Array, " P"]
    kantorovich: Float[Array, " P"]
    certified: Bool[Array, " P"]
    status: Int8[Array, ""]
    degree: int | None = eqx.field(static=True)
    boundary_degree: int | None = eqx.field(static=True)
    degree_matches: bool | None = eqx.field(static=True)
    complete: bool = eqx.field(static=True)
    incomplete_reason: str = eqx.field(static=True)
    num_starts: int = eqx.field(static=True)
    num_restarts: int = eqx.field(static=True)
    num_cells: int = eqx.field(static=True)

    @property
    def morse_class(self) -> str:
        """What was found: "C1" no critical point, "C2" nondegenerate ones alone, "C3" a degenerate one."""
        if bool(np.any(np.asarray(self.degenerate))):
            return "C3"
        return "C2" if self.points.shape[0] else "C1"

    def __str__(self) -> str:
        indices = np.asarray(self.morse_index)[~np.asarray(self.degenerate)]
        counts = ", ".join(f"{np.sum(indices == i)} of index {i}" for i in np.unique(indices))
        degenerate = int(np.sum(np.asarray(self.degenerate)))
        parts = [counts] * bool(counts) + [f"{degenerate} degenerate"] * bool(degenerate)
        proof = "complete" if self.complete else "completeness not proved"
        return f"CriticalPoints({self.morse_class}: {', '.join(parts) or 'none'}; {proof})"


def critical_points(
    fn: Callable[[Any], Any],
    lower: Any,
    upper: Any,
    *,
    key: PRNGKeyArray,
    num_starts: int = 128,
    max_restarts: int = 6,
    prove_complete: bool = True,
    max_cells: int = 20_000,
) -> CriticalPoints:
    r"""Every critical point of a scalar map in a box, and a proof of it where that is possible.

    1. Damped Newton steps for grad f = 0, and descents of |grad f|^2, from `num_starts` points of a shifted Kronecker sequence
       and as many of the points with the smallest gradient among 8 times that number.
    2. Repeated finds are merged by the radius within which Kantorovich's theorem says that a zero is the only one.
    3. The degree is compared: for nondegenerate points inside,

       $$\sum_i (-1)^{\mathrm{index}_i} = \deg(\nabla f, \partial\,\mathrm{box}, 0).$$

       While it differs, step 1 is repeated with further points.
    4. `complete` is a proof, by branch and bound: interval arithmetic with outward rounding in double precision encloses grad f
       and the Hessian over cells of the box. A cell goes where the gradient, its mean value form or Krawczyk's operator
       excludes a zero, or where it lies in a neighbourhood in which a proved zero is the only one; the rest is halved. Points
       found on the way are added, and points that are disproved are dropped. The proof is for the map as its program
       says, in exact real arithmetic; in single precision that differs from the computed map by rounding.

    No proof is possible at degenerate points, at points on the boundary, across kinks, for adaptive solvers (their
    number of steps depends on the point: use `num_steps` of `NeuralODE`), for `NeuralDDE` and for other programs without
    enclosures.
    The effort of the proof grows exponentially with d, and with the length of a flow: above d = 3 it is often out of reach.

    This is a host function, not for traced code. Searches compile once for each structure of `fn`: Equinox modules of the same
    architecture share the programs, a new lambda is compiled anew.

    Args:
        fn: the map, from one sample (d,) to a scalar of shape () or (1,); twice differentiable.
        lower: lower corner of the box, (d,); a number stands for d = 1.
        upper: upper corner.
        key: seeds the starting points.
        num_starts: starts of either kind in each round.
        max_restarts: further rounds while the degrees differ.
        prove_complete: whether to try step 4.
        max_cells: the most cells that step 4 looks at; 10^4 take about a second for a small perceptron, half a minute
            for a neural ODE of 10 Runge-Kutta steps.

    Returns:
        A `CriticalPoints`.

    Raises:
        ValueError: if the box is empty, not finite or of the wrong shape.
        TypeError: if `fn` is not callable, does not return one number, cannot be differentiated twice (the adaptive solver of
            `NeuralODE` with its default adjoint), or the box is traced.

    Example:
        ```python
        himmelblau = lambda x: (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2
        report = dj.critical_points(himmelblau, [-5, -5], [5, 5], key=jax.random.key(0))
        report.morse_index, report.complete              # 4 minima, 4 saddles, 1 maximum: True
        ```

    References:
        Milnor, Topology from the differentiable viewpoint (1965), section 6; Krawczyk (1969) and Moore, Kearfott and Cloud,
        Introduction to Interval Analysis (2009), chapters 8 and 11; Kantorovich, see Ortega (1968).
    """
    check_count(num_starts, "num_starts")
    check_count(max_restarts, "max_restarts", 0)
    check_count(max_cells, "max_cells")
    landscape = as_landscape(fn, lower, upper)
    try:
        scales = _scales(landscape)
    except TypeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TypeError(
            "Argument `fn` must be twice differentiable, in forward over reverse mode (a `NeuralODE` with `num_steps`, or with "
            f"`diffrax.DirectAdjoint()`), but differentiation raised: {reason}"
        ) from error
    if scales is None:
        return _report(
            landscape,
            _nothing(landscape),
            _Rounds(0, 0, None),
            _no_proof("the map or its derivatives are not finite"),
            [],
        )
    finds, rounds = _search(landscape, scales, key, num_starts, max_restarts)
    if not prove_complete:
        return _report(landscape, finds, rounds, _no_proof("no proof was asked for"), [])
    return _with_proof(landscape, scales, finds, rounds, max_cells)


def as_landscape(fn: Any, lower: Any, upper: Any) -> Landscape:
    """The map and the box, checked."""
    check_that(callable(fn), "fn", "be callable", found(fn), TypeError)
    check_that(
        is_concrete((lower, upper)),
        "lower",
        "be known numbers, since this is a host function",
        "it is traced",
        TypeError,
    )
    low, high = _side(lower), _side(upper)
    dtype = np.result_type(low, high)
    check_that(low.ndim == 1 and low.size > 0, "lower", "be a vector", f"found the shape {low.shape}")
    check_that(low.shape == high.shape, "upper", f"have the shape {low.shape} of `lower`", f"found {high.shape}")
    finite = bool(np.all(np.isfinite(low)) and np.all(np.isfinite(high)))
    check_that(finite, "lower", "be finite, and `upper` too", f"found {low} and {high}")
    check_that(bool(np.all(low < high)), "lower", "be below `upper` in every coordinate", f"found {low} and {high}")
    function = Function(fn)
    _check_scalar(function, jax.ShapeDtypeStruct(low.shape, dtype))
    return Landscape(function, low.astype(dtype), high.astype(dtype))


def _side(value: Any) -> np.ndarray:
    """A corner of the box, as a floating-point vector."""
    corner = np.atleast_1d(np.asarray(jnp.asarray(value)))
    return corner if jnp.issubdtype(corner.dtype, jnp.floating) else corner.astype(jnp.result_type(float))


def _check_scalar(function: Any, like: Any) -> None:
    try:
        out = eqx.filter_eval_shape(function, like)
    except (TypeError, ValueError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"Argument `fn` must accept one sample of shape {like.shape}, but it raised: {reason}"
        ) from error
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    good = shape in ((), (1,)) and dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    check_that(
        good,
        "fn",
        "return one real number, of shape () or (1,)",
        f"it returned {found(out).removeprefix('found ')}",
        TypeError,
    )


class _Scales(NamedTuple):
    """Typical sizes in the box: what counts as small is measured against them."""

    gradient: float
    hessian: float


def _scales(landscape: Landscape) -> _Scales | None:
    x = low_discrepancy(landscape, np.full(landscape.dim, 0.5), 0, 64)
    gradients, hessians = landscape.gradients(x), landscape.hessians(x)
    good = np.all(np.isfinite(gradients), axis=1) & np.all(np.isfinite(hessians), axis=(1, 2))
    good &= np.isfinite(landscape.values(x))
    if not good.any():
        return None
    sizes = np.linalg.norm(gradients[good].astype(np.float64), axis=1)
    return _Scales(float(sizes.max()), float(np.median(np.linalg.norm(hessians[good].astype(np.float64), axis=(1, 2)))))


class _Rounds(NamedTuple):
    """How the search went."""

    starts: int
    restarts: int
    boundary: int | None


def _search(
    landscape: Landscape, scales: _Scales, key: PRNGKeyArray, num_starts: int, max_restarts: int
) -> tuple[Judgement, _Rounds]:
    """Rounds of Newton's method until the degrees agree."""
    shift = np.asarray(jax.random.uniform(key, (landscape.dim,), dtype=jnp.float32), np.float64)
    boundary = boundary_degree(landscape.gradients, landscape.lower, landscape.upper)
    finds = _nothing(landscape)
    restarts = 0
    for turn in range(1 + max_restarts):
        restarts = turn
        ends = newton(landscape, _starts(landscape, shift, turn, num_starts))
        finds = _merged(landscape, scales, np.concatenate([finds.x, ends]))
        if _degree(finds) in (None, boundary) or boundary is None:
            break
    return finds, _Rounds(2 * num_starts * (restarts + 1), restarts, boundary)


def _starts(landscape: Landscape, shift: np.ndarray, turn: int, count: int) -> np.ndarray:
    """Points of the sequence, and the points of small gradient among many more."""
    samples = _SAMPLES_PER_START * count
    pool = low_discrepancy(landscape, shift, turn * (samples + count), samples)
    sizes = np.linalg.norm(landscape.gradients(pool).astype(np.float64), axis=1)
    lowest = pool[np.argsort(np.where(np.isfinite(sizes), sizes, np.inf), kind="stable")[:count]]
    plain = low_discrepancy(landscape, shift, turn * (samples + count) + samples, count)
    return np.concatenate([plain, lowest])


def _merged(landscape: Landscape, scales: _Scales, x: np.ndarray) -> Judgement:
    """The finds that are critical points inside the box, each once.

    The gradient has to be at most eps^(3/4) of its largest sampled size, and the Newton step eps^(1/4) of the box: where a
    map decays exponentially the gradient is small without any zero nearby.
    """
    eps = float(np.finfo(landscape.dtype).eps)
    x = x[np.all(np.isfinite(x), axis=1) & landscape.inside(x)]
    x = x[np.isfinite(landscape.values(x))]
    finds = judge(landscape, x, *scales)
    good = (finds.gradient_norm <= eps**0.75 * scales.gradient) & (finds.step <= eps**0.25)
    return merge(landscape, finds.take(good))


def _degree(finds: Judgement) -> int | None:
    if finds.degenerate.any():
        return None
    return int(np.sum(np.prod(np.sign(finds.eigenvalues), axis=1)))


def _nothing(landscape: Landscape) -> Judgement:
    return judge(landscape, np.zeros((0, landscape.dim), landscape.dtype), 1.0, 1.0)


def _no_proof(reason: str) -> Proof:
    return Proof(False, reason, [], 0)


def _with_proof(
    landscape: Landscape, scales: _Scales, finds: Judgement, rounds: _Rounds, max_cells: int
) -> CriticalPoints:
    """Try to prove completeness; what is found on the way joins the points, what is disproved leaves."""
    try:
        bounds = Bounds(landscape)
    except Unsupported as error:
        reason = f"{error} has no interval enclosure" if "primitive" in str(error) else str(error)
        return _report(landscape, finds, rounds, _no_proof(reason), [])
    regular = finds.take(~finds.degenerate)
    if finds.degenerate.any():
        proof = prove(landscape, bounds, regular.x, 0)
        proof = proof._replace(
            complete=False, reason="a degenerate critical point cannot be isolated by an interval test"
        )
    else:
        proof = prove(landscape, bounds, regular.x, max_cells)
    zeros = [zero for zero in proof.zeros if inside_of(zero, landscape)]
    # A gradient may go on where the map is not defined, as that of the logarithm does.
    zeros = [z for z in zeros if np.isfinite(landscape.values(centre_of(z, landscape.dtype)[None]))[0]]
    finds = _matched(landscape, scales, finds, zeros, proof.complete)
    return _report(landscape, finds, rounds, proof, zeros)


def _matched(landscape: Landscape, scales: _Scales, finds: Judgement, zeros: list[Zero], complete: bool) -> Judgement:
    """The finds and the zeros that are proved, each once."""
    owners = _owners(landscape, finds.x, zeros)
    missing = [centre_of(z, landscape.dtype) for k, z in enumerate(zeros) if k not in owners]
    if complete:
        finds = finds.take(owners >= 0)
    if not missing:
        return finds
    extra = judge(landscape, np.stack(missing), *scales)
    return Judgement(*(np.concatenate([a, b]) for a, b in zip(finds, extra, strict=True)))


def _owners(landscape: Landscape, x: np.ndarray, zeros: list[Zero]) -> np.ndarray:
    """For each point the zero that it approximates: where that is the only one, and within eps^(1/4) of the box; else -1."""
    owners = np.full(x.shape[0], -1)
    reach = float(np.finfo(landscape.dtype).eps) ** 0.25 * landscape.size
    for k, zero in enumerate(zeros):
        middle = centre_of(zero, np.float64)
        inside = np.all((x >= zero.outer_lo) & (x <= zero.outer_hi) & (np.abs(x - middle) <= reach), axis=1)
        closest = np.nonzero(inside & (owners < 0))[0]
        if closest.size:
            owners[closest[np.argmin(np.linalg.norm(x[closest] - middle, axis=1))]] = k
    return owners


def _report(landscape: Landscape, finds: Judgement, rounds: _Rounds, proof: Proof, zeros: list[Zero]) -> CriticalPoints:
    eps = float(np.finfo(landscape.dtype).eps)
    values = finds.eigenvalues
    slack = np.where(finds.degenerate, 8 * eps**0.5 * np.max(np.abs(values), axis=1, initial=0), 0)
    index = np.sum(values < -slack[:, None], axis=1)
    order = np.lexsort((*np.round(finds.x.T, 6)[::-1], index))
    finds, index = finds.take(order), index[order]
    degree = _degree(finds)
    matches = None if degree is None or rounds.boundary is None else degree == rounds.boundary
    dtype = landscape.dtype
    return CriticalPoints(
        points=jnp.asarray(finds.x, dtype),
        values=jnp.asarray(landscape.values(finds.x), dtype),
        gradient_norm=jnp.asarray(finds.gradient_norm, dtype),
        morse_index=jnp.asarray(index, jnp.int32),
        eigenvalues=jnp.asarray(finds.eigenvalues, dtype),
        degenerate=jnp.asarray(finds.degenerate, bool),
        kantorovich=jnp.asarray(finds.kantorovich, dtype),
        certified=jnp.asarray(_owners(landscape, finds.x, zeros) >= 0),
        status=jnp.asarray(_status(finds, matches, rounds), jnp.int8),
        degree=degree,
        boundary_degree=rounds.boundary,
        degree_matches=matches,
        complete=proof.complete,
        incomplete_reason=proof.reason,
        num_starts=rounds.starts,
        num_restarts=rounds.restarts,
        num_cells=proof.num_cells,
    )


def _status(finds: Judgement, matches: bool | None, rounds: _Rounds) -> int:
    if not rounds.starts:
        return int(Status.NONFINITE)
    if matches is False:
        return int(Status.NOT_CONVERGED)
    return int(Status.INACCURATE if finds.unresolved.any() else Status.OK)
