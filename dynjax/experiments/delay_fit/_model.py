"""The equation that is learnt: a network as vector field, and a trainable delay."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...networks import MLPField
from ...systems import DelayFlow, History
from ._series import Series


class DelayModel(eqx.Module):
    """The equation z'(t) = rate field(z(t), z(t - delay)) - decay (z + centre) for a series z of mean 0 and deviation 1.

    Args:
        series: the series, which gives the scales.
        delay: the delay to start from.
        hidden: widths of the hidden layers.
        decay: known rate of linear decay of the series before it was shifted; None if it is not known.
        rate: deviation of the slopes of the series, so that the network has outputs of order one.
        key: seeds the weights.
    """

    field: MLPField
    delay: Float[Array, ""]
    rate: float = eqx.field(static=True)
    decay: float = eqx.field(static=True)
    centre: float = eqx.field(static=True)

    def __init__(
        self,
        series: Series,
        delay: Any,
        *,
        hidden: tuple[int, ...],
        decay: float | None,
        rate: float,
        key: PRNGKeyArray,
    ):
        dtype = series.values.dtype
        self.field = MLPField(1, num_delays=1, hidden=hidden, key=key, dtype=dtype)
        self.delay = jnp.asarray(delay, dtype)
        self.rate = rate
        self.decay = 0.0 if decay is None else decay
        self.centre = series.mean / series.deviation

    def __call__(self, t: Any, y: Array, delayed: Array, args: Any = None) -> Array:
        """The slope; `y` and `delayed` have the shape (1,)."""
        slope = self.rate * self.field(t, y, (delayed,))
        return slope - self.decay * (y + self.centre) if self.decay else slope

    def flow(self, dt: float, num_history: int) -> DelayFlow:
        """The equation on a grid: the same numerical step in training, in forecasts and behind exponents."""
        return DelayFlow(self, self.delay, dt, num_history=num_history)


def measured_past(flow: DelayFlow, series: Series, start: Array) -> History:
    """The history of a flow, whose step is the interval of the series, that ends with the sample `start`."""

    def past(t: Array) -> Array:
        # Only grid points are asked for. The nearest sample is the same however t was rounded.
        steps = jnp.round(t / series.interval)
        index = start + steps.astype(jnp.int32)
        value, slope = series.values[index], series.slopes[index]
        return (value + slope * (t - jax.lax.stop_gradient(steps) * series.interval))[None]

    return flow.init(past)
