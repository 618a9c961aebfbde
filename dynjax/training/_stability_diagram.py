"""Stability of one solution over learning rate and batch size."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core import check_that, found, is_concrete
from ._batch_indices import Scheme
from ._critical_learning_rate import almost_sure_threshold
from ._mean_square import mean_square_threshold
from ._normal_space import check_network, normal_space
from ._sgd_stability import Setting, check_batch_size, check_rates, check_steps, stability_of_space


class StabilityDiagram(eqx.Module):
    """The exponent of SGD over batch size and learning rate, with the three curves on which stability is lost.

    Attributes:
        learning_rates: L rates.
        batch_sizes: S sizes.
        exponent: (S, L) almost sure exponents.
        standard_error: theirs.
        sign_confidence: the probability that the sign is right.
        mean_square_rate: (S, L), NaN for reshuffled batches.
        gd_exponent: (L,) of full-batch gradient descent.
        almost_sure_threshold: (S,) first upward zero of the exponent; that of gradient descent for full batches.
        almost_sure_standard_error: its error.
        mean_square_threshold: (S,) of independent batches.
        gd_threshold: 2N / lambda_max(K).
    """

    learning_rates: Float[Array, "rates"]
    batch_sizes: Int[Array, "sizes"]
    exponent: Float[Array, "sizes rates"]
    standard_error: Float[Array, "sizes rates"]
    sign_confidence: Float[Array, "sizes rates"]
    mean_square_rate: Float[Array, "sizes rates"]
    gd_exponent: Float[Array, "rates"]
    almost_sure_threshold: Float[Array, "sizes"]
    almost_sure_standard_error: Float[Array, "sizes"]
    mean_square_threshold: Float[Array, "sizes"]
    gd_threshold: Float[Array, ""]

    def __str__(self) -> str:
        """One line per batch size."""
        lines = [f"gradient descent: stable below {self.gd_threshold:.5g}"]
        for i, size in enumerate(self.batch_sizes):
            lines.append(
                f"  batch size {size}: almost surely stable below {self.almost_sure_threshold[i]:.5g} +- "
                f"{self.almost_sure_standard_error[i]:.1g}, in mean square below {self.mean_square_threshold[i]:.5g}"
            )
        return "\n".join(lines)


def stability_diagram(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: PyTree,
    *,
    learning_rates: Float[Array, "rates"],
    batch_sizes: Any,
    num_steps: int,
    key: PRNGKeyArray,
    scheme: Scheme = "iid",
    rank_tolerance: float | None = None,
) -> StabilityDiagram:
    """`sgd_stability` for every batch size, and the thresholds of `critical_learning_rate` as curves.

    The kernel is formed once. The learning rates share their noise.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: the solution.
        inputs: array or pytree of arrays with samples along the first axis.
        learning_rates: eta > 0, one-dimensional.
        batch_sizes: integers from 1 to N.
        num_steps: steps of each run, after a burn-in of a tenth; each point of the almost sure curve takes five
            such runs of 32 rates more.
        key: fixes the batches.
        scheme: "iid" or "reshuffle".
        rank_tolerance: as in `normal_space`.

    Returns:
        A `StabilityDiagram`.

    Raises:
        TypeError: as `sgd_stability`.
        ValueError: as `sgd_stability`.

    Example:
        ```python
        diagram = dj.stability_diagram(predict, params, x, learning_rates=jnp.geomspace(0.01, 1, 32),
                                       batch_sizes=(1, 4, 16), num_steps=20_000, key=jax.random.key(0))
        ```
    """
    check_that(is_concrete((params, inputs, learning_rates)), "params", "be known", "it is traced", TypeError)
    problem = check_network(predict, params, inputs)
    checked = check_rates(learning_rates)
    sizes = tuple(batch_sizes)
    check_that(len(sizes) > 0, "batch_sizes", "hold at least one batch size", found(batch_sizes))
    sizes = tuple(check_batch_size(size, problem.num_samples) for size in sizes)
    num_steps, burn_in = check_steps(num_steps, None)
    check_that(scheme in ("iid", "reshuffle"), "scheme", 'be "iid" or "reshuffle"', f"found {scheme!r}")
    space = normal_space(predict, params, inputs, rank_tolerance=rank_tolerance)
    rates = jnp.asarray(checked, space.factor.dtype)
    gd = 2 * space.num_samples / space.eigenvalues[0]
    results, thresholds, errors, squares = [], [], [], []
    for size in sizes:
        run_key, search_key = jax.random.split(jax.random.fold_in(key, size))
        setting = Setting(size, scheme, None, num_steps, burn_in, 1, None, None)
        results.append(stability_of_space(space, rates, setting, run_key))
        squares.append(mean_square_threshold(space, size).value)
        if size == space.num_samples:
            thresholds.append(gd)
            errors.append(jnp.zeros_like(gd))
            continue
        critical = almost_sure_threshold(space, size, search_key, num_steps=num_steps, scheme=scheme, repeats=2)
        thresholds.append(critical.value)
        errors.append(critical.standard_error)
    stack = lambda name: jnp.stack([getattr(result, name) for result in results])
    return StabilityDiagram(
        learning_rates=rates,
        batch_sizes=jnp.asarray(sizes),
        exponent=stack("exponent"),
        standard_error=stack("standard_error"),
        sign_confidence=stack("sign_confidence"),
        mean_square_rate=stack("mean_square_rate"),
        gd_exponent=results[0].gd_exponent,
        almost_sure_threshold=jnp.stack(thresholds),
        almost_sure_standard_error=jnp.stack(errors),
        mean_square_threshold=jnp.stack(squares),
        gd_threshold=gd,
    )
