"""What a neural delay equation can represent, from its memory capacity K tau."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_that, found, is_concrete
from ..networks import LipschitzField, lipschitz_bound
from ._critical_solution import memory_threshold
from ._delay_embedding import plan_phases
from ._obstruction import extremum_error_bound, monotone_error_bound
from ._sampled_lipschitz import sampled_lipschitz
from ._target import Target, as_box, box_points, steepest


class MemoryCapacity(eqx.Module):
    """Memory capacity of a model, and what follows from it.

    Attributes:
        memory: K tau with the upper bound for K; infinite where none is known.
        memory_lower: K tau with the lower bound.
        critical_memory: the threshold for this T / tau.
        horizon_over_delay: T / tau, for the largest delay; infinite without delay.
        lipschitz_upper: the hard bound of the field, whatever its parameters, or else a certified one from its parameters.
        lipschitz_lower: the largest derivative of the field at sampled states.
        error_bound: for a target, a lower bound on the largest error of every such model; 0 where it can be embedded, NaN where
            nothing is known or no target is given.
        mean_square_bound: likewise for the mean square error, uniform on the interval; NaN if the target is given by its gap.
        gain: product of the gains of lift and readout in the explicit embedding, where there is one: for the target if that is a
            function, else per unit of its Lipschitz constant; NaN where there is none.
        verdict: one sentence.
        kind: "injective", "embeddable", "undecided", "narrow" or "degenerate".
        hard: whether the upper bound holds for all parameters.
        augmented: whether the state is wider than the input.
    """

    memory: Float[Array, ""]
    memory_lower: Float[Array, ""]
    critical_memory: Float[Array, ""]
    horizon_over_delay: Float[Array, ""]
    lipschitz_upper: Float[Array, ""]
    lipschitz_lower: Float[Array, ""]
    error_bound: Float[Array, ""]
    mean_square_bound: Float[Array, ""]
    gain: Float[Array, ""]
    verdict: str = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    hard: bool = eqx.field(static=True)
    augmented: bool = eqx.field(static=True)

    def __str__(self) -> str:
        how = "hard bound" if self.hard else f"at least {float(self.memory_lower):.4g}"
        return (
            f"K tau = {float(self.memory):.4g} ({how}), critical {float(self.critical_memory):.6g} at "
            f"T / tau = {float(self.horizon_over_delay):.4g}: {self.verdict}"
        )


class _Facts(NamedTuple):
    """All that the verdict depends on, as Python numbers."""

    widths: tuple[int, int, int]
    ranks: tuple[int, int] | None
    tau: float
    horizon: float
    critical: float
    upper: float
    strength: float


def memory_capacity(
    model: Any,
    target: Callable[[Any], Any] | float | None = None,
    *,
    lower: Any = -1.0,
    upper: Any = 1.0,
    norm: str | None = None,
    num_samples: int = 1024,
    key: PRNGKeyArray | None = None,
) -> MemoryCapacity:
    r"""The memory capacity K tau of a neural delay equation, and whether its state can merge inputs.

    K is the Lipschitz constant of the field, tau the largest delay, T the horizon, W and V the matrices of lift and readout, and
    d, m, q the lengths of input, state and output. The statements [derived]:

    - K tau below `memory_threshold(T / tau)`: the state at T is an injective function of the initial value, whatever m. If
      m <= d and W, V have full rank, the output then has no strict local extremum in any component. A target with one of height
      `gap` is missed by gap / 2 somewhere; for d = q = 1 the model is monotone (`monotone_error_bound`).
    - K tau above it and m >= max(d, q): some field with this K, tau and T represents any given Lipschitz map exactly
      (`DelayEmbedding`), for large gains of the layers. It says nothing about the present weights, nor about what training finds.
    - m >= d + q: so does some field of any K > 0 (`ShearEmbedding`), with the gain Lip(psi) / (K T).
    - d < m < d + q, below the threshold: the state stays injective, but the output may have extrema. Nothing sharp is known.

    Without delay, for a `NeuralODE`, the memory capacity is 0 and the first statement always holds.

    Where the field has a hard bound, as a `LipschitzField` has, K is that bound and the verdict is about all models with that
    bound. Otherwise K lies between a sampled lower and a certified upper bound for the present weights, and the verdict is
    open if the threshold lies between them.

    Args:
        model: a `NeuralDDE` or `NeuralODE`, or an object with their `lift`, `field`, `readout`, `horizon`, `widths` and `delays`.
        target: a function to be represented, or the height of a strict local extremum of it over the boundary of a ball.
        lower: corner of the box of inputs, a number or `(d,)`.
        upper: the opposite corner.
        norm: "sup" or "euclidean", the norm of K; that of the field by default, else "sup".
        num_samples: states at which the derivative of the field is looked at.
        key: seeds these states; a fixed one by default.

    Returns:
        A `MemoryCapacity`; computed on the host.

    Raises:
        ValueError: if the model is traced, or a target function is given where only the gap of an extremum helps (injective
            models of more than one input or output).
        TypeError: if the model lacks an attribute.

    Example:
        ```python
        model = dj.NeuralDDE((1, 1, 1), delay=1.0, horizon=3.0, lipschitz=0.4, key=key)
        print(dj.memory_capacity(model, lambda x: x**2))
        # K tau = 0.4 (hard bound), critical 0.481987 at T / tau = 3: injective, no local extremum possible;
        # error at least 0.5, mean square at least 0.05625
        ```

    References:
        Kuehn and Kuntz, arXiv:2505.07244 (2025); the sharp threshold is derived here.
    """
    for name in ("lift", "field", "readout", "horizon", "widths"):
        check_that(hasattr(model, name), "model", f"have the attribute `{name}`", found(model), TypeError)
    arrays = eqx.filter((model.field, model.horizon, model.lift), eqx.is_array)
    check_that(is_concrete(arrays), "model", "be concrete", "it is traced")
    check_count(num_samples, "num_samples")
    d, m, _ = model.widths
    delays = getattr(model, "delays", None)
    num_delays = 0 if delays is None else delays.shape[0]
    tau, horizon = (0.0 if delays is None else float(jnp.max(delays))), float(model.horizon)
    norm = getattr(model.field, "norm", "sup") if norm is None else norm
    check_that(norm in ("sup", "euclidean"), "norm", 'be "sup" or "euclidean"', f"found {norm!r}")
    box = as_box(lower, upper, d, model.horizon.dtype)
    scale = jnp.max(jnp.abs(jax.vmap(model.lift)(box_points(*box))))
    key = jax.random.key(0) if key is None else key
    low = float(sampled_lipschitz(model.field, m, num_delays, model.horizon, scale, norm, num_samples, key))
    high, hard = _upper_bound(model.field, norm)
    critical = float(memory_threshold(horizon / tau if tau else math.inf))
    facts = _Facts(model.widths, _ranks(model), tau, horizon, critical, high, high if hard else low)
    kind, verdict = _verdict(facts)
    sup, mean_square, gain = _consequences(kind, facts, target, box, norm)
    words = _with_numbers(verdict, kind, sup, mean_square, gain, target)
    number = lambda value: jnp.asarray(value, model.horizon.dtype)
    return MemoryCapacity(
        number(high * tau if tau else 0.0), number(low * tau), number(critical), number(horizon / tau if tau else math.inf),
        number(high), number(low), number(sup), number(mean_square), number(gain), words, kind, hard, m > d,
    )  # fmt: skip


def _upper_bound(field: Any, norm: str) -> tuple[float, bool]:
    """A bound on K, and whether it holds for all parameters."""
    if isinstance(field, LipschitzField) and field.norm == norm:
        return float(field.lipschitz), True
    try:
        return float(lipschitz_bound(field, norm)), False
    except TypeError:
        return math.inf, False


def _ranks(model: Any) -> tuple[int, int] | None:
    """The ranks of lift and readout, where these are affine."""
    if not all(hasattr(layer, "weight") for layer in (model.lift, model.readout)):
        return None
    lift, readout = (int(np.linalg.matrix_rank(np.asarray(layer.weight))) for layer in (model.lift, model.readout))
    return lift, readout


def _verdict(facts: _Facts) -> tuple[str, str]:
    """Kind and sentence."""
    d, m, q = facts.widths
    if facts.ranks is None:
        return "undecided", "undecided, the layers are not affine"
    if facts.ranks[0] < min(d, m) or facts.ranks[1] < min(m, q):
        return "degenerate", f"degenerate, the layers have the ranks {facts.ranks[0]} and {facts.ranks[1]}"
    below = facts.tau == 0 or facts.upper * facts.tau < facts.critical
    above = facts.tau > 0 and facts.strength * facts.tau > facts.critical
    if m >= d + q:
        if facts.strength > 0:
            return "embeddable", "embeddable by the shear at any K tau"
        return "undecided", "undecided, the field may be constant"
    if m > d:
        if above and m >= q:
            return "embeddable", "embeddable"
        state = "the state stays injective, " if below else ""
        return (
            "undecided",
            f"undecided, {state}but the state is wider than the input and narrower than input and output together",
        )
    if below:
        what = "injective" if m == d else "the state is an injective function of the lifted input"
        return "injective", f"{what}, no local extremum possible"
    if above:
        if m >= max(d, q):
            return "embeddable", "embeddable"
        why = f"the output depends on {m} directions of the input" if m < d else f"the output lies in {m} dimensions"
        return "narrow", f"local extrema are possible, but {why}"
    return "undecided", "undecided, the critical value lies between the bounds for K tau"


def _consequences(
    kind: str, facts: _Facts, target: Any, box: tuple[Array, Array], norm: str
) -> tuple[float, float, float]:
    """Error bounds (uniform, mean square) and gain."""
    d, m, q = facts.widths
    function = callable(target)
    nan = math.nan
    if kind == "injective" and target is not None:
        if not function:
            return float(extremum_error_bound(target)), nan, nan
        check_that(
            d == q == 1, "target", "be the gap of a local extremum for this model", f"it is a function, {d} -> {q}"
        )
        ends = tuple(float(corner[0]) for corner in box)
        bounds = [float(monotone_error_bound(target, *ends, norm=name)) for name in ("sup", "mean_square")]
        return bounds[0], bounds[1], nan
    if kind != "embeddable":
        return nan, nan, nan
    steepness = float(steepest(Target(target, d, q, box[0].dtype), box_points(*box), norm)) if function else 1.0
    if m >= d + q:
        gain = steepness / (facts.strength * facts.horizon)
    else:
        phases = plan_phases(facts.strength, facts.tau, facts.horizon)
        gain = steepness / (facts.strength * facts.tau * phases.length * phases.decay)
    reached = nan if target is None else 0.0
    return reached, (reached if function else nan), gain


def _with_numbers(verdict: str, kind: str, sup: float, mean_square: float, gain: float, target: Any) -> str:
    """The sentence with bounds or gain."""
    if kind == "embeddable":
        return f"{verdict}, gain {gain:.4g}" + ("" if callable(target) else " times the Lipschitz constant of the map")
    if math.isnan(sup):
        return verdict
    return f"{verdict}; error at least {sup:.4g}" + (
        "" if math.isnan(mean_square) else f", mean square at least {mean_square:.4g}"
    )
