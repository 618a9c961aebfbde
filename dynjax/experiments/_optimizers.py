"""The optimisers that experiments name on the command line, built from a traced learning rate."""

from typing import Any, Literal, get_args

import optax

from .._core import check_that

OptimizerName = Literal["gd", "heavy-ball", "nesterov", "adam", "rmsprop"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)
ADAPTIVE = ("adam", "rmsprop")  # those whose threshold is one for the preconditioned Hessian


def make_optimizer(
    name: str, learning_rate: Any, *, momentum: float = 0.9, beta2: float = 0.999
) -> optax.GradientTransformation:
    """The optax transformation of a name.

    Args:
        name: `"gd"`, `"heavy-ball"` (v <- momentum v + g, w <- w - lr v), `"nesterov"`, `"adam"` or `"rmsprop"`.
        learning_rate: the learning rate; it may be traced, so that one compiled program serves every rate.
        momentum: the momentum of `"heavy-ball"` and `"nesterov"`, and Adam's first decay rate.
        beta2: decay rate of the second moment of `"adam"` and `"rmsprop"`.

    Returns:
        An `optax.GradientTransformation`.

    Raises:
        ValueError: if the name is not one of the five.
    """
    check_that(name in OPTIMIZERS, "optimizer", f"be one of {', '.join(OPTIMIZERS)}", f"found {name!r}")
    if name == "gd":
        return optax.sgd(learning_rate)
    if name == "heavy-ball":
        return optax.sgd(learning_rate, momentum=momentum)
    if name == "nesterov":
        return optax.sgd(learning_rate, momentum=momentum, nesterov=True)
    if name == "adam":
        return optax.adam(learning_rate, b1=momentum, b2=beta2)
    return optax.rmsprop(learning_rate, decay=beta2, bias_correction=True)
