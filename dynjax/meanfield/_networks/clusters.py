"""How many clusters a set of tokens has formed."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int8

from ..._core import Status, check_count, check_positive, check_that, is_concrete
from .attention import check_tokens, unit

_SHIFTS = 4


class Clusters(eqx.Module):
    """The clusters of a set of tokens.

    Attributes:
        count: clusters that hold at least the least share of all tokens.
        labels: the cluster of each token, in the order in which they were found; -1 where the search ended before.
        sizes: tokens in each cluster, (max_clusters,); zero past the last.
        centers: unit vectors, (max_clusters, d).
        status: `OK`, `MAX_STEPS` where tokens were left over after `max_clusters`, `NONFINITE`.
    """

    count: Int[Array, ""]
    labels: Int[Array, "n"]
    sizes: Int[Array, "clusters"]
    centers: Float[Array, "clusters d"]
    status: Int8[Array, ""]

    def __str__(self) -> str:
        return f"Clusters({self.count} clusters, status {self.status})"


def count_clusters(
    tokens: Float[Array, "n d"], *, angle: Any = math.pi / 8, least_share: Any = 0.02, max_clusters: int = 16
) -> Clusters:
    """The clusters of tokens on a sphere: caps of a given angle about centres that follow the tokens.

    The first token that is left starts a cap; its centre moves four times to the mean of what the cap holds (mean shift), then
    all tokens in it are taken away. Where clusters have a radius below `angle/2` and centres more than `5 angle/2` apart,
    the answer is exact and does not depend on the order. Tokens that have not formed clusters of that size give a count
    that depends on `angle`: about pi/angle to 2 pi/angle for a uniform circle. It runs under `jit` and `vmap`; it costs
    O(n d) per cluster.

    Args:
        tokens: (n, d), not zero; their lengths do not matter.
        angle: the angular radius of a cap, in radians; traced.
        least_share: clusters with a smaller share of the tokens do not count: stray tokens.
        max_clusters: how many are looked for, static.

    Returns:
        A `Clusters`.

    Raises:
        ValueError: if `angle` is not in (0, pi], or `max_clusters` no count.
    """
    check_tokens(tokens)
    check_count(max_clusters, "max_clusters")
    check_positive(angle, "angle")
    if is_concrete(angle):
        check_that(float(angle) <= math.pi, "angle", "be at most pi", f"found {float(angle)}")
    directions = unit(jnp.asarray(tokens))
    cosine = jnp.cos(jnp.asarray(angle, directions.dtype))
    n = directions.shape[0]

    def find(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        left, labels = carry
        center = directions[jnp.argmax(left)]
        for _ in range(_SHIFTS):
            inside = left & (directions @ center >= cosine)
            mean = inside.astype(directions.dtype) @ directions
            length = jnp.linalg.norm(mean)
            center = jnp.where(length > 0, mean / jnp.where(length > 0, length, 1), center)
        taken = left & (directions @ center >= cosine)
        # A centre that drifted away from its first token still takes it, so that every round ends with fewer tokens.
        taken = taken | (left & (jnp.arange(n) == jnp.argmax(left)))
        labels = jnp.where(taken, number, labels)
        return (left & ~taken, labels), (jnp.sum(taken), center)

    start = (jnp.ones(n, bool), jnp.full(n, -1))
    (left, labels), (sizes, centers) = lax.scan(find, start, jnp.arange(max_clusters))
    least = jnp.asarray(least_share, directions.dtype) * n
    count = jnp.sum((sizes > 0) & (sizes >= least))
    finite = jnp.all(jnp.isfinite(directions))
    status = jnp.where(jnp.any(left), int(Status.MAX_STEPS), int(Status.OK))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int8)
    return Clusters(count, labels, sizes, centers, status)
