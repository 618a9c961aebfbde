"""Lyapunov exponents of anything that steps."""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_count, check_that, found, is_concrete, tree_all_finite
from ..linalg import student_factor
from ..systems import AbstractSystem, check_system, tangent_space
from ._dimension import kaplan_yorke_dimension, kolmogorov_sinai_entropy
from ._engine import Carry, Growth, Plan, default_cadence, empty_growth, make_plan, run_bins
from ._frame import FrameSpace
from ._guard import captured, forbid_derivative, tangent_depends_on_state
from ._progress import Progress
from ._time_average import TimeAverage, time_average

DENSE_LIMIT = 64
_SEGMENT_SECONDS = 0.5
_MERGE_ABOVE = 8192


class LyapunovState(eqx.Module):
    """Where a run of `lyapunov_spectrum` stands; handed back as `state=`, the run goes on and its statistics grow.

    Attributes:
        x: the state of the system at step `n`.
        frame: the orthonormal frame there, `(k, dim)`.
        n: the number of the next step.
        growth: what has been measured, bin by bin.
        qr_every: steps between factorisations.
        blocks: factorisations in a bin.
    """

    x: PyTree
    frame: Float[Array, "k dim"]
    n: Int[Array, ""]
    growth: Growth
    qr_every: int = eqx.field(static=True)
    blocks: int = eqx.field(static=True)


class LyapunovSpectrum(eqx.Module):
    """Lyapunov exponents with their errors. Exponents and rates are per unit of time, times in units of time.

    Attributes:
        exponents: `(k,)`, descending; -inf where a direction is contracted to nothing.
        standard_error: of each exponent, `(k,)`; correlations in time are taken into account.
        autocorrelation_time: integrated autocorrelation time of the local growth, `(k,)`, in units of time.
        effective_sample_size: as many independent samples would have had the same error, `(k,)`.
        drift: second half of the run minus the first, in standard errors of that difference, `(k,)`; values beyond 3
            say that the run has not settled: burn in for longer.
        sum: the sum of the k exponents: of a full spectrum, the mean rate of change of volume.
        sum_standard_error: its standard error.
        kaplan_yorke_dimension: from the k exponents; NaN where they do not determine it.
        kolmogorov_sinai_entropy: sum of the positive exponents (Pesin).
        history: the growth rate in each bin, `(num_bins, k)`, in the order of the exponents; None unless asked for.
        bin_time: the length of one of these bins, in units of time.
        total_time: the time that was averaged over.
        status: `OK`; `NONFINITE` if orbit or tangents left the finite numbers (exponents are then NaN); `INACCURATE` if
            the frame collapsed between factorisations so far that digits were lost: choose a smaller `qr_every`.
        state: hand it back as `state=` to go on.
    """

    exponents: Float[Array, " k"]
    standard_error: Float[Array, " k"]
    autocorrelation_time: Float[Array, " k"]
    effective_sample_size: Float[Array, " k"]
    drift: Float[Array, " k"]
    sum: Float[Array, ""]
    sum_standard_error: Float[Array, ""]
    kaplan_yorke_dimension: Float[Array, ""]
    kolmogorov_sinai_entropy: Float[Array, ""]
    history: Float[Array, "num_bins k"] | None
    bin_time: Float[Array, ""]
    total_time: Float[Array, ""]
    status: Int8[Array, ""]
    state: LyapunovState
    degrees_of_freedom: int = eqx.field(static=True)

    def interval(self, confidence: float = 0.95) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Lower and upper ends of the two-sided Student intervals of the exponents."""
        half = student_factor(1 + self.degrees_of_freedom, confidence) * self.standard_error
        return self.exponents - half, self.exponents + half

    def required_time(self, standard_error: float) -> Float[Array, " k"]:
        """The length of run, in units of time, at which each exponent would have the given standard error."""
        return self.total_time * (self.standard_error / standard_error) ** 2

    def __str__(self) -> str:
        """Exponents with errors, dimension, time, status."""
        pairs = zip(self.exponents, self.standard_error, strict=True)
        exponents = ", ".join(f"{float(e):.5g} +- {float(s):.1g}" for e, s in pairs)
        status = Status(int(self.status)).name
        dimension = float(self.kaplan_yorke_dimension)
        return f"LyapunovSpectrum({exponents}; dimension {dimension:.4g}, time {float(self.total_time):.6g}, {status})"


def lyapunov_spectrum(
    system: AbstractSystem,
    x0: PyTree,
    *,
    num_steps: int,
    k: int | None = None,
    burn_in: int | None = None,
    qr_every: int | None = None,
    key: PRNGKeyArray | None = None,
    state: LyapunovState | None = None,
    start: Any = 0,
    history: bool = False,
    differentiable: bool = False,
    progress: bool = True,
) -> LyapunovSpectrum:
    r"""The `k` leading Lyapunov exponents of a system along the orbit of `x0`, with standard errors.

    A frame of k orthonormal tangents is pushed along the orbit by the tangent of the *numerical* step and factorised every
    q steps, V = L Q; then

        lambda_i = lim_{T -> inf} (1/T) sum log L_ii,    T = num_steps * dt.

    State and frame are burnt in first: it takes a time of some 1/(lambda_i - lambda_{i+1}) until the frame has turned into
    the directions that belong to the exponents, and the bias of starting at once, of order 1/T, does not average out over
    seeds. Standard errors come from the lowest frequencies of the growth (see `time_average`).

    It runs inside other people's `jit`, `vmap` (over states, systems and keys) and, with restrictions, `grad`. Of linear
    cocycles over independent factors (random matrices, SGD at an interpolation solution) the derivative is that of the
    average along this path; where factors can turn vectors round, its terms dA / (u . A v) have heavy tails, so take
    medians over keys, or finite differences with the same key. Along a chaotic orbit it is worthless: for systems whose
    tangents depend on the state differentiation raises unless `differentiable=True`. Called from the host, a long run
    shows its progress on stderr. For linear cocycles start at zero: a state that grows with the product overflows.

    The cost of a step is that of `system.tangent_step` with k tangents, no Jacobian is formed; a factorisation takes
    O(k^2 dim) operations. On a GPU the sequential depth is what costs: `vmap` over many states.

    Args:
        system: any dynjax system.
        x0: its state at step `start`. Ignored where `state` is given.
        num_steps: steps that are averaged over, static; a multiple of `qr_every`.
        k: number of exponents, at most the dimension of the tangent space (complex leaves count twice); all of them if
            not given, which is refused above 64 dimensions.
        burn_in: steps before the average starts, rounded up to whole bins (about 1/2,000 of the run);
            by default a tenth of `num_steps`, and none where `state` is given.
        qr_every: steps between factorisations, static. By default 1 for maps, and for flows and delay equations what is
            safe in the precision at hand: 5 in double, 2 in single precision for a `Flow`. A frame may collapse by
            exp(qr_every * dt * (lambda_1 - lambda_k)), up to exp(15) in double and exp(6) in single precision; `status`
            tells when that was too much.
        key: for the first frame; fixed if not given. Exponents do not depend on it once the frame is burnt in.
        state: `.state` of an earlier result: the run goes on from there, and old and new statistics are joined.
        start: number of the first step; for time-dependent systems.
        history: whether to return the growth of each bin.
        differentiable: allow differentiation where tangents depend on the state.
        progress: whether a long run called from the host shows how far it is.

    Returns:
        A `LyapunovSpectrum`.

    Raises:
        TypeError: if `system` is no dynjax system, or `state` no `LyapunovState`.
        ValueError: if a count does not fit (no steps, k above the dimension, `qr_every` no divisor of `num_steps`), or
            `x0` is not what `step` returns; at trace time where differentiation is refused.

    Example:
        ```python
        lorenz = dj.systems.lorenz63(dt=0.01)
        result = dj.lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=100_000)
        result.exponents, result.standard_error, result.kaplan_yorke_dimension
        longer = dj.lyapunov_spectrum(lorenz, None, num_steps=100_000, state=result.state)
        ```

    References:
        Benettin, Galgani, Giorgilli and Strelcyn, Lyapunov characteristic exponents for smooth dynamical systems (1980).
        Pikovsky and Politi, Lyapunov Exponents (2016), chapter 3.
    """
    check_count(num_steps, "num_steps")
    check_that(
        state is None or isinstance(state, LyapunovState), "state", "be `.state` of a result", found(state), TypeError
    )
    x0 = x0 if state is None else state.x
    check_system(system, x0)
    space = FrameSpace(x0)
    k = check_num_vectors(k, space.dim) if state is None else _check_same_k(k, state)
    qr_every = _check_cadence(qr_every, system, space.dtype, num_steps, state)
    if burn_in is None:
        burn_in = num_steps // 10 if state is None else 0
    check_count(burn_in, "burn_in", 0)
    plan = make_plan(num_steps, burn_in, qr_every, None if state is None else state.blocks)

    traced = _is_traced((system, x0, key, state, start, captured(system, x0)))
    arrays, static = eqx.partition(x0, eqx.is_array)
    arrays = jax.tree_util.tree_map(_strong, arrays)
    if state is None:
        frame = space.random(jax.random.key(0) if key is None else key, k)
        carry, old = Carry(arrays, frame, jnp.asarray(start, jnp.result_type(int))), None
    else:
        carry, old = Carry(arrays, state.frame, state.n), state.growth
    growth = empty_growth(plan.num_bins, k, space.dtype)
    if traced:
        carry, growth = run_bins(
            system, static, space, carry, growth, plan, -plan.burn_bins, plan.num_bins, checkpoint=True
        )
        if not differentiable and tangent_depends_on_state(system, x0):
            # The results and not the arguments: functions may hold parameters that are no leaves of `system`.
            carry, growth = forbid_derivative((carry, growth))
    else:
        carry, growth = _run_from_host(system, x0, carry, growth, plan, progress)
    growth, blocks = _join(old, growth, plan.blocks)
    final = LyapunovState(eqx.combine(carry.x, static), carry.frame, carry.n, growth, qr_every, blocks)
    started = tree_all_finite(tangent_space(x0)[0]) if state is None else jnp.asarray(True)
    return _summarise(system, final, started, k == space.dim, history)


def check_num_vectors(k: int | None, dim: int) -> int:
    """The number of tangents: all of them where `k` is not given, which is refused above 64 dimensions."""
    check_that(dim > 0, "x0", "hold floating-point arrays", "it holds none, so that there are no tangents")
    if k is None:
        check_that(
            dim <= DENSE_LIMIT,
            "k",
            f"be given above {DENSE_LIMIT} dimensions",
            f"the tangent space has {dim}; ask for the leading exponents, e.g. `k=10`",
        )
        return dim
    check_count(k, "k")
    check_that(k <= dim, "k", f"be at most the dimension of the tangent space, {dim}", f"found {k}")
    return k


def _check_same_k(k: int | None, state: LyapunovState) -> int:
    rows = state.frame.shape[0]
    check_that(k is None or k == rows, "k", f"be that of the run which goes on, {rows}", f"found {k}")
    return rows


def _check_cadence(
    qr_every: int | None, system: AbstractSystem, dtype: Any, num_steps: int, state: LyapunovState | None
) -> int:
    if state is not None:
        same = qr_every is None or qr_every == state.qr_every
        check_that(same, "qr_every", f"be that of the run which goes on, {state.qr_every}", f"found {qr_every}")
        qr_every = state.qr_every
    elif qr_every is None:
        return default_cadence(system, dtype, num_steps)
    check_count(qr_every, "qr_every")
    check_that(num_steps % qr_every == 0, "qr_every", "divide `num_steps`", f"{qr_every} does not divide {num_steps}")
    return qr_every


def _strong(array: Array) -> Array:
    """The array without a weak type, which would be lost on the way and cost a second compilation."""
    return array if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else jnp.asarray(array, array.dtype)


def _is_traced(tree: PyTree) -> bool:
    """Whether an argument is traced, or everything is (inside a `jit` that has captured the arguments)."""
    leaves = [leaf for leaf in jax.tree_util.tree_leaves(tree) if eqx.is_array(leaf)]
    return not all(is_concrete(leaf) for leaf in [*leaves, jnp.zeros(())])


@eqx.filter_jit
def _segment(
    system: AbstractSystem, x0: PyTree, carry: Carry, growth: Growth, plan: Plan, begin: Array, end: Array
) -> tuple[Carry, Growth]:
    static = eqx.filter(x0, eqx.is_array, inverse=True)
    return run_bins(system, static, FrameSpace(x0), carry, growth, plan, begin, end)


def _run_from_host(
    system: AbstractSystem, x0: PyTree, carry: Carry, growth: Growth, plan: Plan, show: bool
) -> tuple[Carry, Growth]:
    """Segments of half a second, one compiled program, the first ones short."""
    begin, total = -plan.burn_bins, plan.burn_bins + plan.num_bins
    in_bin = plan.qr_every * plan.blocks
    progress = Progress("lyapunov_spectrum", total * in_bin, show=show)
    done, length = 0, 1
    while done < total:
        length = min(length, total - done)
        clock = time.monotonic()
        bounds = jnp.asarray(begin + done), jnp.asarray(begin + done + length)
        carry, growth = jax.block_until_ready(_segment(system, x0, carry, growth, plan, *bounds))
        taken = max(time.monotonic() - clock, 1e-6)
        done += length
        if done == 1:
            progress.begin(in_bin)
            length = min(total, 8)  # the time of the first bin was compilation
        else:
            length = max(1, int(length * _SEGMENT_SECONDS / taken))
            progress.update(done * in_bin)
    progress.close()
    return carry, growth


def _join(old: Growth | None, new: Growth, blocks: int) -> tuple[Growth, int]:
    """Old and new bins in one series; pairs are merged where there are many."""
    if old is None:
        return new, blocks
    growth = Growth(*(jnp.concatenate([a, b]) for a, b in zip(old, new, strict=True)))
    while growth.means.shape[0] > _MERGE_ABOVE and growth.means.shape[0] % 2 == 0:
        growth, blocks = _merge_pairs(growth, blocks), 2 * blocks
    return growth, blocks


def _merge_pairs(growth: Growth, blocks: int) -> Growth:
    a, b = (Growth(*(part[i::2] for part in growth)) for i in (0, 1))
    gap = jnp.where(jnp.isfinite(a.means + b.means), a.means - b.means, 0)
    squares = a.squares + b.squares + 0.5 * blocks * gap**2
    return Growth(0.5 * (a.means + b.means), squares, 0.5 * (a.loss + b.loss))


@eqx.filter_jit
def _summarise(
    system: AbstractSystem, state: LyapunovState, started: Array, complete: bool, history: bool
) -> LyapunovSpectrum:
    growth, dtype = state.growth, state.frame.dtype
    block_time = state.qr_every * jnp.abs(system.dt).astype(dtype)
    measured = growth.means / block_time
    # Where the state has left the numbers there is no orbit. Products of matrices do not look at the state, which may well
    # overflow while their exponents stay right.
    orbit = tree_all_finite(tangent_space(state.x)[0]) | (not tangent_depends_on_state(system, state.x))
    rates = jnp.where(started & orbit, measured, jnp.nan)
    num_bins = rates.shape[0]
    finite = jnp.where(jnp.isfinite(growth.means), growth.means, 0)
    between = state.blocks * jnp.sum((finite - jnp.mean(finite, axis=0)) ** 2, axis=0)
    variance = (jnp.sum(growth.squares, axis=0) + between) / max(num_bins * state.blocks - 1, 1) / block_time**2
    each = time_average(rates, samples_per_bin=state.blocks, sample_variance=variance)
    total = time_average(jnp.sum(rates, axis=1), samples_per_bin=state.blocks)
    order = jnp.argsort(-each.mean)
    exponents = each.mean[order]
    return LyapunovSpectrum(
        exponents=exponents,
        standard_error=each.standard_error[order],
        autocorrelation_time=each.autocorrelation_time[order] * block_time,
        effective_sample_size=each.effective_sample_size[order],
        drift=each.drift[order],
        sum=total.mean,
        sum_standard_error=total.standard_error,
        kaplan_yorke_dimension=kaplan_yorke_dimension(exponents, complete=complete),
        kolmogorov_sinai_entropy=kolmogorov_sinai_entropy(exponents),
        history=measured[:, order] if history else None,
        bin_time=state.blocks * block_time,
        total_time=num_bins * state.blocks * block_time,
        status=_status(state, each),
        state=state,
        degrees_of_freedom=each.degrees_of_freedom,
    )


def _status(state: LyapunovState, each: TimeAverage) -> Int8[Array, ""]:
    finite = ~jnp.any(jnp.isnan(each.mean) | (each.mean == jnp.inf))
    loss = jnp.mean(state.growth.loss)
    collapsed = (loss > jnp.finfo(loss.dtype).eps ** 0.25) | (jnp.any(each.mean == -jnp.inf) & (state.qr_every > 1))
    code = jnp.where(collapsed, int(Status.INACCURATE), int(Status.OK))
    return jnp.where(finite, code, int(Status.NONFINITE)).astype(jnp.int8)
