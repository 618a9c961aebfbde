"""Log-likelihoods along a field by the instantaneous change of variables."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray

from .._core import check_count, check_that, found
from ._field import SolveOptions, as_points, as_times, check_field, over_points, solve, summary

Divergence = Literal["exact", "hutchinson"]


class LogLikelihood(eqx.Module):
    """Log-densities of points under a flow.

    Attributes:
        value: log p of each point, in nats, `(*batch,)`.
        standard_error: of the estimate of the divergence, `(*batch,)`; 0 where it is exact, infinite for a single probe.
        noise: where the points come from, `(*batch, d)`.
        num_steps: steps tried, `(*batch,)`.
        status: `OK`, `NONFINITE`, `MAX_STEPS` or `ERROR`, `(*batch,)`; the value is then NaN.
    """

    value: Float[Array, "*batch"]
    standard_error: Float[Array, "*batch"]
    noise: Float[Array, "*batch d"]
    num_steps: Int[Array, "*batch"]
    status: Int8[Array, "*batch"]

    @property
    def bits_per_dimension(self) -> Float[Array, "*batch"]:
        """-log2 p / d."""
        return -self.value / (np.log(2).item() * self.noise.shape[-1])

    def __str__(self) -> str:
        return f"LogLikelihood(shape {self.value.shape}, mean {jnp.mean(self.value):.5g}, {summary(self.status)})"


def log_likelihood(
    field: Any,
    x1: Float[Array, "*batch d"],
    *,
    base: Any = None,
    divergence: Divergence = "exact",
    key: PRNGKeyArray | None = None,
    num_probes: int = 16,
    times: Any = None,
    num_steps: int | None = None,
    method: str = "rk4",
    solver: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
    adjoint: Any = None,
) -> LogLikelihood:
    r"""The log-density that the flow of `field` gives to data.

    With x(t) the solution through the data point x_1 and p_0 the base density at the time of the noise,

        log p(x_1) = log p_0(x(t_noise)) + int_{t_data}^{t_noise} div field(t, x(t)) dt.

    The divergence is the trace of the Jacobian, by d derivatives a step, or Hutchinson's estimate v . J v with random signs
    v that are kept along the whole path (so that the integrand is smooth), which costs one derivative for each probe.

    Args:
        field: `field(t, x) -> velocity` for one point, as in `sample`.
        x1: data, `(*batch, d)`.
        base: the density at the time of the noise: a function `x -> log p_0(x)` or an object with the method `log_density`;
            standard normal by default. For the exact field of a diffusion it is `field.log_noise_density`: the law
            at the horizon is not normal, and at a(T) = 0.02 the difference shows in the third digit.
        divergence: "exact" or "hutchinson".
        key: of the probes, for "hutchinson".
        num_probes: number of probes, for "hutchinson".
        times: (data, noise), and more in between if fixed steps should vary; the ends of the path by default.
        num_steps: fixed Runge-Kutta steps in each interval between two times.
        method: of these fixed steps.
        solver: the adaptive Diffrax solver; `diffrax.Tsit5()` by default.
        rtol: relative tolerance; a tenth of the square root of the precision by default.
        atol: absolute tolerance; `rtol` by default.
        max_steps: the most steps that the adaptive solver may try.
        adjoint: a Diffrax adjoint.

    Returns:
        A `LogLikelihood`.

    Raises:
        ValueError: if the points have not the dimension of the field, a time is off its path, the times do not run from data to
            noise, `divergence` is unknown, "hutchinson" comes without a key, or `base` does not give one number for a point.
        TypeError: if `field` or `base` is not callable.

    Example:
        ```python
        mixture = dj.generative.GaussianMixture([-2.0, 2.0], 0.25)
        dj.generative.log_likelihood(mixture.flow_matching_field(), jnp.array([1.5])).value    # mixture.log_density([1.5])
        ```

    References:
        Chen, Rubanova, Bettencourt and Duvenaud, Neural ordinary differential equations (2018), theorem 1; Grathwohl, Chen,
        Bettencourt, Sutskever and Duvenaud, FFJORD (2019).
    """
    options = SolveOptions(num_steps, method, solver, rtol, atol, max_steps, adjoint).checked()
    x1 = as_points(x1, "x1")
    check_field(field, x1, "x1")
    times = as_times(times, field, x1.dtype, to_data=False)
    base = standard_normal if base is None else getattr(base, "log_density", base)
    _check_base(base, jax.ShapeDtypeStruct(x1.shape[-1:], x1.dtype))
    known = divergence in ("exact", "hutchinson")
    check_that(known, "divergence", 'be "exact" or "hutchinson"', f"found {divergence!r}")
    count = int(np.prod(x1.shape[:-1]))
    if divergence == "exact":
        probes = jnp.broadcast_to(jnp.eye(x1.shape[-1], dtype=x1.dtype), (count, x1.shape[-1], x1.shape[-1]))
    else:
        check_count(num_probes, "num_probes")
        check_that(key is not None, "key", "be given for Hutchinson's estimate", "it is None")
        assert key is not None
        probes = jax.random.rademacher(key, (count, num_probes, x1.shape[-1]), x1.dtype)
    return _log_likelihood(field, x1, probes, times, base, divergence == "exact", options)


def _check_base(base: Any, point: jax.ShapeDtypeStruct) -> None:
    must = "be a function `x -> log p(x)` or have the method `log_density`"
    check_that(callable(base), "base", must, found(base), TypeError)
    must = f"give one number for a point of shape {point.shape}"
    try:
        out = eqx.filter_eval_shape(base, point)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"Argument `base` must {must}, but it raised: {reason}") from error
    check_that(getattr(out, "shape", None) == (), "base", must, found(out))


def standard_normal(x: Float[Array, "d"]) -> Float[Array, ""]:
    """The log-density of N(0, I)."""
    return -(jnp.sum(x**2) + x.shape[-1] * np.log(2 * np.pi).item()) / 2


@eqx.filter_jit
def _log_likelihood(
    field: Any,
    x1: Array,
    probes: Float[Array, "points num_probes d"],
    times: Array,
    base: Callable[[Any], Any],
    exact: bool,
    options: SolveOptions,
) -> LogLikelihood:
    def single(x: Array, probes: Array) -> LogLikelihood:
        (path, integrals), steps, status = solve(
            _Augmented(field, probes, exact), (x, _zeros(probes, exact)), times, options
        )
        noise, integral = path[-1], integrals[-1]
        error = jnp.zeros_like(x[0])
        if not exact:
            n = integral.shape[0]
            error = jnp.std(integral, ddof=1) / n**0.5 if n > 1 else jnp.full_like(x[0], jnp.inf)
        return LogLikelihood(base(noise) + jnp.mean(integral), error, noise, steps, status)

    return over_points(single, x1, probes)


def _zeros(probes: Float[Array, "num_probes d"], exact: bool) -> Float[Array, "integrals"]:
    return jnp.zeros(1 if exact else probes.shape[0], probes.dtype)


class _Augmented(eqx.Module):
    """The field together with its divergence, exact or one estimate for each probe."""

    field: Any
    probes: Float[Array, "num_probes d"]
    exact: bool = eqx.field(static=True)

    def __call__(self, t: Any, y: tuple[Array, Array]) -> tuple[Array, Array]:
        velocity, push = jax.linearize(lambda x: self.field(t, x), y[0])
        terms = jnp.sum(self.probes * jax.vmap(push)(self.probes), -1)
        return velocity, jnp.sum(terms)[None] if self.exact else terms
