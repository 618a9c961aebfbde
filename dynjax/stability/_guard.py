"""Derivatives of exponents: right over independent factors, worthless through a chaotic orbit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..systems import AbstractSystem, tangent_space

_CALLS = ("pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "remat", "checkpoint")


def tangent_depends_on_state(system: AbstractSystem, x: PyTree) -> bool:
    """Whether the tangent map of `system` depends on where the orbit is, as far as its program shows.

    A linear cocycle v' = A_n v over independent factors has a tangent map that does not; a program that hides it in a loop
    is taken to depend.
    """
    dynamic, frozen = tangent_space(x)

    def pushed(y: PyTree) -> PyTree:
        v = jax.tree_util.tree_map(lambda leaf: leaf[None], y)
        v = jax.lax.stop_gradient(jax.tree_util.tree_map(jnp.ones_like, v))
        return system.tangent_step(jnp.zeros((), int), eqx.combine(y, frozen), v)[1]

    program = jax.make_jaxpr(pushed)(dynamic).jaxpr
    return any(_reached(program, [True] * len(program.invars)))


def _reached(program: Any, reached: list[bool]) -> list[bool]:
    """Which outputs of a program depend on the inputs that are marked."""
    marked = {var for var, mark in zip(program.invars, reached, strict=True) if mark}
    is_marked = lambda var: not hasattr(var, "val") and var in marked
    for equation in program.eqns:
        marks = [is_marked(var) for var in equation.invars]
        if not any(marks):
            continue
        inner = _inner_program(equation)
        shape_only = equation.primitive.name in ("broadcast_like", "zeros_like")
        outputs = _reached(inner, marks) if inner is not None else [not shape_only] * len(equation.outvars)
        marked |= {var for var, mark in zip(equation.outvars, outputs, strict=True) if mark}
    return [is_marked(var) for var in program.outvars]


def _inner_program(equation: Any) -> Any:
    """The program that a plain call runs, if its inputs are those of the equation."""
    if equation.primitive.name not in _CALLS:
        return None
    for name in ("jaxpr", "call_jaxpr"):
        inner = equation.params.get(name)
        if inner is not None:
            inner = getattr(inner, "jaxpr", inner)
            return inner if len(inner.invars) == len(equation.invars) else None
    return None


def captured(system: AbstractSystem, x: PyTree) -> list[Any]:
    """The arrays that the functions of `system` hold without showing them, as a lambda holds a parameter around it.

    Such an array may be traced (by `grad` or `vmap` over the parameter) while nothing among the leaves of `system` is.
    """
    dynamic, frozen = tangent_space(x)
    step = lambda y: tangent_space(system.step(jnp.zeros((), int), eqx.combine(y, frozen)))[0]
    return list(jax.make_jaxpr(step)(dynamic).consts)


@eqx.filter_custom_jvp
def forbid_derivative(tree: PyTree) -> PyTree:
    """The identity, which refuses to be differentiated."""
    return tree


@forbid_derivative.def_jvp
def _forbid_derivative_jvp(primals: Any, tangents: Any) -> Any:
    raise ValueError(
        "Argument `differentiable` must be True for derivatives of exponents whose tangents depend on the state, but it is "
        "False. Derivatives along a chaotic orbit grow like the orbit's own tangents and are not those of the exponent; "
        "for such systems use finite differences with the same noise, or averages over parameters."
    )
