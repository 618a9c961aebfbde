"""Self-attention on the circle at O(n): the exponential kernel as a few harmonics, and its mean-field limit."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core import check_count, check_that, found
from ...systems import Flow
from ...systems._system import as_number
from .attention_modes import default_modes, kernel_modes, scaled_zeroth
from .diffusion import Diffusion, check_noise
from .pair_system import as_system


class CircleAttention(eqx.Module):
    """The angular velocities, with Diffrax's arguments; see `circle_attention`.

    Attributes:
        attraction: amplitudes of sin(k u) in the force, k = 1..K.
        partition: amplitudes of cos(k u) in the normalisation of "sa", relative to its constant; not used by "usa".
        kind: "sa" or "usa".
    """

    attraction: Float[Array, "modes"]
    partition: Float[Array, "modes"]
    kind: str = eqx.field(static=True)

    def __call__(self, t: Any, angles: Float[Array, "n"], args: Any = None) -> Float[Array, "n"]:
        """The angular velocities."""
        check_that(angles.ndim == 1, "angles", "be a vector of angles", found(angles))
        phasor = jnp.exp(1j * angles)
        attraction, partition = (leaf.astype(angles.dtype) for leaf in (self.attraction, self.partition))

        def moment(power: Array, _: Any) -> tuple[Array, Array]:
            power = power * phasor
            return power, jnp.mean(power)

        _, moments = lax.scan(moment, jnp.ones_like(phasor), None, length=attraction.shape[0])
        back = jnp.conj(phasor)

        def evaluate(amplitudes: Array) -> Array:
            """sum_k c_k z_k e^{-i k theta}, k = 1..K, by Horner's rule."""
            return lax.scan(lambda s, c: ((s + c) * back, None), jnp.zeros_like(back), amplitudes, reverse=True)[0]

        force = jnp.imag(evaluate(attraction * moments))
        if self.kind == "usa":
            return force
        return force / (1 + jnp.real(evaluate(partition * moments)))


class CircleDensity(eqx.Module):
    """The Vlasov-Fokker-Planck equation of self-attention on the circle, with Diffrax's arguments; see `attention_limit`."""

    force: CircleAttention
    noise: Float[Array, ""]

    def velocity(self, density: Float[Array, "points"]) -> Float[Array, "points"]:
        """The velocity of a token at each grid point."""
        points = density.shape[0]
        coefficients = jnp.fft.rfft(density) * (2 * math.pi / points)
        modes = self.force.attraction.shape[0]
        moments = coefficients[1 : modes + 1]

        def evaluate(amplitudes: Array) -> Array:
            """The real part of sum_k c_k e^{i k theta}, k = 1..K."""
            padded = jnp.pad(amplitudes * points / 2, (1, points // 2 - modes))
            return jnp.fft.irfft(padded, points)

        force = evaluate(1j * self.force.attraction.astype(density.dtype) * moments)
        if self.force.kind == "usa":
            return force
        return force / (1 + evaluate(self.force.partition.astype(density.dtype) * moments))

    def __call__(self, t: Any, density: Float[Array, "points"], args: Any = None) -> Float[Array, "points"]:
        """The rate of change -d(rho V)/dtheta + D d^2 rho/dtheta^2, pseudo-spectral."""
        points = density.shape[0]
        orders = jnp.arange(points // 2 + 1).astype(density.dtype)
        flux = jnp.fft.rfft(density * self.velocity(density))
        spread = self.noise.astype(density.dtype) * orders**2 * jnp.fft.rfft(density)
        # The product of two series of K modes has 2 K: the upper third is cut, where it would come back as aliases.
        kept = jnp.where(orders <= points // 3, 1, 0)
        return jnp.fft.irfft(kept * (-1j * orders * flux - spread), points)


def circle_attention(
    beta: Any,
    *,
    dt: Any,
    kind: str = "usa",
    num_modes: int | None = None,
    noise: Any = None,
    key: PRNGKeyArray | None = None,
    method: str | None = None,
) -> Flow | Diffusion:
    r"""Self-attention of n tokens on the circle in angles, at O(n K) in place of O(n^2).

        th_i' = (1/n) sum_j e^{beta cos u_ij} sin u_ij / Z_i,   u_ij = th_j - th_i,

    Z_i = 1 for "usa" and (1/n) sum_j e^{beta cos u_ij} for "sa". By the Jacobi-Anger
    expansion e^{beta cos u} = I_0 + 2 sum_k I_k cos(k u)
    it is a Kuramoto model with the harmonics 2 k I_k(beta)/beta: with the moments z_k = mean e^{i k th} a token costs K
    terms. The expansion is cut where it falls below the rounding of double precision, so that the result is that of
    `attention_flow(beta, kind=kind)` on tokens (cos th, sin th).

    Args:
        beta: inverse temperature, not negative; traced (then `num_modes` decides how far it may go: 64 are enough to 50).
        dt: time per step.
        kind: "sa" or "usa".
        num_modes: K.
        noise: D of sqrt(2 D) dW; none by default.
        key: fixes the noise path.
        method: of `Flow` or of `Diffusion`.

    Returns:
        A system with states (n,), angles in radians that are not wrapped.

    Raises:
        ValueError: if `kind` is unknown, or `noise` and `key` do not come together.
    """
    return as_system(_force(beta, kind, num_modes), dt, noise, key, method)


def attention_limit(
    beta: Any, *, dt: Any, kind: str = "usa", noise: Any = 0.0, num_modes: int | None = None, method: str = "rk4"
) -> Flow:
    r"""The mean-field limit of self-attention on the circle: its Vlasov(-Fokker-Planck) equation, as a system.

        d_t rho + d_th (rho V) = D d_th^2 rho,   V(th) = int e^{beta cos(psi - th)} sin(psi - th) rho(psi) dpsi / Z(th)

    The state is the density on M equidistant angles 2 pi m/M, sum 2 pi/M * rho = 1; derivatives are spectral, the upper third
    of the modes is cut. The error falls exponentially in M as long as M resolves the density, and mass is kept to rounding.
    Without noise clusters sharpen without bound, and the density stops being resolved: take noise, or stop.
    An explicit step needs D (M/3)^2 dt < 2.7 with "rk4".

    Args:
        beta: inverse temperature; traced.
        dt: time per step.
        kind: "sa" or "usa".
        noise: D; traced.
        num_modes: harmonics of the kernel; M must be above 3 times their number for all of them to act without aliases.
        method: of `Flow`.

    Returns:
        A `Flow` with states (M,), M even.
    """
    check_noise(noise)
    return Flow(CircleDensity(_force(beta, kind, num_modes), as_number(noise, "noise")), dt, method=method)


def _force(beta: Any, kind: str, num_modes: int | None) -> CircleAttention:
    check_that(kind in ("sa", "usa"), "kind", "be 'sa' or 'usa'", f"found {kind!r}")
    num_modes = default_modes(beta) if num_modes is None else num_modes
    check_count(num_modes, "num_modes")
    beta = jnp.asarray(beta, jnp.result_type(float, jnp.asarray(beta).dtype))
    over, ratios = kernel_modes(beta, num_modes)
    orders = jnp.arange(1, num_modes + 1).astype(beta.dtype)
    attraction = 2 * orders * over
    if kind == "usa":
        attraction = attraction * jnp.exp(beta) * scaled_zeroth(beta)
    return CircleAttention(attraction, 2 * jnp.cumprod(ratios)[:num_modes], kind)


def angles_to_tokens(angles: Float[Array, "n"]) -> Float[Array, "n 2"]:
    """Tokens (cos th, sin th) of angles."""
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def tokens_to_angles(tokens: Float[Array, "n 2"]) -> Float[Array, "n"]:
    """Angles of tokens on the circle, in (-pi, pi]."""
    check_that(tokens.ndim == 2 and tokens.shape[1] == 2, "tokens", "be of shape (n, 2)", found(tokens))
    return jnp.arctan2(tokens[:, 1], tokens[:, 0])
