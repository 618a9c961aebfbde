"""Singular values of long products of triangular factors, in logarithms and to high relative accuracy."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_SWEEPS = 12


def log_singular_values(
    columns: Float[Array, "rows k"], logs: Float[Array, " k"]
) -> tuple[Float[Array, "rows k"], Float[Array, " k"], Float[Array, "k k"]]:
    """U, log s and V of the singular value decomposition B diag(exp(logs)) = U diag(s) V^T, s descending.

    One-sided Jacobi: columns are made orthogonal by plane rotations, with their lengths kept as logarithms. Values that
    differ by more than the range of floating-point numbers keep their relative accuracy, as long as the columns of B are
    well conditioned.

    Source: Demmel and Veselic, Jacobi's method is more accurate than QR (1992); de Rijk (1989).

    Args:
        columns: B, with columns that are not zero.
        logs: logarithms of the scales of the columns; -inf for columns that count as zero.
    """
    k = columns.shape[1]
    columns, logs = _normalise(columns, logs)
    turn = jnp.eye(k, dtype=columns.dtype)
    if k > 1:
        pairs = jnp.asarray([(p, q) for p in range(k - 1) for q in range(p + 1, k)])

        def rotate(i: Array, value: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            columns, logs, turn = value
            pair = pairs[i % len(pairs)]
            pair = pair[jnp.argsort(-logs[pair])]
            both, sizes, rotation = _orthogonal_pair(columns[:, pair], logs[pair])
            turn = turn.at[:, pair].set(jnp.matmul(turn[:, pair], rotation, precision=lax.Precision.HIGHEST))
            return columns.at[:, pair].set(both), logs.at[pair].set(sizes), turn

        rounds = (1 if k == 2 else _SWEEPS) * len(pairs)
        columns, logs, turn = lax.fori_loop(0, rounds, rotate, (columns, logs, turn))
    order = jnp.argsort(-logs)
    return columns[:, order], logs[order], turn[:, order]


def _orthogonal_pair(both: Float[Array, "rows 2"], logs: Float[Array, "2"]) -> tuple[Array, Array, Array]:
    """Rotate two columns, the longer one first, until they are orthogonal; unit columns, log lengths, the rotation."""
    long, short = both[:, 0], both[:, 1]
    ratio = jnp.where(jnp.isneginf(logs[1]), 0, jnp.exp(logs[1] - logs[0]))  # <= 1, may underflow
    cosine = jnp.sum(long * short)
    # Rotation angle in the plane of (long, ratio * short): tan 2a = 2 cosine ratio / (1 - ratio^2), |a| <= pi / 4.
    angle = 0.5 * jnp.arctan2(2 * cosine * ratio, 1 - ratio**2)
    c, s = jnp.cos(angle), jnp.sin(angle)
    # The shorter one in units of its own length: s * long / ratio stays bounded, as s is of the order of ratio.
    share = jnp.where(ratio > jnp.finfo(both.dtype).eps, s / jnp.where(ratio > 0, ratio, 1), cosine)
    columns = jnp.stack([c * long + s * ratio * short, c * short - share * long], axis=1)
    return *_normalise(columns, logs), jnp.asarray([[c, -s], [s, c]])


def _normalise(columns: Float[Array, "rows k"], logs: Float[Array, " k"]) -> tuple[Array, Array]:
    norms = jnp.sqrt(jnp.sum(columns**2, axis=0))
    zero = norms == 0
    columns = columns / jnp.where(zero, 1, norms)
    return columns, jnp.where(zero, -jnp.inf, logs + jnp.log(jnp.where(zero, 1, norms)))
