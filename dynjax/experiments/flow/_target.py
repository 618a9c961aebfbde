"""The laws that the flows are trained to, and their exact fields."""

import numpy as np

from ...generative import GaussianMixture, MixtureField, VariancePreserving

_RADIUS = 2.0


def means(target: str) -> np.ndarray:
    """The means of the modes, `(modes, 2)`.

    Args:
        target: "ring", "pair" or "grid".
    """
    if target == "pair":
        return np.array([[-_RADIUS, 0.0], [_RADIUS, 0.0]])
    if target == "grid":
        places = np.array([-_RADIUS, 0.0, _RADIUS])
        return np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
    angles = 2 * np.pi * np.arange(8) / 8
    return _RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1)


def mixture(target: str, variance: float) -> GaussianMixture:
    """The law, with equal weights, in JAX's default precision."""
    return GaussianMixture(means(target), variance)


def exact_fields(law: GaussianMixture) -> tuple[MixtureField, MixtureField]:
    """The exact field of flow matching and that of the diffusion."""
    return law.flow_matching_field(), law.score_field(VariancePreserving())
