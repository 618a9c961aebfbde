"""Multilayer perceptrons: the width profile of the full-rank form, and the class that it forces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Profile(NamedTuple):
    """A perceptron without superfluous neurons, in which every matrix has full rank.

    Attributes:
        widths: layer widths. A matrix of rank r below both of its sides is the product of two of full rank, with one more
            layer of width r between them, which is linear.
        matrices: the matrices after superfluous neurons were removed, before that factorisation.
        ranks: their ranks.
        removed: neurons that see nothing or are not seen.
        constant: whether the output does not depend on the input at all.
    """

    widths: tuple[int, ...]
    matrices: tuple[np.ndarray, ...]
    ranks: tuple[int, ...]
    removed: int
    constant: bool


class Verdict(NamedTuple):
    """The class of a width profile."""

    architecture: str
    classes: frozenset[str]
    theorem: str


def rank(matrix: np.ndarray, eps: float) -> int:
    """The numerical rank: singular values above max(shape) eps of the largest."""
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return int(np.sum(values > max(matrix.shape) * eps * values[0])) if values.size and values[0] > 0 else 0


def full_rank_form(weights: Sequence[np.ndarray], eps: float) -> Profile:
    """Remove neurons whose row of incoming or column of outgoing weights is zero; then factor what is not of full rank."""
    matrices = [np.asarray(w, np.float64) for w in weights]
    removed = 0
    while True:
        alive = [
            np.any(before != 0, axis=1) & np.any(after != 0, axis=0)
            for before, after in zip(matrices[:-1], matrices[1:], strict=True)
        ]
        dead = sum(int(np.sum(~a)) for a in alive)
        if not dead:
            break
        removed += dead
        for layer, a in enumerate(alive):
            matrices[layer], matrices[layer + 1] = matrices[layer][a], matrices[layer + 1][:, a]
    if any(m.size == 0 or not np.any(m) for m in matrices):
        return Profile((matrices[0].shape[1], 0), tuple(matrices), tuple(0 for _ in matrices), removed, True)
    ranks = tuple(rank(m, eps) for m in matrices)
    widths = [matrices[0].shape[1]]
    for matrix, r in zip(matrices, ranks, strict=True):
        widths += [r] * (r < min(matrix.shape)) + [matrix.shape[0]]
    return Profile(tuple(widths), tuple(matrices), ranks, removed, False)


def verdict(widths: Sequence[int]) -> Verdict:
    """The class of almost every perceptron of these widths with full-rank matrices and a strictly monotone C^2 activation."""
    turn = 0
    while turn + 1 < len(widths) and widths[turn + 1] <= widths[turn]:
        turn += 1
    if turn == len(widths) - 1:
        return Verdict("non-augmented", frozenset({"C1"}), NON_AUGMENTED)
    if widths[turn] < widths[0]:
        # The classes are those of all architectures with a bottleneck; the theorem says that C2 does not occur in this one.
        return Verdict("bottleneck", frozenset({"C1", "C2", "C3"}), f"{BOTTLENECK} {FIBRES}")
    peak = turn
    while peak + 1 < len(widths) and widths[peak + 1] >= widths[peak]:
        peak += 1
    if all(b <= a for a, b in zip(widths[peak:], widths[peak + 1 :], strict=False)):
        return Verdict("augmented", frozenset({"C1", "C2"}), AUGMENTED)
    return Verdict("bottleneck", frozenset({"C1", "C2", "C3"}), BOTTLENECK)


NON_AUGMENTED = (
    "Non-augmented perceptron: widths do not increase, all matrices have full rank and the activation is C^1 with a derivative "
    "that does not vanish. The gradient W_1^T D_1 ... W_L^T is a product of injective maps: there is no critical point, for "
    "all such weights (Kuehn and Kuntz, arXiv:2405.09351)."
)
AUGMENTED = (
    "Augmented perceptron: widths rise and then fall, all matrices have full rank and the activation is C^2 and strictly "
    "monotone. For almost every choice of weights all critical points are nondegenerate (Kuehn and Kuntz, arXiv:2405.09351; "
    "Kurochkin 2021: no layer narrower than both of its neighbours)."
)
BOTTLENECK = (
    "Perceptron with a bottleneck: a layer is narrower than an earlier and a later one. All three classes are possible, and "
    "degenerate critical points on sets of weights of positive measure: behind a bottleneck of width 1 the map is g(s(x)), and "
    "g'(s*) = 0 makes the level set {s = s*} critical (Kuehn and Kuntz, arXiv:2405.09351)."
)
FIBRES = (
    "Perceptron that falls below the width of the input before it rises again, by its widths or by the ranks of its matrices: "
    "the map is g(s(x)) with a submersion s to fewer dimensions, so it is constant on the fibres of s and every critical point "
    "is degenerate: C1 or C3 [derived; for a first matrix without full rank Kuehn and Kuntz, arXiv:2405.09351]."
)
CONSTANT = "The output does not depend on the input: every point is a degenerate critical point."
UNKNOWN = "No theorem applies, since a hypothesis fails: all three classes are possible."
