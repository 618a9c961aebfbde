"""Residual networks: the Euler discretisations of neural ODEs and of neural delay equations."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_positive
from ..systems import LayerMap
from ._affine import as_hidden, as_widths, check_sample, layer_or_random
from ._mlp import MLP


class ResNet(eqx.Module):
    """A residual network between an affine lift and an affine readout.

        h_0 = lift(x) in R^m,    h_{l+1} = h_l + step * f_l(h_l) for 0 <= l < depth,    model(x) = readout(h_depth),

    with multilayer perceptrons f_l that differ in their parameters alone. It is Euler's method for a neural ODE over the
    time step * depth. The layers are stored stacked, each array with a leading axis of length `depth`, and run in one scan.

    `step` is an array, so that one may map over it, but is not trained: it passes `jax.lax.stop_gradient`.

    Args:
        widths: (d, m, q): lengths of input, state and output.
        depth: number of layers.
        step: factor before every layer, positive; may be traced.
        key: seeds the parameters.
        hidden: widths of the hidden layers of each f_l; one of width m by default.
        activation: function applied after every hidden layer.
        lift: a callable R^d -> R^m, in place of a random `Affine`.
        readout: a callable R^m -> R^q, likewise.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if the widths are not three positive integers, or depth or step is not positive.

    Example:
        ```python
        model = dj.ResNet((2, 3, 1), depth=20, step=0.05, key=jax.random.key(0))
        dj.evolve(model.layer_map(), model.lift(x), num_steps=20)          # the last hidden state
        ```

    References:
        He, Zhang, Ren and Sun, Deep residual learning for image recognition (2016), eq. 1.
    """

    lift: Any
    layers: MLP
    readout: Any
    step: Float[Array, ""]
    widths: tuple[int, int, int] = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int],
        *,
        depth: int,
        step: Any = 1.0,
        key: PRNGKeyArray,
        hidden: Sequence[int] | None = None,
        activation: Callable[[Any], Any] = jnp.tanh,
        lift: Callable[[Any], Any] | None = None,
        readout: Callable[[Any], Any] | None = None,
        dtype: Any = None,
    ):
        d, m, q = self.widths = as_widths(widths)
        check_count(depth, "depth")
        check_positive(step, "step")
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        lift_key, layer_key, readout_key = jax.random.split(key, 3)
        self.lift = layer_or_random(lift, d, m, "lift", lift_key, dtype)
        self.readout = layer_or_random(readout, m, q, "readout", readout_key, dtype)
        hidden = (m,) if hidden is None else as_hidden(hidden)
        self.layers = _stacked((m, *hidden, m), depth, activation, layer_key, dtype)
        self.step = jnp.asarray(step, dtype)
        self.depth = depth

    def __call__(self, x: Float[Array, "d"]) -> Float[Array, "q"]:
        """The output for one sample; `jax.vmap` it over samples."""
        check_sample(x, self.widths[0])
        return self.readout(_run(self.layer_map(), self.lift(x)))

    def layer_map(self) -> LayerMap:
        """The layers as a system whose time is depth; its states are the h_l."""
        return LayerMap(_Residual(self.layers, _each(self.step, self.depth)))


class DenseResNet(eqx.Module):
    """A residual network whose layers see several layers before them.

        h_{l+1} = h_l + step * f_l(h_l, h_{l-1}, ..., h_{l-memory}),    h_{-memory} = ... = h_0 = lift(x),

    with `model(x) = readout(h_depth)` and multilayer perceptrons f_l that differ in their parameters alone. It is Euler's
    method for a neural delay equation over the time step * depth with delays up to step * memory. With `memory=0` it is a
    `ResNet`.

    `step` is an array, so that one may map over it, but is not trained: it passes `jax.lax.stop_gradient`.

    Args:
        widths: (d, m, q): lengths of input, state and output.
        depth: number of layers.
        memory: how many layers before the present one a layer sees.
        step: factor before every layer, positive; may be traced.
        key: seeds the parameters.
        hidden: widths of the hidden layers of each f_l; one of width m by default.
        activation: function applied after every hidden layer.
        lift: a callable R^d -> R^m, in place of a random `Affine`.
        readout: a callable R^m -> R^q, likewise.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if the widths are not three positive integers, depth or step is not positive, or memory is negative.

    Example:
        ```python
        model = dj.DenseResNet((1, 1, 1), depth=30, memory=10, step=0.1, key=jax.random.key(0))
        dj.evolve(model.layer_map(), model.init(x), num_steps=30)[0]       # the last hidden state
        ```

    References:
        Huang, Liu, van der Maaten and Weinberger, Densely connected convolutional networks (2017).
    """

    lift: Any
    layers: MLP
    readout: Any
    step: Float[Array, ""]
    widths: tuple[int, int, int] = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    memory: int = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int],
        *,
        depth: int,
        memory: int,
        step: Any = 1.0,
        key: PRNGKeyArray,
        hidden: Sequence[int] | None = None,
        activation: Callable[[Any], Any] = jnp.tanh,
        lift: Callable[[Any], Any] | None = None,
        readout: Callable[[Any], Any] | None = None,
        dtype: Any = None,
    ):
        d, m, q = self.widths = as_widths(widths)
        check_count(depth, "depth")
        check_count(memory, "memory", 0)
        check_positive(step, "step")
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        lift_key, layer_key, readout_key = jax.random.split(key, 3)
        self.lift = layer_or_random(lift, d, m, "lift", lift_key, dtype)
        self.readout = layer_or_random(readout, m, q, "readout", readout_key, dtype)
        hidden = (m,) if hidden is None else as_hidden(hidden)
        self.layers = _stacked((m * (1 + memory), *hidden, m), depth, activation, layer_key, dtype)
        self.step = jnp.asarray(step, dtype)
        self.depth, self.memory = depth, memory

    def __call__(self, x: Float[Array, "d"]) -> Float[Array, "q"]:
        """The output for one sample; `jax.vmap` it over samples."""
        return self.readout(_run(self.layer_map(), self.init(x))[0])

    def init(self, x: Float[Array, "d"]) -> Float[Array, "memory_1 m"]:
        """The history (h_0, h_{-1}, ..., h_{-memory}) for one sample, all of them lift(x)."""
        check_sample(x, self.widths[0])
        return jnp.tile(self.lift(x), (1 + self.memory, 1))

    def layer_map(self) -> LayerMap:
        """The layers as a system whose time is depth; its states are the histories (h_l, h_{l-1}, ..., h_{l-memory})."""
        return LayerMap(_Dense(self.layers, _each(self.step, self.depth)))


class _Residual(eqx.Module):
    """h -> h + step * f(h)."""

    field: MLP
    step: Array

    def __call__(self, h: Float[Array, "m"]) -> Float[Array, "m"]:
        return h + self.step * self.field(h)


class _Dense(eqx.Module):
    """(h_l, ..., h_{l-memory}) -> (h_{l+1}, h_l, ..., h_{l-memory+1})."""

    field: MLP
    step: Array

    def __call__(self, history: Float[Array, "memory_1 m"]) -> Float[Array, "memory_1 m"]:
        new = history[0] + self.step * self.field(history.reshape(-1))
        return jnp.concatenate([new[None], history[:-1]])


def _stacked(
    widths: tuple[int, ...], depth: int, activation: Callable[[Any], Any], key: PRNGKeyArray, dtype: Any
) -> MLP:
    """`depth` perceptrons in one module, each array with a leading axis."""
    make = lambda key: MLP(widths, activation=activation, key=key, dtype=dtype)
    return eqx.filter_vmap(make)(jax.random.split(key, depth))


def _each(step: Float[Array, ""], depth: int) -> Float[Array, "depth"]:
    """The step of every layer, held fixed."""
    return jnp.broadcast_to(jax.lax.stop_gradient(step), (depth,))


def _run(layers: LayerMap, h: Array) -> Array:
    """Through all layers."""
    block = lambda arrays: eqx.combine(arrays, layers.static.tree())
    return jax.lax.scan(lambda h, arrays: (block(arrays)(h), None), h, layers.arrays)[0]
