"""What every solver of the Vlasov equation on fibres offers, however it represents the densities."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from ..._core import check_that, found, is_concrete
from ...systems import AbstractSystem
from .._distances.circle_distance import CircleMeasure
from .._measures.label_grid import LabelGrid
from .fibre_frequencies import FibreFrequencies
from .ott_antonsen import modulus
from .phase_laws import AbstractPhaseLaw


class AbstractFibres(AbstractSystem):
    """A discretised Vlasov or Vlasov-Fokker-Planck equation: a probability density of phases for each label.

        d_t rho + d_theta(rho V) = D d_theta^2 rho,    V = omega + K Im(h(x) exp(-i theta)),    h(x) = int z(y) eta^x(dy),

    with z(y) the mean of exp(i theta) over the fibre of y and its frequencies. Fibres are probability measures: a mass m(y) of a
    fibre belongs into the graph, eta^x(dy) m(y).

    Attributes:
        grid: labels, weights and graph operator.
        frequencies: quadrature nodes of the frequency law.
        coupling: K.
    """

    grid: eqx.AbstractVar[LabelGrid]
    frequencies: eqx.AbstractVar[FibreFrequencies]
    coupling: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def init(self, law: Any) -> PyTree:
        """The state in which every frequency of a fibre has the phases of `law`.

        Args:
            law: one of the phase laws, with scalar parameters or one for each label; or phases in radians, (points,) or
                (labels, points).
        """

    @abc.abstractmethod
    def local_moments(self, x: PyTree, num_modes: int) -> Complex[Array, "labels modes"]:
        """z_n(x), n = 1, ..., `num_modes`: the means of exp(i n theta) in each fibre."""

    @abc.abstractmethod
    def density(self, x: PyTree, angles: Float[Array, "points"]) -> Float[Array, "labels points"]:
        """The density of phases in each fibre at the given angles, per radian, of integral one."""

    @abc.abstractmethod
    def fibre_measure(self, x: PyTree) -> CircleMeasure:
        """The phase law of each fibre, for `fibre_distance`."""

    def local_order_parameter(self, x: PyTree, mode: int = 1) -> Complex[Array, "labels"]:
        """z(x), the mean of exp(i mode theta) in each fibre."""
        return self.local_moments(x, mode)[:, mode - 1]

    def complex_order_parameter(self, x: PyTree, mode: int = 1) -> Complex[Array, ""]:
        """The mean of z over the labels."""
        real, imag = self._mean(x, mode)
        return real + 1j * imag

    def order_parameter(self, x: PyTree, mode: int = 1) -> Float[Array, ""]:
        """r, the modulus of the mean of z over the labels; its derivative at r = 0 is taken as 0."""
        return modulus(self._mean(x, mode))

    def _mean(self, x: PyTree, mode: int) -> Float[Array, "2"]:
        z = self.local_order_parameter(x, mode)
        return self.grid.mean(jnp.stack([jnp.real(z), jnp.imag(z)], axis=-1))


def forcing(grid: LabelGrid, coupling: Array, z: Float[Array, "labels 2"]) -> Float[Array, "labels 2"]:
    """K h(x) from the real and imaginary parts of z."""
    return coupling.astype(z.dtype) * grid.operator.apply(z)


def fibred(values: Array, grid: LabelGrid) -> Array:
    """Values of one law for all fibres, or of one for each, (labels, ...).

    Raises:
        ValueError: if there is a fibre axis that is not that of the labels.
    """
    values = jnp.asarray(values)
    if values.ndim == 1:
        return jnp.broadcast_to(values, (grid.num_labels, *values.shape))
    count = grid.num_labels
    check_that(
        values.shape[0] == count, "law", f"have parameters that are scalars or have {count} labels", found(values)
    )
    return values


def check_noise(noise: Any) -> None:
    """Raise where a diffusion coefficient is seen to be negative or not finite."""
    if is_concrete(noise):
        value = np.asarray(noise)
        good = bool(np.all(np.isfinite(value) & (value >= 0)))
        check_that(good, "noise", "be finite and at least 0", f"found {noise}")


def as_law(law: Any) -> AbstractPhaseLaw:
    """A phase law; arrays are samples."""
    from .phase_laws import SampledPhases

    return law if isinstance(law, AbstractPhaseLaw) else SampledPhases(law)
