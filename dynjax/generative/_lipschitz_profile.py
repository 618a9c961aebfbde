"""Lipschitz bounds of a field along its path."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_that, found
from ..networks import lipschitz_bound
from ._field import as_times


class LipschitzProfile(eqx.Module):
    """Bounds on the Lipschitz constant of a field in x.

    Attributes:
        times: the times, `(num_times,)`.
        bounds: K(t) with |field(t, x) - field(t, y)| <= K(t) |x - y| for all x and y, `(num_times,)`.
        log_expansion: int_{t_0}^t K, by the trapezoidal rule, `(num_times,)`: the logarithm of the factor by which, by
            Gronwall's inequality, the flow can part two points.
    """

    times: Float[Array, "num_times"]
    bounds: Float[Array, "num_times"]
    log_expansion: Float[Array, "num_times"]

    def __str__(self) -> str:
        return f"LipschitzProfile({self.times.shape[0]} times, largest bound {jnp.max(self.bounds):.5g})"


def lipschitz_profile(field: Any, times: Any = None, *, norm: str = "euclidean") -> LipschitzProfile:
    r"""Lipschitz bounds of a field at each time of a path, and what they allow the flow to do.

    | field | K(t) |
    |---|---|
    | `MixtureField`, one common covariance | in closed form; attained for two isotropic modes |
    | `ScoreField` | beta(t) a(t) / 2 times the product of the norms of the layers |
    | `VelocityField` and all that `dj.networks.lipschitz_bound` takes | the product of the norms of the layers |

    Args:
        field: one of these, or an object with a method `lipschitz_bound_at(t, norm)` or `lipschitz_bound(norm)`.
        times: strictly monotone times; 129 equidistant ones from noise to data by default.
        norm: "euclidean" or "sup".

    Raises:
        ValueError: if the times leave the path or are not monotone, the norm is unknown, or the modes of a mixture have
            different covariances.
        TypeError: if nothing is known about the field.

    Example:
        ```python
        field = dj.generative.GaussianMixture([-2.0, 2.0], 0.25).flow_matching_field()
        dj.generative.lipschitz_profile(field).bounds.max()
        ```
    """
    check_that(norm in ("sup", "euclidean"), "norm", 'be "sup" or "euclidean"', f"found {norm!r}")
    leaves = jax.tree_util.tree_leaves(eqx.filter(field, eqx.is_inexact_array))
    dtype = jnp.result_type(float) if not leaves else jnp.result_type(*leaves)
    if times is None:
        start, stop = as_times(None, field, dtype)
        times = start + (stop - start) * jnp.linspace(0, 1, 129, dtype=dtype)
    times = as_times(times, field, dtype)
    if hasattr(field, "lipschitz_bound_at"):
        field.lipschitz_bound_at(times[0], norm)  # raises with the right sentence
        bounds = jax.vmap(lambda t: field.lipschitz_bound_at(t, norm))(times)
    else:
        bounds = jnp.broadcast_to(_constant_bound(field, norm), times.shape).astype(dtype)
    steps = jnp.abs(jnp.diff(times)) * (bounds[1:] + bounds[:-1]) / 2
    return LipschitzProfile(times, bounds, jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(steps)]))


def _constant_bound(field: Any, norm: str) -> Float[Array, ""]:
    try:
        return lipschitz_bound(field, norm)
    except TypeError as error:
        raise TypeError(
            "Argument `field` must be one of the fields with a known bound, or have a method `lipschitz_bound_at(t, norm)` or "
            f"`lipschitz_bound(norm)`, but {found(field)}."
        ) from error
