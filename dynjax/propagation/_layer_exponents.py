"""Exponents of the layer-to-layer cocycle: depth is time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8

from .._core import Status, check_count, check_that, found, is_concrete, tree_all_finite
from ..stability import time_average
from ..stability._frame import orthonormal_rows
from ._layer_stages import Carry, check_model, path_of


class LayerExponents(eqx.Module):
    """Growth of perturbations from layer to layer.

    Attributes:
        exponents: means over inputs, per layer (for neural ODEs and flows per unit of time), descending in expectation, `(k,)`.
        standard_errors: of these, from the fluctuations along depth, correlations taken into account, `(k,)`.
        per_input: the exponents of each input, `(n, k)`.
        increments: log growth of each direction in each layer, mean over inputs, `(layers, k)`.
        depth: number of layers, or duration.
        states: hidden states behind the last layer, `(n, ...)`.
        status: `OK`, or `NONFINITE` where a state or a tangent is not finite, for each input, `(n,)`.
    """

    exponents: Float[Array, "k"]
    standard_errors: Float[Array, "k"]
    per_input: Float[Array, "n k"]
    increments: Float[Array, "layers k"]
    depth: Float[Array, ""]
    states: Float[Array, "n ..."]
    status: Int8[Array, "n"]

    def __str__(self) -> str:
        if not is_concrete(self.exponents):
            return "LayerExponents(traced)"
        pairs = zip(np.asarray(self.exponents)[:4], np.asarray(self.standard_errors)[:4], strict=True)
        shown = ", ".join(f"{value:.4g} +- {error:.2g}" for value, error in pairs)
        more = ", ..." if self.exponents.shape[0] > 4 else ""
        return f"LayerExponents({shown}{more}; depth {float(self.depth):g}, {self.per_input.shape[0]} inputs)"


def layer_exponents(
    model: Any, inputs: Any, *, k: int | None = None, readout: bool = False, num_steps: int | None = None
) -> LayerExponents:
    r"""Lyapunov exponents of a network in depth: how fast perturbations of hidden states grow from layer to layer.

    With D_l the derivative of layer l at the hidden state of an input and V_0 an orthonormal block of k tangents,

        D_l V_{l-1} = V_l R_l,    lambda_i = (1/L) sum_l log (R_l)_ii,

    so that lambda_1 + ... + lambda_k is the mean growth of k-dimensional volumes, for rectangular layers too. Gradients
    run through the same products backwards: they vanish where lambda_1 < 0 and explode where it is > 0.

    | model | layers |
    |---|---|
    | `MLP` | hidden layers, each affine map with its activation |
    | `ResNet`, `DenseResNet` | residual layers; states of the latter are histories |
    | `NeuralODE` | `num_steps` Runge-Kutta steps over its horizon; exponents per unit of time |
    | `Recurrence` | time steps of a cell, along the input sequences `(n, time, features)` |
    | `LayerMap`, and other systems with `num_steps` | their steps |

    Equal neighbouring layers are stacked and run in one scan: depth costs no compile time. At initialisation the layers are
    independent and the standard errors are those of the ensemble; the mean over several networks is
    `eqx.filter_vmap(lambda key: dj.layer_exponents(make(key), inputs).exponents)(keys)`. Infinitely wide networks:
    `mean_field_propagation`; finite widths: `reference.relu_network_exponent`, `reference.deep_linear_exponents`.

    Args:
        model: one of these.
        inputs: a batch `(n, d)`, or sequences `(n, time, features)` for a `Recurrence`.
        k: number of exponents, at most the smallest width on the way; all of them by default.
        readout: whether the last affine layer counts as a layer.
        num_steps: steps of a neural ODE (its own number, or 100, by default) or of a system, static.

    Returns:
        `LayerExponents`; -inf where a direction is lost for good (a dead layer, a singular weight). Cost: k derivatives of
        each layer for each input, and a factorisation of a block of k rows.

    Raises:
        TypeError: if the model is none of these.
        ValueError: if shapes do not fit, or `k` exceeds the smallest width.

    Example:
        ```python
        model = dj.MLP((64, *[200] * 30, 10), key=key)
        dj.layer_exponents(model, images, k=3)
        ```

    References:
        Benettin, Galgani, Giorgilli and Strelcyn (1980) for the factorisation; Engelken, Wolf and Abbott, Lyapunov spectra
        of chaotic recurrent neural networks (2023); Storm, Linander, Bec, Gustavsson and Mehlig, Finite-time Lyapunov exponents
        of deep neural networks (2024).
    """
    inputs = check_model(model, inputs, num_steps)
    most = _smallest_width(model, inputs[0], readout, num_steps)
    k = most if k is None else k
    check_count(k, "k")
    check_that(k <= most, "k", f"be at most {most}, the smallest width on the way", f"found {k}")
    return _exponents(model, inputs, k, readout, num_steps)


def _smallest_width(model: Any, x: Array, readout: bool, num_steps: int | None) -> int:
    """Of all states on the way."""

    def sizes(model: Any, x: Array) -> list[Array]:
        path = path_of(model, x, readout, num_steps)
        carry = start_carry(path.start, 1)
        states = [carry.h]
        for stage in path.stages:
            carry, _ = stage.run(carry)
            states.append(carry.h)
        return states

    try:
        shapes = eqx.filter_eval_shape(sizes, model, x)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"Argument `inputs` must fit the model, but one input raised: {reason}") from error
    return min(int(np.prod(shape.shape)) for shape in shapes)


def start_carry(h: Array, k: int) -> Carry:
    """The first block of tangents: everything, or a random one."""
    size = h.size
    frame = jnp.eye(size, dtype=h.dtype)
    if k < size:
        frame = orthonormal_rows(jax.random.normal(jax.random.key(0), (k, size), h.dtype))[0]
    return Carry(h, frame, jnp.eye(k, dtype=h.dtype), jnp.zeros((), h.dtype))


@eqx.filter_jit
def _exponents(model: Any, inputs: Array, k: int, readout: bool, num_steps: int | None) -> LayerExponents:
    def single(x: Array) -> tuple[Array, Array, Array, Array]:
        path = path_of(model, x, readout, num_steps)
        carry, rows = start_carry(path.start, k), []
        for stage in path.stages:
            carry, logs = stage.run(carry)
            rows.append(logs)
        return jnp.concatenate(rows), carry.h, path.unit, tree_all_finite((carry.h, carry.frame))

    logs, states, units, finite = jax.vmap(single)(inputs)
    depth = logs.shape[1] * units[0]
    average = time_average(jnp.mean(logs, 0))
    finite &= ~jnp.any(jnp.isnan(logs), (1, 2))
    return LayerExponents(
        exponents=average.mean / units[0],
        standard_errors=average.standard_error / units[0],
        per_input=jnp.mean(logs, 1) / units[:, None],
        increments=jnp.mean(logs, 0),
        depth=depth,
        states=states,
        status=jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8),
    )


class SeparationField(eqx.Module):
    """How a network pulls neighbouring inputs apart, point by point.

    Attributes:
        exponents: log of the singular values of the derivative from the input to the last layer, over the depth, descending,
            `(*batch, d)`.
        directions: the input directions that grow most, `(*batch, d)`, unit vectors up to a sign.
        status: `OK` or `NONFINITE`, `(*batch,)`.
    """

    exponents: Float[Array, "*batch d"]
    directions: Float[Array, "*batch d"]
    status: Int8[Array, "*batch"]


def separation_field(
    model: Any, points: Any, *, readout: bool = False, num_steps: int | None = None, chunk_size: int = 1024
) -> SeparationField:
    r"""Finite-time exponents over the input space: where, and along which direction, a network separates inputs.

    With D(x) the derivative of the last hidden state with respect to the input x and s_i its singular values,

        Lambda_i(x) = log(s_i) / L.

    Ridges of Lambda_1 are where neighbouring inputs part: in trained classifiers along the boundaries of the decision. The
    product of layers is kept as a triangle with a scale apart from it, so that deep networks neither overflow nor underflow;
    singular values below the precision times the largest are lost.

    Args:
        model: as for `layer_exponents`, but not a `Recurrence`.
        points: inputs, `(*batch, d)`.
        readout: whether the last affine layer is included.
        num_steps: as for `layer_exponents`.
        chunk_size: points that are computed at once.

    Returns:
        A `SeparationField`. Cost: d derivatives of each layer for each point.

    Raises:
        TypeError: if the model is none of these.
        ValueError: if shapes do not fit.

    Example:
        ```python
        grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-2, 2, 200)] * 2), -1)
        field = dj.propagation.separation_field(model, grid).exponents[..., 0]
        ```

    References:
        Storm, Linander, Bec, Gustavsson and Mehlig, Finite-time Lyapunov exponents of deep neural networks (2024), equations
        3 and 4.
    """
    points = jnp.asarray(points)
    check_that(points.ndim >= 1 and points.size > 0, "points", "hold points along its last axis", found(points))
    check_count(chunk_size, "chunk_size")
    recurrent = hasattr(model, "cell")
    check_that(not recurrent, "model", "take single points, not sequences", found(model), TypeError)
    flat = check_model(model, points.reshape(-1, points.shape[-1]), num_steps)
    out = _field(model, flat, readout, num_steps, min(chunk_size, flat.shape[0]))
    return jax.tree_util.tree_map(lambda leaf: leaf.reshape(*points.shape[:-1], *leaf.shape[1:]), out)


@eqx.filter_jit
def _field(model: Any, points: Array, readout: bool, num_steps: int | None, chunk: int) -> SeparationField:
    def single(x: Array) -> SeparationField:
        first = path_of(model, x, readout, num_steps)
        # The tangents of the input space itself, pushed through the lift where there is one.
        derivative = jax.jacfwd(lambda x: path_of(model, x, readout, num_steps).start.reshape(-1))(x)
        frame, _ = orthonormal_rows(derivative.T)
        begin = jnp.matmul(derivative.T, frame.T, precision=jax.lax.Precision.HIGHEST)
        carry = Carry(first.start, frame, begin, jnp.zeros((), begin.dtype))
        count = 0
        for stage in first.stages:
            carry, logs = stage.run(carry)
            count += logs.shape[0]
        finite = tree_all_finite((carry.h, carry.shape)) & ~jnp.isnan(carry.log_scale)
        left, values, _ = jnp.linalg.svd(jnp.where(finite, carry.shape, 0))
        positive = values > 0
        logs = jnp.where(positive, jnp.log(jnp.where(positive, values, 1)), -jnp.inf) + carry.log_scale
        exponents = jnp.where(finite, logs / (count * first.unit), jnp.nan)
        status = jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
        return SeparationField(exponents, left[:, 0], status)

    return jax.lax.map(single, points, batch_size=chunk)
