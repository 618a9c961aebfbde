"""Explicit Runge-Kutta methods: Butcher tableaux, and one step with its stages unrolled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method.

    Attributes:
        a: rows of the strictly lower triangular matrix; row i has i entries.
        b: weights of the solution.
        c: nodes.
        order: order of convergence.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int


_EULER = Tableau(a=((),), b=(1.0,), c=(0.0,), order=1)
_MIDPOINT = Tableau(a=((), (1 / 2,)), b=(0.0, 1.0), c=(0.0, 1 / 2), order=2)
_HEUN = Tableau(a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), order=2)
_RK4 = Tableau(
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    order=4,
)
# Dormand and Prince (1980); the seventh stage serves error estimates only.
_DOPRI5 = Tableau(
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    order=5,
)
# Tsitouras (2011), table 1; likewise without its seventh stage.
_TSIT5 = Tableau(
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    ),
    b=(
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
    ),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
    order=5,
)

TABLEAUX = {
    "euler": _EULER,
    "midpoint": _MIDPOINT,
    "heun": _HEUN,
    "rk4": _RK4,
    "dopri5": _DOPRI5,
    "tsit5": _TSIT5,
}


def runge_kutta_step(tableau: Tableau, slope: Callable[[float, Any], Any], y: PyTree, h: Array) -> PyTree:
    """One explicit step of size `h`: y + h sum_i b_i k_i with k_i = slope(c_i, y + h sum_j a_ij k_j).

    Args:
        tableau: the method.
        slope: `slope(c, y)`, the time derivative at the time fraction `c` of the step; a pytree like `y`.
        y: the state, a pytree of inexact arrays.
        h: the step.
    """
    slopes: list[PyTree] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        slopes.append(slope(c, shifted(y, h, row, slopes)))
    return shifted(y, h, tableau.b, slopes)


def shifted(y: PyTree, h: Array, weights: tuple[float, ...], slopes: list[PyTree]) -> PyTree:
    """The sum y + h * sum_i weights_i * slopes_i in the dtypes of `y`; zero weights cost nothing."""
    terms = [(w, k) for w, k in zip(weights, slopes, strict=True) if w != 0.0]
    if not terms:
        return y

    def leaf(p: Array, *ks: Array) -> Array:
        total = sum(w * k for (w, _), k in zip(terms[1:], ks[1:], strict=True)) + terms[0][0] * ks[0]
        return p + h.astype(jnp.finfo(p.dtype).dtype) * total

    return jax.tree_util.tree_map(leaf, y, *(k for _, k in terms))
