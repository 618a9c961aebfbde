"""The Morse class that an architecture allows: theorem, hypotheses checked on the weights, and what is found in a box."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._core import check_positive, check_that, found, is_concrete
from ..networks import MLP, DenseResNet, NeuralDDE, NeuralODE, ResNet
from ._classify_bounds import GradientBound, perceptron_bound
from ._classify_flow import Finding, classify_flow
from ._classify_hypotheses import Hypothesis, activation_hypotheses, rank_hypothesis
from ._classify_profile import CONSTANT, FIBRES, UNKNOWN, Profile, Verdict, full_rank_form, verdict
from ._critical_points import CriticalPoints, as_landscape, critical_points

_MODELS = (MLP, NeuralODE, NeuralDDE, ResNet, DenseResNet)


class Classification(eqx.Module):
    """What the theory says about the critical points of a model, and what is found.

    C1: no critical point. C2: all critical points are nondegenerate (a Morse function), and there is one. C3: one is degenerate.

    Attributes:
        classes: the smallest set that holds the class of the map for almost every choice of weights of this kind.
        architecture: "non-augmented", "augmented", "bottleneck", "degenerate", "constant" or "undecided".
        theorem: the statement used, with its source; [derived] marks what is proved for this package and not in a paper.
        hypotheses: what the theorem asks, each checked on the actual weights.
        normal_form: for perceptrons the widths of the full-rank form, else the widths of the model.
        certificate: a lower bound of the gradient, for non-augmented models where one is known.
        empirical: the critical points in the box, if one was given.
    """

    classes: frozenset[str] = eqx.field(static=True)
    architecture: str = eqx.field(static=True)
    theorem: str = eqx.field(static=True)
    hypotheses: tuple[Hypothesis, ...]
    normal_form: tuple[int, ...] = eqx.field(static=True)
    certificate: GradientBound | None
    empirical: CriticalPoints | None

    @property
    def conditional(self) -> bool:
        """Whether a hypothesis could not be decided; the verdict then rests on it."""
        return any(h.holds is None for h in self.hypotheses)

    @property
    def consistent(self) -> bool | None:
        """Whether what is found in the box agrees with `classes`; None without a box."""
        return None if self.empirical is None else self.empirical.morse_class in self.classes

    def __str__(self) -> str:
        lines = [f"Classification({self.architecture}: {' or '.join(sorted(self.classes))})", self.theorem]
        lines += [f"  {h}" for h in self.hypotheses]
        lines += [f"  {part}" for part in (self.certificate, self.empirical) if part is not None]
        return "\n".join(lines)


def classify(
    model: Any,
    *,
    box: tuple[Any, Any] | None = None,
    key: PRNGKeyArray | None = None,
    lipschitz: float | None = None,
    **search: Any,
) -> Classification:
    r"""Which of the classes C1 (no critical point), C2 (Morse) and C3 (degenerate) the architecture of a model allows.

    | model | condition | classes |
    |---|---|---|
    | `MLP` | widths do not increase | C1 |
    | | widths rise, then fall | C1, C2 |
    | | a layer narrower than an earlier and a later one | C1, C2, C3 |
    | | the input layer loses rank: rank W_1 < min(n_0, n_1) | C1, C3 |
    | `NeuralODE` | m <= d, rank W = m, V not 0 | C1 |
    | | m > d, rank W = d, V not 0 | C1, C2 |
    | | rank W < min(m, d) | C1, C3 |
    | `ResNet`, `DenseResNet` | layers too weak to merge states (certified) | as `NeuralODE` |
    | `NeuralDDE` | K tau below `memory_threshold(T / tau)` (certified) | as `NeuralODE` |
    | any | V = 0, or another matrix is 0 | C3 |
    | any | otherwise, or a hypothesis fails | C1, C2, C3 |

    Matrices of an `MLP` that do not have full rank are first replaced by products of matrices that do, which inserts a narrower
    linear layer; superfluous neurons are removed. Ranks count singular values above max(shape) eps of the largest.

    A bottleneck that is narrower than the input before any rise makes the map constant on fibres, so that of its three classes C2
    does not occur; `.theorem` says so.

    C1 of non-augmented models holds for all weights that satisfy the hypotheses, C2 of augmented ones for almost all.

    Args:
        model: an `MLP`, `NeuralODE`, `NeuralDDE`, `ResNet` or `DenseResNet` with one output.
        box: (lower, upper): also run `critical_points` there, and bound the gradient of a non-augmented `MLP`.
        key: seeds that search; `jax.random.key(0)` by default.
        lipschitz: a Lipschitz constant of the field (of the field without the factor `step`, for residual networks) in
            the Euclidean norm, where the certified one is unknown or too large.
        **search: further arguments of `critical_points`.

    Returns:
        A `Classification`.

    Raises:
        TypeError: if the model is of another kind, or its weights are traced.
        ValueError: if the model has several outputs: Morse theory is about scalar maps. See `width_audit`.

    Example:
        ```python
        report = dj.classify(dj.MLP((2, 8, 1), key=jax.random.key(0)), box=([-2, -2], [2, 2]))
        report.classes                                    # frozenset({"C1", "C2"})
        print(report)
        ```

    References:
        Kuehn and Kuntz, arXiv:2405.09351 (2024), arXiv:2308.01213 (2023), arXiv:2505.07244 (2025); Kurochkin (2021).
    """
    names = ", ".join(f"`{kind.__name__}`" for kind in _MODELS)
    check_that(isinstance(model, _MODELS), "model", f"be one of {names}", found(model), TypeError)
    check_that(
        is_concrete(model), "model", "have known weights, since this is a host function", "they are traced", TypeError
    )
    outputs = model.widths[-1]
    check_that(
        outputs == 1,
        "model",
        "have one output, since Morse theory is about scalar maps",
        f"found {outputs}; see `width_audit`",
    )
    if lipschitz is not None:
        check_positive(lipschitz, "lipschitz")
    corners = None if box is None else _corners(model, box)
    finding, normal_form = _find(model, corners, lipschitz)
    empirical = None
    if corners is not None:
        empirical = critical_points(model, *corners, key=jax.random.key(0) if key is None else key, **search)
    return Classification(
        classes=finding.verdict.classes,
        architecture=finding.verdict.architecture,
        theorem=finding.verdict.theorem,
        hypotheses=finding.hypotheses,
        normal_form=normal_form,
        certificate=finding.certificate,
        empirical=empirical,
    )


def _corners(model: Any, box: Any) -> tuple[np.ndarray, np.ndarray]:
    good = isinstance(box, (tuple, list)) and len(box) == 2
    check_that(good, "box", "be a pair (lower, upper)", found(box))
    landscape = as_landscape(model, *box)
    return landscape.lower, landscape.upper


def _find(model: Any, box: Any, lipschitz: float | None) -> tuple[Finding, tuple[int, ...]]:
    if not isinstance(model, MLP):
        return classify_flow(model, lipschitz), model.widths
    weights = [np.asarray(w, np.float64) for w in model.weights]
    eps = float(jnp.finfo(model.weights[0].dtype).eps)
    profile = full_rank_form(weights, eps)
    return _perceptron(model, profile, box), profile.widths


def _perceptron(model: MLP, profile: Profile, box: Any) -> Finding:
    if profile.constant:
        nonzero = Hypothesis("no matrix is zero", False, "a matrix is zero, or no neuron connects input and output")
        return Finding(Verdict("constant", frozenset({"C3"}), CONSTANT), (nonzero,), None)
    result = verdict(profile.widths)
    activation: list[Hypothesis] = []
    if len(profile.matrices) > 1:
        order = 2 if result.architecture == "augmented" else 1
        activation = activation_hypotheses(model.activation, order, monotone=True)
    hypotheses = (*_profile_hypotheses(model, profile), *activation)
    # Fibres of the first matrix need no activation: the map is constant along its kernel.
    lost = profile.ranks[0] < profile.widths[0]
    if any(h.holds is False for h in activation):
        general = Verdict("undecided", frozenset({"C1", "C2", "C3"}), UNKNOWN)
        result = Verdict("degenerate", frozenset({"C1", "C3"}), FIBRES) if lost else general
    elif profile.ranks[0] < min(profile.matrices[0].shape):
        fibres = Verdict("degenerate", frozenset({"C1", "C3"}), FIBRES)
        result = fibres if result.architecture == "bottleneck" else result._replace(architecture="degenerate")
    certificate = None
    if result.architecture == "non-augmented" and box is not None and not profile.removed:
        biases = [None if b is None else np.asarray(b, np.float64) for b in model.biases]
        certificate = perceptron_bound(profile.matrices, biases, model.activation, box)
    return Finding(result, hypotheses, certificate)


def _profile_hypotheses(model: MLP, profile: Profile) -> list[Hypothesis]:
    """Ranks of the matrices, and what had to be done to have full rank."""
    ranks = [
        rank_hypothesis(f"the matrix W_{k + 1} has full rank", r, min(m.shape), m.shape)
        for k, (m, r) in enumerate(zip(profile.matrices, profile.ranks, strict=True))
    ]
    if profile.widths == tuple(model.widths):
        detail = f"{profile.widths}"
    else:
        detail = f"{model.widths} has the full-rank form {profile.widths}, {profile.removed} neurons removed"
    return [Hypothesis("the widths are those of the theorem", True, detail), *ranks]
