"""Triads and four-body terms: the simplest coupling with bistability between incoherence and synchrony."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core import check_that, found
from ...systems import Flow
from .._graphs.graph_operator import AllToAll, GraphOperator
from .couplings import HigherOrder
from .kuramoto import Oscillators, oscillators


def triads(
    graph: GraphOperator | int,
    frequencies: Any,
    pairwise: Any,
    triadic: Any = 0.0,
    quartic: Any = 0.0,
    *,
    dt: Any,
    noise: Any = 0.0,
    key: PRNGKeyArray | None = None,
    frequency_key: PRNGKeyArray | None = None,
    method: str = "rk4",
    state: str = "phasor",
) -> Oscillators:
    """Phase oscillators with pairwise, three-body and four-body coupling; all-to-all in O(N).

        theta_i' = omega_i + (K1/N) sum_j sin(theta_j - theta_i) + (K2/N^2) sum_jk sin(2 theta_j - theta_k - theta_i)
                   + (K3/N^3) sum_jkl sin(theta_j + theta_k - theta_l - theta_i).

    With z_m the mean of exp(i m theta) this is omega_i + Im(exp(-i theta_i) H), H = K1 z_1 + K2 z_2 conj(z_1) + K3 |z_1|^2 z_1.
    For a Lorentzian law phases settle on the Ott-Antonsen manifold z_2 = z_1^2, where K2 and K3 act alike: their sum is
    the K23 of `triads_limit`. On a general graph the means become those over the drivers of each node.

    Args:
        graph: a graph, or N for the complete one.
        frequencies: an array (nodes,) or a law, as in `kuramoto`.
        pairwise: K1.
        triadic: K2.
        quartic: K3.
        dt: time per step.
        noise: D.
        key: random key of the noise.
        frequency_key: random key of independent frequencies.
        method: "rk4", "heun" or "euler".
        state: "phasor" or "angle".

    Returns:
        A system, like `kuramoto`.

    References:
        Skardal and Arenas, Higher order interactions in complex networks of phase oscillators promote abrupt
        synchronization switching, Communications Physics 3 (2020).
    """
    graph = graph if isinstance(graph, GraphOperator) else AllToAll(graph)
    interaction = HigherOrder(pairwise, triadic, quartic)
    options: dict[str, Any] = {"noise": noise, "key": key, "frequency_key": frequency_key}
    return oscillators(graph, interaction, frequencies, dt=dt, method=method, state=state, **options)


def triads_limit(width: Any, pairwise: Any, higher: Any, *, dt: Any, method: str = "rk4") -> Flow:
    """The Ott-Antonsen limit of `triads` for the Lorentzian law of half width Delta, of state r.

        r' = -Delta r + (r/2) (1 - r^2) (K1 + K23 r^2),    K23 = K2 + K3.

    Derivation: z' = (i w0 - Delta) z + (H - conj(H) z^2)/2 with H = (K1 + K23 |z|^2) z.
    """
    values = tuple(jnp.asarray(v, jnp.result_type(float)) for v in (width, pairwise, higher))

    def field(t: Any, r: Float[Array, ""], args: Any) -> Float[Array, ""]:
        delta, k1, k23 = args
        return -delta * r + 0.5 * r * (1 - r**2) * (k1 + k23 * r**2)

    return Flow(field, dt, method=method, args=values)


def triads_stationary(width: Any, pairwise: Any, higher: Any) -> Float[Array, "2"]:
    """The stationary order parameters (unstable, stable) with r > 0 of `triads_limit`; NaN where there is none.

    With R = r^2: K23 R^2 - (K23 - K1) R + 2 Delta - K1 = 0. For K1 > 2 Delta only the upper one is real.

    Args:
        width: Delta.
        pairwise: K1.
        higher: K23 > 0.

    Raises:
        ValueError: if the arguments are no scalars.
    """
    delta, k1, k23 = (jnp.asarray(v, jnp.result_type(float)) for v in (width, pairwise, higher))
    check_that(delta.ndim + k1.ndim + k23.ndim == 0, "width", "be a scalar like the couplings", found(delta))
    half = (k23 - k1) / (2 * k23)
    square = half**2 - (2 * delta - k1) / k23
    root = jnp.sqrt(jnp.where(square >= 0, square, jnp.nan))
    both = jnp.stack([half - root, half + root])
    return jnp.where((both > 0) & (both < 1), jnp.sqrt(jnp.where(both > 0, both, 1)), jnp.nan)
