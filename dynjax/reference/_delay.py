"""Characteristic roots of the scalar linear delay equation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._core import check_positive
from ._arrays import check_count, floats

_ITERATIONS = 8


def delay_roots(
    growth: Float[Array, ""] | float,
    feedback: Float[Array, ""] | float,
    delay: Float[Array, ""] | float,
    num_roots: int,
) -> Complex[Array, "num_roots"]:
    r"""The rightmost characteristic roots of x'(t) = a x(t) + b x(t - tau).

    The roots of lambda = a + b exp(-lambda tau) are lambda_k = a + W_k(b tau exp(-a tau)) / tau over all branches k of
    Lambert's W. They are found from w + log w = log(b tau) - a tau + 2 pi i k by a fixed number of Newton steps, so that
    exp(-a tau) may overflow. Derivatives are implicit: d lambda = (da + exp(-lambda tau) db - lambda (lambda - a)
    dtau) / (1 + tau (lambda - a)), exact to any order and infinite at a double root.

    Args:
        growth: a, per unit of time.
        feedback: b, per unit of time. For b = 0 there is one root, a; the others are at -inf.
        delay: tau > 0.
        num_roots: how many.

    Returns:
        The roots by descending real part, each member of a conjugate pair by itself, the upper one first.

    Raises:
        ValueError: if `delay` is not positive or `num_roots` is no positive integer.

    Example:
        ```python
        delay_roots(0.0, -0.5, 1.0, 4)   # -0.794 + 0.770i, -0.794 - 0.770i, -2.772 + 7.500i, -2.772 - 7.500i
        ```

    References:
        Corless, Gonnet, Hare, Jeffrey, Knuth 1996, On the Lambert W function, Adv. Comput. Math. 5.
    """
    check_positive(delay, "delay")
    check_count(num_roots, "num_roots")
    return _compiled(num_roots, *floats(growth, feedback, delay))


def delay_exponents(
    growth: Float[Array, ""] | float,
    feedback: Float[Array, ""] | float,
    delay: Float[Array, ""] | float,
    num_exponents: int,
) -> Float[Array, "num_exponents"]:
    """The largest Lyapunov exponents of x'(t) = a x(t) + b x(t - tau): the real parts of `delay_roots`, per unit of time.

    Example:
        ```python
        delay_exponents(0.0, -1.0, 1.0, 1)   # -0.318131505204764
        ```
    """
    return jnp.real(delay_roots(growth, feedback, delay, num_exponents))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _roots(num_roots: int, a: Array, b: Array, tau: Array) -> Complex[Array, "num_roots"]:
    none = b == 0
    log_modulus = jnp.log(jnp.where(none, 1, jnp.abs(b)) * tau) - a * tau  # log of abs(z), z = b tau exp(-a tau)
    half = num_roots // 2 + 1
    pairs = 2 * jnp.pi * jnp.arange(1, half + 1, dtype=a.dtype) + jnp.where(b > 0, 0, jnp.pi)
    upper = _upper(log_modulus + 1j * pairs)
    upper_and_lower = jnp.stack([upper, jnp.conj(upper)], axis=1).ravel()
    positive = jnp.concatenate([_principal(log_modulus)[None], upper_and_lower])[:num_roots]
    negative = jnp.concatenate([_first_pair(log_modulus + 1), upper_and_lower])[:num_roots]
    w = jnp.where(b > 0, positive, negative)
    alone = jnp.where(jnp.arange(num_roots) == 0, a, -jnp.inf)
    return jnp.where(none, alone, a + w / tau)


@_roots.defjvp
def _roots_jvp(num_roots: int, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    (a, b, tau), (a_dot, b_dot, tau_dot) = primals, tangents
    roots = _roots(num_roots, a, b, tau)
    rate = roots - a  # = b exp(-lambda tau)
    change = a_dot + jnp.exp(-roots * tau) * b_dot - roots * rate * tau_dot
    return roots, change / (1 + tau * rate)


_compiled = jax.jit(_roots, static_argnums=0)


def _principal(log_z: Float[Array, ""]) -> Complex[Array, ""]:
    """W_0(z) for z > 0: the start is below the root, and w + log w is concave, so that the steps increase."""
    w = jnp.where(log_z > 1, log_z - jnp.log(jnp.maximum(log_z, 1)), jax.nn.sigmoid(log_z))
    return _complex(jnp.where(w > jnp.finfo(w.dtype).tiny, _newton(w, log_z), w))


def _upper(log_z: Complex[Array, "roots"]) -> Complex[Array, "roots"]:
    """The root w in the upper half plane, where the imaginary part of log z is not small."""
    return _newton(log_z - jnp.log(log_z), log_z)


def _first_pair(excess: Float[Array, ""]) -> Complex[Array, "2"]:
    """W_0(z) and W_-1(z) for z < 0, from log(-z) + 1: a conjugate pair if that is positive, else two real numbers."""
    above = _upper(jnp.maximum(excess, 0) - 1 + 1j * jnp.pi)
    level = jnp.maximum(-excess, 0) + 1  # u - log u of u = -w
    tiny = jnp.exp(-level)
    small, large = tiny, level + jnp.log(level)

    def step(_: int, u: tuple[Array, Array]) -> tuple[Array, Array]:
        small, large = u
        return small * (1 - level - jnp.log(small)) / (1 - small), large * (jnp.log(large) + level - 1) / (large - 1)

    small, large = jax.lax.fori_loop(0, _ITERATIONS, step, (small, large))
    small = jnp.where(tiny > jnp.finfo(tiny.dtype).tiny, small, tiny)
    complex_pair, real_pair = jnp.stack([above, jnp.conj(above)]), _complex(-jnp.stack([small, large]))
    return jnp.where(jnp.abs(excess) < 0.5, _near_branch_point(excess), jnp.where(excess > 0, complex_pair, real_pair))


def _near_branch_point(excess: Float[Array, ""]) -> Complex[Array, "2"]:
    """W_0 and W_-1 near -1, where they meet: v = w + 1 solves v + log(1 - v) = log(-z) + 1, with no cancellation in v."""
    p = jnp.sqrt(_complex(-2 * jnp.expm1(jnp.clip(excess, -0.5, 0.5))))
    p = jnp.stack([p, -p])
    v = p - p**2 / 3 + 11 * p**3 / 72

    def step(_: int, v: Array) -> Array:
        flat = v == 0
        return v + jnp.where(flat, 0, (v + jnp.log1p(-v) - excess) * (1 - v)) / jnp.where(flat, 1, v)

    return jax.lax.fori_loop(0, _ITERATIONS, step, v) - 1


def _newton(w: Array, log_z: Array) -> Array:
    """Newton's method for w + log w = log z. Roundings are relative to w, also for tiny ones."""
    return jax.lax.fori_loop(0, _ITERATIONS, lambda _, w: w * (1 + log_z - jnp.log(w)) / (1 + w), w)


def _complex(x: Float[Array, "..."]) -> Complex[Array, "..."]:
    return jax.lax.complex(x, jnp.zeros_like(x))
