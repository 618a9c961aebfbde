"""Twisted states of identical oscillators on rings, and their linear stability."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_that, found


def twist(num_nodes: int, winding: int) -> Float[Array, "nodes"]:
    """The angles 2 pi q i / N of the q-twisted state."""
    return 2 * jnp.pi * winding * jnp.arange(num_nodes) / num_nodes


def twist_eigenvalues(profile: Any, winding: int) -> Float[Array, "nodes"]:
    """Eigenvalues of the linearisation at the q-twisted state of identical oscillators on a symmetric ring, K = 1.

    With weights a_ij = w_(i-j) the Jacobian is circulant, J_d = (1/N) w_d cos(2 pi q d / N) less its row sum on the
    diagonal, so that with p_d = w_d cos(2 pi q d / N) the eigenvalue of wave number k is (p^(k) - p^(0)) / N, p^ the
    discrete Fourier transform. Wave number 0, the rotation, has the eigenvalue zero.

    Args:
        profile: w_0, ..., w_(N-1), even: w_d = w_(N-d).
        winding: q.

    Returns:
        Real eigenvalues by wave number, (nodes,), for K = 1; they are proportional to K.

    Raises:
        ValueError: if the profile is no vector.

    References:
        Wiley, Strogatz and Girvan, The size of the sync basin, Chaos 16, 015103 (2006).
    """
    profile = jnp.asarray(profile, jnp.result_type(profile, float))
    check_that(profile.ndim == 1 and profile.shape[0] > 0, "profile", "be a vector", found(profile))
    num = profile.shape[0]
    waves = jnp.real(jnp.fft.fft(profile * jnp.cos(twist(num, winding).astype(profile.dtype))))
    return (waves - waves[0]) / num
