"""Multilayer perceptrons given by their width profile."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_that
from ._initializers import Initializer, lecun_uniform


class MLP(eqx.Module):
    """A multilayer perceptron h_0 = x, h_l = act(W_l h_{l-1} + b_l) for l < L, y = W_L h_{L-1} + b_L.

    Every array of the module is a parameter and nothing else is a leaf, so the module itself can be differentiated, handed
    to optax and passed to `dj.hessian`.

    Args:
        widths: (in, hidden, ..., out): at least two positive integers.
        activation: function applied after every layer but the last.
        key: seeds the parameters.
        initializer: how weights start, one function or one for each layer; uniform on +-1/sqrt(fan_in) by default.
        bias: whether layers have a bias, one boolean or one for each layer.
        bias_initializer: how biases start, a function `(key, (fan_out, fan_in), dtype) -> (fan_out, 1)`-shaped weight column;
            zero by default, or uniform on +-1/sqrt(fan_in) where `initializer` is left at its default too.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if `widths` is too short or not positive, or a per-layer argument has the wrong length.

    Example:
        ```python
        model = dj.MLP((64, 32, 10), key=jax.random.key(0))
        model(jnp.zeros(64))          # one sample
        jax.vmap(model)(batch)        # (N, 10)
        ```
    """

    weights: tuple[Float[Array, "fan_out fan_in"], ...]
    biases: tuple[Float[Array, "fan_out"] | None, ...]
    activation: Callable[[Any], Any] = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: Callable[[Any], Any] = jnp.tanh,
        key: PRNGKeyArray,
        initializer: Initializer | Sequence[Initializer] | None = None,
        bias: bool | Sequence[bool] = True,
        bias_initializer: Initializer | None = None,
        dtype: Any = None,
    ):
        widths = tuple(int(w) for w in widths)
        check_that(
            len(widths) >= 2 and min(widths) > 0,
            "widths",
            "hold at least two positive integers",
            f"found {widths}",
        )
        layers = len(widths) - 1
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        if initializer is None and bias_initializer is None:
            bias_initializer = lecun_uniform()
        initializers = _per_layer(lecun_uniform() if initializer is None else initializer, layers, "initializer")
        has_bias = _per_layer(bias, layers, "bias")
        weights: list[Array] = []
        biases: list[Array | None] = []
        for layer, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            weight_key, bias_key = jax.random.split(jax.random.fold_in(key, layer))
            weights.append(initializers[layer](weight_key, (fan_out, fan_in), dtype))
            if not has_bias[layer]:
                biases.append(None)
            elif bias_initializer is None:
                biases.append(jnp.zeros(fan_out, dtype))
            else:
                biases.append(bias_initializer(bias_key, (fan_out, fan_in), dtype)[:, 0])
        self.weights, self.biases = tuple(weights), tuple(biases)
        self.activation = activation
        self.widths = widths

    def __call__(self, x: Float[Array, "in_size"]) -> Float[Array, "out_size"]:
        """The output for one sample; `jax.vmap` it over samples."""
        if x.shape != (self.widths[0],):
            raise ValueError(
                f"Argument `x` must be one sample of shape ({self.widths[0]},), but found {x.shape}. "
                "For a batch use `jax.vmap(model)(x)`."
            )
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = weight @ x
            if bias is not None:
                x = x + bias
            if layer < last:
                x = self.activation(x)
        return x


def _per_layer(value: Any, layers: int, argument: str) -> tuple[Any, ...]:
    if isinstance(value, Sequence):
        check_that(
            len(value) == layers, argument, f"have one entry for each of the {layers} layers", f"found {len(value)}"
        )
        return tuple(value)
    return (value,) * layers
