"""Natural frequencies inside a fibre: a quadrature of their law, or its pole."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_count, check_that, found
from .._particles.validity import warn_heavy_tails
from .._thresholds.frequency_laws import AbstractFrequencyLaw, Gaussian, Identical, Lorentzian, Uniform


class FibreFrequencies(eqx.Module):
    """Quadrature nodes of the frequency law of each fibre.

    Attributes:
        values: frequencies, (labels or 1, nodes).
        weights: of sum one, (nodes,).
        width: decay rate Delta of the first moment where the pole center + i Delta of a Lorentz law replaces the
            quadrature; zero otherwise.
    """

    values: Float[Array, "labels nodes"]
    weights: Float[Array, "nodes"]
    width: Float[Array, ""]

    @property
    def num_nodes(self) -> int:
        """How many nodes there are."""
        return self.weights.shape[0]

    def mean(self, values: Float[Array, "labels nodes *rest"]) -> Float[Array, "labels *rest"]:
        """The mean over the law."""
        weights = self.weights.astype(jnp.finfo(values.dtype).dtype)
        return jnp.sum(values * weights.reshape(-1, *[1] * (values.ndim - 2)), axis=1)


def fibre_frequencies(
    frequencies: Any, num_labels: int, num_frequencies: int, *, pole: bool = False
) -> FibreFrequencies:
    """The nodes of a frequency law, or of one given frequency for each fibre.

    Args:
        frequencies: a law, a number, or an array (labels,).
        num_labels: how many fibres there are.
        num_frequencies: quadrature nodes: Gauss-Hermite for a normal law, Gauss-Legendre for a uniform one, quantiles of
            the midpoint levels for any other. Of an identical law there is one.
        pole: whether a Lorentz law is represented by its pole in the upper half plane.

    Raises:
        ValueError: if the shapes do not fit.

    Warns:
        MeanFieldWarning: if the quantiles of a Lorentz law are used.
    """
    check_count(num_frequencies, "num_frequencies")
    zero = jnp.zeros((), jnp.result_type(float))
    one = jnp.ones(1, zero.dtype)
    if not isinstance(frequencies, AbstractFrequencyLaw):
        values = jnp.asarray(frequencies)
        values = values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(zero.dtype)
        good = values.shape in ((), (num_labels,))
        check_that(good, "frequencies", f"be a law, a number or an array of {num_labels} fibres", found(values))
        return FibreFrequencies(values.reshape(-1, 1), one, zero)
    if isinstance(frequencies, Identical):
        return FibreFrequencies(frequencies.center.reshape(-1, 1), one, zero)
    if isinstance(frequencies, Lorentzian) and pole:
        return FibreFrequencies(frequencies.center.reshape(-1, 1), one, frequencies.width)
    if isinstance(frequencies, Gaussian):
        nodes, weights = np.polynomial.hermite_e.hermegauss(num_frequencies)
        return _nodes(frequencies.center + frequencies.scale * jnp.asarray(nodes, zero.dtype), weights)
    if isinstance(frequencies, Uniform):
        nodes, weights = np.polynomial.legendre.leggauss(num_frequencies)
        return _nodes(frequencies.center + frequencies.halfwidth * jnp.asarray(nodes, zero.dtype), weights)
    warn_heavy_tails(frequencies)
    return _nodes(frequencies.midpoints(num_frequencies), np.ones(num_frequencies))


def _nodes(values: Array, weights: np.ndarray) -> FibreFrequencies:
    # In double precision on the host, so that the sum is one to rounding.
    shares = jnp.asarray(weights / np.sum(weights), values.dtype)
    return FibreFrequencies(values.reshape(1, -1), shares, jnp.zeros((), values.dtype))
