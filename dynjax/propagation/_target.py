"""Maps to be embedded: functions or networks R^d -> R^q, their shapes, and their Lipschitz constants on a box."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import Function, check_count, check_that, found, is_concrete
from ..networks import lipschitz_bound

_GRID = {1: 1025, 2: 65, 3: 17, 4: 9}
_CORNERS = 12  # up to this dimension all corners of a box are looked at
_DRAWS = 4096


class Target(eqx.Module):
    """A map R^d -> R^q whose arrays, if it is a network, are leaves.

    Args:
        psi: a function or module of one sample `(d,)`, with values `(q,)`; a scalar is taken as `(1,)`.
        in_size: d.
        out_size: q.
        dtype: of the samples.
    """

    psi: Any
    in_size: int = eqx.field(static=True)
    out_size: int = eqx.field(static=True)

    def __init__(self, psi: Any, in_size: int, out_size: int, dtype: Any):
        check_that(callable(psi), "psi", "be a function of one sample", found(psi), TypeError)
        check_count(in_size, "in_size")
        check_count(out_size, "out_size")
        arrays = [leaf for leaf in jax.tree_util.tree_leaves(psi) if not eqx.is_array(leaf)]
        self.psi = psi if isinstance(psi, eqx.Module) and not arrays else Function(psi)
        self.in_size, self.out_size = in_size, out_size
        shape = _output_shape(self.psi, jax.ShapeDtypeStruct((in_size,), dtype))
        good = shape == (out_size,) or (shape == () and out_size == 1)
        check_that(good, "psi", f"map samples of shape ({in_size},) to ({out_size},)", f"its values have shape {shape}")

    def __call__(self, x: Float[Array, "d"]) -> Float[Array, "q"]:
        """The value at one sample."""
        return jnp.reshape(self.psi(x), (self.out_size,)).astype(x.dtype)

    def lipschitz_bound(self, norm: str) -> Float[Array, ""]:
        """A certified Lipschitz constant, where `dynjax.networks.lipschitz_bound` knows one; else a `TypeError`."""
        return lipschitz_bound(self.psi, norm)


def _output_shape(psi: Any, x: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    try:
        return tuple(eqx.filter_eval_shape(psi, x).shape)
    except (TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"Argument `psi` must accept samples of shape {x.shape}, but it raised: {reason}") from error


def as_dtype(dtype: Any) -> Any:
    """The floating dtype asked for, or JAX's default."""
    return jnp.result_type(float) if dtype is None else jnp.dtype(dtype)


def as_box(lower: Any, upper: Any, size: int, dtype: Any) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """The corners of a box in R^d, numbers broadcast."""
    corners = []
    for value, name in ((lower, "lower"), (upper, "upper")):
        array = jnp.asarray(value, dtype)
        check_that(array.shape in ((), (1,), (size,)), name, f"be a number or have shape ({size},)", found(array))
        corners.append(jnp.broadcast_to(array, (size,)))
    if is_concrete(corners):
        low, high = (np.asarray(corner) for corner in corners)
        good = bool(np.all(np.isfinite(low) & np.isfinite(high) & (low < high)))
        check_that(good, "upper", "be finite and above `lower`", f"found lower = {lower}, upper = {upper}")
    return corners[0], corners[1]


def box_points(lower: Float[Array, "d"], upper: Float[Array, "d"]) -> Float[Array, "points d"]:
    """Points of a box, its corners among them: a grid up to four dimensions, above it corners and random points."""
    d = lower.shape[0]
    if d in _GRID:
        axis = np.linspace(0, 1, _GRID[d])
        unit = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    else:
        corners = np.array(list(itertools.product((0.0, 1.0), repeat=d))) if d <= _CORNERS else np.zeros((0, d))
        unit = np.concatenate([corners, np.random.default_rng(0).uniform(size=(_DRAWS, d))])
    return lower + jnp.asarray(unit, lower.dtype) * (upper - lower)


def jacobian_norm(jacobian: Float[Array, "*batch out in"], norm: str) -> Float[Array, "*batch"]:
    """The operator norm of matrices, for the sup or the Euclidean norm of vectors."""
    if norm == "sup":
        return jnp.max(jnp.sum(jnp.abs(jacobian), -1), -1)
    return jnp.linalg.svd(jacobian, compute_uv=False)[..., 0]


@eqx.filter_jit
def steepest(target: Target, points: Float[Array, "points d"], norm: str) -> Float[Array, ""]:
    """The largest norm of the derivative over the points."""
    return jnp.max(jacobian_norm(jax.vmap(jax.jacfwd(target))(points), norm))
