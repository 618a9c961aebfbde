"""Several steps of a system as one map of flat vectors, with its derivative."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Complex, Float, PyTree

from .._core import Raveler, check_that, found
from ..linalg import eigs
from ..systems import AbstractSystem, DelayFlow, RandomMap, tangent_space

# Up to this dimension the Jacobian matrix is formed.
DENSE_DIM = 64


class Cycle(eqx.Module):
    """The map x -> step(n + period - 1, ... step(n, x)) on the floating-point leaves of a state, as flat vectors.

    The other leaves (counters, keys) have the same value before every step.
    """

    system: AbstractSystem
    frozen: PyTree
    structure: Any = eqx.field(static=True)
    start: Array
    period: int = eqx.field(static=True)

    def __init__(self, system: AbstractSystem, x0: PyTree, n: Any, period: int):
        dynamic, self.frozen = tangent_space(x0)
        leaves, treedef = jax.tree_util.tree_flatten(jax.eval_shape(lambda: dynamic))
        self.system, self.structure, self.start, self.period = system, (tuple(leaves), treedef), jnp.asarray(n), period

    @property
    def raveler(self) -> Raveler:
        """From states to flat vectors and back."""
        leaves, treedef = self.structure
        return Raveler(jax.tree_util.tree_unflatten(treedef, leaves))

    def ravel(self, x: PyTree) -> Float[Array, " dim"]:
        """The floating-point leaves of a state."""
        return self.raveler.ravel(tangent_space(x)[0])

    def state(self, flat: Float[Array, " dim"]) -> PyTree:
        """The state with these floating-point leaves."""
        return eqx.combine(self.raveler.unravel(flat), self.frozen)

    def advance(self, flat: Float[Array, " dim"], num_steps: int | None = None) -> Float[Array, " dim"]:
        """The state after a period, or after fewer steps."""

        def body(y: Array, n: Array) -> tuple[Array, None]:
            return self.ravel(self.system.step(n, self.state(y))), None

        return lax.scan(body, flat, self.start + jnp.arange(self.period if num_steps is None else num_steps))[0]

    def push(self, flat: Float[Array, " dim"], v: Float[Array, "k dim"]) -> Float[Array, "k dim"]:
        """The derivative of `advance`, applied to `k` tangents."""

        def body(pair: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], None]:
            tangents = jax.vmap(self.raveler.unravel)(pair[1])
            x, tangents = self.system.tangent_step(n, self.state(pair[0]), tangents)
            return (self.ravel(x), jax.vmap(self.raveler.ravel)(tangents)), None

        return lax.scan(body, (flat, v), self.start + jnp.arange(self.period))[0][1]

    def jacobian(self, flat: Float[Array, " dim"]) -> Float[Array, "dim dim"]:
        """The matrix of the derivative."""
        return self.push(flat, jnp.eye(flat.size, dtype=flat.dtype)).T

    def tangent(self, flat: Float[Array, " dim"]) -> lx.AbstractLinearOperator:
        """The derivative as an operator."""
        return lx.FunctionLinearOperator(lambda v: self.push(flat, v[None])[0], jax.eval_shape(lambda: flat))


def multipliers(
    cycle: Cycle, flat: Float[Array, " dim"], count: int, dense: bool
) -> tuple[Complex[Array, " count"], Array]:
    """(the `count` largest multipliers, whether they have converged)."""
    matrix: Any = lx.MatrixLinearOperator(cycle.jacobian(flat)) if dense else cycle.tangent(flat)
    result = eigs(matrix, count, method="dense" if dense else "auto")
    return result.values, jnp.all(result.converged)


def check_cycle(system: Any, x0: PyTree, n: Any, period: int) -> None:
    """Raise unless `system` has points that may return.

    Raises:
        TypeError: for something that is no system, a delay flow, or a state that is not real.
        ValueError: if a count is below one, noise varies, or `x0` does not have the structure that `step` returns.
    """
    check_that(
        isinstance(system, AbstractSystem), "system", "be a dynjax system such as `Map`", found(system), TypeError
    )
    check_that(
        not isinstance(system, DelayFlow),
        "system",
        "have a state that can come back to itself",
        "the history of a `DelayFlow` is a ring buffer whose position moves on with every step",
        TypeError,
    )
    good = isinstance(period, int) and not isinstance(period, bool) and period >= 1
    check_that(good, "period", "be an integer of at least 1", f"found {period!r}")
    leaves = jax.tree_util.tree_leaves(tangent_space(x0)[0])
    check_that(bool(leaves), "x0", "hold at least one floating-point array", "none was found")
    for leaf in leaves:
        check_that(not jnp.iscomplexobj(leaf), "x0", "be real", found(leaf), TypeError)
    if isinstance(system, RandomMap):
        _check_constant(system, n)
    _check_shapes(system, x0)


def _check_constant(system: RandomMap, n: Any) -> None:
    now, later = (eqx.filter(system.path(jnp.asarray(n) + i), eqx.is_array) for i in (0, 1))
    same = eqx.tree_equal(now, later)
    check_that(
        bool(same),
        "system",
        "do the same at every step",
        "the noise of this `RandomMap` varies; freeze it in a `Map` whose `fn(n, x)` is periodic in `n`",
    )


def _check_shapes(system: AbstractSystem, x0: PyTree) -> None:
    shapes = lambda tree: [
        (leaf.shape, leaf.dtype) for leaf in jax.tree_util.tree_leaves(tree) if isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    before = eqx.filter_eval_shape(lambda x: tangent_space(x)[0], x0)
    after = eqx.filter_eval_shape(lambda x: tangent_space(system.step(jnp.zeros((), int), x))[0], x0)
    check_that(
        shapes(before) == shapes(after),
        "x0",
        "have the shapes and dtypes that `step` returns",
        f"{shapes(before)} becomes {shapes(after)}",
    )
