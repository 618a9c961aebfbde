"""Gaussian mixtures: the laws whose generating flows are known exactly."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_that, found, is_concrete
from ..reference import LineMixture

if TYPE_CHECKING:
    from ._mixture_field import MixtureField
    from ._noise_paths import VariancePreserving

_HIGHEST = jax.lax.Precision.HIGHEST


class GaussianMixture(eqx.Module):
    r"""The law with density p(x) = sum_k w_k N(x; m_k, S_k) on R^d.

    Densities and responsibilities are computed from logarithms, so that they hold far out in the tails, and everything is
    differentiable in the parameters. A covariance stays in the form it was given in: isotropic and diagonal ones cost
    O(K d) an evaluation, full ones a Cholesky factorisation each, O(K d^3).

    Args:
        means: m_k, `(K, d)`; `(K,)` on the line (d = 1).
        covariances: S_k: `(K, d, d)`, or `(K, d)` for diagonal ones, or `(K,)` for multiples of the identity, or one number
            for all. They are variances, not standard deviations, on the line too.
        weights: w_k, `(K,)`, positive and of sum one; equal ones by default.

    Raises:
        ValueError: if shapes do not fit, means are not finite, covariances are not symmetric and positive definite, or
            weights are not positive or have not the sum one.

    Example:
        ```python
        modes = dj.generative.GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], 0.25)
        x1 = dj.generative.sample(modes.flow_matching_field(), jax.random.normal(key, (1000, 2))).points
        ```
    """

    means: Float[Array, "K d"]
    covariances: Float[Array, "K *form"]
    weights: Float[Array, "K"]

    def __init__(self, means: Any, covariances: Any = 1.0, weights: Any = None):
        means, covariances = jnp.asarray(means), jnp.asarray(covariances)
        if means.ndim == 1:
            means = means[:, None]
        good = means.ndim == 2 and means.size > 0
        check_that(good, "means", "have the shape (K, d), or (K,) on the line", found(means))
        count, size = means.shape
        given = () if weights is None else (jnp.asarray(weights),)
        dtype = jnp.result_type(means, covariances, *given, float)
        weights = given[0] if given else jnp.full(count, 1 / count, dtype)
        if covariances.ndim == 0:
            covariances = jnp.broadcast_to(covariances, (count,))
        forms = [(count,), (count, size), (count, size, size)]
        must = f"be one number or have one of the shapes {', '.join(map(str, forms))}"
        check_that(covariances.shape in forms, "covariances", must, found(covariances))
        check_that(weights.shape == (count,), "weights", f"have the shape ({count},) of the modes", found(weights))
        self.means, self.covariances = means.astype(dtype), covariances.astype(dtype)
        self.weights = weights.astype(dtype)
        if is_concrete(self.means):
            check_that(bool(np.all(np.isfinite(self.means))), "means", "be finite", f"found {means}")
        _check_covariances(self.covariances)
        _check_weights(self.weights)

    @property
    def size(self) -> int:
        """The dimension d."""
        return self.means.shape[-1]

    @property
    def num_modes(self) -> int:
        """The number K of components."""
        return self.means.shape[-2]

    @property
    def mean(self) -> Float[Array, "d"]:
        """The mean of the law."""
        return jnp.sum(self.weights[:, None] * self.means, 0)

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """The covariance of the law: that of the means plus the mean of the covariances."""
        spread = self.means - self.mean
        between = jnp.einsum("k,ki,kj->ij", self.weights, spread, spread, precision=_HIGHEST)
        return between + jnp.einsum("k,kij->ij", self.weights, self.full_covariances, precision=_HIGHEST)

    @property
    def full_covariances(self) -> Float[Array, "K d d"]:
        """The covariances as matrices."""
        if self.covariances.ndim == 3:
            return self.covariances
        entries = self.covariances if self.covariances.ndim == 2 else self.covariances[:, None]
        return jnp.broadcast_to(entries, self.means.shape)[:, :, None] * jnp.eye(self.size, dtype=self.means.dtype)

    def log_density(self, x: Float[Array, "d"]) -> Float[Array, ""]:
        """The log-density log p(x) of one point; `jax.vmap` it over points."""
        return jax.scipy.special.logsumexp(self.log_parts(x)[0])

    def score(self, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The gradient of log p at one point."""
        logs, solved = self.log_parts(x)
        return -jnp.sum(jax.nn.softmax(logs)[:, None] * solved, 0)

    def responsibilities(self, x: Float[Array, "d"]) -> Float[Array, "K"]:
        """The probability that x came from each component, w_k N(x; m_k, S_k) / p(x)."""
        return jax.nn.softmax(self.log_parts(x)[0])

    def sample(self, n: int, key: PRNGKeyArray) -> Float[Array, "n d"]:
        """`n` independent points."""
        check_count(n, "n")
        mode_key, noise_key = jax.random.split(key)
        modes = jax.random.categorical(mode_key, jnp.log(self.weights), shape=(n,))
        noise = jax.random.normal(noise_key, (n, self.size), self.means.dtype)
        if self.covariances.ndim == 3:
            factors = jnp.linalg.cholesky(self.covariances)[modes]
            return self.means[modes] + jnp.einsum("nij,nj->ni", factors, noise, precision=_HIGHEST)
        scales = jnp.sqrt(self.covariances)[modes]
        return self.means[modes] + (scales if scales.ndim == 2 else scales[:, None]) * noise

    def diffused(self, signal: Float[Array, ""], noise_variance: Float[Array, ""]) -> "GaussianMixture":
        """The law of a x + b z with x from this mixture and z standard normal: N(a m_k, a^2 S_k + b^2 I), same weights.

        Args:
            signal: a.
            noise_variance: b^2.
        """
        noise = (
            noise_variance * jnp.eye(self.size, dtype=self.means.dtype)
            if self.covariances.ndim == 3
            else noise_variance
        )
        changed = (signal * self.means, signal**2 * self.covariances + noise)
        return eqx.tree_at(lambda law: (law.means, law.covariances), self, changed)

    def flow_density(self, t: Float[Array, ""] | float) -> "GaussianMixture":
        """The law of x_t = (1 - t) x_0 + t x_1 between standard normal noise and this mixture, itself a mixture."""
        return self.flow_matching_field().law(t)

    def flow_matching_field(self) -> "MixtureField":
        """The exact field of flow matching to this mixture: the velocity E[x_1 - x_0 | x_t = x]."""
        from ._mixture_field import MixtureField
        from ._noise_paths import StraightLine

        return MixtureField(self, StraightLine())

    def score_field(self, path: "VariancePreserving | None" = None) -> "MixtureField":
        """The exact score and probability-flow field of a variance-preserving diffusion of this mixture.

        Args:
            path: its schedule; `VariancePreserving()`, with the rate from 0.1 to 20 on [0, 1], by default.
        """
        from ._mixture_field import MixtureField
        from ._noise_paths import VariancePreserving

        return MixtureField(self, VariancePreserving() if path is None else path)

    def as_line(self) -> LineMixture:
        """The mixture as a `reference.LineMixture`, for d = 1."""
        check_that(self.size == 1, "self", "be a mixture on the line", f"its dimension is {self.size}")
        return LineMixture(self.weights, self.means[:, 0], jnp.sqrt(self.covariances.reshape(self.num_modes)))

    def log_parts(self, x: Float[Array, "d"]) -> tuple[Float[Array, "K"], Float[Array, "K d"]]:
        """The logarithms of w_k N(x; m_k, S_k) and S_k^{-1} (x - m_k), which everything else follows from."""
        if jnp.shape(x) != (self.size,):
            raise ValueError(
                f"Argument `x` must be one point of shape ({self.size},), but found {jnp.shape(x)}. "
                "For many use `jax.vmap`."
            )
        deviations = x - self.means
        solved, log_determinants = self._solve(deviations)
        squares = jnp.sum(deviations * solved, -1)
        constant = self.size * np.log(2 * np.pi).item()
        return jnp.log(self.weights) - (squares + log_determinants + constant) / 2, solved

    def apply_covariances(self, vectors: Float[Array, "K d"]) -> Float[Array, "K d"]:
        """S_k v_k."""
        if self.covariances.ndim == 3:
            return jnp.einsum("kij,kj->ki", self.covariances, vectors, precision=_HIGHEST)
        return (self.covariances if self.covariances.ndim == 2 else self.covariances[:, None]) * vectors

    def _solve(self, vectors: Float[Array, "K d"]) -> tuple[Float[Array, "K d"], Float[Array, "K"]]:
        """S_k^{-1} v_k and log det S_k."""
        if self.covariances.ndim == 1:
            return vectors / self.covariances[:, None], self.size * jnp.log(self.covariances)
        if self.covariances.ndim == 2:
            return vectors / self.covariances, jnp.sum(jnp.log(self.covariances), -1)
        factors = jnp.linalg.cholesky(self.covariances)
        solved = jax.vmap(lambda factor, v: jax.scipy.linalg.cho_solve((factor, True), v))(factors, vectors)
        return solved, 2 * jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), -1)

    def __str__(self) -> str:
        return f"GaussianMixture({self.num_modes} modes in dimension {self.size})"


def _check_covariances(covariances: Array) -> None:
    if not is_concrete(covariances):
        return
    values = np.asarray(covariances)
    if values.ndim == 3 and np.all(np.isfinite(values)):
        largest = np.max(np.abs(values))
        gap = float(np.max(np.abs(values - np.swapaxes(values, 1, 2))))
        good = gap <= 100 * float(np.finfo(values.dtype).eps) * largest
        check_that(good, "covariances", "be symmetric", f"entries differ by {gap:.3g} from those of the transpose")
        values = np.linalg.eigvalsh(values)
    least = float(np.min(values)) if np.all(np.isfinite(values)) else float("nan")
    name = "smallest eigenvalue" if covariances.ndim == 3 else "smallest variance"
    check_that(least > 0, "covariances", "be positive definite and finite", f"the {name} is {least:.3g}")


def _check_weights(weights: Array) -> None:
    if not is_concrete(weights):
        return
    values = np.asarray(weights)
    check_that(bool(np.all(np.isfinite(values) & (values > 0))), "weights", "be positive and finite", f"found {values}")
    total = float(np.sum(values))
    good = abs(total - 1) < 100 * float(np.finfo(values.dtype).eps)
    check_that(good, "weights", "have the sum one", f"it is {total}")
