"""What theory says at one inverse temperature: the fastest mode of the uniform circle, the noise threshold, the plateau."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...meanfield import angles_to_tokens, attention_energy, circle_attention, mode_growth_rate

_MODES = 16  # the fastest one is below 13 up to beta = 80
_HARMONICS = 96  # of the kernel; enough up to beta = 80


class Scales(NamedTuple):
    """Predictions for tokens on the circle, in double precision.

    Attributes:
        fastest_mode: argmax_k k^2 I_k(beta), the number of clusters expected without noise.
        rate: the growth rate of that mode without noise; its inverse is the unit of time of the experiment.
        noise_threshold: the noise D above which the uniform state is stable, the rate of the first mode without noise.
        growing_mode: the fastest mode at the noise of the run; 0 where none grows.
        growing_rate: its rate there, or that of the slowest decay.
        next_mode: the runner-up at the noise of the run.
        next_rate: its rate; where it is close to that of the fastest, either may win.
    """

    fastest_mode: int
    rate: float
    noise_threshold: float
    growing_mode: int
    growing_rate: float
    next_mode: int
    next_rate: float


@functools.cache
def scales(beta: float, kind: str, noise: float = 0.0) -> Scales:
    """The predictions at one inverse temperature.

    Args:
        beta: inverse temperature.
        kind: "sa" or "usa".
        noise: D in units of the noise threshold.
    """
    rates = mode_rates([beta], kind)[0]
    noisy = rates - noise * rates[0] * np.arange(1, _MODES + 1) ** 2
    second, fastest = (int(index) for index in np.argsort(noisy)[-2:])
    return Scales(
        fastest_mode=int(np.argmax(rates)) + 1,
        rate=float(rates.max()),
        noise_threshold=float(rates[0]),
        growing_mode=fastest + 1 if noisy[fastest] > 0 else 0,
        growing_rate=float(noisy[fastest]),
        next_mode=second + 1,
        next_rate=float(noisy[second]),
    )


def mode_rates(betas: Any, kind: str) -> np.ndarray:
    """Growth rates of modes 1..16 without noise at every inverse temperature, (betas, 16), in double precision."""
    with jax.enable_x64(True):
        return np.asarray(_rates(kind)(jnp.asarray(betas, float)))


def plateau_rate(num_clusters: int, beta: float, kind: str) -> float:
    """The rate at which equal clusters at equal distances on the circle leave that state; 0 for one cluster.

    Clusters of equal size move like as many tokens: the largest eigenvalue of the linearised field at the regular polygon.
    """
    if num_clusters < 2:
        return 0.0
    with jax.enable_x64(True):
        jacobian = np.asarray(_polygon_jacobian(num_clusters, kind)(jnp.asarray(beta, float)))
    # It is symmetric, since all clusters see the same surroundings.
    return float(np.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1])


def plateau_energy(num_clusters: int, beta: float) -> float:
    """The energy of equal clusters at equal distances on the circle, over that of one cluster."""
    with jax.enable_x64(True):
        corners = angles_to_tokens(2 * jnp.pi * jnp.arange(num_clusters) / num_clusters)
        return float(attention_energy(corners, beta)) * 2 * beta * float(np.exp(-beta))


def contraction_rate(beta: float, kind: str) -> float:
    """The rate at which a token falls into a cluster of all others, the fastest rate that there is."""
    return float(np.exp(beta)) if kind == "usa" else 1.0


def rates_at(beta: Float[Array, ""], kind: str) -> Float[Array, "modes"]:
    """Growth rates of modes 1..16 without noise at a traced inverse temperature, in its precision."""
    return jnp.stack([mode_growth_rate(mode, beta, kind=kind) for mode in range(1, _MODES + 1)])


def cap_angle(fastest_mode: Any) -> Any:
    """The angle of caps that tell one more cluster than expected apart, at most pi/8."""
    return jnp.minimum(np.pi / 8, 2 / (fastest_mode + 1))


@functools.cache
def _rates(kind: str) -> Any:
    return jax.jit(jax.vmap(lambda beta: rates_at(beta, kind)))


@functools.cache
def _polygon_jacobian(num_clusters: int, kind: str) -> Any:
    corners = 2 * np.pi * np.arange(num_clusters) / num_clusters

    def jacobian(beta: Any) -> Any:
        flow = circle_attention(beta, dt=1.0, kind=kind, num_modes=_HARMONICS)
        return jax.jacfwd(lambda angles: flow.vector_field(0.0, angles, None))(jnp.asarray(corners))

    return jax.jit(jacobian)
