"""Affine layers, and the checks that models with a lift, a flow and a readout share."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import Function, check_that, found
from ._initializers import lecun_uniform


class Affine(eqx.Module):
    """The affine map x -> weight x + bias.

    Args:
        weight: `(out, in)`.
        bias: `(out,)`; zero by default.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        ```python
        lift = dj.networks.Affine(jnp.eye(3, 2))       # (x1, x2) -> (x1, x2, 0)
        ```
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, "out"]

    def __init__(self, weight: Any, bias: Any = None):
        weight = jnp.asarray(weight)
        check_that(weight.ndim == 2 and weight.size > 0, "weight", "be a matrix that is not empty", found(weight))
        dtype = jnp.result_type(weight, float) if not jnp.issubdtype(weight.dtype, jnp.inexact) else weight.dtype
        self.weight = weight.astype(dtype)
        self.bias = jnp.zeros(weight.shape[0], dtype) if bias is None else jnp.asarray(bias, dtype)
        check_that(
            self.bias.shape == weight.shape[:1],
            "bias",
            f"have the shape ({weight.shape[0]},) of the output",
            found(self.bias),
        )

    @classmethod
    def random(cls, in_size: int, out_size: int, *, key: PRNGKeyArray, dtype: Any = None) -> "Affine":
        """Weight and bias uniform on +-1/sqrt(in_size), as in the layers of `MLP`."""
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        weight_key, bias_key = jax.random.split(key)
        uniform = lecun_uniform()
        shape = (out_size, in_size)
        return cls(uniform(weight_key, shape, dtype), uniform(bias_key, shape, dtype)[:, 0])

    @property
    def in_size(self) -> int:
        """Length of the input."""
        return self.weight.shape[-1]

    @property
    def out_size(self) -> int:
        """Length of the output."""
        return self.weight.shape[-2]

    def __call__(self, x: Float[Array, "in"]) -> Float[Array, "out"]:
        """The output for one sample."""
        return self.weight @ x + self.bias


def as_widths(widths: Sequence[int]) -> tuple[int, int, int]:
    """Three positive integers (input, state, output)."""
    good = isinstance(widths, Sequence) and len(widths) == 3
    good = good and all(isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in widths)
    check_that(good, "widths", "be three positive integers (input, state, output)", f"found {widths!r}")
    d, m, q = widths
    return d, m, q


def as_hidden(hidden: Sequence[int]) -> tuple[int, ...]:
    """The widths of hidden layers: a tuple of positive integers, which may be empty."""
    good = isinstance(hidden, Sequence) and all(
        isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in hidden
    )
    check_that(good, "hidden", "be a sequence of positive integers", f"found {hidden!r}")
    return tuple(hidden)


def as_module(fn: Any, argument: str) -> Any:
    """A callable whose leaves are arrays: a module as it is, anything else wrapped so that the function is static."""
    check_that(callable(fn), argument, "be callable", found(fn), TypeError)
    arrays_only = isinstance(fn, eqx.Module) and all(eqx.is_array(leaf) for leaf in jax.tree_util.tree_leaves(fn))
    return fn if arrays_only else Function(fn)


def layer_or_random(
    layer: Callable[[Any], Any] | None, in_size: int, out_size: int, argument: str, key: PRNGKeyArray, dtype: Any
) -> Any:
    """The layer that was given, checked, or a random `Affine`."""
    if layer is None:
        return Affine.random(in_size, out_size, key=key, dtype=dtype)
    module = as_module(layer, argument)
    check_shape(module, (jax.ShapeDtypeStruct((in_size,), dtype),), out_size, argument)
    return module


def check_shape(fn: Any, inputs: tuple[Any, ...], out_size: int, argument: str) -> None:
    """Raise unless `fn(*inputs)` is a vector of length `out_size`; nothing is computed."""
    try:
        out = eqx.filter_eval_shape(fn, *inputs)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree_util.tree_leaves(inputs))
        raise ValueError(f"Argument `{argument}` must accept the shapes {shapes}, but it raised: {reason}") from error
    check_that(
        getattr(out, "shape", None) == (out_size,),
        argument,
        f"return a vector of length {out_size}",
        f"it returns {found(out).removeprefix('found ')}",
    )


def check_sample(x: Any, size: int) -> None:
    """Raise unless `x` is one sample."""
    if jnp.shape(x) != (size,):
        raise ValueError(
            f"Argument `x` must be one sample of shape ({size},), but found {jnp.shape(x)}. "
            "For a batch use `jax.vmap(model)(x)`."
        )
