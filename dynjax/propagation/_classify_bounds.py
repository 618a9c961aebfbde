"""Lower bounds of the gradient: certificates that a map has no critical point, with a margin."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._interval_program import IntervalProgram
from ._interval_rules import Unsupported
from ._intervals import Interval, add, contract, point

_PIECES = 64


class GradientBound(eqx.Module):
    """|grad Phi(x)| >= value, for all x in the domain of validity, up to the rounding of the weights' singular values.

    Attributes:
        value: the bound.
        domain: "everywhere" or "the box".
        lipschitz: the Lipschitz constants it rests on, the largest one; None where it rests on none.
        exact_flow: for neural ODEs with fixed steps the bound for the exact flow, while `value` is for the steps taken.
        statement: the formula.
    """

    value: float = eqx.field(static=True)
    domain: str = eqx.field(static=True)
    lipschitz: float | None = eqx.field(static=True)
    exact_flow: float | None = eqx.field(static=True)
    statement: str = eqx.field(static=True)

    def __str__(self) -> str:
        return f"GradientBound(|grad| >= {self.value:.3e} {self.domain}; {self.statement})"


def perceptron_bound(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray | None],
    activation: Callable[[Any], Any],
    box: tuple[np.ndarray, np.ndarray],
) -> GradientBound | None:
    """For a non-augmented perceptron: product of the smallest singular values and of min |act'| over what each layer sees."""
    slope = jax.grad(lambda z: jnp.reshape(activation(z), ()))
    try:
        program = IntervalProgram(
            lambda z: (jnp.reshape(activation(z), ()), slope(z)), jax.ShapeDtypeStruct((), jnp.result_type(float))
        )
        value = _least_slopes(weights, biases, program, box)
    except Unsupported:
        return None
    for weight in weights:
        value *= float(np.linalg.svd(np.asarray(weight, np.float64), compute_uv=False)[-1])
    statement = "product of sigma_min(W_l) and of min |act'| over the box, enclosed by interval arithmetic"
    return GradientBound(value, "in the box", None, None, statement) if value > 0 else None


def _least_slopes(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray | None],
    program: IntervalProgram,
    box: tuple[np.ndarray, np.ndarray],
) -> float:
    """The product over layers of the smallest |act'| that any neuron of the layer can have."""
    seen = Interval(np.asarray(box[0], np.float64), np.asarray(box[1], np.float64), False)
    product = 1.0
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        before = contract("ij,j->i", point(weight), seen)
        if bias is not None:
            before = add(before, point(bias))
        ends = np.linspace(before.lo, before.hi, _PIECES + 1, axis=1)
        ends[:, -1] = before.hi
        (value, slope), _ = program(ends[:, :-1].ravel(), ends[:, 1:].ravel())
        shape = (before.lo.shape[0], _PIECES)
        least = np.maximum(np.maximum(slope.lo, -slope.hi), 0).reshape(shape).min()
        product *= float(least)
        seen = Interval(value.lo.reshape(shape).min(axis=1), value.hi.reshape(shape).max(axis=1), False)
    return product


def flow_bound(
    lift: np.ndarray, readout: np.ndarray, lipschitz: float, horizon: float, num_steps: int | None
) -> GradientBound | None:
    """sigma_min(W) exp(-K T) |V|; with N Runge-Kutta steps of size h, (1 - Kh - ... - (Kh)^4/24)^N in place of exp(-K T)."""
    ends = _ends(lift, readout)
    exact = ends * float(np.exp(-lipschitz * horizon))
    formula = "sigma_min(W) exp(-K T) |V| [derived, Gronwall]"
    if num_steps is None:
        return GradientBound(exact, "everywhere", lipschitz, exact, formula) if exact > 0 else None
    kept = 1 - runge_kutta_excess(lipschitz * horizon / num_steps)
    value = ends * kept**num_steps if kept > 0 else 0.0
    formula = "sigma_min(W) (1 - Kh - (Kh)^2/2 - (Kh)^3/6 - (Kh)^4/24)^N |V| for the N steps that are taken [derived]"
    return GradientBound(value, "everywhere", lipschitz, exact, formula) if value > 0 else None


def runge_kutta_excess(kh: float) -> float:
    """A Lipschitz constant of the classical Runge-Kutta increment: step(h) - h, for K times the step."""
    return kh + kh**2 / 2 + kh**3 / 6 + kh**4 / 24


def memory_bound(
    lift: np.ndarray, readout: np.ndarray, lipschitz: float, decay: float, norm: str, formula: str
) -> GradientBound | None:
    """sigma_min(W) w |V|, where two states differ by at least w of what they differed at the start, in the given norm.

    In the sup norm J^-1 has norm at most 1/w, so J^-T has it in the 1-norm, and |J^T V|_2 >= w |V|_1 / sqrt(m).
    """
    scale = float(np.abs(readout).sum() / np.sqrt(readout.size)) if norm == "sup" else float(np.linalg.norm(readout))
    smallest = float(np.linalg.svd(lift, compute_uv=False)[-1])
    value = smallest * decay * scale
    return GradientBound(value, "everywhere", lipschitz, None, formula) if value > 0 else None


def _ends(lift: np.ndarray, readout: np.ndarray) -> float:
    return float(np.linalg.svd(lift, compute_uv=False)[-1] * np.linalg.norm(readout))
