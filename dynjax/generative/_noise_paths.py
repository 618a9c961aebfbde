"""Paths between data and noise: how much of each a state of the flow holds at each time."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_that, is_concrete


class Coefficients(NamedTuple):
    """The coefficients of x_t = a x_data + b z at one time.

    Attributes:
        signal: a.
        noise_variance: b^2.
        signal_slope: a'.
        noise_slope: b b', half the derivative of b^2.
    """

    signal: Float[Array, ""]
    noise_variance: Float[Array, ""]
    signal_slope: Float[Array, ""]
    noise_slope: Float[Array, ""]


class AbstractNoisePath(eqx.Module):
    """A path x_t = a(t) x_data + b(t) z from data to standard normal noise z, with x_data and z independent."""

    @property
    @abc.abstractmethod
    def noise_time(self) -> Any:
        """The time at which the state is noise: sampling starts here."""

    @property
    @abc.abstractmethod
    def data_time(self) -> Any:
        """The time at which the state is data: sampling ends here."""

    @abc.abstractmethod
    def coefficients(self, t: Float[Array, ""] | float) -> Coefficients:
        """a, b^2, a' and b b' at time t."""


class StraightLine(AbstractNoisePath):
    """The path of flow matching, x_t = (1 - t) z + t x_data: noise at time 0, data at time 1.

    Raises:
        ValueError: where it is called with a time outside [0, 1].

    Example:
        ```python
        dj.generative.StraightLine().coefficients(0.25)      # a = 0.25, b^2 = 0.5625, a' = 1, b b' = -0.75
        ```

    References:
        Lipman, Chen, Ben-Hamu, Nickel and Le, Flow matching for generative modeling (2023); Liu, Gong and Liu, Flow straight
        and fast (2023).
    """

    @property
    def noise_time(self) -> float:
        """0."""
        return 0.0

    @property
    def data_time(self) -> float:
        """1."""
        return 1.0

    def coefficients(self, t: Float[Array, ""] | float) -> Coefficients:
        """The signal a = t and the noise b = 1 - t."""
        check_time(t, self.noise_time, self.data_time)
        t = as_float(t)
        return Coefficients(t, (1 - t) ** 2, jnp.ones_like(t), t - 1)


class VariancePreserving(AbstractNoisePath):
    r"""The variance-preserving diffusion dX = -(beta(t) / 2) X dt + sqrt(beta(t)) dW: data at time 0, noise at the horizon T.

    The rate runs linearly from `first` to `last`, beta(t) = first + (last - first) t / T, and

        a(t) = exp(-1/2 int_0^t beta),    b(t)^2 = 1 - a(t)^2.

    The noise end is only nearly normal: the law there has the signal a(T), 0.0066 with the defaults. Equal rates give the
    Ornstein-Uhlenbeck process; with `VariancePreserving.constant(1.0, 8.0)` it is dX = -X/2 dt + dW and a(T) = exp(-4).

    Args:
        first: the rate at time 0, positive.
        last: the rate at the horizon, positive.
        horizon: T, positive.

    Raises:
        ValueError: if one of them is not positive and finite, or where it is called with a time outside [0, T].

    Example:
        ```python
        path = dj.generative.VariancePreserving.constant(1.0, 8.0)
        path.coefficients(8.0).signal       # exp(-4) = 0.0183156
        ```

    References:
        Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, Score-based generative modeling through stochastic differential
        equations (2021), section 3.4 and appendix C.
    """

    first: Float[Array, ""]
    last: Float[Array, ""]
    horizon: Float[Array, ""]

    def __init__(self, first: Any = 0.1, last: Any = 20.0, horizon: Any = 1.0):
        self.first, self.last, self.horizon = (as_float(value) for value in (first, last, horizon))
        for value, name in ((first, "first"), (last, "last"), (horizon, "horizon")):
            if is_concrete(value):
                good = np.ndim(value) == 0 and bool(np.isfinite(value)) and value > 0
                check_that(good, name, "be a positive, finite number", f"found {value}")

    @classmethod
    def constant(cls, rate: Any = 1.0, horizon: Any = 8.0) -> "VariancePreserving":
        """The path with one rate at all times, an Ornstein-Uhlenbeck process."""
        return cls(rate, rate, horizon)

    @property
    def noise_time(self) -> Float[Array, ""]:
        """The horizon T."""
        return self.horizon

    @property
    def data_time(self) -> float:
        """0."""
        return 0.0

    def rate(self, t: Float[Array, ""] | float) -> Float[Array, ""]:
        """beta(t)."""
        return self.first + (self.last - self.first) * (as_float(t) / self.horizon)

    def coefficients(self, t: Float[Array, ""] | float) -> Coefficients:
        """The four coefficients, with a' = -beta a / 2 and b b' = beta a^2 / 2."""
        check_time(t, self.data_time, self.horizon)
        t = as_float(t)
        integral = self.first * t + (self.last - self.first) * t * (t / self.horizon) / 2
        rate, signal = self.rate(t), jnp.exp(-integral / 2)
        return Coefficients(signal, -jnp.expm1(-integral), -rate * signal / 2, rate * signal**2 / 2)


def as_float(value: Any) -> Float[Array, "..."]:
    """The value as a floating-point array, in its own precision if it has one."""
    value = jnp.asarray(value)
    return value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(jnp.result_type(float))


def check_time(t: Any, low: Any, high: Any, argument: str = "t") -> None:
    """Raise unless all of `t` lies between `low` and `high`, up to rounding; traced values pass."""
    if is_concrete((t, low, high)):
        values, least, most = np.asarray(t), float(low), float(high)
        # A horizon of 0.7 in single precision is less than the number 0.7.
        coarsest = max(float(jnp.finfo(as_float(value).dtype).eps) for value in (t, low, high))
        slack = coarsest * max(abs(least), abs(most))
        good = bool(np.all((values >= least - slack) & (values <= most + slack)))
        check_that(good, argument, f"lie in [{least:g}, {most:g}]", f"found {t}")
