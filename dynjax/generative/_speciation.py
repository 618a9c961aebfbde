"""Speciation: when the law of the state splits into modes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_that, found
from ._mixture_field import MixtureField

_GRID = 257


def speciation_time(field: MixtureField) -> Float[Array, ""]:
    r"""The time at which the centre of a mixture stops being a mode of the law of the state.

    Along sampling the law p_t starts as one Gaussian hump. The time is the first one at which the Hessian of log p_t at the
    mean c(t) of p_t has an eigenvalue 0,

        max eig (Hess log p_t)(c(t)) = 0.

    For mixtures symmetric about their mean that is a pitchfork: the mode in the centre becomes a saddle and two new ones leave
    it, and the score, which drew points to the centre, now drives them away. For two isotropic modes at +-m,

        b / a = sqrt(|m|^2 - s^2),

    which is t = 1 / (1 + sqrt(|m|^2 - s^2)) for flow matching (`reference.two_mode_speciation_ratio`). At that time a fraction
    of the points has a responsibility above p that depends on p alone: 0.479 for p = 0.9. For mixtures without symmetry it
    is an estimate. The velocity itself gives no such time, its slope depends on the frame in which one looks: relative to
    the Gaussian flow that all modes have in common the centre is repelling from the very start.

    Args:
        field: the exact field of a mixture.

    Returns:
        The time, differentiable in the parameters of the mixture; NaN if the centre remains a mode to the end, or is none from
        the start (a diffusion with too short a horizon). It is the first crossing seen on a grid of 257 times, then bisected
        to rounding.

    Raises:
        TypeError: if `field` is no `MixtureField`.

    Example:
        ```python
        mixture = dj.generative.GaussianMixture([-2.0, 2.0], 0.25)
        dj.generative.speciation_time(mixture.flow_matching_field())       # 0.3405
        ```

    References:
        Raya and Ambrogioni, Spontaneous symmetry breaking in generative diffusion models (2023); Biroli, Bonnaire, de Bortoli
        and Mezard, Dynamical regimes of diffusion models (2024). The formulas for finite dimension are derived here.
    """
    good = isinstance(field, MixtureField)
    check_that(good, "field", "be the exact field of a mixture, a MixtureField", found(field), TypeError)
    return _speciation_time(field)


@eqx.filter_jit
def _speciation_time(field: MixtureField) -> Float[Array, ""]:
    dtype = field.mixture.means.dtype
    frozen = jax.lax.stop_gradient(field)
    noise, data = (jnp.asarray(time, dtype) for time in (frozen.noise_time, frozen.data_time))
    # Equidistant in the time of the path: a diffusion leaves the noise within its last few units of integrated rate.
    times = noise + (data - noise) * jnp.linspace(0, 1, _GRID, dtype=dtype)
    values = jax.lax.map(lambda t: _largest_curvature(frozen, t), times)
    beyond = values > 0
    after = jnp.argmax(beyond)
    split = jnp.any(beyond) & (after > 0)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        before, behind = ends
        middle = before + (behind - before) / 2
        crossed = _largest_curvature(frozen, middle) > 0
        return jnp.where(crossed, before, middle), jnp.where(crossed, middle, behind)

    ends = (times[jnp.maximum(after - 1, 0)], times[after])
    low, high = jax.lax.fori_loop(0, jnp.finfo(dtype).nmant + 2, halve, ends)
    time = low + (high - low) / 2
    # A Newton step from the root carries the derivatives.
    slope = jax.grad(lambda t: _largest_curvature(frozen, t))(time)
    correction = _largest_curvature(field, time) / jnp.where(slope == 0, 1, slope)
    return jnp.where(split, time - correction, jnp.nan)


def _largest_curvature(field: MixtureField, t: Array) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian of log p_t at the mean."""
    law = field.law(t)
    hessian = jax.jacfwd(law.score)(law.mean)
    return jnp.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
