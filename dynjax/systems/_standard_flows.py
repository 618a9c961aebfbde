"""Standard flows and delay equations: one function each, with the usual parameters, which are traced."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._core import check_that
from ._catalogue import like, matrix, parameters, start
from ._delay import DelayFlow, History
from ._flow import Flow


def _is_short(method: str) -> bool:
    """Where stepping by components pays, by measurement."""
    return method in ("euler", "midpoint", "heun", "rk4")


def _lorenz63(t: Any, y: Array, args: Any) -> Array:
    sigma, rho, beta = like(args, y)
    return jnp.stack([sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]])


def _lorenz96(t: Any, y: Array, args: Any) -> Array:
    (forcing,) = like(args, y)
    # One copy with the ends repeated, and a barrier behind it: fused, every entry decides anew where it comes from, and a
    # step with ten tangents took 10 us in place of 3.5 on a CPU.
    ring = jax.lax.optimization_barrier(jnp.concatenate([y[-2:], y, y[:1]]))
    return (ring[3:] - ring[:-3]) * ring[1:-2] - y + forcing


def _rossler(t: Any, y: Array, args: Any) -> Array:
    a, b, c = like(args, y)
    return jnp.stack([-y[1] - y[2], y[0] + a * y[1], b + y[2] * (y[0] - c)])


def _stuart_landau(t: Any, y: Array, args: Any) -> Array:
    mu, omega = like(args, y)
    growth = mu - (y[0] ** 2 + y[1] ** 2)
    return jnp.stack([growth * y[0] - omega * y[1], omega * y[0] + growth * y[1]])


def _linear(t: Any, y: Array, args: Any) -> Array:
    (a,) = like(args, y)
    return jnp.matmul(a, y, precision="highest")


def _mackey_glass(t: Any, y: Array, delayed: Array, args: Any) -> Array:
    beta, gamma, power = args
    beta, gamma = like((beta, gamma), y)
    return beta * delayed / (1 + delayed**power) - gamma * y


def _linear_delay(t: Any, y: Array, delayed: Array, args: Any) -> Array:
    a, b = like(args, y)
    return a * y + b * delayed


@start(lambda *_, **__: jnp.asarray([1.0, 1.0, 20.0]))
def lorenz63(dt: Any = 0.01, *, sigma: Any = 10.0, rho: Any = 28.0, beta: Any = 8 / 3, method: str = "rk4") -> Flow:
    """The Lorenz system; start (1, 1, 20). The exponents are about 0.9056, 0, -14.572, their sum is -(1 + sigma + beta).

        x' = sigma (y - x),    y' = x (rho - z) - y,    z' = x y - beta z

    Args:
        dt: Time per step.
        sigma: Prandtl number.
        rho: Rayleigh number.
        beta: geometric factor.
        method: Runge-Kutta method of `Flow`. The sum of the exponents is wrong by 1e-4 for "rk4" at dt = 0.01, by
            3e-7 for "dopri5".

    References:
        Lorenz, Deterministic nonperiodic flow (1963).
    """
    return Flow(
        _lorenz63, dt, method=method, componentwise=_is_short(method), args=parameters(sigma=sigma, rho=rho, beta=beta)
    )


@start(lambda size=40, *_, forcing=8.0, **__: jnp.full(size, jnp.asarray(forcing, float)).at[0].add(0.01))
def lorenz96(size: int = 40, dt: Any = 0.02, *, forcing: Any = 8.0, method: str = "rk4") -> Flow:
    """Lorenz's ring of 1996; start (forcing, ..., forcing) with 0.01 added to the first. The exponents sum to -size.

        x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + forcing

    Args:
        size: number of sites, static, at least 4.
        dt: Time per step.
        forcing: F.
        method: Runge-Kutta method of `Flow`.

    Raises:
        ValueError: if `size` is below 4.
    """
    check_that(isinstance(size, int) and size >= 4, "size", "be an integer of at least 4", f"found {size!r}")
    return Flow(_lorenz96, dt, method=method, args=parameters(forcing=forcing))


@start(lambda *_, **__: jnp.asarray([1.0, 1.0, 0.0]))
def rossler(dt: Any = 0.02, *, a: Any = 0.2, b: Any = 0.2, c: Any = 5.7, method: str = "rk4") -> Flow:
    """Roessler's system x' = -y - z, y' = x + a y, z' = b + z (x - c); start (1, 1, 0). First exponent about 0.071.

    Args:
        dt: Time per step.
        a: see the equation.
        b: see the equation.
        c: see the equation.
        method: Runge-Kutta method of `Flow`.
    """
    return Flow(_rossler, dt, method=method, componentwise=_is_short(method), args=parameters(a=a, b=b, c=c))


@start(lambda *_, **__: jnp.asarray([0.5, 0.0]))
def stuart_landau(dt: Any = 0.02, *, mu: Any = 1.0, omega: Any = 1.0, method: str = "rk4") -> Flow:
    """The Stuart-Landau oscillator z' = (mu + i omega) z - |z|^2 z as two real numbers; start (0.5, 0).

    Its limit cycle has the radius sqrt(mu) and the exponents 0 and -2 mu.

    Args:
        dt: Time per step.
        mu: distance from the Hopf bifurcation.
        omega: angular frequency.
        method: Runge-Kutta method of `Flow`.
    """
    return Flow(_stuart_landau, dt, method=method, args=parameters(mu=mu, omega=omega))


@start(lambda a, *_, **__: jnp.ones(len(a)))
def linear_flow(a: Any, dt: Any = 0.01, *, method: str = "rk4") -> Flow:
    """The linear equation y' = a y; start (1, ..., 1). The exponents of the equation are Re eig(a).

    Args:
        a: a real square matrix, (dim, dim).
        dt: Time per step.
        method: Runge-Kutta method of `Flow`.

    Raises:
        ValueError: if `a` is not square.
    """
    return Flow(_linear, dt, method=method, args=parameters(a=matrix(a)))


def _mackey_glass_start(*args: Any, **kwargs: Any) -> History:
    return mackey_glass(*args, **kwargs).init(jnp.asarray(1.2))


def _linear_delay_start(*args: Any, **kwargs: Any) -> History:
    return linear_delay(*args, **kwargs).init(jnp.asarray(1.0))


@start(_mackey_glass_start)
def mackey_glass(
    dt: Any = 0.1,
    *,
    tau: Any = 17.0,
    beta: Any = 0.2,
    gamma: Any = 0.1,
    power: Any = 10,
    num_history: int | None = None,
) -> DelayFlow:
    """The Mackey-Glass equation; start: the constant past 1.2. At tau = 17 the first exponent is 0.00513.

        y' = beta y(t - tau) / (1 + y(t - tau)^power) - gamma y

    Args:
        dt: Time per step.
        tau: delay.
        beta: production.
        gamma: decay.
        power: an `int` is static and fast; anything else is traced.
        num_history: see `DelayFlow`; needed where `tau` or `dt` is traced.

    References:
        Mackey and Glass, Oscillation and chaos in physiological control systems (1977).
    """
    args = (*parameters(beta=beta, gamma=gamma), power if isinstance(power, int) else parameters(power=power)[0])
    return DelayFlow(_mackey_glass, tau, dt, args=args, num_history=num_history)


@start(_linear_delay_start)
def linear_delay(
    dt: Any = 0.05, *, tau: Any = 1.0, a: Any = 0.0, b: Any = -1.0, num_history: int | None = None
) -> DelayFlow:
    """The linear delay equation y' = a y + b y(t - tau); start: the constant past 1.

    Its exponents are Re(a + W_k(b tau exp(-a tau)) / tau) over the branches k of Lambert's W.

    Args:
        dt: Time per step.
        tau: delay.
        a: instantaneous rate.
        b: delayed rate.
        num_history: see `DelayFlow`; needed where `tau` or `dt` is traced.
    """
    return DelayFlow(_linear_delay, tau, dt, args=parameters(a=a, b=b), num_history=num_history)
