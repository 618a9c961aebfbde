"""The plain network of these experiments, and its task: two spirals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

CLIP = 1.0  # largest norm of a gradient in training


class Layers(eqx.Module):
    """h -> phi(W h + b), stacked on a leading axis; layers that are switched off hand h on."""

    weight: Float[Array, "*layers width width"]
    bias: Float[Array, "*layers width"]
    active: Bool[Array, "*layers"]
    activation: Callable[[Any], Any] = eqx.field(static=True)

    def __call__(self, h: Float[Array, "width"]) -> Float[Array, "width"]:
        return jnp.where(self.active, self.activation(self.weight @ h + self.bias), h)


class Parameters(NamedTuple):
    """A lift, weights and biases of the hidden layers, a readout."""

    lift: Float[Array, "width 2"]
    weight: Float[Array, "layers width width"]
    bias: Float[Array, "layers width"]
    readout: Float[Array, "width"]


def lifted(lift: Float[Array, "width 2"], points: Float[Array, "n 2"]) -> Float[Array, "n width"]:
    """The states before the first hidden layer."""
    return jnp.tanh(points @ lift.T)


def outputs(parameters: Parameters, layers: Layers, points: Float[Array, "n 2"]) -> Float[Array, "n"]:
    """One number for each point."""

    def layer(h: Array, layer: Layers) -> tuple[Array, None]:
        return jnp.where(layer.active, layer.activation(h @ layer.weight.T + layer.bias), h), None

    return jax.lax.scan(layer, lifted(parameters.lift, points), layers)[0] @ parameters.readout


def spirals(key: Array, num_points: int, dtype: Any) -> tuple[Float[Array, "n 2"], Float[Array, "n"]]:
    """Two spirals, one turned by half a turn, and the signs that tell them apart."""
    labels = jnp.where(jnp.arange(num_points) % 2 == 0, 1.0, -1.0).astype(dtype)
    radius = jnp.linspace(0.3, 1.8, num_points, dtype=dtype)
    angle = 1.5 * jnp.pi * radius / 1.8
    points = labels[:, None] * radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    return points + 0.04 * jax.random.normal(key, points.shape, dtype), labels
