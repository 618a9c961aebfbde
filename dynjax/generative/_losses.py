"""The losses that train flows: conditional flow matching and denoising score matching."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_that, found, is_concrete
from ._field import as_points, check_field, time_span
from ._noise_paths import VariancePreserving


def flow_matching_loss(
    field: Any,
    x1: Float[Array, "batch d"],
    key: PRNGKeyArray,
    *,
    x0: Float[Array, "batch d"] | None = None,
    per_sample: bool = False,
) -> Float[Array, "..."]:
    r"""The conditional flow-matching loss per dimension.

        L = (1/d) E |u(t, x_t) - (x_1 - x_0)|^2,    x_t = (1 - t) x_0 + t x_1,

    with t uniform on [0, 1] and x_0 standard normal, one draw of both for each sample. Its minimum is not 0: see `loss_floor`.

    Args:
        field: `field(t, x) -> velocity` for one point.
        x1: a batch of data.
        key: of t and x_0; not the one that drew the data, with which the noise would not be independent.
        x0: noise in the place of x_0, of which row i is joined to row i of `x1`: for couplings that are not independent.
        per_sample: whether to return the term of every sample instead of the mean.

    Returns:
        The loss, or `(batch,)` terms, for standard errors.

    Raises:
        ValueError: if shapes do not fit, or the field has its noise and data at other times, as that of a diffusion.
        TypeError: if `field` is not callable.

    Example:
        ```python
        mixture = dj.generative.GaussianMixture([-2.0, 2.0], 0.25)
        dj.generative.flow_matching_loss(mixture.flow_matching_field(), mixture.sample(1000, key1), key2)    # about 2.8
        ```

    References:
        Lipman, Chen, Ben-Hamu, Nickel and Le, Flow matching for generative modeling (2023), equation 23 (with sigma_min = 0).
    """
    x1 = _as_batch(x1, "x1")
    check_field(field, x1, "x1")
    _check_span(field)
    time_key, noise_key = jax.random.split(key)
    t = jax.random.uniform(time_key, x1.shape[:1], x1.dtype)
    x0 = jax.random.normal(noise_key, x1.shape, x1.dtype) if x0 is None else jnp.asarray(x0, x1.dtype)
    check_that(x0.shape == x1.shape, "x0", f"have the shape {x1.shape} of `x1`", found(x0))
    x = (1 - t)[:, None] * x0 + t[:, None] * x1
    terms = jnp.mean((jax.vmap(field)(t, x) - (x1 - x0)) ** 2, -1)
    return terms if per_sample else jnp.mean(terms)


def score_matching_loss(
    field: Any, x: Float[Array, "batch d"], key: PRNGKeyArray, *, per_sample: bool = False
) -> Float[Array, "..."]:
    r"""The denoising score-matching loss per dimension, with the weight b^2.

        L = (1/d) E |b(t) score(t, x_t) + z|^2,    x_t = a(t) x + b(t) z,

    with t uniform on [0, T] and z standard normal, one draw of both for each sample. The weight is the variance of the noise,
    as in the prediction of the noise by diffusion models.

    Args:
        field: an object with a method `score(t, x)` for one point and a `VariancePreserving` as `path`.
        x: a batch of data.
        key: of t and z; not the one that drew the data.
        per_sample: whether to return the term of every sample instead of the mean.

    Returns:
        The loss, or `(batch,)` terms.

    Raises:
        TypeError: if `field` has no score or its path is no diffusion.
        ValueError: if shapes do not fit.

    Example:
        ```python
        mixture = dj.generative.GaussianMixture([-2.0, 2.0], 0.25)
        dj.generative.score_matching_loss(mixture.score_field(), mixture.sample(1000, key1), key2)    # about 0.3
        ```

    References:
        Vincent, A connection between score matching and denoising autoencoders (2011); Ho, Jain and Abbeel, Denoising
        diffusion probabilistic models (2020), equation 14.
    """
    x = _as_batch(x, "x")
    path = getattr(field, "path", None)
    good = isinstance(path, VariancePreserving) and hasattr(field, "score")
    check_that(good, "field", "have a method `score` and a `VariancePreserving` path", found(field), TypeError)
    assert isinstance(path, VariancePreserving)
    check_field(field, x, "x")
    time_key, noise_key = jax.random.split(key)
    t = path.horizon.astype(x.dtype) * jax.random.uniform(time_key, x.shape[:1], x.dtype)
    z = jax.random.normal(noise_key, x.shape, x.dtype)

    def residual(t: Array, x: Array, z: Array) -> Array:
        now = path.coefficients(t)
        b = jnp.sqrt(now.noise_variance).astype(x.dtype)
        return jnp.mean((b * field.score(t, now.signal.astype(x.dtype) * x + b * z) + z) ** 2)

    terms = jax.vmap(residual)(t, x, z)
    return terms if per_sample else jnp.mean(terms)


def _check_span(field: Any) -> None:
    noise, data = time_span(field)
    for time, wanted, what in ((noise, 0, "noise"), (data, 1, "data")):
        good = not is_concrete(time) or float(time) == wanted
        check_that(good, "field", f"have its {what} at time {wanted}, as in flow matching", f"it is at {time}")


def _as_batch(x: Any, argument: str) -> Float[Array, "batch d"]:
    x = as_points(x, argument)
    check_that(x.ndim == 2, argument, "be a batch of points of shape (batch, d)", found(x))
    return x
