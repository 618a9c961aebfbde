"""Laws of natural frequencies: densities, quantiles, samples, and the mean resolvent that decides about synchrony."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, PRNGKeyArray

from ..._core import check_count, check_positive, check_that, found, is_concrete
from ...reference import faddeeva


class AbstractFrequencyLaw(eqx.Module):
    """A probability law of natural frequencies (radians per unit of time), even and unimodal about its centre.

    Everything that needs frequencies reads them off such a law: particles draw from it, thresholds and growth rates need
    `mean_resolvent`. A law of your own defines `center`, `density`, `quantile` and `inverse_resolvent`.
    """

    center: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def density(self, frequency: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The probability density g."""

    @abc.abstractmethod
    def quantile(self, level: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The inverse of the distribution function, for levels strictly between 0 and 1."""

    @abc.abstractmethod
    def inverse_resolvent(self, rate: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """1 / int g(center + w) / (rate - i w) dw, continued analytically from the right half-plane; real for real rates.

        The resolvent itself is infinite for identical frequencies at rate 0; its inverse is smooth there.
        """

    def mean_resolvent(self, rate: Inexact[Array, "*shape"] | complex) -> Complex[Array, "*shape"]:
        r"""R(lambda) = int g(w) / (lambda - i w) dw, continued analytically to the left half-plane.

        A perturbation of the incoherent state grows at the rate lambda where 1 = (K zeta / 2) R(lambda + D). The integral
        is this function for Re lambda > 0; zeros of the dispersion relation with Re lambda < 0 (Landau poles) need the
        continuation, which differs from the integral there.

        Args:
            rate: lambda, 1/time, real or complex.

        Returns:
            R(lambda), complex. Differentiable in lambda and in the parameters of the law.
        """
        rate = jnp.asarray(rate)
        rate = rate.astype(jnp.result_type(rate.dtype, self.center.dtype, jnp.complex64))
        return 1 / self.inverse_resolvent(rate - 1j * self.center)

    def sample(self, num_nodes: int, key: PRNGKeyArray) -> Float[Array, "nodes"]:
        """Independent draws.

        Args:
            num_nodes: how many.
            key: random key; the same key gives the same draws.
        """
        check_count(num_nodes, "num_nodes")
        dtype = self.center.dtype
        eps = jnp.finfo(dtype).eps
        return self.quantile(jax.random.uniform(key, (num_nodes,), dtype, minval=eps / 2, maxval=1 - eps / 2))

    def midpoints(self, num_nodes: int) -> Float[Array, "nodes"]:
        """The quantiles of the levels (i + 1/2) / N: a deterministic sample.

        The error of averages over it is O(1/N) at best. For the Lorentzian it is erratic and of the order 2/N, because
        of the heavy tails.
        """
        check_count(num_nodes, "num_nodes")
        return self.quantile((jnp.arange(num_nodes, dtype=self.center.dtype) + 0.5) / num_nodes)


class Lorentzian(AbstractFrequencyLaw):
    """The Lorentz (Cauchy) law: g(w) = (width / pi) / ((w - center)^2 + width^2).

    Its one pole in the upper half-plane makes averages over frequencies closed forms: R(lambda) = 1 / (lambda + width
    - i center).

    Args:
        width: half width at half height, Delta > 0, 1/time; traced.
        center: w0; traced.

    Raises:
        ValueError: if `width` is not positive, a value is not finite, or one is not a scalar.
    """

    width: Float[Array, ""]
    center: Float[Array, ""]

    def __init__(self, width: Any, center: Any = 0.0):
        check_positive(width, "width")
        self.width, self.center = _numbers(width=width, center=center)

    def density(self, frequency: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The density g."""
        return self.width / jnp.pi / ((frequency - self.center) ** 2 + self.width**2)

    def quantile(self, level: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Center + width tan(pi (level - 1/2))."""
        return self.center + self.width * jnp.tan(jnp.pi * (level - 0.5))

    def inverse_resolvent(self, rate: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """Rate + width."""
        return rate + self.width


class Gaussian(AbstractFrequencyLaw):
    """The normal law of standard deviation `scale` about `center`.

    Its mean resolvent is R(lambda) = sqrt(pi / 2) / s * w(i (lambda - i center) / (s sqrt(2))), w the Faddeeva function.

    Args:
        scale: standard deviation s > 0, 1/time; traced.
        center: mean; traced.

    Raises:
        ValueError: if `scale` is not positive, a value is not finite, or one is not a scalar.
    """

    scale: Float[Array, ""]
    center: Float[Array, ""]

    def __init__(self, scale: Any, center: Any = 0.0):
        check_positive(scale, "scale")
        self.scale, self.center = _numbers(scale=scale, center=center)

    def density(self, frequency: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The density g."""
        return jax.scipy.stats.norm.pdf(frequency, self.center, self.scale)

    def quantile(self, level: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The normal quantile."""
        return self.center + self.scale * jax.scipy.special.ndtri(level)

    def inverse_resolvent(self, rate: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """Scale sqrt(2 / pi) / w(i rate / (scale sqrt(2)))."""
        rate = jnp.asarray(rate)
        value = self.scale * np.sqrt(2 / np.pi).item() / faddeeva(1j * rate / (self.scale * np.sqrt(2).item()))
        return value if jnp.iscomplexobj(rate) else value.real


class Uniform(AbstractFrequencyLaw):
    """The uniform law on [center - halfwidth, center + halfwidth].

    Its mean resolvent is R(lambda) = arctan(halfwidth / (lambda - i center)) / halfwidth, continued to the left through the
    band |Im lambda - center| < halfwidth; the cuts run from the band's corners to the left.

    Args:
        halfwidth: c > 0, 1/time; traced.
        center: mean; traced.

    Raises:
        ValueError: if `halfwidth` is not positive, a value is not finite, or one is not a scalar.
    """

    halfwidth: Float[Array, ""]
    center: Float[Array, ""]

    def __init__(self, halfwidth: Any, center: Any = 0.0):
        check_positive(halfwidth, "halfwidth")
        self.halfwidth, self.center = _numbers(halfwidth=halfwidth, center=center)

    def density(self, frequency: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The density g."""
        return jnp.where(jnp.abs(frequency - self.center) <= self.halfwidth, 0.5 / self.halfwidth, 0.0)

    def quantile(self, level: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Linear in the level."""
        return self.center + self.halfwidth * (2 * level - 1)

    def inverse_resolvent(self, rate: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """Halfwidth / arctan(halfwidth / rate), with the angle between 0 and pi for real rates."""
        rate = jnp.asarray(rate)
        c = self.halfwidth
        if not jnp.iscomplexobj(rate):
            return c / jnp.arctan2(c, rate)
        # Both logarithms have their cuts to the left of the corners -+ i c.
        return c / (0.5j * (jnp.log(rate - 1j * c) - jnp.log(rate + 1j * c)))


class Identical(AbstractFrequencyLaw):
    """One frequency for all, `center`.

    Args:
        center: the frequency, 1/time; traced.

    Raises:
        ValueError: if `center` is not a finite scalar.
    """

    center: Float[Array, ""]

    def __init__(self, center: Any = 0.0):
        (self.center,) = _numbers(center=center)

    def density(self, frequency: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Infinite at the centre, zero elsewhere: a point mass."""
        return jnp.where(jnp.asarray(frequency) == self.center, jnp.inf, 0.0)

    def quantile(self, level: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The centre, whatever the level."""
        return jnp.broadcast_to(self.center, jnp.shape(level))

    def inverse_resolvent(self, rate: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        """The rate itself."""
        return jnp.asarray(rate)


def check_law(value: Any, argument: str = "frequencies") -> None:
    """Raise unless `value` is a law of frequencies."""
    must = "be a law of frequencies: Lorentzian, Gaussian, Uniform, Identical or a subclass of AbstractFrequencyLaw"
    check_that(isinstance(value, AbstractFrequencyLaw), argument, must, found(value), TypeError)


def _numbers(**values: Any) -> tuple[Float[Array, ""], ...]:
    """Finite scalars in their common floating dtype."""
    for argument, value in values.items():
        check_that(jnp.ndim(value) == 0, argument, "be a scalar", found(value))
        if is_concrete(value):
            check_that(bool(np.isfinite(np.asarray(value))), argument, "be finite", f"found {value}")
    dtype = jnp.result_type(*values.values(), float)
    return tuple(jnp.asarray(value, dtype) for value in values.values())
