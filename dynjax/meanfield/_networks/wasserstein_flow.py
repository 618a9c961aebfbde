"""Gradient flows of a functional of a distribution, by particles."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..._core import Function, check_that, found
from ...systems import Flow
from .diffusion import Diffusion
from .pair_system import as_system


class WassersteinField(eqx.Module):
    """The velocity -N grad_i F of each particle, with Diffrax's arguments."""

    functional: Function

    def __call__(self, t: Any, particles: PyTree, args: Any = None) -> PyTree:
        """The velocities."""
        slopes = jax.grad(self.functional)(particles)
        num = num_particles(particles)
        return jax.tree_util.tree_map(lambda slope: -num * slope, slopes)


def wasserstein_flow(
    functional: Callable[[PyTree], Float[Array, ""]],
    *,
    dt: Any,
    temperature: Any = None,
    key: PRNGKeyArray | None = None,
    method: str | None = None,
) -> Flow | Diffusion:
    r"""The Wasserstein gradient flow of a functional of probability measures, on N particles of weight 1/N.

        th_i' = -N grad_{th_i} F(rho_N) = -grad (dF/drho)(th_i),    rho_N = (1/N) sum_i delta_{th_i},

    which is d_t rho = div(rho grad dF/drho) for the empirical measure, exactly, at every finite N. With a temperature T
    the particles are dth_i = -grad(dF/drho) dt + sqrt(2 T) dW_i; as N -> inf their law is the gradient flow of
    F + T int rho log rho, whose fixed points are rho prop. to exp(-(dF/drho)/T). The factor N keeps the speed of a particle
    of order one. The cost is that of one reverse-mode gradient of the functional.

    Args:
        functional: F of the particles, a pytree of arrays with a leading axis of N particles; must depend on them as a
            mean over particles does (symmetric, and with the weights 1/N inside).
        dt: time per step, traced.
        temperature: T, traced; none by default.
        key: fixes the noise path; needed with a temperature.
        method: of `Flow` or of `Diffusion`.

    Returns:
        A `Flow`, or with a temperature a `Diffusion`, on that pytree.

    Raises:
        TypeError: if `functional` is no function.

    References:
        Ambrosio, Gigli and Savare, Gradient Flows (2005); Mei, Montanari and Nguyen, A mean field view of the landscape of
        two-layer neural networks (2018), arXiv:1804.06561.
    """
    check_that(callable(functional), "functional", "be a function of the particles", found(functional), TypeError)
    return as_system(WassersteinField(Function(functional)), dt, temperature, key, method)


def num_particles(particles: PyTree) -> int:
    """N, the common leading axis.

    Raises:
        ValueError: if there is none.
    """
    leaves = jax.tree_util.tree_leaves(particles)
    sizes = {leaf.shape[0] if getattr(leaf, "ndim", 0) else None for leaf in leaves}
    good = len(sizes) == 1 and None not in sizes
    check_that(good, "particles", "have one common leading axis", f"the leading axes are {sorted(map(str, sizes))}")
    return int(sizes.pop())  # type: ignore[arg-type]
