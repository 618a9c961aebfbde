"""What wide random networks of these variances do to perturbations and to pairs of inputs."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ...propagation import critical_weight_scale, mean_field_propagation
from ...reference import deep_linear_exponents, relu_network_exponent, wide_network_exponent
from .._tasks import ACTIVATIONS


class Prediction(NamedTuple):
    """In double precision.

    Attributes:
        exponent: (1/2) log chi_1 per layer, at infinite width.
        finite_width: the exact exponent at the width of the run, where one is known: Gaussian or orthogonal linear layers and
            Gaussian ReLU layers without biases; NaN otherwise.
        correlation_depth: layers over which correlations of inputs are remembered.
    """

    exponent: float
    finite_width: float
    correlation_depth: float


@functools.cache
def predict(activation: str, law: str, width: int, weight_variance: float, bias_variance: float) -> Prediction:
    """The predictions at one weight variance.

    Args:
        activation: "tanh", "relu" or "identity".
        law: "gaussian" or "orthogonal".
        width: of the layers.
        weight_variance: sigma_w^2.
        bias_variance: sigma_b^2.
    """
    finite = float("nan")
    with jax.enable_x64(True):
        if activation == "tanh":
            found = mean_field_propagation(ACTIVATIONS["tanh"], weight_variance, bias_variance)
            return Prediction(float(found.exponent), finite, float(found.correlation_depth))
        gain = weight_variance / 2 if activation == "relu" else weight_variance
        exponent = math.log(gain) / 2
        # Both are homogeneous: chi_1 is the slope of the correlations too, and above 1 signals grow without bound.
        memory = -1 / math.log(gain) if gain < 1 else math.inf
        if activation == "relu" and law == "gaussian" and bias_variance == 0:
            finite = float(relu_network_exponent(width, weight_variance))
        if activation == "identity":  # biases do not matter to the derivative
            orthogonal = law == "orthogonal"
            finite = exponent if orthogonal else float(deep_linear_exponents(width, weight_variance)[0])
    return Prediction(exponent, finite, memory)


@functools.cache
def critical_variance(activation: str, bias_variance: float) -> float:
    """sigma_w^2 at which chi_1 = 1; 2 for ReLU and 1 for linear layers, with biases too."""
    if activation != "tanh":
        return 2.0 if activation == "relu" else 1.0
    with jax.enable_x64(True):
        return float(critical_weight_scale(ACTIVATIONS["tanh"], bias_variance=bias_variance).weight_variance)


def exponent_curve(config: dict[str, Any], variances: np.ndarray) -> np.ndarray:
    """The exponent at infinite width over weight variances."""
    if config["activation"] != "tanh":
        return np.log(variances / critical_variance(config["activation"], 0.0)) / 2
    bias_variance = config["bias_variance"]
    with jax.enable_x64(True):
        return np.asarray(_tanh_curve()(variances, bias_variance))


@functools.cache
def _tanh_curve() -> Callable[..., Any]:
    return jax.jit(jax.vmap(wide_network_exponent, (0, None)))
