"""Transport between Gaussian mixtures on the line: what exact flow matching and probability-flow equations do."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_that, is_concrete
from ._arrays import check_non_negative, check_values, check_vector, floats
from ._root import find_root


class LineMixture(NamedTuple):
    """A mixture of normal laws on the line.

    Attributes:
        weights: positive, of sum one, (components,).
        means: (components,).
        scales: standard deviations, (components,).
    """

    weights: Float[Array, "components"]
    means: Float[Array, "components"]
    scales: Float[Array, "components"]


def monotone_transport(x: Float[Array, ""] | float, source: LineMixture, target: LineMixture) -> Float[Array, ""]:
    """The y with F_target(y) = F_source(x).

    On the line the flow of any velocity field that carries one law to another keeps the order of points, so the exact
    flow-matching and probability-flow equations end here, whatever lies between: an oracle that needs no solver.

    Args:
        x: a number.
        source: the law at the start.
        target: the law at the end.

    Returns:
        y, differentiable in everything. To the left of the medians levels are compared, to the right of them tails, so that
        neither loses digits.

    Raises:
        ValueError: if weights do not sum to one, or weights or scales are not positive.

    Example:
        ```python
        normal = LineMixture([1.0], [0.0], [1.0])
        modes = LineMixture([0.5, 0.5], [-2.0, 2.0], [0.5, 0.5])
        monotone_transport(0.5, normal, modes)   # 1.8510961
        ```
    """
    source, target = _checked(source, "source"), _checked(target, "target")
    (x,) = floats(x)
    check_that(x.ndim == 0, "x", "be a scalar; map over it by `jax.vmap`", f"its shape is {x.shape}")
    return _transport(x, source, target)


@jax.jit
def _transport(x: Array, source: LineMixture, target: LineMixture) -> Float[Array, ""]:
    # In the right half both laws are mirrored, and levels are those of upper tails.
    side = jnp.where(_log_level(jax.lax.stop_gradient(x), source) > np.log(0.5).item(), -1, 1).astype(x.dtype)

    def excess(y: Array, x: Array, source: LineMixture, target: LineMixture) -> Array:
        return _log_level(y, _mirrored(target, side)) - _log_level(side * x, _mirrored(source, side))

    # A level is reached within 40 standard deviations of the outermost component.
    centres, spread = side * target.means, 40 * jnp.max(target.scales)
    return side * find_root(excess, jnp.min(centres) - spread, jnp.max(centres) + spread, x, source, target)


def variance_preserving_transport(
    x: Float[Array, ""] | float, time: Float[Array, ""] | float, target: LineMixture
) -> Float[Array, ""]:
    """Where the probability-flow equation of the variance-preserving diffusion takes x at time T, when run back to time 0.

    The diffusion dX = -X / 2 dt + dW turns N(m, s^2) into N(a m, a^2 s^2 + 1 - a^2), a = exp(-T / 2).

    Args:
        x: the point at time T.
        time: T >= 0.
        target: the law at time 0.
    """
    check_non_negative(time, "time")
    time, *leaves = floats(time, *target)
    weights, means, scales = leaves
    a = jnp.exp(-time / 2)
    noisy = LineMixture(weights, a * means, jnp.sqrt(a**2 * scales**2 - jnp.expm1(-time)))
    return monotone_transport(x, noisy, LineMixture(weights, means, scales))


def _checked(law: LineMixture, argument: str) -> LineMixture:
    leaves = floats(*law)
    for leaf in leaves:
        check_vector(leaf, argument)
    same = leaves[0].shape == leaves[1].shape == leaves[2].shape
    check_that(same, argument, "have as many weights as means and scales", f"found {[leaf.shape for leaf in leaves]}")
    for leaf, name in ((leaves[0], "weights"), (leaves[2], "scales")):
        check_values(leaf, f"{argument}.{name}", "be positive and finite", lambda v: np.isfinite(v) & (v > 0))
    if is_concrete(leaves[0]):
        total = float(np.sum(np.asarray(leaves[0])))
        good = abs(total - 1) < 100 * float(jnp.finfo(leaves[0].dtype).eps)
        check_that(good, f"{argument}.weights", "have the sum one", f"it is {total}")
    return LineMixture(*leaves)


def _mirrored(law: LineMixture, side: Array) -> LineMixture:
    return LineMixture(law.weights, side * law.means, law.scales)


def _log_level(x: Array, law: LineMixture) -> Float[Array, ""]:
    """Log F(x)."""
    return jax.scipy.special.logsumexp(jax.scipy.special.log_ndtr((x - law.means) / law.scales), b=law.weights)
