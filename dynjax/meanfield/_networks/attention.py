"""Self-attention as a system of tokens on the sphere."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core import check_count, check_positive, check_that, found
from ...systems import AbstractMap
from ...systems._flow import as_slope, clock
from ...systems._system import IntScalarLike, as_number
from ...systems._tableau import TABLEAUX, runge_kutta_step
from .._graphs.graph_operator import GraphOperator
from .diffusion import check_noise, scaled_noise
from .pair_stream import Causal, block_size, map_row_blocks, weight_rows, weight_slab

KINDS = ("sa", "usa")
# A tile of scores: as many rows as keep matrix products efficient, and few enough columns to stay in the cache of a core.
_TILE_ROWS = 256
_TILE_COLUMNS = 4096


class AttentionField(eqx.Module):
    """The velocities of the tokens, with Diffrax's arguments; see `attention_flow`."""

    beta: Float[Array, ""]
    query: Float[Array, "d d"] | None
    key: Float[Array, "d d"] | None
    value: Float[Array, "d d"] | None
    graph: GraphOperator | None
    kind: str = eqx.field(static=True)
    projection: str = eqx.field(static=True)
    block: int | None = eqx.field(static=True)

    def __call__(self, t: Any, tokens: Float[Array, "n d"], args: Any = None) -> Float[Array, "n d"]:
        """The velocities."""
        check_tokens(tokens)
        pull = self.attend(tokens)
        if self.projection == "none":
            return pull
        return tangential(tokens, pull)

    def attend(self, tokens: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """What each token hears, before the projection; in tiles, so that the memory is O(n d)."""
        n, graph = tokens.shape[0], self.graph
        good = graph is None or graph.num_nodes == n
        check_that(good, "tokens", "have a row for each node of the mask", found(tokens))
        queries = self.beta.astype(tokens.dtype) * _times(tokens, self.query)
        keys, values = _times(tokens, self.key), _times(tokens, self.value)
        lazy = graph is None or isinstance(graph, Causal)
        columns = _even(n, _TILE_COLUMNS) if lazy else n
        rows = min(self.block or _TILE_ROWS, n) if lazy else block_size(n, 1, self.block)
        chunks = _chunks(columns, keys, values)

        def one_block(numbers: Array, parts: tuple[Array, Array | None]) -> Array:
            query, slab = parts
            state = (
                jnp.full(query.shape[0], -jnp.inf, query.dtype),
                jnp.zeros(query.shape[0], query.dtype),
                jnp.zeros((query.shape[0], values.shape[1]), query.dtype),
            )
            tile = lambda state, chunk: (self._add_tile(state, query, numbers, slab, chunk, n), None)
            if chunks[0].shape[0] == 1:
                state, _ = tile(state, jax.tree_util.tree_map(lambda leaf: leaf[0], chunks))
            else:
                state, _ = lax.scan(jax.checkpoint(tile), state, chunks)
            _, mass, total = state
            if self.kind == "usa":
                return total / n
            none = mass == 0
            return total / jnp.where(none, 1, mass)[:, None]

        return map_row_blocks(one_block, (queries, weight_slab(graph)), n, rows)

    def _add_tile(self, state: Any, query: Array, numbers: Array, slab: Array | None, chunk: Any, n: int) -> Any:
        """Add the tokens of one tile to (largest score, sum of weights, sum of weighted values)."""
        top, mass, total = state
        keys, values, columns = chunk
        scores = jnp.matmul(query, keys.T, precision=lax.Precision.HIGHEST)
        weights = None
        if isinstance(self.graph, Causal):
            before = columns >= numbers[:, None] if self.graph.reverse else columns <= numbers[:, None]
            weights = (before & (columns < n)).astype(query.dtype)
        elif self.graph is not None:
            weights = weight_rows(self.graph, numbers, slab, query.dtype)
        elif n % columns.shape[0]:
            weights = jnp.broadcast_to((columns < n).astype(query.dtype), scores.shape)
        if self.kind == "usa":
            factors = jnp.exp(scores) if weights is None else weights * jnp.exp(scores)
            return top, mass, total + jnp.matmul(factors, values, precision=lax.Precision.HIGHEST)
        seen = scores if weights is None else jnp.where(weights == 0, -jnp.inf, scores)
        new = lax.stop_gradient(jnp.maximum(top, jnp.max(seen, axis=1)))
        finite = jnp.where(new == -jnp.inf, 0, new)
        factors = jnp.exp(seen - finite[:, None])
        factors = factors if weights is None else weights * factors
        fade = jnp.exp(top - finite)
        product = jnp.matmul(factors, values, precision=lax.Precision.HIGHEST)
        return new, fade * mass + jnp.sum(factors, axis=1), fade[:, None] * total + product


class AttentionFlow(AbstractMap):
    """Self-attention dynamics as a system; see `attention_flow`.

    Attributes:
        field: the velocities, an `AttentionField`.
        dt: time per step.
        noise: D of the Brownian motion on the sphere.
        key: of the noise path, or None.
        method: the Runge-Kutta method.
    """

    field: AttentionField
    dt: Float[Array, ""]
    noise: Float[Array, ""]
    key: PRNGKeyArray | None
    method: str = eqx.field(static=True)

    def step(self, n: IntScalarLike, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The tokens one step later, again of length one on the sphere."""

        def slope(c: float, y: Array) -> Array:
            return as_slope(self.field(clock(jnp.zeros_like(self.dt), self.dt, n, c), y), y)

        moved = runge_kutta_step(TABLEAUX[self.method], slope, x, self.dt)
        sphere = self.field.projection == "sphere"
        if self.key is not None:
            kicks = scaled_noise(jax.random.fold_in(self.key, n), x, 2 * self.noise * self.dt)
            moved = moved + (tangential(x, kicks) if sphere else kicks)
        return unit(moved) if sphere else moved


def attention_flow(
    beta: Any,
    *,
    dt: Any,
    kind: str = "sa",
    projection: str = "sphere",
    query: Any = None,
    key_matrix: Any = None,
    value: Any = None,
    mask: GraphOperator | str | None = None,
    num_tokens: int | None = None,
    noise: Any = None,
    key: PRNGKeyArray | None = None,
    method: str = "rk4",
    block: int | None = None,
) -> AttentionFlow:
    r"""Self-attention as a system of n tokens on the unit sphere, depth as time.

        "sa":   x_i' = P_i( sum_j a_ij e^{s_ij} V x_j / sum_j a_ij e^{s_ij} ),
        "usa":  x_i' = P_i( (1/n) sum_j a_ij e^{s_ij} V x_j ),       s_ij = beta <Q x_i, K x_j>,  P_i v = v - <x_i, v> x_i.

    Without matrices and mask "usa" is gradient ascent of the energy E = (1/2 beta) mean_ij e^{beta <x_i, x_j>}, x_i' =
    n P_i grad_i E, and "sa" is so in a modified metric, so that E does not decrease along either (`attention_energy`). Each
    step is a Runge-Kutta step in R^d followed by normalisation, which keeps its order. Noise is Brownian motion of the
    sphere, a projected kick sqrt(2 D dt) xi before the normalisation (weak order one).

    Scores are formed in tiles of some 256 x 4,096 with a running softmax: time 4 n^2 d flops for an evaluation, memory
    O(n d) also in reverse mode, where tiles are computed a second time. On the circle `circle_attention` costs O(n).

    Args:
        beta: inverse temperature; traced.
        dt: time per step; traced.
        kind: "sa" (softmax) or "usa" (unnormalised).
        projection: "sphere", or "none" for the dynamics in R^d without P and normalisation.
        query: Q, (d, d); the identity if not given.
        key_matrix: K, likewise.
        value: V, likewise.
        mask: weights a_ij >= 0 of a `GraphOperator` (j is heard by i), or "causal" (with `num_tokens`). A token that hears
            nobody rests.
        num_tokens: n, needed with "causal" only.
        noise: D, in radians^2 per time; none by default.
        key: fixes the noise path; needed with `noise`.
        method: of `Flow`.
        block: rows of a tile.

    Returns:
        A system with states (n, d). Its tangents live in R^{n d}: n of them are normal to the spheres, where the step
        contracts to nothing; ask `lyapunov_spectrum` for `k = n (d - 1)` exponents.

    Raises:
        ValueError: if an option is unknown, a matrix is not square, a step is not positive, or `noise` and `key` do not
            come together.

    Example:
        ```python
        flow = attention_flow(5.0, dt=0.1, kind="sa")
        tokens = sphere_tokens(64, 3, key=jax.random.key(0))
        final = dj.systems.evolve(flow, tokens, num_steps=200)
        ```

    References:
        Geshkovski, Letrouit, Polyanskiy and Rigollet, The emergence of clusters in self-attention dynamics (2023),
        arXiv:2305.05465, and A mathematical perspective on transformers (2023), arXiv:2312.10794.
    """
    check_that(kind in KINDS, "kind", "be 'sa' or 'usa'", f"found {kind!r}")
    check_that(projection in ("sphere", "none"), "projection", "be 'sphere' or 'none'", f"found {projection!r}")
    check_that(method in TABLEAUX, "method", f"be one of {', '.join(TABLEAUX)}", f"found {method!r}")
    check_positive(dt, "dt")
    check_that((noise is None) == (key is None), "key", "be given with `noise`, and only then", "it is not")
    if block is not None:
        check_count(block, "block")
    if noise is not None:
        check_noise(noise)
    if mask == "causal":
        check_that(num_tokens is not None, "num_tokens", "be given with a causal mask", "it is None")
        mask = Causal(num_tokens)  # type: ignore[arg-type]
    good = mask is None or isinstance(mask, GraphOperator)
    check_that(good, "mask", "be a GraphOperator or 'causal'", found(mask), TypeError)
    field = AttentionField(
        beta=as_number(beta, "beta"),
        query=_matrix(query, "query"),
        key=_matrix(key_matrix, "key_matrix"),
        value=_matrix(value, "value"),
        graph=mask,  # type: ignore[arg-type]
        kind=kind,
        projection=projection,
        block=block,
    )
    return AttentionFlow(
        field=field,
        dt=as_number(dt, "dt"),
        noise=as_number(0.0 if noise is None else noise, "noise"),
        key=key,
        method=method,
    )


def attention_energy(tokens: Float[Array, "n d"], beta: Any, *, block: int | None = None) -> Float[Array, ""]:
    """The interaction energy E = (1/2 beta) mean_ij e^{beta <x_i, x_j>} of tokens, at most e^beta/(2 beta) on the sphere.

    It does not decrease along self-attention without matrices and mask. Costs n^2 d, streamed in blocks of rows.

    Args:
        tokens: x, (n, d).
        beta: not zero; traced.
        block: rows of a block.
    """
    check_tokens(tokens)
    tokens = jnp.asarray(tokens)
    beta = jnp.asarray(beta, tokens.dtype)
    n = tokens.shape[0]

    def rows(numbers: Array, x: Array) -> Array:
        return jnp.mean(jnp.exp(beta * jnp.matmul(x, tokens.T, precision=lax.Precision.HIGHEST)), axis=1)

    return jnp.mean(map_row_blocks(rows, tokens, n, block_size(n, 1, block))) / (2 * beta)


def sphere_tokens(num_tokens: int, dimension: int, *, key: PRNGKeyArray, dtype: Any = None) -> Float[Array, "n d"]:
    """Independent tokens, uniform on the unit sphere of R^d.

    Args:
        num_tokens: n.
        dimension: d, at least 1.
        key: seeds them.
        dtype: JAX's default if not given.
    """
    check_count(num_tokens, "num_tokens")
    check_count(dimension, "dimension")
    return unit(jax.random.normal(key, (num_tokens, dimension), dtype or jnp.result_type(float)))


def unit(tokens: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Each row divided by its length."""
    return tokens / jnp.linalg.norm(tokens, axis=-1, keepdims=True)


def tangential(tokens: Float[Array, "n d"], vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The part of each row of `vectors` that is tangent to the sphere at the token."""
    return vectors - jnp.sum(tokens * vectors, axis=-1, keepdims=True) * tokens


def check_tokens(tokens: Any) -> None:
    """Raise unless the tokens are a real array (n, d)."""
    tokens = tokens if hasattr(tokens, "ndim") else jnp.asarray(tokens)
    good = tokens.ndim == 2 and tokens.shape[0] > 0 and jnp.issubdtype(tokens.dtype, jnp.floating)
    check_that(good, "tokens", "be a floating array (n, d)", found(tokens))


def _times(tokens: Array, matrix: Array | None) -> Array:
    if matrix is None:
        return tokens
    return jnp.matmul(tokens, matrix.astype(tokens.dtype).T, precision=lax.Precision.HIGHEST)


def _even(n: int, most: int) -> int:
    """The size of blocks of nearly equal size, none above `most`."""
    return math.ceil(n / math.ceil(n / most))


def _chunks(size: int, *leaves: Array) -> tuple[Array, ...]:
    """Arrays cut along their first axis, with the numbers of the rows; the last chunk is filled up with zeros."""
    n = leaves[0].shape[0]
    num = math.ceil(n / size)
    pad = lambda leaf: jnp.pad(leaf, ((0, num * size - n), (0, 0))).reshape(num, size, leaf.shape[1])
    return (*map(pad, leaves), jnp.arange(num * size).reshape(num, size))


def _matrix(matrix: Any, name: str) -> Array | None:
    if matrix is None:
        return None
    matrix = jnp.asarray(matrix)
    check_that(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], name, "be a square matrix", found(matrix))
    return matrix
