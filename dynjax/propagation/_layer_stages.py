"""Networks as sequences of layers, equal ones in one scan, and blocks of tangents that go through them."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_count, check_that, found, is_concrete
from ..networks import MLP, DenseResNet, NeuralODE, ResNet
from ..stability._frame import orthonormal_rows
from ..systems import AbstractSystem, Flow, LayerMap

_STEPS = 100  # of a neural ODE that has no steps of its own


class Recurrence(eqx.Module):
    """A recurrent cell as layers in time: h_{t+1} = cell(x_t, h_t), driven by a sequence of inputs.

    Args:
        cell: a callable `cell(x, h) -> h`, such as `eqx.nn.GRUCell`.
        initial: h_0, `(size,)`; zero by default, for which the cell must have the attribute `hidden_size`.

    Raises:
        TypeError: if the cell is not callable.
        ValueError: if the size of the state is not known.

    Example:
        ```python
        cell = eqx.nn.GRUCell(3, 64, key=key)
        dj.layer_exponents(dj.propagation.Recurrence(cell), sequences, k=5)       # sequences: (n, T, 3)
        ```
    """

    cell: Callable[[Any, Any], Any]
    initial: Float[Array, "size"]

    def __init__(self, cell: Callable[[Any, Any], Any], initial: Any = None):
        check_that(callable(cell), "cell", "be a function `cell(x, h)`", found(cell), TypeError)
        if initial is None:
            size = getattr(cell, "hidden_size", None)
            but = "the cell has no `hidden_size` to tell the shape of the state"
            check_that(isinstance(size, int), "initial", "be given", but)
            initial = jnp.zeros(size)
        initial = jnp.asarray(initial)
        check_that(initial.ndim == 1 and initial.size > 0, "initial", "be a vector", found(initial))
        self.cell, self.initial = cell, initial

    def __call__(self, inputs: Float[Array, "time features"]) -> Float[Array, "size"]:
        """The last state for one sequence."""
        return jax.lax.scan(lambda h, x: (self.cell(x, h), None), self.initial, inputs)[0]


class Carry(NamedTuple):
    """A hidden state, tangents as orthonormal rows, and the growth so far.

    `shape` is lower triangular of largest entry 1 with D^T = shape * exp(log_scale) * frame, where that is followed.
    """

    h: Array
    frame: Float[Array, "k size"]
    shape: Float[Array, "k k"]
    log_scale: Float[Array, ""]


class Stage(eqx.Module):
    """Some layers of a network."""

    @abc.abstractmethod
    def run(self, carry: Carry) -> tuple[Carry, Float[Array, "layers k"]]:
        """The state and the frame behind the layers, and the logarithmic growth in each of them."""

    @abc.abstractmethod
    def scan(self, h: Array, kicks: Array | None) -> tuple[Array, Array]:
        """The state behind the layers, and those behind each of them; `kicks` are added to these on the way."""

    def states(self, h: Array) -> tuple[Array, Array]:
        """The state behind the layers, and those behind each of them."""
        return self.scan(h, None)

    def kicked(self, h: Array, kicks: Float[Array, "layers ..."]) -> Array:
        """The state behind the layers, with something added to each hidden state."""
        return self.scan(h, kicks)[0]


class Single(Stage):
    """One layer that differs from its neighbours."""

    layer: Callable[[Any], Any]

    def run(self, carry: Carry) -> tuple[Carry, Float[Array, "1 k"]]:
        """Through the layer."""
        carry, logs = _through(self.layer, carry)
        return carry, logs[None]

    def scan(self, h: Array, kicks: Array | None) -> tuple[Array, Array]:
        """One step."""
        h = _kick(self.layer(h), None if kicks is None else kicks[0])
        return h, h[None]


class Stacked(Stage):
    """Equal layers, each array with a leading axis, in one scan."""

    layers: Any

    def run(self, carry: Carry) -> tuple[Carry, Float[Array, "layers k"]]:
        """Through all of them."""
        arrays, static = eqx.partition(self.layers, eqx.is_array)
        return jax.lax.scan(lambda c, leaves: _through(eqx.combine(leaves, static), c), carry, arrays)

    def scan(self, h: Array, kicks: Array | None) -> tuple[Array, Array]:
        """All steps."""
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def step(h: Array, leaves: Any) -> tuple[Array, Array]:
            h = _kick(eqx.combine(leaves[0], static)(h), leaves[1])
            return h, h

        return jax.lax.scan(step, h, (arrays, kicks))


class Steps(Stage):
    """The first steps of a system."""

    system: AbstractSystem
    num_steps: int = eqx.field(static=True)

    def run(self, carry: Carry) -> tuple[Carry, Float[Array, "layers k"]]:
        """Through all of them."""

        def step(carry: Carry, n: Array) -> tuple[Carry, Array]:
            rows = carry.frame.reshape(-1, *carry.h.shape)
            return _advance(carry, *self.system.tangent_step(n, carry.h, rows))

        return jax.lax.scan(step, carry, jnp.arange(self.num_steps))

    def scan(self, h: Array, kicks: Array | None) -> tuple[Array, Array]:
        """All steps."""

        def step(h: Array, leaves: Any) -> tuple[Array, Array]:
            h = _kick(self.system.step(leaves[0], h), leaves[1])
            return h, h

        return jax.lax.scan(step, h, (jnp.arange(self.num_steps), kicks))


def _kick(h: Array, kick: Array | None) -> Array:
    return h if kick is None else h + kick


def _through(layer: Callable[[Any], Any], carry: Carry) -> tuple[Carry, Float[Array, "k"]]:
    image, push = jax.linearize(layer, carry.h)
    return _advance(carry, image, jax.vmap(push)(carry.frame.reshape(-1, *carry.h.shape)))


def _advance(carry: Carry, image: Array, rows: Array) -> tuple[Carry, Float[Array, "k"]]:
    flat = rows.reshape(rows.shape[0], -1)
    frame, logs = orthonormal_rows(flat)
    # Lost rows of the frame are zero, and so are the columns that would multiply them.
    lower = jnp.tril(_dot(flat, frame.T))
    shape = _dot(carry.shape, lower)
    largest = jnp.max(jnp.abs(shape))
    dead = largest == 0
    shape = shape / jnp.where(dead, 1, largest)
    scale = carry.log_scale + jnp.where(dead, -jnp.inf, jnp.log(jnp.where(dead, 1, largest)))
    return Carry(image, frame, shape, scale), logs


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class Dense(eqx.Module):
    """x -> activation(weight x + bias)."""

    weight: Float[Array, "out in"]
    bias: Float[Array, "out"] | None
    activation: Callable[[Any], Any] | None = eqx.field(static=True)

    def __call__(self, x: Float[Array, "in"]) -> Float[Array, "out"]:
        """The output of the layer."""
        x = self.weight @ x
        x = x if self.bias is None else x + self.bias
        return x if self.activation is None else self.activation(x)


class Path(NamedTuple):
    """The way of one input: the first state, the layers, and how much of depth (or of time) each of their steps is."""

    start: Array
    stages: tuple[Stage, ...]
    unit: Array


def path_of(model: Any, x: Array, readout: bool, num_steps: int | None) -> Path:
    """The layers that `x` goes through."""
    one = jnp.ones((), x.dtype)
    if isinstance(model, MLP):
        return Path(x, _perceptron(model, readout), one)
    if isinstance(model, Recurrence):
        return Path(model.initial.astype(jnp.result_type(x, model.initial)), (_recurrent(model, x),), one)
    if isinstance(model, LayerMap):
        return Path(x, (Stacked(eqx.combine(model.arrays, model.static.tree())),), one)
    if isinstance(model, ResNet | DenseResNet):
        layers = model.layer_map()
        stages: tuple[Stage, ...] = (Stacked(eqx.combine(layers.arrays, layers.static.tree())),)
        start = model.lift(x) if isinstance(model, ResNet) else model.init(x)
        last = model.readout if isinstance(model, ResNet) else _Newest(model.readout)
        return Path(start, (*stages, Single(last)) if readout else stages, one)
    if isinstance(model, NeuralODE):
        count = num_steps or model.num_steps or _STEPS
        dt = jax.lax.stop_gradient(model.horizon) / count
        stages = (Steps(model.flow(dt), count),)
        return Path(model.lift(x), (*stages, Single(model.readout)) if readout else stages, dt)
    assert isinstance(model, AbstractSystem)
    assert num_steps is not None
    return Path(x, (Steps(model, num_steps),), jnp.abs(model.dt))


class _Newest(eqx.Module):
    """A readout of the newest state of a history."""

    readout: Callable[[Any], Any]

    def __call__(self, history: Float[Array, "memory_1 m"]) -> Float[Array, "q"]:
        return self.readout(history[0])


class _Driven(eqx.Module):
    """One step of a cell with its input."""

    cell: Callable[[Any, Any], Any]
    x: Array

    def __call__(self, h: Float[Array, "size"]) -> Float[Array, "size"]:
        return self.cell(self.x, h)


def _recurrent(model: Recurrence, inputs: Float[Array, "time features"]) -> Stage:
    # The cell is the same in each step: only the inputs are scanned over.
    return _Sequence(model.cell, inputs)


class _Sequence(Stage):
    """A cell along a sequence."""

    cell: Callable[[Any, Any], Any]
    inputs: Float[Array, "time features"]

    def run(self, carry: Carry) -> tuple[Carry, Float[Array, "layers k"]]:
        """Through the sequence."""
        return jax.lax.scan(lambda c, x: _through(_Driven(self.cell, x), c), carry, self.inputs)

    def scan(self, h: Array, kicks: Array | None) -> tuple[Array, Array]:
        """All steps."""

        def step(h: Array, leaves: Any) -> tuple[Array, Array]:
            h = _kick(self.cell(leaves[0], h), leaves[1])
            return h, h

        return jax.lax.scan(step, h, (self.inputs, kicks))


def _perceptron(model: MLP, readout: bool) -> tuple[Stage, ...]:
    """Runs of layers of one shape stacked; the last layer, which has no activation, only if asked for."""
    hidden = len(model.weights) - 1
    stages: list[Stage] = []
    begin = 0
    while begin < hidden:
        weight, bias = model.weights[begin], model.biases[begin]
        end = begin + 1
        square = weight.shape[0] == weight.shape[1]
        while square and end < hidden and _alike(model, begin, end):
            end += 1
        if end - begin == 1:
            stages.append(Single(Dense(weight, bias, model.activation)))
        else:
            biases = None if bias is None else _stack(model.biases[begin:end])
            stages.append(Stacked(Dense(_stack(model.weights[begin:end]), biases, model.activation)))
        begin = end
    if readout or not stages:
        stages.append(Single(Dense(model.weights[-1], model.biases[-1], None)))
    return tuple(stages)


def _alike(model: MLP, first: int, second: int) -> bool:
    same = model.weights[first].shape == model.weights[second].shape
    return same and (model.biases[first] is None) == (model.biases[second] is None)


def _stack(arrays: Any) -> Array:
    """On the host where that is possible: a concatenation of thousands of arrays is slow to compile."""
    return jnp.asarray(np.stack([np.asarray(a) for a in arrays])) if is_concrete(arrays) else jnp.stack(arrays)


def check_model(model: Any, inputs: Any, num_steps: int | None) -> Array:
    """The inputs as a batch; raise unless they fit the model."""
    known = isinstance(model, MLP | ResNet | DenseResNet | NeuralODE | Recurrence | AbstractSystem)
    must = "be an MLP, ResNet, DenseResNet, NeuralODE, Recurrence or a system"
    check_that(known, "model", must, found(model), TypeError)
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.inexact):
        inputs = inputs.astype(jnp.result_type(float))
    rank = 3 if isinstance(model, Recurrence) else 2
    what = "sequences of shape (n, time, features)" if rank == 3 else "a batch of shape (n, d)"
    check_that(inputs.ndim == rank and inputs.size > 0, "inputs", f"be {what}", found(inputs))
    size = model.widths[0] if isinstance(model, MLP | ResNet | DenseResNet | NeuralODE) else inputs.shape[-1]
    check_that(inputs.shape[-1] == size, "inputs", f"have {size} features, the width of the model", found(inputs))
    if num_steps is not None:
        steps = isinstance(model, NeuralODE | AbstractSystem) and not isinstance(model, LayerMap)
        check_that(steps, "num_steps", "be left out for a model whose depth is known", f"found {num_steps}")
        check_count(num_steps, "num_steps")
    elif isinstance(model, AbstractSystem) and not isinstance(model, LayerMap):
        kind = "time" if isinstance(model, Flow) else "number of iterations"
        check_that(False, "num_steps", f"be given for a system: it has no {kind} of its own", "it is None")
    return inputs
