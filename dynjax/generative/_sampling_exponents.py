"""Finite-time exponents along sampling: how the flow from noise to data stretches."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from .._core import Status, check_count
from ._field import as_points, as_times, check_field, finite_status, interval_flow, over_points, summary


class SamplingExponents(eqx.Module):
    """Finite-time exponents along sampling.

    Attributes:
        exponents: (1/|t - t_0|) log of the singular values of the derivative of x_0 -> x(t), descending,
            `(*batch, num_times, d)`; at the first time their limit, the instantaneous rates.
        path: the points at each time, `(*batch, num_times, d)`.
        times: the times, `(num_times,)`.
        status: `OK`, or `NONFINITE` where the path left the finite numbers (exponents are then NaN), `(*batch,)`.
    """

    exponents: Float[Array, "*batch num_times d"]
    path: Float[Array, "*batch num_times d"]
    times: Float[Array, "num_times"]
    status: Int8[Array, "*batch"]

    @property
    def log_stretching(self) -> Float[Array, "*batch num_times d"]:
        """The logarithms of the singular values themselves, exponents times elapsed time."""
        return self.exponents * jnp.abs(self.times - self.times[0])[:, None]

    def __str__(self) -> str:
        return f"SamplingExponents(shape {self.exponents.shape}, {summary(self.status)})"


def sampling_exponents(
    field: Any, x0: Float[Array, "*batch d"], times: Any = None, *, num_steps: int = 32, method: str = "rk4"
) -> SamplingExponents:
    r"""Finite-time Lyapunov exponents along the sampling path of each point.

    With D(t) the derivative of x_0 -> x(t) and s_1 >= s_2 >= ... its singular values,

        Lambda_i(t) = log(s_i) / |t - t_0|,    Lambda_i(t_0) = eigenvalues of the symmetric part of the Jacobian of the field.

    Positive ones say that neighbouring noise is told apart (between modes), negative ones that it is contracted (into a mode,
    onto a manifold of data). The steps are fixed ones and D is the derivative of these steps, not of the equation, and its
    singular values are those of the product: values below the precision times the largest are lost.

    Args:
        field: `field(t, x) -> velocity` for one point, as in `sample`.
        x0: points at the first time, `(*batch, d)`.
        times: strictly monotone times, `(num_times,)`; 33 equidistant ones from noise to data by default.
        num_steps: Runge-Kutta steps between two times.
        method: of these steps, as in `Flow`.

    Returns:
        `SamplingExponents`. Cost: d derivatives of the field with each step, and a singular value decomposition for each time.

    Raises:
        ValueError: if the points have not the dimension of the field, or the times leave its path or are not monotone.
        TypeError: if `field` is not callable.

    Example:
        ```python
        found = dj.generative.sampling_exponents(field, jax.random.normal(key, (100, 2)))
        found.exponents[:, -1, 0]          # the largest one at the end, for each point
        ```

    References:
        Haller, Distinguished material surfaces and coherent structures in three-dimensional fluid flows (2001).
    """
    check_count(num_steps, "num_steps")
    x0 = as_points(x0, "x0")
    check_field(field, x0, "x0")
    if times is None:
        start, stop = as_times(None, field, x0.dtype)
        times = start + (stop - start) * jnp.linspace(0, 1, 33, dtype=x0.dtype)
    return _exponents(field, x0, as_times(times, field, x0.dtype), num_steps, method)


@eqx.filter_jit
def _exponents(field: Any, x0: Array, times: Array, num_steps: int, method: str) -> SamplingExponents:
    def single(x: Array) -> tuple[Array, Array, Array]:
        frame = jnp.eye(x.shape[0], dtype=x.dtype)

        def interval(carry: tuple[Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
            flow = interval_flow(field, *ends, num_steps, method)
            carry = jax.lax.scan(lambda c, n: (flow.tangent_step(n, *c), None), carry, jnp.arange(num_steps))[0]
            return carry, carry

        _, (path, frames) = jax.lax.scan(interval, (x, frame), (times[:-1], times[1:]))
        jacobian = jax.jacfwd(lambda x: field(times[0], x))(x)
        sign = jnp.sign(times[1] - times[0])
        rates = jnp.sort(jnp.linalg.eigvalsh(sign * (jacobian + jacobian.T) / 2), descending=True)
        status = finite_status(path, frames, rates)
        good = status == int(Status.OK)
        # The decomposition of something that is not finite may never end.
        values = jnp.linalg.svd(jnp.where(good, frames, frame), compute_uv=False)
        later = jnp.log(values) / jnp.abs(times[1:] - times[0])[:, None]
        exponents = jnp.concatenate([rates[None].astype(x.dtype), later])
        return jnp.where(good, exponents, jnp.nan), jnp.concatenate([x[None], path]), status

    exponents, path, status = over_points(single, x0)
    return SamplingExponents(exponents, path, times, status)
