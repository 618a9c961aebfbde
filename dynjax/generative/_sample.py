"""Sampling: the flow of a field from noise to data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

from ._field import SolveOptions, as_points, as_times, check_field, over_points, solve, summary


class Samples(eqx.Module):
    """Points carried along a field.

    Attributes:
        points: where they are at the last time, `(*batch, d)`; NaN where the solver failed.
        path: where they are at each of the times, `(*batch, num_times, d)`.
        times: the times, `(num_times,)`.
        num_steps: steps tried for each point, `(*batch,)`.
        status: `OK`, `NONFINITE`, `MAX_STEPS` or `ERROR` for each point, `(*batch,)`.
    """

    points: Float[Array, "*batch d"]
    path: Float[Array, "*batch num_times d"]
    times: Float[Array, "num_times"]
    num_steps: Int[Array, "*batch"]
    status: Int8[Array, "*batch"]

    def __str__(self) -> str:
        return f"Samples(shape {self.points.shape}, {self.times.shape[0]} times, {summary(self.status)})"


def sample(
    field: Any,
    x0: Float[Array, "*batch d"],
    *,
    times: Any = None,
    num_steps: int | None = None,
    method: str = "rk4",
    solver: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
    adjoint: Any = None,
) -> Samples:
    r"""Carry points along x' = field(t, x), from noise to data unless `times` say otherwise.

    Every point has its own steps and its own status, in one program. It runs under `jit`, `vmap` and reverse-mode
    derivatives (forward mode with `adjoint=diffrax.ForwardMode()`, both with `num_steps`).

    Args:
        field: `field(t, x) -> velocity` for one point: a `MixtureField`, a trained field, or a function. It may have the
            attributes `noise_time` and `data_time`; otherwise these are 0 and 1.
        x0: points at the first time, `(*batch, d)`.
        times: strictly monotone times, `(num_times,)`, the ends of the path by default. From data to noise they encode.
        num_steps: fixed Runge-Kutta steps in each interval between two times, in place of the adaptive solver.
        method: of these fixed steps, as in `Flow`.
        solver: the adaptive Diffrax solver; `diffrax.Tsit5()` by default.
        rtol: relative tolerance; a tenth of the square root of the precision by default.
        atol: absolute tolerance; `rtol` by default.
        max_steps: the most steps that the adaptive solver may try.
        adjoint: a Diffrax adjoint.

    Returns:
        `Samples`. Cost: about 6 evaluations of the field a step (4 for "rk4").

    Raises:
        ValueError: if the points have not the dimension of the field, or the times leave its path or are not monotone.
        TypeError: if `field` is not callable or `solver` is none of Diffrax.

    Example:
        ```python
        field = dj.generative.GaussianMixture([-2.0, 2.0], 0.25).flow_matching_field()
        dj.generative.sample(field, jnp.array([0.5])).points        # 1.8510961
        ```

    References:
        Song et al., Score-based generative modeling through stochastic differential equations (2021), section 4.3.
    """
    options = SolveOptions(num_steps, method, solver, rtol, atol, max_steps, adjoint).checked()
    x0 = as_points(x0, "x0")
    check_field(field, x0, "x0")
    return _sample(field, x0, as_times(times, field, x0.dtype), options)


@eqx.filter_jit
def _sample(field: Any, x0: Array, times: Array, options: SolveOptions) -> Samples:
    path, steps, status = over_points(lambda x: solve(field, x, times, options), x0)
    return Samples(jnp.take(path, -1, axis=-2), path, times, steps, status)
