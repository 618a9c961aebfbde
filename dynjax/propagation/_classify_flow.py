"""Models with an affine lift, a flow (or residual layers, or a delay equation) and an affine readout: what is known of each."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..networks import DenseResNet, LipschitzField, MLPField, NeuralDDE, NeuralODE, ResNet, lipschitz_bound
from ._classify_bounds import GradientBound, flow_bound, memory_bound, runge_kutta_excess
from ._classify_hypotheses import Hypothesis, activation_hypotheses, affine_part, rank_hypothesis
from ._classify_profile import CONSTANT, UNKNOWN, Verdict, rank
from ._critical_solution import critical_solution, memory_threshold


class Finding(NamedTuple):
    """A verdict with its evidence."""

    verdict: Verdict
    hypotheses: tuple[Hypothesis, ...]
    certificate: GradientBound | None


class _Ends(NamedTuple):
    """The affine maps at both ends."""

    lift: np.ndarray  # (m, d)
    readout: np.ndarray  # (m,)
    rank: int
    hypotheses: list[Hypothesis]

    @property
    def augmented(self) -> bool:
        """Whether the state is wider than the input."""
        return self.lift.shape[0] > self.lift.shape[1]


def classify_flow(model: Any, lipschitz: float | None) -> Finding:
    """A `NeuralODE`, `ResNet`, `DenseResNet` or `NeuralDDE` with one output."""
    ends = _ends(model)
    if any(h.holds is False for h in ends.hypotheses):
        return Finding(Verdict("undecided", _ALL, UNKNOWN), tuple(ends.hypotheses), None)
    if not np.any(ends.readout) or not np.any(ends.lift):
        return Finding(Verdict("constant", frozenset({"C3"}), CONSTANT), _with_rank(ends), None)
    if isinstance(model, NeuralODE):
        steps, certificate = _ode(model, ends, lipschitz)
        name = "neural ODE"
    elif isinstance(model, NeuralDDE):
        steps, certificate = _delay(model, ends, lipschitz)
        name = "neural delay equation"
    else:
        steps, certificate = _residual(model, ends, lipschitz)
        name = "residual network"
    verdict = _verdict(name, ends, steps)
    if verdict.architecture != "non-augmented":
        certificate = None
    return Finding(verdict, (*_with_rank(ends), *steps), certificate)


_ALL = frozenset({"C1", "C2", "C3"})


def _ends(model: Any) -> _Ends:
    d, m, _ = model.widths
    dtype = jnp.result_type(*(leaf for leaf in jax.tree_util.tree_leaves(model) if eqx.is_inexact_array(leaf)))
    lift, lift_affine = affine_part(model.lift, d, dtype)
    readout, readout_affine = affine_part(model.readout, m, dtype)
    hypotheses = [
        Hypothesis("the lift is affine", lift_affine, "its Jacobian at three points"),
        Hypothesis("the readout is affine", readout_affine, "its Jacobian at three points"),
    ]
    return _Ends(lift, readout[0], rank(lift, float(jnp.finfo(dtype).eps)), hypotheses)


def _with_rank(ends: _Ends) -> tuple[Hypothesis, ...]:
    shape = ends.lift.shape
    nonzero = bool(np.any(ends.readout))
    return (
        *ends.hypotheses,
        rank_hypothesis("the weight W of the lift has full rank", ends.rank, min(shape), shape),
        Hypothesis("the weight V of the readout is not zero", nonzero, f"|V| = {np.linalg.norm(ends.readout):.3g}"),
    )


def _verdict(name: str, ends: _Ends, steps: list[Hypothesis]) -> Verdict:
    """The table of section "Morse" of the theory: by widths and ranks, if the states can be told apart by their ends."""
    d, m = ends.lift.shape[1], ends.lift.shape[0]
    if ends.rank < min(d, m):
        return Verdict("degenerate", frozenset({"C1", "C3"}), _DEGENERATE.format(name=name))
    if any(h.holds is False for h in steps):
        return Verdict("undecided", _ALL, UNKNOWN)
    undecided = [h for h in steps if h.holds is None and not h.name.startswith(("the field", "the activation"))]
    if undecided and name != "neural ODE":
        return Verdict("undecided", _ALL, _UNDECIDED.format(name=name))
    if ends.augmented:
        return Verdict("augmented", frozenset({"C1", "C2"}), _AUGMENTED.format(name=name))
    return Verdict("non-augmented", frozenset({"C1"}), _NON_AUGMENTED[name])


def _smoothness(field: Any, augmented: bool) -> list[Hypothesis]:
    """C^1 makes the flow a diffeomorphism; the Morse property needs C^2."""
    order = 2 if augmented else 1
    if isinstance(field, MLPField):
        return activation_hypotheses(field.mlp.activation, order, monotone=False)
    if isinstance(field, LipschitzField):
        return activation_hypotheses(field.activation, order, monotone=False)
    return [Hypothesis(f"the field is C^{order} in the state", None, "a field of the caller's own")]


def certified_lipschitz(field: Any, norm: str, given: float | None) -> tuple[float | None, str]:
    """A Lipschitz constant of a field: the caller's, or the certified bound where there is one."""
    if given is not None:
        return float(given), "given by the caller"
    try:
        return float(lipschitz_bound(field, norm)), f"certified by `lipschitz_bound`, {norm} norm"
    except (TypeError, ValueError):
        return None, "no bound of the field is known; pass `lipschitz`"


def _ode(model: NeuralODE, ends: _Ends, given: float | None) -> tuple[list[Hypothesis], GradientBound | None]:
    steps = _smoothness(model.field, ends.augmented)
    constant, source = certified_lipschitz(model.field, "euclidean", given)
    horizon = float(model.horizon)
    if model.num_steps is None:
        detail = f"adaptive {type(model.solver).__name__}: the statement is about the exact flow"
        steps.append(Hypothesis("the flow is a diffeomorphism", True, detail))
    else:
        excess = None if constant is None else runge_kutta_excess(constant * horizon / model.num_steps)
        holds = True if excess is not None and excess < 1 else None
        detail = source if excess is None else f"Kh + ... + (Kh)^4/24 = {excess:.3g}, K = {constant:.3g} {source}"
        steps.append(Hypothesis("each Runge-Kutta step is a diffeomorphism", holds, f"if below 1: {detail}"))
    bound = None
    if constant is not None:
        bound = flow_bound(ends.lift, ends.readout, constant, horizon, model.num_steps)
    return steps, bound


def _residual(
    model: ResNet | DenseResNet, ends: _Ends, given: float | None
) -> tuple[list[Hypothesis], GradientBound | None]:
    """w_{l+1} = w_l - step K_l w_{l-memory}, w = 1 before: while positive, states differ by w_l of what they did at first."""
    steps = activation_hypotheses(model.layers.activation, 2 if ends.augmented else 1, monotone=False)
    memory = model.memory if isinstance(model, DenseResNet) else 0
    constants = [_layer_lipschitz(model, layer, memory, given) for layer in range(model.depth)]
    name = "no two states can merge in the layers"
    known = [c for c in constants if c is not None]
    if len(known) < len(constants):
        return [*steps, Hypothesis(name, None, "no Lipschitz constant of a layer is known; pass `lipschitz`")], None
    decay = [1.0] * (memory + 1)
    for constant in known:
        decay.append(decay[-1] - float(model.step) * constant * decay[-1 - memory])
    positive = min(decay) > 0
    largest = max(known)
    detail = f"w_L = {decay[-1]:.3g} > 0" if positive else "w reaches 0"
    text = f"{detail} for w_(l+1) = w_l - step K_l w_(l-memory), memory {memory}, largest K_l = {largest:.3g}"
    steps.append(Hypothesis(name, True if positive else None, text))
    formula = "sigma_min(W) w_L |V| with w_(l+1) = w_l - step K_l w_(l-memory) [derived]"
    bound = memory_bound(ends.lift, ends.readout, largest, decay[-1], "euclidean", formula) if positive else None
    return steps, bound


def _layer_lipschitz(model: ResNet | DenseResNet, layer: int, memory: int, given: float | None) -> float | None:
    """The constant of one layer with respect to the largest of the Euclidean norms of the states that it sees."""
    mlp = jax.tree_util.tree_map(lambda a: a[layer], model.layers)
    field = MLPField(
        model.widths[1],
        num_delays=memory,
        hidden=mlp.widths[1:-1],
        activation=mlp.activation,
        key=jax.random.key(0),
    )
    return certified_lipschitz(eqx.tree_at(lambda f: f.mlp, field, mlp), "euclidean", given)[0]


def _delay(model: NeuralDDE, ends: _Ends, given: float | None) -> tuple[list[Hypothesis], GradientBound | None]:
    """Below the memory threshold the map from the constant past to y(T) has an inverse with constant 1 / w(T)."""
    steps = _smoothness(model.field, ends.augmented)
    delay, horizon = float(jnp.max(model.delays)), float(model.horizon)
    threshold = float(memory_threshold(horizon / delay))
    name = "the memory capacity K tau is below the threshold"
    options = []
    for norm in ("euclidean", "sup") if given is None else ("euclidean",):
        constant, source = certified_lipschitz(model.field, norm, given)
        if constant is not None:
            options.append((constant, norm, source))
    if not options:
        return [*steps, Hypothesis(name, None, "no bound of the field is known; pass `lipschitz`")], None
    best, norm, source = min(options)
    below = best * delay < threshold
    detail = f"K tau = {best * delay:.4g}, threshold {threshold:.6g} at T/tau = {horizon / delay:.4g}; K {source}"
    steps.append(Hypothesis(name, True if below else None, detail))
    if not below:
        return steps, None
    formula = "sigma_min(W) w(T) |V|, for the exact solution, w' = -K w(t - tau), w = 1 on the past [derived]"
    bounds = [
        memory_bound(ends.lift, ends.readout, k, float(critical_solution(k * delay, horizon / delay)), n, formula)
        for k, n, _ in options
        if k * delay < threshold
    ]
    return steps, max((b for b in bounds if b is not None), key=lambda b: b.value, default=None)


_DEGENERATE = (
    "Degenerate {name}: the weight of the lift does not have full rank, so the map is constant along its kernel and every "
    "critical point is degenerate: C1 or C3 (for neural ODEs Kuehn and Kuntz, arXiv:2405.09351; here [derived])."
)
_AUGMENTED = (
    "Augmented {name}: m > d, W has full rank, V is not zero, and the map from x to the last state is a C^2 immersion. For "
    "almost every readout V all critical points are nondegenerate, by parametric transversality: d/dV of W^T J^T V has rank d "
    "[derived; for neural ODEs Kuehn and Kuntz, arXiv:2405.09351]."
)
_NON_AUGMENTED = {
    "neural ODE": (
        "Non-augmented neural ODE: m <= d, W has full rank, V is not zero and the flow is a diffeomorphism with derivative J. "
        "The gradient W^T J^T V^T is a product of injective maps: there is no critical point, for all such weights "
        "(Kuehn and Kuntz, arXiv:2405.09351; arXiv:2507.05164)."
    ),
    "residual network": (
        "Non-augmented residual network whose layers are too weak to merge two states: m <= d, W has full rank and V is not "
        "zero. Its derivative from state to state is invertible, so there is no critical point [derived]."
    ),
    "neural delay equation": (
        "Non-augmented neural delay equation below the memory threshold: K tau is less than `memory_threshold(T / tau)`, m <= d, "
        "W has full rank and V is not zero. Constant pasts cannot merge before T, so the derivative of y(T) is invertible and "
        "there is no critical point [derived; for small K tau Kuehn and Kuntz, arXiv:2505.07244]."
    ),
}
_UNDECIDED = (
    "Undecided {name}: it is not certified that different inputs stay apart (Lipschitz constants too large or unknown). "
    "Beyond that such models can have critical points of every kind: all three classes are possible."
)
