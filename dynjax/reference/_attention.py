"""Self-attention as interacting particles on the sphere: clustering of tokens in closed form."""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_that
from ._arrays import check_count, check_non_negative, default_float, floats
from ._bessel import bessel_i, bessel_ie
from ._quadrature import tanh_sinh
from ._root import find_root

_Number = Float[Array, ""] | float
_Kind = Literal["sa", "usa"]
# 1 - exp(-s) is 1 to rounding beyond.
_LONGEST = 40.0


def equiangular_overlap(time: _Number, beta: _Number, num_tokens: int, *, kind: _Kind = "sa") -> Float[Array, ""]:
    r"""The common inner product c(t) of n tokens that start orthogonal (in dimension n or more) under self-attention.

    They stay equiangular, and c(0) = 0 grows by

    $$c' = 2 e^{\beta c} (1 - c) \frac{(n - 1) c + 1}{Z},$$

    with Z = e^beta + (n - 1) e^{beta c} for softmax attention (SA) and Z = n for the unnormalised one (USA). In s =
    -log(1 - c) time is
    an integral of a smooth function, summed by the double exponential rule and inverted by bisection. At beta = 0
    it is (e^{2 t} - 1) / (e^{2 t} + n - 1).

    Args:
        time: t >= 0.
        beta: inverse temperature >= 0.
        num_tokens: n, at least 2.
        kind: "sa" or "usa".

    Example:
        ```python
        equiangular_overlap(1.0, 1.0, 8)   # 0.3625869
        ```

    References:
        Geshkovski, Letrouit, Polyanskiy and Rigollet 2023, A mathematical perspective on transformers (arXiv:2312.10794).
    """
    check_non_negative(time, "time")
    check_non_negative(beta, "beta")
    check_count(num_tokens, "num_tokens", 2)
    _check_kind(kind)
    return _overlap(*floats(time, beta), num_tokens, kind)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _overlap(time: Array, beta: Array, num_tokens: int, kind: str) -> Float[Array, ""]:
    rule = tanh_sinh(time.dtype)

    def speed(s: Array, beta: Array) -> Array:
        c = -jnp.expm1(-s)
        total = jnp.exp(beta * (1 - c)) + num_tokens - 1 if kind == "sa" else num_tokens * jnp.exp(-beta * c)
        return 2 * ((num_tokens - 1) * c + 1) / total

    def late(s: Array, time: Array, beta: Array) -> Array:
        return s * jnp.sum(rule.weights / speed(s * rule.t, beta)) - time

    s = find_root(late, jnp.zeros_like(time), jnp.full_like(time, _LONGEST), time, beta)
    return -jnp.expm1(-s)


def attention_mode_growth(
    mode: int, beta: _Number, noise: _Number = 0.0, *, kind: _Kind = "usa"
) -> Float[Array, "..."]:
    r"""Growth rate k^2 I_k(beta) / beta - k^2 D of mode k of uniformly spread tokens on the circle (USA); derived here.

    For softmax attention (SA) the first term is divided by I_0(beta).

    Args:
        mode: k >= 1; an array of integers is allowed.
        beta: inverse temperature > 0.
        noise: D >= 0.
        kind: "sa" or "usa".
    """
    check_non_negative(noise, "noise")
    _check_kind(kind)
    beta, noise = floats(beta, noise)
    order = jnp.asarray(mode)
    rate = bessel_ie(order, beta) / bessel_ie(0, beta) if kind == "sa" else bessel_i(order, beta)
    return order**2 * (rate / beta - noise)


def attention_cluster_number(beta: _Number, max_modes: int = 64) -> Array:
    """The k that maximises k^2 I_k(beta), the fastest growing mode and so the number of metastable clusters; about sqrt(2 beta).

    References:
        Bruno, Pasqualotto and Agazzi 2024, Emergence of meta-stable clustering in mean-field transformer models
        (arXiv:2410.23228).
    """
    check_count(max_modes, "max_modes")
    (beta,) = floats(beta)
    modes = jnp.arange(1, max_modes + 1)
    return 1 + jnp.argmax(modes**2 * bessel_ie(modes, beta[..., None]), axis=-1)


def attention_noise_threshold(beta: _Number) -> Float[Array, "..."]:
    """The noise I_1(beta) / beta above which the uniform state of USA on the circle is linearly stable; derived here.

    No mode k needs more: the threshold of mode k is I_k(beta) / beta, which decreases with k.
    """
    (beta,) = floats(beta)
    return bessel_i(1, beta) / beta


def hemisphere_probability(num_points: int, dimension: int) -> Float[Array, ""]:
    """The probability 2^(1 - n) sum_{k < d} C(n - 1, k) that n uniform points of the sphere in R^d share a hemisphere.

    References:
        Wendel 1962, A problem in geometric probability, Math. Scand. 11.
    """
    check_count(num_points, "num_points")
    check_count(dimension, "dimension")
    favourable = sum(math.comb(num_points - 1, k) for k in range(dimension))
    return default_float(favourable / 2 ** (num_points - 1))


def _check_kind(kind: str) -> None:
    check_that(kind in ("sa", "usa"), "kind", 'be "sa" or "usa"', f"found {kind!r}")
