"""Defect control: steps are judged by the interpolation between them too, since a delay equation reads it."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

# Where in a step the defect is looked at: clear of the ends and the middle, where that of common interpolations vanishes. A
# second point changed the measured errors little.
_PLACE = 0.3


class DefectControlled(diffrax.AbstractAdaptiveSolver, diffrax.AbstractWrappedSolver):
    """A solver whose error estimate is at least the defect h |u' - f(t, u)| of its interpolation u, at one point in the step.

    Embedded error estimates belong to the ends of steps. A step may be exact there and poor in between: on y' = -y(t - 1) with
    a constant past, a method of order eight takes one step per delay with an estimate of zero, and the next segment reads an
    interpolation of order six. One further evaluation of the vector field for each step.

    Args:
        solver: an explicit or implicit Diffrax solver with an error estimate.

    References:
        Enright and Hayashi, A delay differential equation solver based on a continuous Runge-Kutta method with defect
        control (1997).
    """

    solver: diffrax.AbstractSolver  # type: ignore[misc]

    @property
    def term_structure(self) -> Any:
        """As the solver."""
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Any:  # type: ignore[override]
        """As the solver."""
        return self.solver.interpolation_cls

    @property
    def term_compatible_contr_kwargs(self) -> Any:
        """As the solver."""
        return self.solver.term_compatible_contr_kwargs

    @property
    def scan_kind(self) -> Any:
        """As the solver: Diffrax sets it on Runge-Kutta methods for forward mode."""
        return self.solver.scan_kind  # type: ignore[attr-defined]

    @property
    def root_finder(self) -> Any:
        """As the solver: Diffrax hands tolerances to implicit methods through it."""
        return self.solver.root_finder  # type: ignore[attr-defined]

    def order(self, terms: PyTree) -> int | None:
        """As the solver."""
        return self.solver.order(terms)

    def strong_order(self, terms: PyTree) -> Any:
        """As the solver."""
        return self.solver.strong_order(terms)

    def error_order(self, terms: PyTree) -> Any:
        """As the solver."""
        return self.solver.error_order(terms)

    def init(self, terms: PyTree, t0: Any, t1: Any, y0: PyTree, args: PyTree) -> Any:
        """As the solver."""
        return self.solver.init(terms, t0, t1, y0, args)

    def func(self, terms: PyTree, t0: Any, y0: PyTree, args: PyTree) -> PyTree:
        """As the solver."""
        return self.solver.func(terms, t0, y0, args)

    def step(
        self, terms: PyTree, t0: Any, t1: Any, y0: PyTree, args: PyTree, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, PyTree, Any, Any, Any]:
        """A step of the solver with the larger of the two error estimates."""
        y1, error, dense, state, result = self.solver.step(terms, t0, t1, y0, args, solver_state, made_jump)
        interpolation = self.interpolation_cls(t0=t0, t1=t1, **dense)
        t = t0 + _PLACE * (t1 - t0)
        slope = self.solver.func(terms, t, interpolation.evaluate(t), args)
        worse = lambda e, u, f: _larger(e, (t1 - t0) * (u - f))
        error = jax.tree_util.tree_map(worse, error, interpolation.derivative(t), slope)
        return y1, error, dense, state, result


def _larger(error: Array, defect: Array) -> Array:
    return jnp.where(jnp.abs(defect) > jnp.abs(error), defect, error)
