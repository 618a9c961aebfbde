"""What a state of given width cannot represent, and how far it must stay away."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_count, check_that, found

_PANELS = 512
_NODES = 16


class EmbeddingObstruction(eqx.Module):
    """What the widths alone say about the maps Phi = readout(flow(lift(x))) with layers of full rank.

    Attributes:
        in_size: d.
        state_size: m.
        out_size: q.
        min_rank: the rank of D Phi is at least this, at every input.
        max_rank: and at most this.
        universal: whether every map is represented exactly, by some field (m >= d + q).
        augmented: whether m > d.
    """

    in_size: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)
    out_size: int = eqx.field(static=True)
    min_rank: int = eqx.field(static=True)
    max_rank: int = eqx.field(static=True)
    universal: bool = eqx.field(static=True)
    augmented: bool = eqx.field(static=True)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.universal:
            return "universal: every continuous map is represented exactly by some field"
        if self.min_rank == self.out_size == 1:
            return "no critical point: the gradient of the output vanishes nowhere"
        if self.min_rank == self.out_size:
            return "submersion: the derivative has full rank everywhere, and no component has a local extremum"
        ranks = f"rank {self.min_rank}" if self.min_rank == self.max_rank else f"rank {self.min_rank} or more"
        return f"the derivative has {ranks} everywhere"

    def excludes(self, jacobian: Float[Array, "q d"], *, rtol: float | None = None) -> bool:
        """Whether no such network has this derivative at any input.

        Args:
            jacobian: the derivative of the wanted map at one input.
            rtol: singular values below this multiple of the largest (or of 1, if that is smaller) count as zero; sqrt(eps)
                by default.
        """
        matrix = jnp.atleast_2d(jnp.asarray(jacobian))
        shape = (self.out_size, self.in_size)
        check_that(matrix.shape == shape, "jacobian", f"have shape {shape}", found(matrix))
        values = np.asarray(jnp.linalg.svd(matrix, compute_uv=False))
        rtol = float(jnp.finfo(matrix.dtype).eps) ** 0.5 if rtol is None else rtol
        rank = int(np.sum(values > rtol * max(1.0, float(values[0]))))
        return rank < self.min_rank or rank > self.max_rank

    def __str__(self) -> str:
        return f"widths ({self.in_size}, {self.state_size}, {self.out_size}): {self.verdict}"


def embedding_obstruction(in_size: int, state_size: int, out_size: int) -> EmbeddingObstruction:
    r"""Which derivatives a neural ODE with full-rank affine lift R^d -> R^m and readout R^m -> R^q can have.

    Since the flow has an invertible derivative, Sylvester's inequality bounds the rank of D Phi = V J W from below,

    $$\operatorname{rank} D\Phi(x) \ge \operatorname{rank} W + \operatorname{rank} V - m,$$

    that is by d + q - m for d, q <= m [derived]. For d <= m < d + q no map with a vanishing derivative somewhere is
    represented: d = q = 2 and (|x|^2, x_1^3 + x_2^4) needs m >= 4. If the image of a map spans R^q and it is invariant
    under no translation, the layers must have full rank anyway. A lift or readout of smaller rank weakens the
    inequality by what is missing.

    Args:
        in_size: d.
        state_size: m.
        out_size: q.

    Returns:
        An `EmbeddingObstruction`.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        ```python
        dj.propagation.embedding_obstruction(2, 3, 2).excludes(jnp.zeros((2, 2)))      # True
        ```

    References:
        Kuehn and Kuntz, arXiv:2308.01213 (2023), for q = 1; the inequality for general q is derived here.
    """
    check_count(in_size, "in_size")
    check_count(state_size, "state_size")
    check_count(out_size, "out_size")
    lift, readout = min(in_size, state_size), min(state_size, out_size)
    return EmbeddingObstruction(
        in_size,
        state_size,
        out_size,
        min_rank=max(0, lift + readout - state_size),
        max_rank=min(lift, readout),
        universal=state_size >= in_size + out_size,
        augmented=state_size > in_size,
    )


def extremum_error_bound(gap: Float[Array, "..."] | float) -> Float[Array, "..."]:
    r"""The least uniform error of a map without local extrema for a target with a strict one: gap / 2.

    If psi(x_0) exceeds psi on the boundary of a ball around x_0 by `gap` at least (or falls short of it), then
    |Phi - psi| < gap / 2 on the ball would give Phi a local extremum inside. Open maps have none: networks without
    augmentation and with full-rank layers, neural delay equations below the `memory_threshold` [derived].

    Args:
        gap: the height of the extremum over the boundary of the ball, not negative.

    Returns:
        gap / 2; for x^2 on [-1, 1] it is 1/2.

    Raises:
        ValueError: if `gap` is negative.
    """
    gap = jnp.asarray(gap, jnp.result_type(gap, float))
    if not isinstance(gap, jax.core.Tracer):
        check_that(bool(np.all(np.asarray(gap) >= 0)), "gap", "not be negative", f"found {gap}")
    return gap / 2


def monotone_error_bound(
    target: Callable[[Any], Any], lower: Any = -1.0, upper: Any = 1.0, *, norm: str = "mean_square"
) -> Float[Array, ""]:
    r"""The least error of monotone maps for a scalar target on an interval.

    A scalar network that is injective is monotone, so this bounds its error from below:

    $$\min_{g \text{ monotone}} \frac{1}{b - a} \int_a^b (g - \psi)^2 dx \quad\text{or}\quad
    \min_{g \text{ monotone}} \sup |g - \psi| = \tfrac12 \min_\pm \max_{x < y} \pm(\psi(x) - \psi(y)).$$

    The mean square is found by isotonic regression (pool adjacent violators) in both directions, on 512 panels with 16
    Gauss-Legendre nodes each: x^2 on [-1, 1] gives 9/160. Samples in place of the integral would not do: the best monotone
    fit to 64 random points has .047 on average. The error is about 1e-9 for smooth targets; where the target jumps it
    is of the order of a panel.

    Args:
        target: psi, a scalar function; it is called with an array of points, or mapped over samples `(1,)`.
        lower: a.
        upper: b > a.
        norm: "mean_square", for the uniform distribution, or "sup".

    Returns:
        The error, in the dtype of JAX's default; computed on the host.

    Raises:
        ValueError: if the ends do not increase, the norm is unknown, or the target is not finite.
        TypeError: if the target is not callable.

    Example:
        ```python
        dj.propagation.monotone_error_bound(lambda x: x**2)                            # 0.05625
        ```

    References:
        Barlow, Bartholomew, Bremner and Brunk, Statistical inference under order restrictions (1972).
    """
    check_that(norm in ("mean_square", "sup"), "norm", 'be "mean_square" or "sup"', f"found {norm!r}")
    points, weights = _panels(lower, upper)
    values = scalar_values(target, points)
    if norm == "sup":
        return jnp.asarray(0.5 * min(_largest_fall(values), _largest_fall(-values)))
    errors = [weights @ (values - sign * isotonic(sign * values, weights)) ** 2 for sign in (1, -1)]
    return jnp.asarray(min(errors))


def _panels(lower: Any, upper: Any) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the mean over an interval, in double precision; both ends are nodes, of weight 0."""
    low, high = float(lower), float(upper)
    good = bool(np.isfinite(low) and np.isfinite(high) and low < high)
    check_that(good, "upper", "be finite and above `lower`", f"found lower = {lower}, upper = {upper}")
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    points = ((np.arange(_PANELS)[:, None] + (nodes + 1) / 2) / _PANELS).ravel()
    points = low + (high - low) * np.concatenate([[0.0], points, [1.0]])
    return points, np.concatenate([[0.0], np.tile(weights / (2 * _PANELS), _PANELS), [0.0]])


def scalar_values(target: Callable[[Any], Any], points: np.ndarray) -> np.ndarray:
    """The values of a scalar function at points; it may take numbers or samples of shape (1,)."""
    check_that(callable(target), "target", "be a scalar function", found(target), TypeError)
    samples = jnp.asarray(points)[:, None]
    values = np.asarray(jax.vmap(lambda x: jnp.reshape(target(x), ()))(samples), float)
    check_that(bool(np.all(np.isfinite(values))), "target", "be finite on the interval", "it is not")
    return values


def _largest_fall(values: np.ndarray) -> float:
    return float(np.max(np.maximum.accumulate(values) - values))


def isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The increasing sequence next to `values` in the weighted mean square."""
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, count = float(value), float(weight), 1
        while means and (means[-1] >= mean):
            total = masses[-1] + mass
            mean = (masses[-1] * means[-1] + mass * mean) / total if total > 0 else mean
            mass, count = total, count + counts[-1]
            means.pop(), masses.pop(), counts.pop()
        means.append(mean)
        masses.append(mass)
        counts.append(count)
    return np.repeat(means, counts)
