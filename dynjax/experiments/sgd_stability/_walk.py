"""A walk along the set of interpolation solutions, to where SGD changes from staying to leaving."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..._core import check_that, split_inexact, tree_norm
from ...training import find_interpolation, normal_space, sgd_exponent


class Walk(eqx.Module):
    """A walk along solutions; the first entry of every array is the start.

    Attributes:
        params: where it ended.
        exponent: the exponent of SGD at each solution, (steps + 1,).
        gd_threshold: 2N / k_max at each, the critical learning rate of gradient descent.
        slope: length of the projected gradient of the exponent at each.
        travelled: path length up to each.
        residual_norm: |f - y| at each.
        reached: whether |exponent - target| <= `tolerance` at the end.
    """

    params: PyTree
    exponent: Float[Array, "points"]
    gd_threshold: Float[Array, "points"]
    slope: Float[Array, "points"]
    travelled: Float[Array, "points"]
    residual_norm: Float[Array, "points"]
    reached: bool

    def __str__(self) -> str:
        """Start, end and length in one line."""
        return (
            f"walk of length {float(self.travelled[-1]):.3g} in {self.exponent.size - 1} steps: exponent "
            f"{float(self.exponent[0]):+.3e} to {float(self.exponent[-1]):+.3e}, {'reached' if self.reached else 'not reached'}"
        )


def walk_to_boundary(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: Any,
    targets: Any,
    *,
    learning_rate: float,
    batch_size: int,
    key: PRNGKeyArray,
    exponent_steps: int = 10_000,
    num_steps: int = 20,
    max_length: float = 0.1,
    target: float = 0.0,
    tolerance: float = 1e-4,
) -> Walk:
    r"""Follow the exponent of SGD along the set of solutions with zero loss, to the boundary between stable and unstable.

    At each solution the gradient g of the exponent is projected to the tangent space, the kernel of the Jacobian; a step is
    Newton's for exponent = target along this direction,

    $$\delta = -(\lambda - \lambda^*)\, g / |g|^2,$$

    no longer than `max_length`, and `find_interpolation` leads back to zero loss. The batches are the same throughout, so that
    exponents along the walk are comparable. A step that does not bring the exponent closer is taken back, and the
    longest step allowed is halved.

    From an unstable solution (exponent > 0) this finds the nearby ones that SGD can stay at. From a stable one the exponent is
    that of the slowest mode, whose gradient says little about the boundary: expect a longer walk.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: a solution with zero loss.
        inputs: array with samples along the first axis.
        targets: y, of the shape of the outputs.
        learning_rate: of SGD.
        batch_size: of SGD.
        key: fixes the batches.
        exponent_steps: steps behind each exponent.
        num_steps: steps of the walk at most.
        max_length: longest step, in the norm of the parameters.
        target: the exponent at which the walk ends.
        tolerance: how close to it.

    Returns:
        A `Walk`. Each step costs a run of `exponent_steps` steps forwards and backwards, and the search for a solution.

    Raises:
        ValueError: if `params` is no solution, or numbers are out of range.
    """
    for name, number in (("max_length", max_length), ("tolerance", tolerance)):
        check_that(number > 0, name, "be positive", f"found {number}")
    check_that(
        isinstance(num_steps, int) and num_steps > 0, "num_steps", "be a positive integer", f"found {num_steps!r}"
    )
    targets = jnp.asarray(targets)
    solve = lambda p, steps: find_interpolation(predict, p, inputs, targets, gd_steps=0, max_steps=steps)
    found = solve(params, 20)
    check_that(
        bool(found.converged),
        "params",
        "be near a solution with zero loss",
        f"the residual {found.residual_norm:.1e} stays",
    )

    rank = normal_space(predict, found.params, inputs).rank

    @eqx.filter_jit
    def look(p: PyTree) -> tuple[Array, PyTree]:
        dynamic, frozen = split_inexact(p)
        exponent = lambda q: sgd_exponent(
            predict, eqx.combine(q, frozen), inputs, learning_rate=learning_rate, batch_size=batch_size,
            num_steps=exponent_steps, key=key, rank=rank,
        )  # fmt: skip
        value, gradient = jax.value_and_grad(exponent)(dynamic)
        return value, _tangent_part(predict, p, inputs, gradient)

    value, direction = look(found.params)
    points = [_point(inputs, found, value, direction, 0.0)]
    longest = max_length
    for _ in range(num_steps):
        gap = float(value) - target
        if abs(gap) <= tolerance or points[-1]["slope"] == 0:
            break
        step = min(abs(gap) / points[-1]["slope"], longest)
        trial = solve(_moved(found.params, direction, -np.sign(gap) * step / points[-1]["slope"]), 20)
        trial_value, trial_direction = look(trial.params)
        if not (bool(trial.converged) and abs(float(trial_value) - target) < abs(gap)):
            longest = step / 2
            continue
        found, value, direction = trial, trial_value, trial_direction
        points.append(_point(inputs, found, value, direction, points[-1]["travelled"] + step))
    columns = {name: jnp.asarray([point[name] for point in points]) for name in points[0]}
    return Walk(params=found.params, reached=abs(float(value) - target) <= tolerance, **columns)


def _moved(params: PyTree, direction: PyTree, scale: Any) -> PyTree:
    """The parameters after a step along a direction."""
    dynamic, frozen = split_inexact(params)
    return eqx.combine(jax.tree_util.tree_map(lambda p, d: p + scale * d, dynamic, direction), frozen)


def _point(inputs: Any, found: Any, value: Array, direction: PyTree, length: float) -> dict[str, float]:
    """What is recorded at a solution."""
    samples = jax.tree_util.tree_leaves(inputs)[0].shape[0]
    return {
        "exponent": float(value),
        "gd_threshold": 2 * samples / float(found.singular_values[0]) ** 2,
        "slope": float(tree_norm(direction)),
        "travelled": length,
        "residual_norm": float(found.residual_norm),
    }


def _tangent_part(predict: Any, params: PyTree, inputs: Any, v: PyTree) -> PyTree:
    """What is left of v without its projection to the row space of the Jacobian, J^T (J J^T)^+ J v."""
    dynamic, frozen = split_inexact(params)
    outputs, pull = jax.vjp(lambda p: predict(eqx.combine(p, frozen), inputs).ravel(), dynamic)
    push = lambda d: jax.jvp(lambda p: predict(eqx.combine(p, frozen), inputs).ravel(), (dynamic,), (d,))[1]
    with jax.default_matmul_precision("highest"):
        kernel = jax.vmap(lambda u: push(pull(u)[0]))(jnp.eye(outputs.size, dtype=outputs.dtype))
        weights = jnp.linalg.lstsq(kernel, push(v))[0]
        return jax.tree_util.tree_map(jnp.subtract, v, pull(weights)[0])
