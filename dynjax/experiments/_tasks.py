"""Tasks: data, network and loss, from a few words of configuration."""

import pathlib
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from .. import data
from .._core import check_that
from ..networks import MLP, xavier_normal

ActivationName = Literal["tanh", "relu", "elu", "gelu", "softplus", "sigmoid", "identity"]
LossName = Literal["mse", "cross-entropy"]
NAMED_TASKS = ("digits", "digits-parity", "chebyshev", "deep-linear")

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


def mse(outputs: Float[Array, "samples classes"], targets: Float[Array, "samples classes"]) -> Float[Array, ""]:
    """(1/N) sum_n |f_n - y_n|^2 / 2, the convention of Cohen et al. (2021)."""
    return 0.5 * jnp.mean(jnp.sum((outputs - targets) ** 2, axis=-1))


def cross_entropy(outputs: Float[Array, "samples classes"], targets: Shaped[Array, "samples"]) -> Float[Array, ""]:
    """Mean of -log softmax(f_n)[y_n] over the samples, with integer labels."""
    picked = jnp.take_along_axis(outputs, targets[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(outputs, axis=-1) - picked)


class Task(eqx.Module):
    """Data, network and loss.

    Attributes:
        inputs: `(num_samples, in_size)`.
        targets: `(num_samples, out_size)` for the squared error, `(num_samples,)` integers for the cross-entropy.
        name: what reports call it.
        loss_name: `"mse"` or `"cross-entropy"`.
        network: `network(key, dtype) -> model`.
    """

    inputs: np.ndarray
    targets: np.ndarray
    name: str = eqx.field(static=True)
    loss_name: str = eqx.field(static=True)
    network: Callable[[PRNGKeyArray, Any], MLP] = eqx.field(static=True)

    @property
    def loss(self) -> Callable[[Any, Any, Any], Float[Array, ""]]:
        """`loss(model, inputs, targets)`."""
        return LOSSES[self.loss_name]


def _mse_loss(model: MLP, inputs: Array, targets: Array) -> Array:
    return mse(jax.vmap(model)(inputs), targets)


def _cross_entropy_loss(model: MLP, inputs: Array, targets: Array) -> Array:
    return cross_entropy(jax.vmap(model)(inputs), targets)


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {"mse": _mse_loss, "cross-entropy": _cross_entropy_loss}


def make_task(
    name: str,
    *,
    hidden: tuple[int, ...] | None = None,
    activation: str = "tanh",
    loss: str = "mse",
    num_samples: int | None = None,
    degree: int = 4,
) -> Task:
    """The task of a name or of a file.

    Args:
        name: `"digits"` (scikit-learn's 8 x 8 images, the first 500 unless `num_samples` says otherwise), `"digits-parity"`
            (the first 100, every pixel standardised, with target 1 for odd digits and -1 for even ones), `"chebyshev"` (a
            Chebyshev polynomial on 20 points, one hidden layer of 100), `"deep-linear"` (20 linear layers of width 50), or
            the path of a data file that `dynjax.data.load` reads.
        hidden: widths of the hidden layers; each task has its own default.
        activation: name of the activation function.
        loss: `"mse"` (one-hot targets where the data are labels) or `"cross-entropy"`.
        num_samples: how many samples to use, a class-balanced choice for files and the first images for the digits.
        degree: degree of the Chebyshev polynomial.

    Returns:
        A `Task`.

    Raises:
        ValueError: for an unknown name, a file that cannot be trusted, or a combination that makes no sense.
    """
    check_that(activation in ACTIVATIONS, "activation", f"be one of {', '.join(ACTIVATIONS)}", f"found {activation!r}")
    check_that(loss in LOSSES, "loss", f"be one of {', '.join(LOSSES)}", f"found {loss!r}")
    check_that(
        hidden is None or all(width > 0 for width in hidden), "widths", "hold positive integers", f"found {hidden}"
    )
    if name == "chebyshev":
        check_that(loss == "mse", "loss", "be mse for a regression task", f"found {loss!r}")
        return _chebyshev(degree, hidden or (100,), activation)
    if name == "deep-linear":
        check_that(loss == "mse", "loss", "be mse for a regression task", f"found {loss!r}")
        return _deep_linear(hidden or (50,) * 19)
    if name == "digits-parity":
        check_that(loss == "mse", "loss", "be mse for a regression task", f"found {loss!r}")
        inputs, labels = data.digits(num_samples or 100, seed=None, dtype=np.float64)
        targets = (2.0 * (labels % 2) - 1)[:, None]
        return _task(name, inputs, targets, (inputs.shape[1], *(hidden or (64, 64)), 1), activation, loss)
    if name == "digits":
        inputs, labels = data.digits(num_samples or 500, seed=None, scale=1 / 8)
        return _classification("digits", inputs, labels, hidden or (64, 64), activation, loss)
    return _from_file(name, hidden or (64, 64), activation, loss, num_samples)


def _chebyshev(degree: int, hidden: tuple[int, ...], activation: str) -> Task:
    inputs, targets = data.chebyshev(degree)
    widths = (1, *hidden, 1)
    layers = len(widths) - 1
    # Cohen et al. (2021), appendix on the toy task: first layer Xavier-normal with gain 1.9, hidden biases only.
    initializer = (xavier_normal(1.9), *(xavier_normal(),) * (layers - 1))
    bias = (True,) * (layers - 1) + (False,)

    def network(key: PRNGKeyArray, dtype: Any) -> MLP:
        return MLP(widths, activation=ACTIVATIONS[activation], key=key, initializer=initializer, bias=bias, dtype=dtype)

    return Task(inputs, targets, f"chebyshev, degree {degree}", "mse", network)


def _deep_linear(hidden: tuple[int, ...]) -> Task:
    size = hidden[0]
    inputs, targets = data.deep_linear(size)
    widths = (size, *hidden, size)

    def network(key: PRNGKeyArray, dtype: Any) -> MLP:
        return MLP(
            widths,
            activation=ACTIVATIONS["identity"],
            key=key,
            initializer=xavier_normal(),
            bias=False,
            dtype=dtype,
        )

    return Task(inputs, targets, f"deep linear, {len(widths) - 1} layers", "mse", network)


def _classification(
    name: str, inputs: np.ndarray, labels: np.ndarray, hidden: tuple[int, ...], activation: str, loss: str
) -> Task:
    classes = int(labels.max()) + 1
    targets = np.eye(classes, dtype=np.float32)[labels] if loss == "mse" else labels.astype(np.int32)
    return _task(name, inputs, targets, (inputs.shape[1], *hidden, classes), activation, loss)


def _task(
    name: str, inputs: np.ndarray, targets: np.ndarray, widths: tuple[int, ...], activation: str, loss: str
) -> Task:
    def network(key: PRNGKeyArray, dtype: Any) -> MLP:
        return MLP(widths, activation=ACTIVATIONS[activation], key=key, dtype=dtype)

    return Task(inputs, targets, name, loss, network)


def _from_file(path: str, hidden: tuple[int, ...], activation: str, loss: str, num_samples: int | None) -> Task:
    check_that(
        pathlib.Path(path).exists(),
        "task",
        f"be one of {', '.join(NAMED_TASKS)} or the path of a data file",
        f"there is no file {path!r}",
    )
    inputs, targets = data.load(path)
    name = pathlib.Path(path).name
    inputs = inputs.reshape(len(inputs), -1)
    if num_samples is not None:
        chosen = data.subset(inputs, targets, num_samples, seed=0, balanced=targets.dtype.kind in "iu")
        inputs, targets = chosen[0], chosen[1]
    # As for the digits, a sample has a norm of about one: the initial sharpness is then well below 2 / lr at usual rates.
    inputs = data.standardise(inputs, scale=inputs.shape[1] ** -0.5)
    if targets.dtype.kind in "iu":
        return _classification(name, inputs, targets, hidden, activation, loss)
    check_that(loss == "mse", "loss", "be mse for real-valued targets", f"found {loss!r}")
    targets = targets.reshape(len(targets), -1).astype(np.float32)
    return _task(name, inputs, targets, (inputs.shape[1], *hidden, targets.shape[1]), activation, loss)
