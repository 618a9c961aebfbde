"""Increasing scalar maps as neural ODEs without augmentation: the isotopy to the identity."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_positive, check_that, is_concrete
from ..networks import Affine, NeuralODE
from ..reference._root import find_root
from ._target import Target, as_dtype

_POINTS = 1025


class IsotopyField(eqx.Module):
    """The field whose flow moves every x in a straight line to psi(x).

    With h(t, x) = (1 - t/T) x + (t/T) psi(x) the field is f(t, y) = (psi(x) - x) / T at the x with h(t, x) = y. That x is found
    by bisection, and its derivatives by two Newton steps from there, which make the first three exact. Outside the interval
    psi goes on with slope 1.

    Attributes:
        target: the map psi.
        lower: left end of the interval.
        upper: right end.
        horizon: T.
    """

    target: Target
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    horizon: Float[Array, ""]

    def __call__(self, t: Any, h: Float[Array, "1"]) -> Float[Array, "1"]:
        """The slope at time `t`."""
        x = self.origin(t, h[0])
        return ((self._psi(x) - x) / jax.lax.stop_gradient(self.horizon))[None]

    def origin(self, t: Any, y: Float[Array, ""]) -> Float[Array, ""]:
        """Where the point that is at y at the time t came from."""
        lower, upper, horizon = jax.lax.stop_gradient((self.lower, self.upper, self.horizon))
        share = jnp.asarray(t, y.dtype) / horizon.astype(y.dtype)
        psi = self._extended
        place = lambda x, share, psi: (1 - share) * x + share * psi(x)
        low, high = place(lower, share, psi), place(upper, share, psi)
        inside = jnp.clip(y, low, high)
        x = find_root(lambda x, share, psi, y: place(x, share, psi) - y, lower, upper, share, psi, inside)
        return jnp.where(y < low, lower + (y - low), jnp.where(y > high, upper + (y - high), x))

    def _psi(self, x: Array) -> Array:
        return self._extended(x)

    @property
    def _extended(self) -> "_Extended":
        return _Extended(self.target, *jax.lax.stop_gradient((self.lower, self.upper)))


class _Extended(eqx.Module):
    """psi on its interval, with slope 1 outside."""

    target: Target
    lower: Array
    upper: Array

    def __call__(self, x: Array) -> Array:
        inside = jnp.clip(x, self.lower, self.upper)
        # At the ends the derivative is that of the inside, so that Newton's method works there.
        inside = jnp.where((x >= self.lower) & (x <= self.upper), x, inside)
        return self.target(inside[None])[0] + (x - inside)


class IsotopyEmbedding(NeuralODE):
    r"""The neural ODE on the line that represents a given increasing map psi exactly, without augmentation.

    $$h(t, x) = (1 - t/T)\, x + (t/T)\, \psi(x), \qquad f(t, \cdot) = \partial_t h(t, \cdot) \circ h(t, \cdot)^{-1},
    \qquad h'(t) = f(t, h(t)), \quad h(0) = x \;\Longrightarrow\; h(T) = \psi(x).$$

    An autonomous field can do that only for maps that have iterative roots of all orders; this one depends on time. Points move
    in straight lines, so one Runge-Kutta step is exact up to the rounding of the inverse. A decreasing map or one with
    an extremum is impossible (`embedding_obstruction`). It is a `NeuralODE` with widths (1, 1, 1), identity lift and readout, and
    a network for psi, as long as it increases, can be trained in it.

    Args:
        psi: the map, of samples `(1,)`; continuously differentiable with positive derivative on the interval.
        lower: left end of the interval of inputs. Outside it psi is continued with slope 1.
        upper: right end.
        horizon: T, positive.
        num_steps: Runge-Kutta steps; one is exact.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if psi does not increase on the interval (its derivative is looked at in 1,025 points), the ends do not
            increase, or the horizon is not positive.
        TypeError: if `psi` is not callable.

    Example:
        ```python
        model = dj.propagation.IsotopyEmbedding(jnp.sinh, lower=-2.0, upper=2.0)
        model(jnp.array([1.5]))                          # [2.1293]
        ```

    References:
        Kuehn and Kuntz, arXiv:2308.01213 (2023), for the functional equations that autonomous fields obey.
    """

    def __init__(
        self,
        psi: Callable[[Any], Any],
        *,
        lower: Any = -1.0,
        upper: Any = 1.0,
        horizon: Any = 1.0,
        num_steps: int = 1,
        dtype: Any = None,
    ):
        dtype = as_dtype(dtype)
        target = Target(psi, 1, 1, dtype)
        check_positive(horizon, "horizon")
        low, high, end = (jnp.asarray(value, dtype) for value in (lower, upper, horizon))
        _check_increasing(target, low, high)
        identity = Affine(jnp.eye(1, dtype=dtype))
        super().__init__(
            (1, 1, 1),
            horizon=horizon,
            key=jax.random.key(0),
            field=IsotopyField(target, low, high, end),
            lift=identity,
            readout=Affine(jnp.eye(1, dtype=dtype)),
            num_steps=num_steps,
            dtype=dtype,
        )


def _check_increasing(target: Target, lower: Array, upper: Array) -> None:
    if not is_concrete((target, lower, upper)):
        return
    low, high = float(lower), float(upper)
    good = bool(np.isfinite(low) and np.isfinite(high) and low < high)
    check_that(good, "upper", "be finite and above `lower`", f"found lower = {low}, upper = {high}")
    points = jnp.linspace(lower, upper, _POINTS)
    slopes = np.asarray(jax.vmap(jax.grad(lambda x: target(x[None])[0]))(points))
    worst = int(np.argmin(np.where(np.isfinite(slopes), slopes, -np.inf)))
    check_that(
        bool(slopes[worst] > 0),
        "psi",
        f"increase on [{low:g}, {high:g}], with a positive derivative",
        f"its derivative at {float(points[worst]):.6g} is {slopes[worst]:.6g}",
    )
