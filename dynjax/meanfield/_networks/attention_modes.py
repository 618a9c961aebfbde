"""What the Fourier modes of the uniform state say about self-attention on the circle: growth, clusters, noise."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..._core import check_count, check_that, is_concrete

_TRACED_MODES = 64
_KINDS = ("sa", "usa")


def mode_growth_rate(mode: int, beta: Any, *, kind: str = "usa", noise: Any = 0.0) -> Float[Array, ""]:
    r"""The rate at which mode k of a nearly uniform distribution of tokens on the circle grows.

        "usa":  k^2 (I_k(beta)/beta - D),      "sa":  k^2 (I_k(beta)/(beta I_0(beta)) - D)

    In angles x_i = (cos th_i, sin th_i) the unnormalised dynamics is th_i' = (1/n) sum_j e^{beta cos u} sin u with
    u = th_j - th_i, and e^{beta cos u} sin u = (2/beta) sum_k k I_k(beta) sin(k u). Linearised at the uniform density,
    z_k = mean e^{i k th} obeys z_k' = k^2 (I_k/beta - D) z_k; the softmax divides by its value I_0 there.
    (Derived here.)

    Args:
        mode: k, static, at least 1.
        beta: inverse temperature, not negative; traced.
        kind: "sa" or "usa".
        noise: D; traced.

    Example:
        ```python
        mode_growth_rate(3, 5.0)   # 18.596070304472
        ```
    """
    check_count(mode, "mode")
    return _growth(beta, kind, noise, 16 * math.ceil(mode / 16))[mode - 1]


def cluster_prediction(
    beta: Any, *, kind: str = "usa", noise: Any = 0.0, num_modes: int | None = None
) -> Int[Array, ""]:
    """The mode that grows fastest from the uniform state on the circle: the number of clusters of the metastable state.

    argmax_k k^2 (I_k(beta)/beta - D), about sqrt(2 beta) for large beta and D = 0; without noise "sa" and "usa" agree. Zero
    where no mode grows.

    Args:
        beta: inverse temperature; traced.
        kind: "sa" or "usa", which matters with noise only.
        noise: D; traced.
        num_modes: modes that are looked at; enough for `beta` by default, and 64 where `beta` is traced.

    References:
        Bruno, Pasqualotto and Agazzi, Emergence of meta-stable clustering in mean-field transformer models (2024),
        arXiv:2410.23228.
    """
    num_modes = default_modes(beta) if num_modes is None else num_modes
    check_count(num_modes, "num_modes")
    rates = _growth(beta, kind, noise, num_modes)
    return jnp.where(jnp.max(rates) > 0, jnp.argmax(rates) + 1, 0)


def noise_threshold(beta: Any, *, kind: str = "usa") -> Float[Array, ""]:
    """The noise above which the uniform state on the circle is linearly stable: I_1(beta)/beta, over I_0(beta) for "sa".

    (Derived here; the first mode is the last to become stable, since I_k decreases with k.)

    Example:
        ```python
        noise_threshold(5.0)   # 4.86712842849
        ```
    """
    return mode_growth_rate(1, beta, kind=kind)


def _growth(beta: Any, kind: str, noise: Any, num_modes: int) -> Float[Array, "modes"]:
    """The rates of modes 1..num_modes."""
    check_that(kind in _KINDS, "kind", "be 'sa' or 'usa'", f"found {kind!r}")
    if is_concrete(beta):
        value = float(beta)
        check_that(0 <= value < math.inf, "beta", "be finite and not negative", f"found {value}")
    beta = jnp.asarray(beta, jnp.result_type(float, jnp.asarray(beta).dtype))
    return _rates(beta, jnp.asarray(noise, beta.dtype), kind, num_modes, num_modes + default_modes(beta))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _rates(beta: Array, noise: Array, kind: str, num_modes: int, num: int) -> Float[Array, "modes"]:
    over, ratios = _kernel_modes(beta, num_modes, num)
    if kind == "usa":
        over = over * jnp.exp(beta) * _scaled_zeroth(ratios)
    return jnp.arange(1, num_modes + 1).astype(beta.dtype) ** 2 * (over - noise)


def kernel_modes(beta: Float[Array, ""], num_modes: int) -> tuple[Float[Array, "modes"], Float[Array, "more"]]:
    """I_k(beta)/(beta I_0(beta)) for k = 1..num_modes, and the ratios I_k/I_{k-1} from which they come.

    The backward recurrence I_k/I_{k-1} = beta/(2 k + beta I_{k+1}/I_k) starts far enough above; every number has full
    relative accuracy, and beta = 0 is no exception.
    """
    return _kernel_modes(beta, num_modes, num_modes + default_modes(beta))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _kernel_modes(beta: Array, num_modes: int, num: int) -> tuple[Array, Array]:

    def down(above: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
        slope = 1 / (2 * k + beta * above)
        return beta * slope, (beta * slope, slope)

    orders = jnp.arange(1, num + 1).astype(beta.dtype)
    _, (ratios, slopes) = lax.scan(down, jnp.zeros_like(beta), orders, reverse=True)
    factors = ratios.at[0].set(slopes[0])
    return jnp.cumprod(factors)[:num_modes], ratios


def _scaled_zeroth(ratios: Float[Array, "more"]) -> Float[Array, ""]:
    """e^{-beta} I_0(beta), since I_0 + 2 sum_k I_k = e^beta."""
    return 1 / (1 + 2 * jnp.sum(jnp.cumprod(ratios)))


def scaled_zeroth(beta: Float[Array, ""]) -> Float[Array, ""]:
    """e^{-beta} I_0(beta)."""
    return _scaled_zeroth(kernel_modes(beta, 1)[1])


def default_modes(beta: Any) -> int:
    """Modes after which k I_k(beta)/I_0(beta) is below the rounding of double precision; 64 where beta is traced."""
    if not is_concrete(beta):
        return _TRACED_MODES
    beta = abs(float(np.max(np.abs(np.asarray(beta)))))
    check_that(math.isfinite(beta), "beta", "be finite", f"found {beta}")
    # I_k/I_0 <= prod_j beta/(j - 1/2 + sqrt((j - 1/2)^2 + beta^2)), Amos' bound.
    size, k = 1.0, 0
    while size * (k + 1) > 2.0**-54 or k == 0:
        k += 1
        size *= beta / (k - 0.5 + math.sqrt((k - 0.5) ** 2 + beta**2))
    # In steps, so that a sweep over `beta` compiles few programs.
    return 16 * math.ceil(k / 16)
