"""Which minima gradient descent and other optimisers can stay at: linear stability on the normal space of a minimum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int, Int8, PRNGKeyArray, PyTree

from .._core import Raveler, Status, check_positive, check_that, cond_any_lane, found, is_concrete, split_inexact
from ..curvature import Hessian, hessian
from ..linalg import eigsh
from ._coordinate import Coordinate
from ._map import TrainingMap, check_optimizer
from ._threshold import linear_problem, stability_threshold

# Up to this number of parameters the Hessian is formed: a second or two at 1,500 on two CPU cores.
_DENSE_DIM = 1500
_BATCH = 16  # products at a time
_ROUNDS = 40  # of the search for the largest stable learning rate


class MinimumStability(eqx.Module):
    """The linear stability of a minimum under an optimiser.

    Attributes:
        isolated: whether the Hessian has full rank, so that there is no other critical point near by. Otherwise the minimum
            lies, if its rank is the same all around, on a manifold of minima with the kernel of the Hessian as tangent space.
        rank: rank of the Hessian; -1 where it is not known (see `status`).
        exponent: log spectral radius of the linearised step on the normal space; -inf for rank 0.
        stable: whether all multipliers on the normal space lie inside the unit circle by more than rounding; false for rank 0,
            where the Hessian says nothing, and where `params` is no critical point.
        threshold: the largest stable learning rate: every smaller one is stable too. 2 / (largest eigenvalue) for gradient
            descent, 0 at a saddle, inf for rank 0; NaN for an optimiser that was built already.
        margin: 1 - spectral radius on the normal space.
        critical_curvature: the curvature at which the optimiser becomes unstable, `stability_threshold`.
        eigenvalues: of the Hessian, descending: all of them, or (for large problems) those on the subspace that was
            searched.
        normal: which of them belong to the normal space: |h| > rank_tolerance * max |h|.
        multipliers: eigenvalues of the linearised step for each Hessian eigenvalue, one for the parameter and one for each
            momentum; those of tangent directions belong to h = 0, so that a multiplier 1 is exactly 1.
        vectors: the eigenvectors, in rows, in the order of `jax.tree_util.tree_leaves`.
        gradient_norm: |grad loss|.
        distance: |H^+ grad loss|, to first order the distance to the nearest critical point.
        displacement: how far one step of the optimiser moves the parameters.
        rank_tolerance: see `normal`.
        status: `OK`; `NOT_CONVERGED` if `distance` or `displacement` is above `rank_tolerance * (1 + |params|)`, so that
            zero eigenvalues cannot be told from small ones, or if the rank is beyond reach; `NONFINITE`.
        dim: number of parameters.
    """

    isolated: Bool[Array, ""]
    rank: Int[Array, ""]
    exponent: Float[Array, ""]
    stable: Bool[Array, ""]
    threshold: Float[Array, ""]
    margin: Float[Array, ""]
    critical_curvature: Float[Array, ""]
    eigenvalues: Float[Array, " num"]
    normal: Bool[Array, " num"]
    multipliers: Complex[Array, "num modes"]
    vectors: Float[Array, "num dim"]
    gradient_norm: Float[Array, ""]
    distance: Float[Array, ""]
    displacement: Float[Array, ""]
    rank_tolerance: Float[Array, ""]
    status: Int8[Array, ""]
    dim: int = eqx.field(static=True)

    def normal_part(self, v: PyTree[Array]) -> PyTree[Array]:
        """The orthogonal projection of a vector, a pytree like the parameters that vary, to the normal space."""
        raveler = Raveler(v)
        rows = jnp.where(self.normal[:, None], self.vectors, 0)
        product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
        return raveler.unravel(product(product(rows, raveler.ravel(v)), rows).astype(raveler.dtype))

    def __str__(self) -> str:
        place = "isolated" if bool(self.isolated) else "not isolated"
        rank = f"rank {int(self.rank)} of {self.dim}" if int(self.rank) >= 0 else "rank unknown"
        return (
            f"MinimumStability({place}, {rank}, exponent {float(self.exponent):.4g}, "
            f"{'stable' if bool(self.stable) else 'not stable'}, threshold {float(self.threshold):.6g}, "
            f"status {Status(int(self.status)).name})"
        )


class _Spectrum(NamedTuple):
    """Eigenvalues, their vectors in rows, and whether everything outside of their span is zero."""

    values: Float[Array, " num"]
    vectors: Float[Array, "num dim"]
    captured: Bool[Array, ""]


def minimum_stability(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: Any,
    learning_rate: Any = None,
    optimizer: Any = None,
    rank_tolerance: Any = None,
    dense: bool | None = None,
    num_directions: int = 256,
    key: PRNGKeyArray | None = None,
) -> MinimumStability:
    r"""Whether an optimiser stays near a minimum: its linearised step on the normal space.

    Near a minimum gradient descent is $\delta' = (1 - \eta H)\,\delta$. Along a manifold of minima H vanishes and the multiplier
    is 1: nothing decays and nothing grows there. What decides is the normal space, the range of H, with the multipliers
    $1 - \eta h_i$ and the exponent $\mu = \max_i \log |1 - \eta h_i|$. An optimiser with momentum acts on each eigenvector
    of H by itself and has several multipliers for each, those of the linearised step of `TrainingMap`; they are taken from
    the optimiser, not from a table, with step counters at infinity.

    With fewer parameters than data a minimum is isolated as a rule, with more it lies on a manifold; here the
    numerical rank of H decides.

    Up to 1,500 parameters H is formed. Beyond, its range is found from 2 `num_directions` products if its rank is below
    `num_directions` (mean square loss at an interpolation solution: below the number of outputs). If it is not, `rank` is
    -1, `status` is `NOT_CONVERGED`, and only the two ends of the spectrum are given: `threshold` and `stable` still hold, and
    `exponent` is NaN unless the verdict is unstable.

    Not covered: optimisers with second moments (Adam, RMSProp: their step has no linearisation where gradients vanish; see
    `edge_ratio`), those that treat parameters differently, and weight decay, whose fixed point is not a minimum of the loss:
    put the penalty into the loss.

    Args:
        loss: `loss(params, *args)`, a real scalar over all data.
        params: the minimum, any pytree; its floating-point leaves vary.
        args: data, as arrays.
        learning_rate: of gradient descent, or of what `optimizer` builds.
        optimizer: gradient descent by default; or a function `learning_rate -> optax transformation`, such as
            `lambda lr: optax.sgd(lr, momentum=0.9)`; or a transformation without `learning_rate`.
        rank_tolerance: eigenvalues up to this multiple of the largest |eigenvalue| count as zero; eps^(2/3) by default, 4e-11
            in double precision.
        dense: whether to form the Hessian; by default up to 1,500 parameters.
        num_directions: size of the subspace in which the range of H is searched if it is not formed, static. Memory: twice
            as many vectors.
        key: random key of that subspace, `jax.random.key(0)` by default.

    Returns:
        A `MinimumStability`.

    Raises:
        TypeError: if the loss is not one real number, or `optimizer` is neither of its forms.
        ValueError: if the learning rate is missing or not positive, or the optimiser has second moments.

    Example:
        ```python
        loss = lambda p, x, y: jnp.mean((predict(p, x) - y) ** 2) / 2
        result = dj.minimum_stability(loss, solution.params, x, y, learning_rate=0.1)
        result.isolated, result.exponent, result.threshold
        ```

    References:
        Chemnitz, Engel, Kuehn, Kuntz, A dynamical systems perspective on the analysis of neural networks
        (arXiv:2507.05164, 2025).
    """
    if learning_rate is not None:
        check_positive(learning_rate, "learning_rate")
    if rank_tolerance is not None:
        check_positive(rank_tolerance, "rank_tolerance")
    _check_optimizer(optimizer, learning_rate)
    operator = hessian(loss, params, *args)
    raveler = Raveler(operator.in_structure())
    good = isinstance(num_directions, int) and num_directions >= 2
    check_that(good, "num_directions", "be an integer of at least 2", f"found {num_directions!r}")
    form = (raveler.size <= _DENSE_DIM or num_directions >= raveler.size) if dense is None else dense
    learning_rate = None if learning_rate is None else jnp.asarray(learning_rate, raveler.dtype)
    step = _linear_step(optimizer, learning_rate, raveler.dtype)
    key = jax.random.key(0) if key is None else key
    return _analyse(
        operator, params, optimizer, learning_rate, step, rank_tolerance, key, None if form else num_directions
    )


def _is_built(optimizer: Any) -> bool:
    return hasattr(optimizer, "init") and hasattr(optimizer, "update")


def _check_optimizer(optimizer: Any, learning_rate: Any) -> None:
    if _is_built(optimizer):
        check_that(
            learning_rate is None,
            "learning_rate",
            "be left out where `optimizer` is a transformation, which has its own",
            f"found {learning_rate}; pass a function `learning_rate -> transformation` to have both",
        )
        check_optimizer(optimizer)
        return
    good = optimizer is None or callable(optimizer)
    must = "be an optax transformation or a function `learning_rate -> transformation`"
    check_that(good, "optimizer", must, found(optimizer), TypeError)
    check_that(learning_rate is not None, "learning_rate", "be given", "it is missing")


def _built(optimizer: Any, learning_rate: Any) -> Any:
    if optimizer is None:
        return optax.sgd(learning_rate)
    return optimizer if _is_built(optimizer) else optimizer(learning_rate)


def _linear_step(optimizer: Any, learning_rate: Any, dtype: Any) -> tuple[Array, Array, Array]:
    """(drift, push, whether they mean something): on curvature h the step is z -> (I + drift + h push e_0^T) z."""
    dtype = jnp.promote_types(dtype, jnp.float32)
    if optimizer is None:
        return jnp.zeros((1, 1), dtype), -jnp.asarray(learning_rate, dtype)[None], jnp.asarray(True)
    built = _built(optimizer, learning_rate)
    coordinate = Coordinate(built, dtype)
    check_that(
        not is_concrete(coordinate.even) or coordinate.nothing_even(),
        "optimizer",
        "be linear where gradients vanish",
        "it has second moments; freeze them, or look at `edge_ratio`",
    )
    drift, push, valid = linear_problem(built, None, dtype)
    return drift, push, valid & ~jnp.any(coordinate.even)


@eqx.filter_jit
def _analyse(
    operator: Hessian,
    params: PyTree,
    optimizer: Any,
    learning_rate: Any,
    step: tuple[Array, Array, Array],
    rank_tolerance: Any,
    key: PRNGKeyArray,
    num_directions: int | None,
) -> MinimumStability:
    raveler = Raveler(operator.in_structure())
    point = raveler.ravel(split_inexact(params)[0])
    dtype = step[1].dtype
    tolerance = jnp.asarray(float(jnp.finfo(point.dtype).eps) ** (2 / 3) if rank_tolerance is None else rank_tolerance)
    tolerance = tolerance.astype(dtype)
    spectrum = _whole(operator) if num_directions is None else _range(operator, num_directions, tolerance, key)
    values = spectrum.values
    normal = jnp.abs(values) > tolerance * jnp.nanmax(jnp.abs(values))
    excess, exponent = _growth(step, values, normal)
    place = _place(operator, optimizer, learning_rate, spectrum, normal)
    near = jnp.maximum(place.distance, place.displacement) <= tolerance * (1 + jnp.linalg.norm(point))
    sharpness = jnp.max(jnp.where(normal, values, 0))
    saddle = jnp.any(normal & (values < 0))
    finite = ~jnp.isnan(exponent + place.gradient_norm) & jnp.isfinite(sharpness) & step[2]
    status = jnp.where(near & spectrum.captured, int(Status.OK), int(Status.NOT_CONVERGED))
    rank = jnp.sum(normal)
    rounding = 100 * jnp.finfo(dtype).eps
    # Between the two ends of a spectrum that is not known all curvatures are below the largest, hence stable if that is.
    critical = _critical_curvature(optimizer, learning_rate, dtype)
    ends = (sharpness < critical * (1 - rounding)) & ~saddle
    known = spectrum.captured | (exponent > 0)
    nan = jnp.asarray(jnp.nan, dtype)
    return MinimumStability(
        isolated=spectrum.captured & (rank == raveler.size),
        rank=jnp.where(spectrum.captured & finite, rank, -1),
        exponent=jnp.where(known & finite, exponent, nan),
        stable=finite & near & (rank > 0) & jnp.where(spectrum.captured, exponent < -rounding, ends),
        threshold=jnp.where(finite, _threshold(optimizer, learning_rate, critical, sharpness, saddle), nan),
        margin=jnp.where(known & finite, -jnp.expm1(exponent), nan),
        critical_curvature=critical,
        eigenvalues=values,
        normal=normal,
        multipliers=1 + excess,
        vectors=spectrum.vectors,
        gradient_norm=place.gradient_norm,
        distance=place.distance,
        displacement=place.displacement,
        rank_tolerance=tolerance,
        status=jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int8),
        dim=raveler.size,
    )


class _Place(NamedTuple):
    """How far the point is from being a critical one."""

    gradient_norm: Float[Array, ""]
    distance: Float[Array, ""]
    displacement: Float[Array, ""]


def _place(
    operator: Hessian, optimizer: Any, learning_rate: Any, spectrum: _Spectrum, normal: Bool[Array, " num"]
) -> _Place:
    """The gradient, its Newton step on the normal space, and one step of training from the initial optimiser state."""
    raveler = Raveler(operator.in_structure())
    chosen = operator.point.chosen
    gradient = raveler.ravel(operator.gradient(chosen))
    share = jnp.matmul(spectrum.vectors, gradient, precision=lax.Precision.HIGHEST)
    distance = jnp.linalg.norm(jnp.where(normal, share / jnp.where(normal, spectrum.values, 1), 0))
    value = lambda p: operator.loss(operator.point.params(p), *operator.args.tree())
    system = TrainingMap(value, _built(optimizer, learning_rate))
    moved = system.step(0, system.init(chosen)).params
    displacement = jnp.linalg.norm(raveler.ravel(moved) - raveler.ravel(chosen))
    return _Place(jnp.linalg.norm(gradient), distance, displacement)


def _growth(
    step: tuple[Array, Array, Array], values: Float[Array, " num"], normal: Bool[Array, " num"]
) -> tuple[Complex[Array, "num modes"], Float[Array, ""]]:
    """(multipliers less 1, the largest log |multiplier| on the normal space)."""
    excess = _excess(step, jnp.where(normal, values, 0))
    growth = 0.5 * jnp.log1p(jnp.maximum(2 * jnp.real(excess) + jnp.square(jnp.abs(excess)), -1))
    return excess, jnp.max(jnp.where(normal[:, None], growth, -jnp.inf))


def _excess(step: tuple[Array, Array, Array], curvatures: Float[Array, " num"]) -> Complex[Array, "num modes"]:
    """The multipliers less 1, of which those near 1 keep all their digits."""
    drift, push, _ = step
    if push.size == 1:
        excess = drift[0, 0] + curvatures[:, None] * push
        return excess.astype(jnp.result_type(excess.dtype, jnp.complex64))
    matrices = drift + curvatures[:, None, None] * push[:, None] * jnp.eye(1, push.size, dtype=push.dtype)
    excess = jnp.linalg.eigvals(jnp.where(jnp.isfinite(matrices), matrices, 0))
    return jnp.where(jnp.all(jnp.isfinite(matrices), axis=(1, 2))[:, None], excess, jnp.nan)


def _critical_curvature(optimizer: Any, learning_rate: Any, dtype: Any) -> Float[Array, ""]:
    if optimizer is None:
        return 2 / jnp.asarray(learning_rate, dtype)
    return stability_threshold(_built(optimizer, learning_rate), dtype=dtype)


def _threshold(optimizer: Any, learning_rate: Any, critical: Array, sharpness: Array, saddle: Array) -> Array:
    """The learning rate whose critical curvature is the sharpness."""
    if learning_rate is None:
        return jnp.full_like(critical, jnp.nan)
    rate = jnp.asarray(learning_rate, critical.dtype)
    safe = jnp.where(sharpness > 0, sharpness, 1)

    def improve(_: Any, rate: Array) -> Array:
        # One turn is enough where steps are proportional to the learning rate.
        return rate * _critical_curvature(optimizer, rate, critical.dtype) / safe

    rate = 2 / safe if optimizer is None else lax.fori_loop(0, _ROUNDS, improve, rate)
    return jnp.where(saddle, 0, jnp.where(sharpness > 0, rate, jnp.inf))


def _whole(operator: Hessian) -> _Spectrum:
    matrix = operator.as_matrix()
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return _Spectrum(values[::-1], vectors.T[::-1], jnp.asarray(True))


def _range(operator: Hessian, num_directions: int, tolerance: Array, key: PRNGKeyArray) -> _Spectrum:
    """The Hessian on a subspace that holds its range if its rank is below the number of random directions."""
    raveler = Raveler(operator.in_structure())
    product = lambda v: raveler.ravel(operator.mv(raveler.unravel(v)))
    matmul = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
    draws = jax.random.normal(key, (num_directions + 1, raveler.size), raveler.dtype)
    images = lax.map(product, draws, batch_size=min(_BATCH, num_directions))
    basis = jnp.linalg.qr(images[:-1].T)[0]
    values, rotation = jnp.linalg.eigh(
        matmul(basis.T, lax.map(product, basis.T, batch_size=min(_BATCH, num_directions)).T)
    )
    vectors = matmul(basis, rotation).T[::-1]
    # The last image is that of a direction that had no part in the basis.
    rest = images[-1] - matmul(matmul(images[-1], vectors.T), vectors)
    captured = jnp.linalg.norm(rest) <= tolerance * jnp.linalg.norm(images[-1])

    def ends() -> _Spectrum:
        pair = eigsh(operator, k=1, which="both", key=key)
        rows = jax.vmap(raveler.ravel)(pair.vectors)
        ended = jnp.where(pair.converged, pair.values, jnp.nan)
        inner = jnp.full((num_directions - 2,), jnp.nan, values.dtype)
        return _Spectrum(
            jnp.concatenate([ended[:1], inner, ended[1:]]).astype(values.dtype),
            jnp.concatenate([rows[:1], jnp.zeros_like(vectors[2:]), rows[1:]]).astype(vectors.dtype),
            jnp.asarray(False),
        )

    return cond_any_lane(~captured, ends, lambda: _Spectrum(values[::-1], vectors, captured))
