"""Losses as functions of a network's outputs: their values, and their curvature in output space in closed form."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .._core import Function, check_that, found

LossName = Literal["mse", "softmax_cross_entropy", "sigmoid_binary_cross_entropy"]
Loss = LossName | Callable[[Any, Any], Float[Array, ""]]


class AbstractOutputCurvature(eqx.Module):
    """A symmetric matrix B on the outputs of a batch, block-diagonal over its samples and divided by their number."""

    positive_semidefinite: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def product(self, outputs: Array, targets: Any, vector: Array) -> Array:
        """B u, of the shape of `outputs`."""

    @abc.abstractmethod
    def root(self, output: Array, target: Any) -> Float[Array, "columns *out"]:
        """Columns S with S S^T = B for a batch of one sample; `output` is that sample's output without batch axis."""


class Gaussian(AbstractOutputCurvature):
    """0.5 |f - y|^2: the identity."""

    positive_semidefinite: ClassVar[bool] = True

    def product(self, outputs: Array, targets: Any, vector: Array) -> Array:
        """The vector over N: u / N."""
        return vector / outputs.shape[0]

    def root(self, output: Array, target: Any) -> Float[Array, "columns *out"]:
        """The unit vectors."""
        return jnp.eye(output.size, dtype=output.dtype).reshape((output.size, *output.shape))


class Categorical(AbstractOutputCurvature):
    """Softmax cross-entropy: diag(p) - p p^T, whatever the label."""

    positive_semidefinite: ClassVar[bool] = True

    def product(self, outputs: Array, targets: Any, vector: Array) -> Array:
        """(p * u - p (p . u)) / N."""
        p = jax.nn.softmax(outputs, axis=-1)
        return p * (vector - jnp.sum(p * vector, axis=-1, keepdims=True)) / outputs.shape[0]

    def root(self, output: Array, target: Any) -> Float[Array, "columns *out"]:
        """Columns of diag(sqrt p) - p sqrt(p)^T, whose product with its transpose is diag(p) - p p^T."""
        p = jax.nn.softmax(output)
        return jnp.diag(jnp.sqrt(p)) - jnp.sqrt(p)[:, None] * p


class Bernoulli(AbstractOutputCurvature):
    """Sigmoid binary cross-entropy: p (1 - p) on the diagonal, whatever the label."""

    positive_semidefinite: ClassVar[bool] = True

    def product(self, outputs: Array, targets: Any, vector: Array) -> Array:
        """Entry by entry p (1 - p) u / N."""
        return jax.nn.sigmoid(outputs) * jax.nn.sigmoid(-outputs) * vector / outputs.shape[0]

    def root(self, output: Array, target: Any) -> Float[Array, "columns *out"]:
        """sqrt(p (1 - p)) times the unit vectors."""
        deviation = jnp.sqrt(jax.nn.sigmoid(output) * jax.nn.sigmoid(-output))
        return jnp.diag(jnp.ravel(deviation)).reshape((output.size, *output.shape))


class Custom(AbstractOutputCurvature):
    """The Hessian of any `loss(outputs, targets)`, a mean over samples, by differentiation."""

    loss: Function
    positive_semidefinite: ClassVar[bool] = False

    def product(self, outputs: Array, targets: Any, vector: Array) -> Array:
        """d^2 loss / d outputs^2 u."""
        return jax.jvp(jax.grad(lambda f: self.loss(f, targets)), (outputs,), (vector,))[1]

    def root(self, output: Array, target: Any) -> Float[Array, "columns *out"]:
        """V sqrt(max(mu, 0)) from the eigenvalues mu of the C x C Hessian: that of a loss convex in the outputs."""
        flat = jnp.ravel(output)
        one = jax.tree_util.tree_map(lambda leaf: leaf[None], target)
        matrix = jax.hessian(lambda f: self.loss(f.reshape((1, *output.shape)), one))(flat)
        values, vectors = jnp.linalg.eigh(matrix)
        return (jnp.sqrt(jnp.maximum(values, 0)) * vectors).T.reshape((flat.size, *output.shape))


class Score(AbstractOutputCurvature):
    """r r^T with the score r = d loss_n / d f_n at the given target: the empirical Fisher."""

    loss: Function
    positive_semidefinite: ClassVar[bool] = True

    def product(self, outputs: Array, targets: Any, vector: Array) -> Array:
        """r_n (r_n . u_n) / N."""
        n = outputs.shape[0]
        score = n * jax.grad(lambda f: self.loss(f, targets))(outputs)
        along = jnp.sum((score * vector).reshape((n, -1)), axis=1).reshape((n,) + (1,) * (outputs.ndim - 1))
        return score * along / n

    def root(self, output: Array, target: Any) -> Float[Array, "columns *out"]:
        """The score, one column."""
        one = jax.tree_util.tree_map(lambda leaf: leaf[None], target)
        return jax.grad(lambda f: self.loss(f, one))(output[None])


def squared_error(outputs: Float[Array, "n *out"], targets: Shaped[Array, "n *out"]) -> Float[Array, ""]:
    """(1/N) sum_n 0.5 |f_n - y_n|^2: summed over outputs, averaged over samples."""
    return 0.5 * jnp.sum((outputs - targets) ** 2) / outputs.shape[0]


def softmax_cross_entropy(outputs: Float[Array, "n classes"], targets: Shaped[Array, "n *out"]) -> Float[Array, ""]:
    """-(1/N) sum_n log softmax(f_n)[y_n], with integer labels (N,) or class probabilities (N, C)."""
    logs = jax.nn.log_softmax(outputs, axis=-1)
    if targets.ndim == 1:
        return -jnp.mean(jnp.take_along_axis(logs, targets[:, None], axis=-1))
    return -jnp.sum(targets * logs) / outputs.shape[0]


def sigmoid_binary_cross_entropy(outputs: Float[Array, "n *out"], targets: Shaped[Array, "n *out"]) -> Float[Array, ""]:
    """-(1/N) sum_n sum_c [y log s(f) + (1 - y) log(1 - s(f))] with s the logistic function."""
    y = targets.astype(outputs.dtype)
    return -jnp.sum(y * jax.nn.log_sigmoid(outputs) + (1 - y) * jax.nn.log_sigmoid(-outputs)) / outputs.shape[0]


_NAMED: dict[str, tuple[Callable[[Any, Any], Float[Array, ""]], type[AbstractOutputCurvature]]] = {
    "mse": (squared_error, Gaussian),
    "softmax_cross_entropy": (softmax_cross_entropy, Categorical),
    "sigmoid_binary_cross_entropy": (sigmoid_binary_cross_entropy, Bernoulli),
}


def mean_loss(loss: Loss) -> Callable[[Any, Any], Float[Array, ""]]:
    """The function `loss(outputs, targets)` behind a name, with the conventions of this package.

    `"mse"` is (1/N) sum_n 0.5 |f_n - y_n|^2, the convention of Cohen et al.; cross-entropies are means over samples.

    Args:
        loss: `"mse"`, `"softmax_cross_entropy"`, `"sigmoid_binary_cross_entropy"`, or a function, which is returned.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.

    Example:
        ```python
        H = dj.hessian(lambda p, x, y: mean_loss("mse")(predict(p, x), y), params, x, y)
        ```

    References:
        Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability", ICLR 2021.
    """
    if isinstance(loss, str):
        check_that(loss in _NAMED, "loss", f"be one of {sorted(_NAMED)} or a function", f"found {loss!r}")
        return _NAMED[loss][0]
    check_that(callable(loss), "loss", f"be one of {sorted(_NAMED)} or a function", found(loss), TypeError)
    return loss


def output_hessian(loss: Loss) -> AbstractOutputCurvature:
    """The Hessian of a loss with respect to the outputs."""
    function = mean_loss(loss)
    return _NAMED[loss][1]() if isinstance(loss, str) else Custom(Function(function))


def check_outputs(outputs: Any) -> None:
    """Raise unless a network's outputs are one real array (N, C) or (N,)."""
    is_array = hasattr(outputs, "shape") and hasattr(outputs, "dtype")
    check_that(is_array, "predict", "return one array of outputs", found(outputs), TypeError)
    real = jnp.issubdtype(outputs.dtype, jnp.floating)
    check_that(bool(real), "predict", "return real floating-point outputs", found(outputs), TypeError)
    check_that(outputs.ndim in (1, 2), "predict", "return outputs of shape (N, C) or (N,)", found(outputs))


def check_targets(loss: Loss, outputs: Any, targets: Any) -> None:
    """Raise unless targets fit a loss and the outputs of the network."""
    if not isinstance(loss, str):
        _check_value(loss, outputs, targets)
        return
    if loss == "softmax_cross_entropy":
        check_that(
            outputs.ndim == 2, "predict", 'return outputs of shape (N, C) for "softmax_cross_entropy"', found(outputs)
        )
    if targets is None:
        return
    check_that(hasattr(targets, "shape"), "targets", "be an array", found(targets), TypeError)
    if loss == "softmax_cross_entropy" and targets.ndim == 1:
        integer = jnp.issubdtype(targets.dtype, jnp.integer)
        must = f"be integer labels of shape (N,) or class probabilities of shape {outputs.shape}"
        check_that(bool(integer), "targets", must, found(targets), TypeError)
        check_that(targets.shape == outputs.shape[:1], "targets", must, found(targets))
    else:
        must = f"have the shape {outputs.shape} of the outputs"
        check_that(targets.shape == outputs.shape, "targets", must, found(targets))


def _check_value(loss: Callable[[Any, Any], Any], outputs: Any, targets: Any) -> None:
    value = eqx.filter_eval_shape(loss, outputs, targets)
    scalar = getattr(value, "shape", None) == () and bool(jnp.issubdtype(value.dtype, jnp.floating))
    check_that(scalar, "loss", "return one real scalar from (outputs, targets)", found(value), TypeError)
