"""A number with its standard error."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from scipy.special import stdtrit

from .._core import check_that


class Estimate(eqx.Module):
    """A mean over independent samples.

    Attributes:
        value: the estimate, an array or a pytree of arrays.
        standard_error: its standard error, like `value`; infinite where one sample alone cannot tell.
        num_samples: number of independent samples.
    """

    value: PyTree[Float[Array, "..."]]
    standard_error: PyTree[Float[Array, "..."]]
    num_samples: int = eqx.field(static=True)

    def interval(self, confidence: float = 0.95) -> tuple[Any, Any]:
        """Lower and upper end of the two-sided Student interval at the given confidence."""
        factor = student_factor(self.num_samples, confidence)
        spread = jax.tree_util.tree_map(lambda e: factor * e, self.standard_error)
        lower = jax.tree_util.tree_map(lambda v, s: v - s, self.value, spread)
        return lower, jax.tree_util.tree_map(lambda v, s: v + s, self.value, spread)

    def __str__(self) -> str:
        """Value and standard error."""
        return f"{self.value} +- {self.standard_error} ({self.num_samples} samples)"


def student_factor(num_samples: float, confidence: float) -> float:
    """Half-width of the two-sided Student interval in standard errors, with `num_samples - 1` degrees of freedom."""
    check_that(0 < confidence < 1, "confidence", "be between 0 and 1", f"found {confidence}")
    return float(stdtrit(max(num_samples - 1, 1), 0.5 + confidence / 2))


def estimate_mean(samples: PyTree[Array]) -> Estimate:
    """Mean and standard error over the leading axis."""
    leaves = jax.tree_util.tree_leaves(samples)
    num = leaves[0].shape[0]

    def error(x):
        if num == 1:
            return jnp.full(x.shape[1:], jnp.inf, x.dtype)
        return jnp.std(x, axis=0, ddof=1) / num**0.5

    return Estimate(
        value=jax.tree_util.tree_map(lambda x: jnp.mean(x, axis=0), samples),
        standard_error=jax.tree_util.tree_map(error, samples),
        num_samples=num,
    )
