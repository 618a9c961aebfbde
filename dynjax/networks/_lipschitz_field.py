"""Vector fields whose Lipschitz constant cannot exceed a given number, whatever their parameters are."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_positive
from ._activations import activation_constant
from ._affine import as_hidden
from ._fields import check_delayed
from ._initializers import lecun_uniform
from ._operator_norms import block_norm, check_norm, normalised


class LipschitzField(eqx.Module):
    r"""A vector field with a hard bound on its Lipschitz constant.

    For all parameters, all times and all states,

        |F(t, y, (v_1, ..., v_r)) - F(t, y', (v'_1, ..., v'_r))| <= K max(|y - y'|, |v_1 - v'_1|, ..., |v_r - v'_r|)

    up to rounding, in the sup norm or in the Euclidean norm of R^m. With x = (y, v_1, ..., v_r),

        h_1 = a(W_1 x + b_1),    h_l = a(W_l h_{l-1} + b_l),    F = K (W (h_L, x) + b),

    where a is the activation divided by its Lipschitz constant, and every matrix is divided by its norm where that exceeds 1:
    "sup" divides each row by its l1 norm, "euclidean" the whole matrix by the sum of the spectral norms of its blocks (one
    block for each of y, v_1, ..., v_r and h_L). The last layer sees x as well, so that the field contains every linear field
    of constant at most K in this sense, F = -K v_1 among them.

    With `time_pieces = P > 1` each layer has P sets of parameters. Set j belongs to the middle of the j-th of P equal pieces of
    [0, horizon]; in between the *normalised* matrices are interpolated linearly, which keeps the bound, and before the first
    and after the last middle they are constant. The field is continuous in time with corners at (j + 1/2) horizon / P:
    fixed steps keep their order if these are ends of steps, that is if 2 P divides the number of steps. All sets start equal.

    `lipschitz` and `horizon` are arrays, so that one may map over them, but they are not trained: they pass
    `jax.lax.stop_gradient`. (Weight decay ignores gradients: mask it.)

    Args:
        lipschitz: the bound K > 0, per unit of time; may be traced.
        norm: "sup" or "euclidean".
        size: length m of the state.
        num_delays: r; 0 for an ordinary differential equation.
        hidden: widths of the hidden layers.
        activation: applied after every hidden layer.
        activation_lipschitz: its Lipschitz constant; known for the common ones (tanh, relu, sigmoid, sin, softplus, ...).
        time_pieces: P.
        horizon: the end of time, for `time_pieces > 1`.
        key: seeds the parameters.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if K or the horizon is not positive, a size is not positive, the norm is unknown, or the Lipschitz constant
            of the activation is unknown.

    Example:
        ```python
        field = dj.networks.LipschitzField(0.5, "sup", size=2, num_delays=1, key=jax.random.key(0))
        slope = field(0.0, jnp.zeros(2), (jnp.ones(2),))
        ```

    References:
        Gouk, Frank, Pfahringer and Cree, Regularisation of neural networks by enforcing Lipschitz continuity (2021).
    """

    weights: tuple[Float[Array, "pieces fan_out fan_in"], ...]
    biases: tuple[Float[Array, "pieces fan_out"], ...]
    lipschitz: Float[Array, ""]
    horizon: Float[Array, ""]
    norm: str = eqx.field(static=True)
    activation: Callable[[Any], Any] = eqx.field(static=True)
    activation_lipschitz: float = eqx.field(static=True)
    size: int = eqx.field(static=True)
    num_delays: int = eqx.field(static=True)
    time_pieces: int = eqx.field(static=True)

    def __init__(
        self,
        lipschitz: Any,
        norm: str = "sup",
        *,
        size: int,
        num_delays: int = 0,
        hidden: Sequence[int] = (16,),
        activation: Callable[[Any], Any] = jnp.tanh,
        activation_lipschitz: float | None = None,
        time_pieces: int = 1,
        horizon: Any = 1.0,
        key: PRNGKeyArray,
        dtype: Any = None,
    ):
        check_positive(lipschitz, "lipschitz")
        check_positive(horizon, "horizon")
        check_norm(norm)
        check_count(size, "size")
        check_count(num_delays, "num_delays", 0)
        check_count(time_pieces, "time_pieces")
        self.activation_lipschitz = activation_constant(activation, activation_lipschitz)
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        self.lipschitz, self.horizon = jnp.asarray(lipschitz, dtype), jnp.asarray(horizon, dtype)
        self.norm, self.activation = norm, activation
        self.size, self.num_delays, self.time_pieces = size, num_delays, time_pieces
        self.weights, self.biases = _parameters(as_hidden(hidden), size, num_delays, time_pieces, key, dtype)

    def __call__(
        self, t: Any, y: Float[Array, "size"], delayed: Sequence[Float[Array, "size"]] = ()
    ) -> Float[Array, "size"]:
        """The slope at time `t`. Where many are needed call the result of `fold` instead."""
        return self.fold()(t, y, delayed)

    @eqx.filter_jit
    def fold(self) -> "FoldedField":
        """The same field with its matrices divided once, for loops that evaluate it many times."""
        weights = tuple(
            normalised(weight, blocks, self.norm) for weight, blocks in zip(self.weights, self._blocks(), strict=True)
        )
        fixed = jax.lax.stop_gradient((self.lipschitz, self.horizon))
        return FoldedField(weights, self.biases, *fixed, self.activation, self.activation_lipschitz, self.num_delays)

    @eqx.filter_jit
    def bound(self, norm: str) -> Float[Array, ""]:
        """An upper bound on the Lipschitz constant in either norm, from the present parameters; at most K in its own norm."""
        folded = self.fold()
        inputs = (self.size,) * (1 + self.num_delays)
        scale: Any = 1.0
        for weight, blocks in zip(folded.weights[:-1], self._blocks()[:-1], strict=True):
            scale = scale * jnp.max(block_norm(weight, blocks, norm))
        scales = (1.0,) * len(inputs) if len(folded.weights) == 1 else (scale, *(1.0,) * len(inputs))
        last = jnp.max(block_norm(folded.weights[-1], self._blocks()[-1], norm, scales))
        value = folded.lipschitz * last
        return jnp.minimum(value, folded.lipschitz) if norm == self.norm else value

    def _blocks(self) -> list[tuple[int, ...]]:
        """The columns of each matrix that belong to one vector each."""
        inputs = (self.size,) * (1 + self.num_delays)
        hidden = [bias.shape[-1] for bias in self.biases[:-1]]
        if not hidden:
            return [inputs]
        return [inputs, *((width,) for width in hidden[:-1]), (hidden[-1], *inputs)]


class FoldedField(eqx.Module):
    """A `LipschitzField` with its matrices divided already."""

    weights: tuple[Float[Array, "pieces fan_out fan_in"], ...]
    biases: tuple[Float[Array, "pieces fan_out"], ...]
    lipschitz: Float[Array, ""]
    horizon: Float[Array, ""]
    activation: Callable[[Any], Any] = eqx.field(static=True)
    activation_lipschitz: float = eqx.field(static=True)
    num_delays: int = eqx.field(static=True)

    def __call__(
        self, t: Any, y: Float[Array, "size"], delayed: Sequence[Float[Array, "size"]] = ()
    ) -> Float[Array, "size"]:
        """The slope at time `t`."""
        check_delayed(delayed, self.num_delays)
        x = jnp.concatenate([y, *delayed])
        h = x
        last = len(self.weights) - 1
        mix = self._mix(t)
        for layer in range(last):
            h = self.activation(mix(self.weights[layer]) @ h + mix(self.biases[layer])) / self.activation_lipschitz
        h = jnp.concatenate([h, x]) if last else x
        return self.lipschitz * (mix(self.weights[last]) @ h + mix(self.biases[last]))

    def _mix(self, t: Any) -> Callable[[Array], Array]:
        """Linear interpolation between the sets of parameters, by hat functions: no index that could be rounded off."""
        pieces = self.weights[0].shape[0]
        if pieces == 1:
            return lambda leaf: leaf[0]
        position = jnp.clip(jnp.asarray(t, self.horizon.dtype) / self.horizon * pieces - 0.5, 0, pieces - 1)
        hats = jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(pieces)))
        return lambda leaf: jnp.tensordot(hats.astype(leaf.dtype), leaf, 1)


@eqx.filter_jit
def _parameters(
    hidden: tuple[int, ...], size: int, num_delays: int, pieces: int, key: PRNGKeyArray, dtype: Any
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Uniform on +-1/sqrt(fan_in), the same for every piece."""
    inputs = size * (1 + num_delays)
    fan_in = [inputs, *hidden]
    fan_in[-1] += inputs if hidden else 0
    uniform = lecun_uniform()
    weights, biases = [], []
    for layer, shape in enumerate(zip((*hidden, size), fan_in, strict=True)):
        weight_key, bias_key = jax.random.split(jax.random.fold_in(key, layer))
        weights.append(jnp.tile(uniform(weight_key, shape, dtype), (pieces, 1, 1)))
        biases.append(jnp.tile(uniform(bias_key, shape, dtype)[:, 0], (pieces, 1)))
    return tuple(weights), tuple(biases)


def folded(field: Any) -> Any:
    """A field made ready for many evaluations."""
    return field.fold() if isinstance(field, LipschitzField) else field
