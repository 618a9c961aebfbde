"""How wide the state of a model has to be for its input and output."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_that, found, is_concrete
from ..networks import DenseResNet, NeuralDDE, NeuralODE, ResNet
from ._classify_hypotheses import affine_part
from ._classify_profile import rank

_MODELS = (NeuralODE, NeuralDDE, ResNet, DenseResNet)


class WidthAudit(eqx.Module):
    """Whether a state of width m suffices for maps from R^d to R^q.

    Attributes:
        widths: (d, m, q).
        minimal_state: d + q, from which every map is embedded exactly.
        missing: how many dimensions the state lacks, 0 if none.
        universal: m >= d + q.
        rank_lower_bound: the rank that the derivative of the map has at every point, at least: rank W + rank V - m. A map whose
            derivative falls below it somewhere cannot be represented.
        lift_rank: rank of W, of the model or (for widths alone) min(d, m).
        readout_rank: rank of V, likewise min(q, m).
        statement: the same in a sentence.
    """

    widths: tuple[int, int, int] = eqx.field(static=True)
    minimal_state: int = eqx.field(static=True)
    missing: int = eqx.field(static=True)
    universal: bool = eqx.field(static=True)
    rank_lower_bound: int = eqx.field(static=True)
    lift_rank: int = eqx.field(static=True)
    readout_rank: int = eqx.field(static=True)
    statement: str = eqx.field(static=True)

    def __str__(self) -> str:
        return f"WidthAudit({self.widths}: {self.statement})"


def width_audit(model_or_widths: Any) -> WidthAudit:
    r"""Whether the state of a neural ODE is wide enough, and what it cannot do where it is not.

    $$m \ge d + q:\ \text{every } \Psi \in C^k(\mathbb R^d, \mathbb R^q) \text{ is embedded exactly;}\qquad
      \operatorname{rank} D\Phi(x) \ge \operatorname{rank} W + \operatorname{rank} V - m \text{ for all } x.$$

    For q = 1 and d <= m < d + 1, i.e. m = d, the second says that there is no critical point. The rank inequality (Sylvester)
    needs an invertible derivative from the first to the last state: always for neural ODEs, below the memory threshold for delay
    equations, and for residual networks whose layers are invertible. Above the threshold a delay equation needs no more
    than m = max(d, q) (`DelayEmbedding`).

    Args:
        model_or_widths: a `NeuralODE`, `NeuralDDE`, `ResNet` or `DenseResNet`, whose ranks are those of its actual weights, or
            (d, m, q).

    Returns:
        A `WidthAudit`.

    Raises:
        TypeError: if it is neither; for an `MLP` see `classify`.
        ValueError: if the widths are not three positive integers.

    Example:
        ```python
        dj.propagation.width_audit((2, 3, 2)).minimal_state          # 4
        dj.propagation.width_audit((2, 3, 2)).rank_lower_bound       # 1
        ```

    References:
        Kuehn and Kuntz, arXiv:2308.01213 (2023) and arXiv:2507.05164 (2025), theorem 2.6; the rank inequality is derived.
    """
    if isinstance(model_or_widths, _MODELS):
        widths = model_or_widths.widths
        lift_rank, readout_rank = _ranks(model_or_widths)
    else:
        widths = _widths(model_or_widths)
        lift_rank, readout_rank = min(widths[0], widths[1]), min(widths[1], widths[2])
    d, m, q = widths
    least = max(lift_rank + readout_rank - m, 0)
    return WidthAudit(
        widths=widths,
        minimal_state=d + q,
        missing=max(d + q - m, 0),
        universal=m >= d + q,
        rank_lower_bound=least,
        lift_rank=lift_rank,
        readout_rank=readout_rank,
        statement=_statement(d, m, q, least),
    )


def _statement(d: int, m: int, q: int, least: int) -> str:
    if m >= d + q:
        return f"m = {m} >= d + q = {d + q}: every map is embedded exactly"
    verb = "obstructed" if m >= d else "non-augmented"
    text = f"{verb}, m = {m} < d + q = {d + q}: take m >= {d + q}"
    if least == 0:
        return f"{text}; the ranks of these weights exclude no map by themselves"
    return f"{text}; no map whose derivative has a rank below {least} at some point can be represented"


def _widths(value: Any) -> tuple[int, int, int]:
    named = "be a NeuralODE, NeuralDDE, ResNet or DenseResNet, or the widths (d, m, q)"
    check_that(isinstance(value, Sequence), "model_or_widths", named, found(value), TypeError)
    good = len(value) == 3 and all(isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in value)
    check_that(good, "model_or_widths", "be three positive integers (d, m, q)", f"found {value!r}")
    d, m, q = value
    return d, m, q


def _ranks(model: Any) -> tuple[int, int]:
    check_that(is_concrete(model), "model_or_widths", "have known weights", "they are traced", TypeError)
    d, m, _ = model.widths
    dtype = jnp.result_type(*(leaf for leaf in jax.tree_util.tree_leaves(model) if eqx.is_inexact_array(leaf)))
    eps = float(jnp.finfo(dtype).eps)
    parts = []
    for layer, size, name in ((model.lift, d, "lift"), (model.readout, m, "readout")):
        weight, affine = affine_part(layer, size, dtype)
        check_that(affine, "model_or_widths", f"have an affine {name}", "its Jacobian is not constant")
        parts.append(rank(np.asarray(weight), eps))
    return parts[0], parts[1]
