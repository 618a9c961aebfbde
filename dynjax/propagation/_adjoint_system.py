"""Backpropagation as dynamics: the cotangents of a system as a system of their own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._core import check_that, found
from ..systems import AbstractSystem, Flow, Trajectory, check_system, tangent_space
from ..systems._system import AbstractMap, IntScalarLike


class Pullback(AbstractMap):
    """Backpropagation along a stored orbit: lambda_m -> J(x_{n-1-m})^T lambda_m, J the derivative of a step.

    Step 0 starts behind the last step of the orbit, step `num_steps - 1` ends at its first state; beyond that cotangents are
    NaN, never a repeated step, and so they are where it shows under `jit` only that the orbit leaves steps out. The Lyapunov
    spectrum is that of the system, as transposed products have the same singular values.

    Attributes:
        num_steps: n, the steps of the orbit.
    """

    system: AbstractSystem
    states: PyTree
    start: Array
    whole: Array  # whether the orbit holds every step, which under `jit` is known at run time only
    dt: Float[Array, ""]
    num_steps: int = eqx.field(static=True)

    def step(self, n: IntScalarLike, cotangent: PyTree) -> PyTree:
        """The cotangent before one more step of the orbit."""
        index = self.num_steps - 1 - jnp.asarray(n)
        inside = (index >= 0) & (index < self.num_steps) & self.whole
        x = jax.tree_util.tree_map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False) if eqx.is_array(leaf) else leaf,
            self.states,
        )
        pull = _vjp(self.system, self.start + index, x)
        return jax.tree_util.tree_map(
            lambda leaf: leaf * jnp.where(inside, 1.0, jnp.nan).astype(leaf.dtype), pull(cotangent)
        )


class Covector(eqx.Module):
    """A cotangent over a point: the state of a `CotangentSystem`.

    The point is kept as its bits, integers, so that it carries no tangents: exponents are those of the cotangents alone.

    Attributes:
        value: the cotangent, like the inexact arrays of a state.
    """

    value: PyTree
    bits: PyTree
    dtypes: tuple[str, ...] = eqx.field(static=True)

    @property
    def point(self) -> PyTree:
        """The point x of the orbit."""
        treedef: Any
        leaves, treedef = jax.tree_util.tree_flatten(self.bits)
        return treedef.unflatten(
            [
                leaf if name == "" else jax.lax.bitcast_convert_type(leaf, name)
                for leaf, name in zip(leaves, self.dtypes, strict=True)
            ]
        )


def _covector(x: PyTree, value: PyTree) -> Covector:
    treedef: Any
    leaves, treedef = jax.tree_util.tree_flatten(x)
    names = tuple(str(leaf.dtype) if eqx.is_inexact_array(leaf) else "" for leaf in leaves)
    bits = [
        leaf if name == "" else jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        for leaf, name in zip(leaves, names, strict=True)
    ]
    return Covector(value, treedef.unflatten(bits), names)


class CotangentSystem(AbstractMap):
    """Points and cotangents forwards in time: (x, lambda) -> (step(x), J(x)^{-T} lambda), for flows lambda' = -(df/dx)^T lambda.

    States are made by `init`. The pairing lambda . delta with a tangent of the system is conserved: exactly for maps, to the
    order of the method for flows. The Lyapunov spectrum is that of the system negated and reversed.
    """

    system: AbstractSystem
    dt: Float[Array, ""]

    def init(self, x: PyTree, cotangent: PyTree) -> Covector:
        """The state for a point and a cotangent.

        Args:
            x: a state of the system.
            cotangent: like the inexact arrays of `x`.

        Raises:
            TypeError: if an array of `x` is complex.
            ValueError: if the shapes do not fit, or `x` is no state of the system.
        """
        check_system(self.system, x)
        moving = tangent_space(x)[0]
        for leaf in jax.tree_util.tree_leaves(moving):
            check_that(not jnp.iscomplexobj(leaf), "x", "be real", found(leaf), TypeError)
        check_cotangent(cotangent, moving)
        value = jax.tree_util.tree_map(lambda c, leaf: jnp.asarray(c, leaf.dtype), cotangent, moving)
        return _covector(x, value)

    def step(self, n: IntScalarLike, state: Covector) -> Covector:
        """One step of both; NaN cotangents where the derivative of the step is singular to rounding."""
        x = state.point
        if isinstance(self.system, Flow):
            moving, frozen = tangent_space(x)
            joint = Flow(
                _Hamiltonian(self.system, frozen), self.system.dt, method=self.system.method, t0=self.system.t0
            )
            moved, value = joint.step(n, (moving, state.value))
            return _covector(eqx.combine(moved, frozen), value)
        image, value = _inverse_transpose(self.system, n, x, state.value)
        return _covector(image, value)


class _Hamiltonian(eqx.Module):
    """The field of H(x, lambda) = lambda . f(x): x' = f, lambda' = -(df/dx)^T lambda."""

    flow: Flow
    frozen: PyTree

    def __call__(self, t: Any, pair: tuple[PyTree, PyTree], args: Any) -> tuple[PyTree, PyTree]:
        y, value = pair
        slope = lambda y: _like(self.flow.vector_field(t, eqx.combine(y, self.frozen), self.flow.args), y)
        dy, pull = jax.vjp(slope, y)
        return dy, jax.tree_util.tree_map(jnp.negative, pull(value)[0])


def _like(slope: PyTree, y: PyTree) -> PyTree:
    """The derivative of the leaves that move, in their dtypes."""
    treedef: Any
    leaves, treedef = jax.tree_util.tree_flatten(y)
    return treedef.unflatten(
        [jnp.asarray(dy, leaf.dtype) for dy, leaf in zip(treedef.flatten_up_to(slope), leaves, strict=True)]
    )


def _vjp(system: AbstractSystem, n: IntScalarLike, x: PyTree) -> Any:
    moving, frozen = tangent_space(x)
    _, pull = jax.vjp(lambda y: tangent_space(system.step(n, eqx.combine(y, frozen)))[0], moving)
    return lambda cotangent: pull(cotangent)[0]


def _inverse_transpose(system: AbstractSystem, n: IntScalarLike, x: PyTree, value: PyTree) -> tuple[PyTree, PyTree]:
    moving, frozen = tangent_space(x)
    flat, unravel = ravel_pytree(moving)

    def step(flat: Array) -> tuple[Array, tuple[PyTree, PyTree]]:
        image = system.step(n, eqx.combine(unravel(flat), frozen))
        moved, still = tangent_space(image)
        return ravel_pytree(moved)[0], (moved, still)

    jacobian, (moved, still) = jax.jacfwd(step, has_aux=True)(flat)
    right = ravel_pytree(value)[0]
    q, r = jnp.linalg.qr(jacobian)  # J^-T = Q R^-T
    diagonal = jnp.abs(jnp.diagonal(r))
    singular = ~(jnp.min(diagonal) > diagonal.size * jnp.finfo(flat.dtype).eps * jnp.max(diagonal))
    safe = jnp.where(singular, jnp.eye(diagonal.size, dtype=flat.dtype), r)
    solved = jax.scipy.linalg.solve_triangular(safe, right, trans="T")
    product = jnp.matmul(q, solved, precision=jax.lax.Precision.HIGHEST)
    # A factor, so that tangents of the cotangent are marked too.
    product = product * jnp.where(singular, jnp.nan, 1.0).astype(flat.dtype)
    return eqx.combine(moved, still), unravel(product)


def adjoint_system(system: AbstractSystem, orbit: Trajectory | None = None) -> Pullback | CotangentSystem:
    r"""The cotangents of a system as a system: what backpropagation does to gradients, seen as dynamics.

    Along an orbit x_0, ..., x_n, with J_m the derivative of step m at x_m, gradients obey lambda_m = J_m^T lambda_{m+1}. With a
    stored orbit the result is that pullback, a system on cotangents that runs from the end of the orbit to its start: for a
    network (`LayerMap`) it is backpropagation through its layers. Its Lyapunov exponents are those of the system, so that
    gradients vanish or explode as perturbations do.

    Without an orbit it is the joint system of points and cotangents forwards in time,

        x_{m+1} = f(x_m), lambda_{m+1} = J_m^{-T} lambda_m;    for a `Flow`    x' = f, lambda' = -(df/dx)^T lambda,

    the second of which is Hamiltonian with H = lambda . f(x) (Pontryagin's costate equation). Its spectrum is that of the
    system negated and reversed; its states are made by `adjoint.init(x, cotangent)`.

    In both, `pairing(lambda, delta)` with a tangent delta of the system is the same at every step.

    Args:
        system: any dynjax system; without an orbit its steps must be invertible, or it is a `Flow`.
        orbit: from `dj.trajectory(system, ..., save_every=1)` without `observe`.

    Returns:
        A `Pullback` or a `CotangentSystem`. A step of the first costs two or three steps of the system. A step of the second
        forms and factorises the derivative for maps, O(dim^3), and costs two or three steps for flows. Where the
        derivative is singular to rounding the cotangents become NaN, which tools report as `NONFINITE`.

    Raises:
        TypeError: if `system` is no dynjax system or `orbit` no `Trajectory`.
        ValueError: if the orbit does not hold every step, or its states are no states of the system.

    Example:
        ```python
        orbit = dj.trajectory(stack, x, num_steps=stack.depth)
        gradients = dj.trajectory(dj.adjoint_system(stack, orbit), last_gradient, num_steps=stack.depth).ys
        ```

    References:
        Pontryagin et al. (1962); E, Han and Li, A mean-field optimal control formulation of deep learning (2019); Pikovsky and
        Politi, Lyapunov Exponents (2016), section 2.3, for the spectrum of the adjoint.
    """
    check_that(isinstance(system, AbstractSystem), "system", "be a dynjax system", found(system), TypeError)
    if orbit is None:
        return CotangentSystem(system=system, dt=jnp.asarray(system.dt))
    check_that(isinstance(orbit, Trajectory), "orbit", "be a Trajectory", found(orbit), TypeError)
    steps = orbit.steps
    check_that(
        steps.ndim == 1 and steps.shape[0] >= 2, "orbit", "hold at least one step", f"found {steps.shape[0]} states"
    )
    gap = _gap(steps)
    check_that(gap is None or gap == 1, "orbit", "hold every step (`save_every=1`)", f"states are {gap} steps apart")
    forms: list[Any] = [jax.tree_util.tree_structure(tree) for tree in (orbit.ys, orbit.final)]
    check_that(
        forms[0] == forms[1],
        "orbit",
        "hold whole states (no `observe`)",
        "they have another structure than the final one",
    )
    first = jax.tree_util.tree_map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, orbit.ys)
    check_system(system, first)
    dt, num_steps = jnp.asarray(system.dt), steps.shape[0] - 1
    whole = steps[1] - steps[0] == 1
    return Pullback(system=system, states=orbit.ys, start=steps[0], whole=whole, dt=dt, num_steps=num_steps)


def _gap(steps: Array) -> int | None:
    return None if isinstance(steps, jax.core.Tracer) else int(np.asarray(steps)[1] - np.asarray(steps)[0])


def check_cotangent(cotangent: PyTree, moving: PyTree) -> None:
    """Raise unless the cotangent has the structure and the shapes of the arrays that move."""
    trees: list[Any] = [jax.tree_util.tree_structure(tree) for tree in (cotangent, moving)]
    check_that(trees[0] == trees[1], "cotangent", "have the structure of the inexact arrays of `x`", "it has another")
    for a, b in zip(jax.tree_util.tree_leaves(cotangent), jax.tree_util.tree_leaves(moving), strict=True):
        check_that(jnp.shape(a) == jnp.shape(b), "cotangent", f"have leaves of shape {jnp.shape(b)}", found(a))


def pairing(cotangent: PyTree, tangent: PyTree) -> Float[Array, ""]:
    r"""The number lambda . delta: what a gradient says about a perturbation.

    Args:
        cotangent: lambda, a pytree of arrays.
        tangent: delta, of the same structure and shapes.

    Raises:
        ValueError: if structures or shapes differ.
    """
    trees: list[Any] = [jax.tree_util.tree_structure(tree) for tree in (cotangent, tangent)]
    check_that(trees[0] == trees[1], "tangent", "have the structure of `cotangent`", "it has another")
    total: Any = 0.0
    for a, b in zip(jax.tree_util.tree_leaves(cotangent), jax.tree_util.tree_leaves(tangent), strict=True):
        check_that(jnp.shape(a) == jnp.shape(b), "tangent", f"have leaves of shape {jnp.shape(a)}", found(b))
        total = total + jnp.sum(jnp.asarray(a) * jnp.asarray(b))
    return jnp.asarray(total)
