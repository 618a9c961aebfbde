"""The critical curvature of an optimiser."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._coordinate import Coordinate
from ._map import check_optimizer
from ._polynomial import characteristic_line, inside_unit_circle, shifted

_DECADES = 10
_PER_DECADE = 16


def stability_threshold(optimizer: Any, opt_state: Any = None, *, dtype: Any = None) -> Float[Array, ""]:
    r"""The critical curvature of an optimiser: where it turns unstable on a quadratic.

    It is the smallest s > 0 at which one step on the loss (s/2) w^2, linearised in (w, momentum) at w = 0, has spectral
    radius 1. Second moments are frozen so that they are 1 in the update, and step counters are at infinity: biases are
    corrected, schedules have reached their end. It is found by differentiating the optimiser itself and a Routh test
    over a grid of 20 decades, 16 points each, then bisection; no closed form is looked up.

    | optimiser | threshold |
    |---|---|
    | gradient descent | 2 / lr |
    | heavy ball, `optax.sgd(lr, momentum=b)` | (2 + 2b) / lr |
    | Nesterov | (2 + 2b) / ((1 + 2b) lr) |
    | averaged momentum m' = b m + (1 - b) g | (2 + 2b) / ((1 - b) lr) |
    | Adam | (2 + 2b1) / ((1 - b1) lr) (1 + eps), for the preconditioned Hessian |
    | RMSProp | 2 / lr sqrt(1 + eps), for the preconditioned Hessian |
    | `chain(add_decayed_weights(d), sgd(lr))` | 2 / lr - d |

    With second moments it is a bound on D^1/2 H D^1/2, D from `preconditioner`. A clip does not act at infinitesimal
    amplitude. Where a multiplier passes through -1, as in every row above, the curvature is solved for exactly: the
    relative error is below 1e-13 in float64 and 1e-6 in float32. Where a complex pair leaves the unit circle it is
    about 1e-12 and 1e-5 over (1 - the largest decay rate).

    It works under `jit` and `vmap` over a learning rate, if the optimiser is built inside: a few hundred tests of
    matrices of size 1 + (momenta per parameter), 0.1 to 0.5 ms once compiled.

    Not covered: optimisers whose steps use norms over many coordinates (LAMB, LARS, Muon, Adafactor), the value of the loss
    (Polyak steps, line searches), those that act only every k-th step (`MultiSteps`: pass the inner one; lookahead), and
    schedule-free ones, whose average has no limit.

    Args:
        optimizer: any optax transformation that acts coordinate by coordinate.
        opt_state: a state, to take hyperparameters (`inject_hyperparams`) and step counters from it in place of the
            initial ones and infinity. It is read as the state *after* a step: a schedule has the value that made it, and while
            Adam's first moment is bias-corrected at step t its threshold has the factor 1 - b1^t.
        dtype: floating-point dtype of the computation; JAX's default if not given.

    Returns:
        The critical curvature; `inf` if there is none below 1e10 over the step size (as for a learning rate 0), 0 if every
        curvature is unstable (an ascent), and `nan` if the step has no linearisation at 0 or its second moments cannot
        be frozen (sign descent, Lion, normalised gradients, Adam with b2 = 0).

    Raises:
        TypeError: if `optimizer` is no optax transformation.
        ValueError: if it does not run on one scalar parameter, or `opt_state` is not of this optimiser.

    Example:
        ```python
        dj.stability_threshold(optax.sgd(0.1, momentum=0.9))                           # 38.0
        jax.vmap(lambda lr: dj.stability_threshold(optax.adam(lr)))(jnp.array([1e-3, 1e-2]))  # 38000, 3800
        ```

    References:
        Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability (arXiv:2103.00065);
        Cohen et al. 2022, Adaptive gradient methods at the edge of stability (arXiv:2207.14484).
    """
    check_optimizer(optimizer)
    problem = linear_problem(optimizer, opt_state, jnp.dtype(jnp.result_type(float) if dtype is None else dtype))
    return _first_crossing(*problem)


@eqx.filter_jit
def linear_problem(optimizer: Any, opt_state: Any, dtype: Any) -> tuple[Array, Array, Array]:
    coordinate = Coordinate(optimizer, dtype)
    return _linear_step(coordinate, *read_shared(coordinate, opt_state))


def read_shared(coordinate: Coordinate, opt_state: Any) -> tuple[Float[Array, "leaves"], list[Any] | None]:
    """Hyperparameters and everything that is no float (counters, keys) from a state; (initial values, None) without one."""
    if opt_state is None:
        return coordinate.start, None
    subtrees = coordinate.subtrees(opt_state)
    kept = [
        jnp.asarray(subtrees[i], coordinate.dtype) if is_number(subtrees[i]) else coordinate.start[k]
        for k, i in enumerate(coordinate.floats)
    ]
    rest = [
        old if good or not hasattr(new, "dtype") or jnp.shape(new) != jnp.shape(old) else jnp.asarray(new)
        for new, old, good in zip(subtrees, coordinate.rest, coordinate.is_float, strict=True)
    ]
    return jnp.asarray(kept, coordinate.dtype), rest


def is_number(subtree: Any) -> bool:
    """Whether a part of an optimiser's state is one number."""
    return not isinstance(subtree, list | dict | tuple) and hasattr(subtree, "dtype") and jnp.shape(subtree) == ()


def critical_curvature(
    coordinate: Coordinate, kept: Float[Array, "leaves"], rest: list[Any] | None
) -> Float[Array, ""]:
    """The threshold of one coordinate with the hyperparameters and counters given."""
    return _first_crossing(*_linear_step(coordinate, kept, rest))


def _linear_step(
    coordinate: Coordinate, kept: Float[Array, "leaves"], rest: list[Any] | None
) -> tuple[Float[Array, "dim dim"], Float[Array, "dim"], Bool[Array, ""]]:
    """(drift, push, whether they mean something): one step on (s/2) w^2 is z -> (I + drift + s push e_0^T) z."""
    before, age = coordinate.clock(rest)
    reference = coordinate.reference(kept, before, age)
    x, exists = coordinate.before_freezing(reference, kept, before)
    drift, push, smooth = _linearise(coordinate, x, before)
    if rest is None:
        exists = exists & coordinate.has_limit(x, before)
    return drift, push, exists & smooth & jnp.all(jnp.isfinite(drift)) & jnp.all(jnp.isfinite(push))


def _linearise(
    coordinate: Coordinate, x: Float[Array, "leaves"], before: list[Any]
) -> tuple[Float[Array, "dim dim"], Float[Array, "dim"], Bool[Array, ""]]:
    """(d z'/d z - I, d z'/d g, whether finite differences agree) for z = (w, odd leaves), the other leaves held."""
    moving = coordinate.moving
    odd = jnp.concatenate([jnp.ones((1,), bool), coordinate.odd])[moving]
    z = jnp.concatenate([jnp.zeros((1,), x.dtype), x])
    zero = jnp.zeros((), x.dtype)

    def change(y: Array, g: Array) -> Array:
        full = z.at[moving].set(y)
        update, after = coordinate.advance(full[0], full[1:], g, before)
        return jnp.where(odd, jnp.concatenate([update[None], after - full[1:]])[moving], -y)

    y = z[moving]
    directions = jnp.eye(y.size, dtype=x.dtype) * odd
    drift = jax.vmap(lambda v: jax.jvp(lambda u: change(u, zero), (y,), (v,))[1], out_axes=1)(directions)
    # A leaf that is held is a multiplier 0 of its own.
    drift = jnp.where(odd[:, None] & odd, drift, jnp.diag(jnp.where(odd, 0, -jnp.ones_like(y))))
    push = jax.jvp(lambda g: change(y, g), (zero,), (jnp.ones_like(zero),))[1]
    push = jnp.where(odd, push, 0)
    return drift, push, _is_smooth(lambda v, g: jnp.where(odd, change(y + v, g), 0), drift, push, odd)


def _is_smooth(
    change: Any, drift: Float[Array, "dim dim"], push: Float[Array, "dim"], odd: Bool[Array, "dim"]
) -> Bool[Array, ""]:
    """Whether secants of a small size agree with the derivative: not so for signs, norms and ratios of norms."""
    h = 1e-4
    direction = jnp.where(odd, jnp.cos(1.0 + jnp.arange(push.size)), 0).astype(push.dtype)
    still = change(0 * direction, jnp.zeros((), push.dtype))
    rounding = 64 * float(jnp.finfo(push.dtype).eps)
    good = jnp.asarray(True)
    for sign in (1.0, -1.0):
        secant = change(h * direction, jnp.asarray(sign * h, push.dtype)) - still
        tangent = h * (jnp.matmul(drift, direction, precision="highest") + sign * push)
        size = h * (jnp.abs(drift) @ jnp.abs(direction) + jnp.abs(push))
        # The first row is the update itself, the others are differences of two states.
        cancelled = rounding * h * jnp.abs(direction).at[0].set(0)
        close = jnp.abs(secant - tangent) <= 0.01 * size + rounding * jnp.abs(still) + cancelled
        good = good & jnp.all(close)
    return good


@jax.jit
def _first_crossing(
    drift: Float[Array, "dim dim"], push: Float[Array, "dim"], valid: Bool[Array, ""]
) -> Float[Array, ""]:
    """Smallest s at which I + drift + s push e_0^T has a multiplier on the unit circle."""
    dtype = push.dtype
    # The multiplier of w is 1 at s = 0 and others may stay there: a slightly larger disc tells growth from rounding.
    margin = 64 * float(jnp.finfo(dtype).eps)
    p, q = (_shrink(line, margin) for line in characteristic_line(drift, push))

    def stable(s: Array) -> Array:
        return inside_unit_circle(p + s * q)

    size = jnp.max(jnp.abs(_answers(drift, push)))
    scale = 1 / jnp.where(size == 0, 1, size)
    exponents = jnp.linspace(-_DECADES, _DECADES, 2 * _DECADES * _PER_DECADE + 1, dtype=dtype)
    grid = scale * 10**exponents
    unstable = ~jax.vmap(stable)(grid)
    first = jnp.argmax(unstable)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) / 2
        good = stable(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    ends = (grid[jnp.maximum(first - 1, 0)], grid[first])
    low, high = jax.lax.fori_loop(0, jnp.finfo(dtype).nmant, halve, ends)
    s = _exact_crossing(drift, push, low + (high - low) / 2, margin)
    s = jnp.where(first == 0, 0, s)
    s = jnp.where(jnp.any(unstable) & (size > 0), s, jnp.inf)
    return jnp.where(valid, s, jnp.nan)


def _shrink(coefficients: Float[Array, "degree+1"], margin: float) -> Float[Array, "degree+1"]:
    """The polynomial of (I + a) / (1 + margin) - I, up to a factor, from that of a."""
    powers = [(1 + margin) ** k for k in range(coefficients.size)]
    return shifted(coefficients, margin) * jnp.asarray(powers, coefficients.dtype)


def _answers(drift: Float[Array, "dim dim"], push: Float[Array, "dim"]) -> Float[Array, "dim"]:
    """The answer of w to a unit gradient, 1, 2, ..., dim steps later, without what w itself carries on."""
    answers, v = [], push
    for _ in range(push.size):
        answers.append(v[0])
        v = v.at[0].set(0)
        v = v + jnp.matmul(drift, v, precision="highest")
    return jnp.stack(answers)


def _exact_crossing(
    drift: Float[Array, "dim dim"], push: Float[Array, "dim"], s: Float[Array, ""], margin: float
) -> Float[Array, ""]:
    """The curvature near `s` with a multiplier -1 or 1 if there is one, else `s`: determinants are affine in it."""
    p, q = characteristic_line(drift, push)
    # A multiplier of 1 leaves the wider disc at a curvature that is larger by the margin over its speed.
    delay = 4 * margin * jnp.abs(p[1] / jnp.where(q[0] == 0, 1, q[0]))
    for y, absolute in ((0.0, delay), (-2.0, 0.0)):
        powers = jnp.asarray([y**k for k in range(p.size)], p.dtype)
        slope = jnp.sum(q * powers)
        exact = jnp.maximum(-jnp.sum(p * powers) / jnp.where(slope == 0, 1, slope), 0)
        s = jnp.where((slope != 0) & (jnp.abs(exact - s) <= margin**0.5 * s + absolute), exact, s)
    return s
