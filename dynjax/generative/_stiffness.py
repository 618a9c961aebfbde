"""How stiff a field is along a path."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_that, found, is_concrete
from ._field import as_points, check_field, time_span
from ._noise_paths import as_float, check_time


class Stiffness(eqx.Module):
    """Eigenvalues and norms of the Jacobian J = d field / dx, at each point.

    Attributes:
        abscissa: the largest real part of an eigenvalue, `(*batch,)`.
        least_real: the smallest real part, `(*batch,)`.
        radius: the largest modulus of an eigenvalue, `(*batch,)`.
        norm: the largest singular value, the local Lipschitz constant, `(*batch,)`.
        growth: the largest eigenvalue of (J + J^T) / 2, the fastest rate at which a perturbation grows, `(*batch,)`.
    """

    abscissa: Float[Array, "*batch"]
    least_real: Float[Array, "*batch"]
    radius: Float[Array, "*batch"]
    norm: Float[Array, "*batch"]
    growth: Float[Array, "*batch"]

    def __str__(self) -> str:
        return (
            f"Stiffness(shape {self.radius.shape}, real parts from {jnp.min(self.least_real):.4g} "
            f"to {jnp.max(self.abscissa):.4g}, norm up to {jnp.max(self.norm):.4g})"
        )


def stiffness(field: Any, x: Float[Array, "*batch d"], t: Any) -> Stiffness:
    r"""The extreme eigenvalues and norms of the Jacobian of a field at points (t, x).

    An explicit method of step h needs about h * radius < 3. For flow matching to modes of variance s^2 the eigenvalue inside a
    mode is (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2), about -1/(1 - t) near the end, until 1 - t is about s, and never below
    -(1 + s^2) / (2 s); between modes there are positive ones up to `MixtureField.slope_range_at`. The eigenvalues are those
    for time that increases; where sampling runs backwards, as in a diffusion, growth has the opposite sign.

    Args:
        field: `field(t, x) -> velocity` for one point.
        x: points, `(*batch, d)`, such as `samples.path`.
        t: their times: a number, or an array that broadcasts to `batch`, such as `samples.times`.

    Returns:
        A `Stiffness`. Cost: d derivatives and a dense eigenvalue problem for each point.

    Raises:
        ValueError: if shapes do not fit or a time is off the path of the field.
        TypeError: if `field` is not callable.

    Example:
        ```python
        samples = dj.generative.sample(field, x0, times=jnp.linspace(0, 1, 101))
        dj.generative.stiffness(field, samples.path, samples.times).radius      # (*batch, 101)
        ```

    References:
        Hairer and Wanner, Solving Ordinary Differential Equations II (1996), section IV.2.
    """
    x = as_points(x, "x")
    check_field(field, x, "x")
    t = as_float(t).astype(x.dtype)
    try:
        t = jnp.broadcast_to(t, x.shape[:-1])
    except ValueError:
        check_that(False, "t", f"broadcast to the leading axes {x.shape[:-1]} of `x`", found(t))
    span = time_span(field)
    if is_concrete(span):
        low, high = sorted(map(float, span))
        check_time(t, low, high)
    return _stiffness(field, x, t)


@eqx.filter_jit
def _stiffness(field: Any, x: Array, t: Array) -> Stiffness:
    def single(x: Array, t: Array) -> Stiffness:
        jacobian = jax.jacfwd(lambda x: field(t, x))(x)
        finite = jnp.all(jnp.isfinite(jacobian))
        jacobian = jnp.where(finite, jacobian, 0)
        values = jnp.linalg.eigvals(jacobian)
        real = jnp.real(values)
        growth = jnp.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1]
        norm = jnp.linalg.svd(jacobian, compute_uv=False)[0]
        out = Stiffness(jnp.max(real), jnp.min(real), jnp.max(jnp.abs(values)), norm, growth)
        return jax.tree_util.tree_map(lambda leaf: jnp.where(finite, leaf, jnp.nan), out)

    flat = jax.vmap(single)(x.reshape(-1, x.shape[-1]), t.reshape(-1))
    return jax.tree_util.tree_map(lambda leaf: leaf.reshape(x.shape[:-1]), flat)
