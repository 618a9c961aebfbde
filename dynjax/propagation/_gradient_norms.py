"""Norms of gradients layer by layer, beside the exponents that predict them; and the verdict."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PRNGKeyArray

from .._core import Status, check_that, found, is_concrete
from ..networks import MLP, DenseResNet, ResNet
from ..reference import deep_linear_exponents, relu_network_exponent, wide_network_exponent
from ..systems import LayerMap
from ._layer_exponents import layer_exponents
from ._layer_stages import check_model, path_of

_ERRORS = 3.0  # standard errors beyond which a rate has a sign
_BALANCED = 2.302585092994046  # log 10: gradients within a factor of ten from end to end are balanced
_AT_EDGE = 0.1  # a logarithm of the change from end to end


class GradientNorms(eqx.Module):
    """Norms of the gradients with respect to hidden states.

    Attributes:
        log_norms: log |dL/dh_l| for l = 0 (the input of the first layer) to the last hidden state, `(n, layers + 1)`.
        rates: (log |dL/dh_0| - log |dL/dh_L|) / L for each input, per layer or unit of time, `(n,)`: positive where
            gradients grow on their way back.
        depth: number of layers, or duration.
        status: `OK`, or `NONFINITE` where a norm is NaN or infinite, `(n,)`.
        parameter_log_norms: log |dL/d(parameters of layer l)| for l = 1 to the last layer, `(n, layers)`, if asked for.
    """

    log_norms: Float[Array, "n layers_1"]
    rates: Float[Array, "n"]
    depth: Float[Array, ""]
    status: Int8[Array, "n"]
    parameter_log_norms: Float[Array, "n layers"] | None = None

    @property
    def rate(self) -> Float[Array, ""]:
        """The mean rate over the inputs."""
        return jnp.mean(self.rates)

    @property
    def standard_error(self) -> Float[Array, ""]:
        """Of the mean rate, from input to input; NaN for a single one. Inputs share the weights, networks do not."""
        n = self.rates.shape[0]
        return jnp.std(self.rates) / jnp.sqrt(n - 1) if n > 1 else jnp.full((), jnp.nan, self.rates.dtype)

    def __str__(self) -> str:
        if not is_concrete(self.rates):
            return "GradientNorms(traced)"
        return f"GradientNorms({self.rates.shape[0]} inputs, rate {float(self.rate):.4g} per layer, depth {float(self.depth):g})"


def gradient_norms(
    model: Any,
    inputs: Any,
    loss: Callable[[Any], Any] | None = None,
    *,
    key: PRNGKeyArray | None = None,
    readout: bool = False,
    num_steps: int | None = None,
    parameters: bool = False,
) -> GradientNorms:
    r"""The norm of the gradient with respect to every hidden state, |dL/dh_l|: what backpropagation does with depth.

    With J_l the derivative of layer l, dL/dh_{l-1} = J_l^T dL/dh_l: the transposed product, whose exponents are those of
    `layer_exponents`. A gradient at the top in a random direction therefore grows on its way back at the rate lambda_1 per
    layer, for random networks of finite width too.

    Args:
        model: as for `layer_exponents`.
        inputs: a batch, as there.
        loss: `loss(h)`, a number for the last hidden state (the output, with `readout`); without it the gradient there
            is a random unit vector.
        key: of these vectors; needed without a loss.
        readout: whether the last affine layer counts as a layer.
        num_steps: as for `layer_exponents`.
        parameters: whether to add the norms of the gradients with respect to the parameters of each layer, for models whose
            layers have their own: `MLP`, `ResNet`, `DenseResNet`, `LayerMap`. It takes the memory of the parameters for each
            input.

    Returns:
        `GradientNorms`. Cost: a gradient of the model for each input; memory for all hidden states.

    Raises:
        TypeError: if the model is none of those, or `loss` is not callable.
        ValueError: if shapes do not fit, neither loss nor key is given, or `parameters` is set for a model whose layers share
            theirs.

    Example:
        ```python
        norms = dj.propagation.gradient_norms(model, images, key=key)
        plt.plot(norms.log_norms.mean(0))
        ```

    References:
        Hochreiter (1991); Bengio, Simard and Frasconi, Learning long-term dependencies with gradient descent is difficult
        (1994); Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks (2013).
    """
    inputs = check_model(model, inputs, num_steps)
    own = isinstance(model, MLP | ResNet | DenseResNet | LayerMap)
    check_that(own or not parameters, "parameters", "be left out where layers share their parameters", found(model))
    if loss is None:
        check_that(key is not None, "key", "be given where there is no loss", "it is None")
        keys = jax.random.split(key, inputs.shape[0])  # type: ignore[arg-type]
        return _norms(model, inputs, None, keys, readout, num_steps, parameters)
    check_that(callable(loss), "loss", "be a function of the last state", found(loss), TypeError)
    return _norms(model, inputs, loss, None, readout, num_steps, parameters)


@eqx.filter_jit
def _norms(
    model: Any, inputs: Array, loss: Any, keys: Any, readout: bool, num_steps: int | None, parameters: bool
) -> GradientNorms:
    moving, still = eqx.partition(model, eqx.is_inexact_array)

    def single(x: Array, key: Any) -> tuple[Array, Array | None, Array]:
        path = path_of(model, x, readout, num_steps)

        def top(h: Array) -> Array:
            if loss is not None:
                return loss(h)
            direction = jax.random.normal(key, h.shape, h.dtype)
            return jnp.sum(h * direction / jnp.linalg.norm(direction))

        def through(start: Array, kicks: list[Array], moving: Any) -> Array:
            # The derivative with respect to a kick of a hidden state is that with respect to the state.
            stages = path_of(eqx.combine(moving, still), x, readout, num_steps).stages if parameters else path.stages
            h = start
            for stage, kick in zip(stages, kicks, strict=True):
                h = stage.kicked(h, kick)
            return top(h)

        shapes = jax.eval_shape(lambda h: _states(path.stages, h), path.start)
        kicks = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
        slopes = jax.grad(through, (0, 1, 2) if parameters else (0, 1))(path.start, kicks, moving)
        norms = [_norm(slopes[0], 0)[None], *(_norm(g, 1) for g in slopes[1])]
        logs = jnp.log(jnp.concatenate(norms))
        own = _parameter_norms(slopes[2], readout)[: logs.shape[0] - 1] if parameters else None
        return logs, None if own is None else jnp.log(own), path.unit

    logs, own, units = jax.vmap(single)(inputs, keys)
    depth = (logs.shape[1] - 1) * units[0]
    finite = jnp.all(jnp.isfinite(logs), 1)
    status = jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
    return GradientNorms(logs, (logs[:, 0] - logs[:, -1]) / depth, depth, status, own)


def _norm(tree: Any, axes: int) -> Array:
    """Of all arrays of a tree together, for each entry of their leading axes."""
    leaves = jax.tree_util.tree_leaves(tree)
    entries = jnp.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axes)
    # Squares of what has vanished would be lost long before the entries themselves.
    largest = jnp.max(jnp.abs(entries), axis=axes, keepdims=True)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return jnp.linalg.norm(entries / unit, axis=axes) * jnp.squeeze(unit, axes)


def _parameter_norms(slope: Any, readout: bool) -> Float[Array, "layers"]:
    """Layer by layer, from the gradient with respect to the model."""
    if isinstance(slope, MLP):
        return jnp.stack([_norm(layer, 0) for layer in zip(slope.weights, slope.biases, strict=True)])
    if isinstance(slope, LayerMap):
        return _norm(slope.arrays, 1)
    norms = _norm(slope.layers, 1)
    return jnp.append(norms, _norm(slope.readout, 0)) if readout else norms


def _states(stages: Any, h: Array) -> list[Array]:
    """The hidden states behind the layers of each stage."""
    states = []
    for stage in stages:
        h, inner = stage.states(h)
        states.append(inner)
    return states


class GradientReport(eqx.Module):
    """Whether gradients vanish, explode or are balanced.

    Attributes:
        verdict: "vanish", "explode", "balanced" or "undecided".
        rate: lambda_1 per layer.
        standard_error: of the rate, from layer to layer.
        depth: number of layers, or duration.
        mean_field: the rate of an infinitely wide network with these variances; NaN where nothing is known.
        finite_width: the exact rate at this width for ReLU and linear networks without biases; NaN otherwise.
        weight_variance: sigma_w^2 = fan_in times the mean square of the weights of the hidden layers; NaN for other models.
        bias_variance: sigma_b^2.
        reason: one sentence.
    """

    verdict: str = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    standard_error: float = eqx.field(static=True)
    depth: float = eqx.field(static=True)
    mean_field: float = eqx.field(static=True)
    finite_width: float = eqx.field(static=True)
    weight_variance: float = eqx.field(static=True)
    bias_variance: float = eqx.field(static=True)
    reason: str = eqx.field(static=True)

    def __str__(self) -> str:
        return self.reason


def gradient_report(model: Any, inputs: Any, *, num_steps: int | None = None) -> GradientReport:
    """Whether the gradients of a model vanish, explode or are balanced, at which rate per layer, and why.

    The rate is the first exponent of `layer_exponents`. It counts as negative or positive beyond three standard errors, and as
    balanced where gradients change by less than a factor of ten from end to end. Beside it stands, for perceptrons of equal
    hidden widths, the rate of an infinitely wide random network with the variances of these weights and biases, and the exact one
    at this width where that is known. It does not run under `jit`.

    Args:
        model: as for `layer_exponents`.
        inputs: a batch, as there.
        num_steps: as there.

    Raises:
        TypeError: if the model is none of those.
        ValueError: if shapes do not fit.

    Example:
        ```python
        print(dj.propagation.gradient_report(model, images))
        ```
    """
    found_rates = layer_exponents(model, inputs, k=1, num_steps=num_steps)
    rate, error, depth = (
        float(np.asarray(v).ravel()[0]) for v in (found_rates.exponents, found_rates.standard_errors, found_rates.depth)
    )
    mean_field, finite, sw2, sb2 = _predictions(model)
    verdict = _verdict(rate, error, depth)
    words = {"vanish": "Gradients vanish", "explode": "Gradients explode", "balanced": "Gradients are balanced"}
    start = words.get(verdict, "It is undecided what gradients do")
    change = f"by a factor of e^{rate * depth:.3g} over {depth:g}"
    reason = f"{start}: they change at the rate {rate:.4g} +- {error:.2g} per layer, {change}"
    if np.isfinite(mean_field):
        reason += _because(verdict, depth, mean_field, finite, sw2)
    return GradientReport(verdict, rate, error, depth, mean_field, finite, sw2, sb2, reason + ".")


def _because(verdict: str, depth: float, mean_field: float, finite: float, sw2: float) -> str:
    """What random weights of the same variance would do, and whether that is what is found."""
    predicted = finite if np.isfinite(finite) else mean_field
    agrees = _verdict(predicted, 0.0, depth) == verdict
    near = abs(mean_field) * depth <= _AT_EDGE
    place = "at" if near else ("below" if mean_field < 0 else "above")
    here = f" and {finite:.4g} at this one" if np.isfinite(finite) else ""
    link = ", because" if agrees else "; yet"
    rates = f"{mean_field:.4g} at infinite width{here}"
    return f"{link} random weights of variance {sw2:.4g} / width are {place} the edge of chaos (rate {rates})"


def _verdict(rate: float, error: float, depth: float) -> str:
    if np.isneginf(rate):
        return "vanish"
    if not np.isfinite(rate):
        return "undecided"
    if abs(rate) * depth <= _BALANCED:
        return "balanced"
    if not np.isfinite(error) or abs(rate) <= _ERRORS * error:
        return "undecided"
    return "vanish" if rate < 0 else "explode"


def _predictions(model: Any) -> tuple[float, float, float, float]:
    """(infinite width, this width, sigma_w^2, sigma_b^2) of a perceptron with hidden layers of one width."""
    nan = float("nan")
    if not isinstance(model, MLP) or len(model.weights) < 3 or len(set(model.widths[1:-1])) > 1:
        return nan, nan, nan, nan
    width = model.widths[1]
    hidden = range(1, len(model.weights) - 1)
    sw2 = width * float(np.mean([np.mean(np.square(np.asarray(model.weights[i], float))) for i in hidden]))
    biases = [np.zeros(1) if model.biases[i] is None else np.asarray(model.biases[i], float) for i in hidden]
    sb2 = float(np.mean([np.mean(np.square(b)) for b in biases]))
    if not sw2 > 0:
        return nan, nan, sw2, sb2
    finite = nan
    if sb2 == 0 and model.activation is jax.nn.relu:
        finite = float(relu_network_exponent(width, sw2))
    if sb2 == 0 and model.activation is jax.nn.identity:
        finite = float(deep_linear_exponents(width, sw2)[0])
    if model.activation is jax.nn.relu:
        return float(np.log(sw2 / 2) / 2), finite, sw2, sb2
    if model.activation is jax.nn.identity:
        return float(np.log(sw2) / 2), finite, sw2, sb2
    try:
        return float(wide_network_exponent(sw2, sb2, activation=model.activation)), finite, sw2, sb2
    except (TypeError, ValueError):  # an activation that is no function of one number
        return nan, finite, sw2, sb2
