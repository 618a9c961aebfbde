"""Vector fields to be trained: a velocity for flow matching, a score for a variance-preserving diffusion."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_that, found
from ..networks import MLP, lipschitz_bound
from ._noise_paths import VariancePreserving


class TimedMLP(eqx.Module):
    """A perceptron R^d -> R^d that also sees the time s in [0, 1] as s, cos(pi j s), sin(pi j s), j = 1, ..., frequencies."""

    mlp: MLP
    size: int = eqx.field(static=True)
    frequencies: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        hidden: Sequence[int],
        activation: Callable[[Any], Any],
        frequencies: int,
        key: PRNGKeyArray,
        dtype: Any,
    ):
        check_count(size, "size")
        check_count(frequencies, "frequencies", 0)
        widths = (size + 1 + 2 * frequencies, *hidden, size)
        self.mlp = MLP(widths, activation=activation, key=key, dtype=dtype)
        self.size, self.frequencies = size, frequencies

    def __call__(self, s: Float[Array, ""] | float, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The output at time `s`."""
        if jnp.shape(x) != (self.size,):
            raise ValueError(
                f"Argument `x` must be one point of shape ({self.size},), but found {jnp.shape(x)}. For many use `jax.vmap`."
            )
        s = jnp.asarray(s, x.dtype)
        angles = jnp.pi * s * jnp.arange(1, self.frequencies + 1, dtype=x.dtype)
        return self.mlp(jnp.concatenate([x, s[None], jnp.cos(angles), jnp.sin(angles)]))

    def lipschitz_bound(self, norm: str = "sup") -> Float[Array, ""]:
        """A bound on the Lipschitz constant in x at any fixed time: the columns of the time features do not count."""
        first = self.mlp.weights[0].at[:, self.size :].set(0)
        return lipschitz_bound(eqx.tree_at(lambda mlp: mlp.weights[0], self.mlp, first), norm)


class VelocityField(eqx.Module):
    r"""A velocity field u(t, x) to be trained by flow matching: a perceptron of x and features of the time.

    Noise is at time 0 and data at time 1. All arrays are parameters.

    Args:
        size: dimension d of the data.
        hidden: widths of the hidden layers.
        activation: applied after every hidden layer.
        frequencies: J; the network sees t, cos(pi j t) and sin(pi j t) for j = 1, ..., J.
        key: seeds the parameters.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if a size is not positive.

    Example:
        ```python
        field = dj.generative.VelocityField(2, hidden=(64, 64), key=key)
        fitted = dj.generative.fit_flow(field, data, num_steps=2000, key=key)
        dj.generative.sample(fitted.field, jax.random.normal(key, (1000, 2)))
        ```

    References:
        Lipman, Chen, Ben-Hamu, Nickel and Le, Flow matching for generative modeling (2023).
    """

    network: TimedMLP

    def __init__(
        self,
        size: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: Callable[[Any], Any] = jax.nn.silu,
        frequencies: int = 3,
        key: PRNGKeyArray,
        dtype: Any = None,
    ):
        self.network = TimedMLP(size, hidden, activation, frequencies, key, dtype)

    @property
    def size(self) -> int:
        """The dimension d."""
        return self.network.size

    @property
    def noise_time(self) -> float:
        """0."""
        return 0.0

    @property
    def data_time(self) -> float:
        """1."""
        return 1.0

    def __call__(self, t: Float[Array, ""] | float, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The velocity at one point."""
        return self.network(t, x)

    def lipschitz_bound(self, norm: str = "sup") -> Float[Array, ""]:
        """A bound on the Lipschitz constant in x, at all times; for `dj.networks.lipschitz_bound`."""
        return self.network.lipschitz_bound(norm)


class ScoreField(eqx.Module):
    r"""A score grad log p_t(x) to be trained by score matching, and the probability-flow field that belongs to it.

        score(t, x) = -x + a(t) net(t / T, x),    field(t, x) = -(beta(t) / 2) (x + score(t, x)) = -(beta a / 2) net.

    The form is exact at late times, where the law is standard normal up to terms of size a, and has no singularity at
    time 0: sampling can end there, with no cut-off. Data are at time 0, noise at the horizon T. The path is not trained.

    Args:
        size: dimension d of the data.
        path: the schedule; `VariancePreserving()` by default.
        hidden: widths of the hidden layers.
        activation: applied after every hidden layer.
        frequencies: J; the network sees s = t / T, cos(pi j s) and sin(pi j s) for j = 1, ..., J.
        key: seeds the parameters.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if a size is not positive.
        TypeError: if `path` is no `VariancePreserving`.

    Example:
        ```python
        field = dj.generative.ScoreField(2, path=dj.generative.VariancePreserving(0.1, 10.0), key=key)
        fitted = dj.generative.fit_flow(field, data, num_steps=2000, key=key)       # by score matching
        dj.generative.sample(fitted.field, jax.random.normal(key, (1000, 2)))
        ```

    References:
        Song et al., Score-based generative modeling through stochastic differential equations (2021), equations 7 and 13.
    """

    network: TimedMLP
    schedule: VariancePreserving

    def __init__(
        self,
        size: int,
        *,
        path: VariancePreserving | None = None,
        hidden: Sequence[int] = (64, 64),
        activation: Callable[[Any], Any] = jax.nn.silu,
        frequencies: int = 3,
        key: PRNGKeyArray,
        dtype: Any = None,
    ):
        path = VariancePreserving() if path is None else path
        check_that(isinstance(path, VariancePreserving), "path", "be a VariancePreserving", found(path), TypeError)
        self.network = TimedMLP(size, hidden, activation, frequencies, key, dtype)
        self.schedule = path

    @property
    def path(self) -> VariancePreserving:
        """The path, without derivatives: it is not trained."""
        return jax.lax.stop_gradient(self.schedule)

    @property
    def size(self) -> int:
        """The dimension d."""
        return self.network.size

    @property
    def noise_time(self) -> Float[Array, ""]:
        """The horizon T."""
        return self.path.noise_time

    @property
    def data_time(self) -> float:
        """0."""
        return 0.0

    def __call__(self, t: Float[Array, ""] | float, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The velocity of the probability flow at one point."""
        path = self.path
        factor = path.coefficients(t).signal_slope.astype(x.dtype)
        return factor * self.network(t / path.horizon, x)

    def score(self, t: Float[Array, ""] | float, x: Float[Array, "d"]) -> Float[Array, "d"]:
        """The score at one point."""
        path = self.path
        return path.coefficients(t).signal.astype(x.dtype) * self.network(t / path.horizon, x) - x

    def lipschitz_bound_at(self, t: Float[Array, ""] | float, norm: str = "euclidean") -> Float[Array, ""]:
        """A bound on the Lipschitz constant in x of the probability-flow field at time `t`."""
        return jnp.abs(self.path.coefficients(t).signal_slope) * self.network.lipschitz_bound(norm)
