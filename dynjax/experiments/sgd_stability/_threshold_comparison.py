"""One network on both sides of the interpolation threshold: isolated minima, and minima on a manifold."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._core import Raveler, check_that, split_inexact
from ...training import Interpolation, MinimumStability, find_interpolation, minimum_stability

_NEWTON_STEPS = 4


class SideOfThreshold(eqx.Module):
    """A minimum of the loss on some of the samples.

    Attributes:
        num_samples: how many samples were fitted.
        num_outputs: how many equations that makes.
        num_params: how many unknowns there are.
        interpolates: whether the loss is zero to rounding.
        minimum: where the search for zero loss ended, with the rank of the Jacobian.
        stability: `minimum_stability` there, after a few Newton steps where the loss is positive: isolated or not, rank,
            exponent, threshold.
    """

    num_samples: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)
    num_params: int = eqx.field(static=True)
    interpolates: bool = eqx.field(static=True)
    minimum: Interpolation
    stability: MinimumStability

    def __str__(self) -> str:
        """Sizes and verdict in one line."""
        kind = "fits" if self.interpolates else "does not fit"
        return f"{self.num_params} parameters, {self.num_outputs} outputs: {kind}; {self.stability}"


def compare_across_threshold(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: Any,
    targets: Any,
    *,
    num_samples: Sequence[int],
    learning_rate: float,
    gd_steps: int = 500,
    max_steps: int = 500,
) -> tuple[SideOfThreshold, ...]:
    """Train one network on more and more samples, from fewer equations than parameters to more, and look at its minima.

    Below the threshold (overparameterised) the loss reaches zero, the Hessian there has the rank of the Jacobian at most, and
    the minimum lies on a manifold. Above it (overdetermined) the minimum is isolated as a rule, its loss is positive, and
    gradient descent alone, not SGD, can stay at it exactly.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: the start, the same for every number of samples.
        inputs: array with samples along the first axis.
        targets: y, of the shape of the outputs.
        num_samples: how many of the first samples to use, e.g. `(10, 200)`.
        learning_rate: of gradient descent.
        gd_steps: steps of gradient descent before those of Levenberg and Marquardt, a multiple of 50.
        max_steps: of Levenberg and Marquardt.

    Returns:
        A `SideOfThreshold` for each number of samples.

    Raises:
        ValueError: if a number of samples is out of range.
    """
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    for number in num_samples:
        good = isinstance(number, int) and 0 < number <= len(inputs)
        check_that(good, "num_samples", f"hold integers from 1 to {len(inputs)}", f"found {number!r}")
    size = sum(leaf.size for leaf in jax.tree_util.tree_leaves(eqx.filter(params, eqx.is_inexact_array_like)))
    loss = lambda p, x, y: jnp.sum((predict(p, x) - y) ** 2) / (2 * x.shape[0])
    sides = []
    for number in num_samples:
        x, y = inputs[:number], targets[:number]
        minimum = find_interpolation(predict, params, x, y, gd_steps=gd_steps, max_steps=max_steps)
        place = minimum.params if bool(minimum.converged) else _polished(loss, minimum.params, x, y)
        sides.append(
            SideOfThreshold(
                num_samples=number,
                num_outputs=y.size,
                num_params=size,
                interpolates=bool(minimum.converged),
                minimum=minimum,
                stability=minimum_stability(loss, place, x, y, learning_rate=learning_rate),
            )
        )
    return tuple(sides)


def _polished(loss: Callable[..., Array], params: PyTree, *data: Array) -> PyTree:
    """A few Newton steps: where the loss stays positive, least squares finds the minimum to the root of rounding only."""
    dynamic, frozen = split_inexact(params)
    raveler = Raveler(dynamic)
    value = lambda flat: loss(eqx.combine(raveler.unravel(flat), frozen), *data)

    @jax.jit
    def step(flat: Array) -> Array:
        return flat - jnp.linalg.lstsq(jax.hessian(value)(flat), jax.grad(value)(flat))[0]

    flat = raveler.ravel(dynamic)
    for _ in range(_NEWTON_STEPS):
        flat = step(flat)
    return eqx.combine(raveler.unravel(flat), frozen)
