"""The exact velocity field that carries noise to a Gaussian mixture."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_that, found, is_concrete
from ._gaussian_mixture import GaussianMixture
from ._noise_paths import AbstractNoisePath


class MixtureField(eqx.Module):
    r"""The exact field of a path x_t = a x_data + b z to a Gaussian mixture, and the exact score of the laws on the way.

    The law p_t of x_t is the mixture of the N(a m_k, C_k), C_k = a^2 S_k + b^2 I, with responsibilities r_k(t, x), and

        u(t, x) = sum_k r_k [a' m_k + (a a' S_k + b b' I) C_k^{-1} (x - a m_k)] = E[x_t' | x_t = x].

    For the straight line of flow matching that is E[x_1 - x_0 | x_t], equal to x/t + ((1 - t)/t) grad log p_t(x); for a
    variance-preserving diffusion it is the probability-flow field -(beta/2) (x + grad log p_t(x)). Both are free of divisions
    by t or b, hold at both ends, and are gradients: the Jacobian is symmetric.

    Args:
        mixture: the law of the data.
        path: `StraightLine()` or a `VariancePreserving`.

    Raises:
        TypeError: if one of them is something else.
        ValueError: where it is called with a time off the path or something that is no point of R^d.

    Example:
        ```python
        field = dj.generative.GaussianMixture([-2.0, 2.0], 0.25).flow_matching_field()
        field(0.5, jnp.array([1.0]))
        ```

    References:
        Lipman, Chen, Ben-Hamu, Nickel and Le, Flow matching for generative modeling (2023), equation 8 (the marginal field);
        Song et al., Score-based generative modeling through stochastic differential equations (2021), equation 13. The closed
        form for mixtures is derived here.
    """

    mixture: GaussianMixture
    path: AbstractNoisePath

    def __check_init__(self) -> None:
        good = isinstance(self.mixture, GaussianMixture)
        check_that(good, "mixture", "be a GaussianMixture", found(self.mixture), TypeError)
        good = isinstance(self.path, AbstractNoisePath)
        check_that(good, "path", "be a StraightLine or a VariancePreserving", found(self.path), TypeError)

    @property
    def size(self) -> int:
        """The dimension d."""
        return self.mixture.size

    @property
    def noise_time(self) -> Any:
        """The time of the noise."""
        return self.path.noise_time

    @property
    def data_time(self) -> Any:
        """The time of the data."""
        return self.path.data_time

    def __call__(self, t: Float[Array, ""] | float, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The velocity u(t, x) at one point."""
        now = self.path.coefficients(t)
        logs, solved = self.mixture.diffused(now.signal, now.noise_variance).log_parts(x)
        spread = now.signal * now.signal_slope * self.mixture.apply_covariances(solved) + now.noise_slope * solved
        velocities = now.signal_slope * self.mixture.means + spread
        return jnp.sum(jax.nn.softmax(logs)[:, None] * velocities, 0)

    def law(self, t: Float[Array, ""] | float) -> GaussianMixture:
        """The law of x_t."""
        now = self.path.coefficients(t)
        return self.mixture.diffused(now.signal, now.noise_variance)

    def score(self, t: Float[Array, ""] | float, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The score grad log p_t at one point."""
        return self.law(t).score(x)

    def log_noise_density(self, x: Float[Array, "d"]) -> Float[Array, ""]:
        """The log-density at the time of the noise: the base density with which likelihoods along this field are exact."""
        return self.law(self.noise_time).log_density(x)

    def slope_range_at(self, t: Float[Array, ""] | float) -> tuple[Float[Array, ""], Float[Array, ""]]:
        r"""Bounds on the eigenvalues of the Jacobian of u(t, .) over all x, for modes of one common covariance S.

        Then the Jacobian is G + q C^{-1} Cov_r(m) C^{-1} with G = (a a' S + b b' I) C^{-1} and q = a b (a' b - a b'), and the
        covariance of the means, under any responsibilities and in any direction, is at most a quarter of the square of
        their diameter D (Popoviciu). With g the eigenvalues of G and c those of C the eigenvalues lie between

            min g + min(q, 0) D^2 / (4 min c^2)    and    max g + max(q, 0) D^2 / (4 min c^2).

        For two modes of an isotropic S both ends are sharp: one in the middle between the modes, one at infinity.
        Modes of different covariances are refused: where r_k stays between 0 and 1 out to infinity there is no bound.

        Args:
            t: a time of the path.

        Returns:
            (low, high).

        Raises:
            ValueError: if the covariances are not equal.
        """
        _check_equal(self.mixture.covariances)
        now = self.path.coefficients(t)
        variances = jnp.linalg.eigvalsh(self.mixture.full_covariances[0])
        spreads = now.signal**2 * variances + now.noise_variance
        slopes = (now.signal * now.signal_slope * variances + now.noise_slope) / spreads
        mixing = now.signal * (now.signal_slope * now.noise_variance - now.signal * now.noise_slope)  # q
        gaps = self.mixture.means[:, None] - self.mixture.means[None]
        swing = mixing * jnp.max(jnp.sum(gaps**2, -1)) / (4 * jnp.min(spreads) ** 2)
        return jnp.min(slopes) + jnp.minimum(swing, 0), jnp.max(slopes) + jnp.maximum(swing, 0)

    def lipschitz_bound_at(self, t: Float[Array, ""] | float, norm: str = "euclidean") -> Float[Array, ""]:
        """A bound on the Lipschitz constant of u(t, .), for modes of one common covariance: see `slope_range_at`.

        Args:
            t: a time of the path.
            norm: "euclidean", or "sup" with a further factor sqrt(d).

        Raises:
            ValueError: if the covariances are not equal, or the norm is unknown.
        """
        good = norm in ("sup", "euclidean")
        check_that(good, "norm", 'be "sup" or "euclidean"', f"found {norm!r}")
        low, high = self.slope_range_at(t)
        bound = jnp.maximum(jnp.abs(low), jnp.abs(high))
        return bound * self.size**0.5 if norm == "sup" else bound

    def __str__(self) -> str:
        return f"MixtureField({self.mixture}, {type(self.path).__name__})"


def _check_equal(covariances: Array) -> None:
    if is_concrete(covariances):
        values = np.asarray(covariances)
        gap = float(np.max(np.abs(values - values[:1])))
        good = gap <= 100 * float(np.finfo(values.dtype).eps) * float(np.max(np.abs(values)))
        but = f"they differ by up to {gap:.3g}; between such modes the field may have no Lipschitz constant"
        check_that(good, "covariances", "be equal for all modes", but)
