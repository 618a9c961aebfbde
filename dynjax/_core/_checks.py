"""Argument checks with one grammar of error: "Argument `x` must ..., but ...". They cost nothing once traced."""

from typing import Any

import equinox as eqx
import jax
import numpy as np


def check_that(condition: bool, argument: str, must: str, but: str, error: type[Exception] = ValueError) -> None:
    """Raise `error` with the sentence "Argument `argument` must `must`, but `but`." unless `condition` holds."""
    if not condition:
        raise error(f"Argument `{argument}` must {must}, but {but}.")


def is_concrete(x: Any) -> bool:
    """Whether the values of `x` can be looked at here and now: no leaf is being traced, or spread over other processes."""
    return not any(map(_out_of_reach, jax.tree_util.tree_leaves(x)))


def _out_of_reach(leaf: Any) -> bool:
    if isinstance(leaf, jax.core.Tracer):
        return True
    return isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def found(x: Any) -> str:
    """A short description of a value for error messages: its shape and dtype, or its type."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return (
            f"found {np.dtype(x.dtype).name if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else 'key'}"
            + (f"[{','.join(str(size) for size in x.shape)}]")
        )
    return f"found a {type(x).__name__}"


def check_positive(value: Any, argument: str) -> None:
    """Raise unless `value` is positive and finite; a traced value passes."""
    if is_concrete(value):
        array = np.asarray(value)
        check_that(bool(np.all(np.isfinite(array) & (array > 0))), argument, "be positive and finite", f"found {value}")


def check_count(value: Any, argument: str, least: int = 1) -> None:
    """Raise unless `value` is a Python integer of at least `least`: counts and sizes are static."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least
    check_that(bool(good), argument, f"be an integer of at least {least}", f"found {value!r}")


def check_scalar_loss(loss: Any, params: Any, args: tuple[Any, ...], *, name: str = "loss") -> None:
    """Raise unless `loss(params, *args)` is one real number; nothing is computed, only shapes are followed.

    Raises:
        TypeError: if `loss` is not callable, or returns something that is not a real scalar array.
        ValueError: if shapes inside the loss do not fit (the original message is kept).
    """
    check_that(callable(loss), name, "be a function `loss(params, *args)`", found(loss), TypeError)
    try:
        out = eqx.filter_eval_shape(loss, params, *args)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise type(error)(
            f"Argument `{name}` must be callable as `{name}(params, *args)` with the arguments given, "
            f"but it raised: {reason}"
        ) from error
    if isinstance(out, tuple):
        raise TypeError(
            f"Argument `{name}` must return one scalar, but it returned a tuple of length {len(out)}. "
            f"If the rest is auxiliary output, pass `lambda *a: {name}(*a)[0]`."
        )
    if not hasattr(out, "shape"):
        raise TypeError(f"Argument `{name}` must return one scalar array, but it returned a {type(out).__name__}.")
    if out.shape != ():
        raise TypeError(
            f"Argument `{name}` must return one scalar, but it returned shape {out.shape}. Reduce it, e.g. by `jnp.mean`."
        )
    if not jax.numpy.issubdtype(out.dtype, jax.numpy.floating):
        raise TypeError(f"Argument `{name}` must return a real floating-point scalar, but its dtype is {out.dtype}.")
