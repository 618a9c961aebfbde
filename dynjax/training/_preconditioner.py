"""The diagonal preconditioner of an optimiser, read from its state."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import check_that, split_inexact
from ._coordinate import Coordinate, least_moment
from ._map import check_optimizer
from ._threshold import is_number, read_shared


def preconditioner(optimizer: Any, opt_state: Any, params: PyTree = None) -> PyTree[Array]:
    r"""The diagonal D by which an optimiser scales its step, coordinate by coordinate.

    D_i = R(e_i) / R(reference), where R = -d update / d gradient is the instantaneous response of the update with the
    second moments e frozen, at gradient 0. The reference are second moments of 1 after bias correction, as in
    `stability_threshold(optimizer, opt_state)`, so that D^1/2 H D^1/2 is to be compared with that. Momentum, learning rate
    and schedules are in the threshold and cancel here; whatever the reference, it cancels in the ratio of the two.

    | optimiser | D |
    |---|---|
    | gradient descent, with or without momentum | 1 |
    | Adam, NAdam, AMSGrad | (1 + eps) / (sqrt(nu_hat) + eps), nu_hat bias-corrected |
    | RMSProp | sqrt(1 + eps) / sqrt(nu + eps) |
    | AdaGrad | sqrt(1 + eps) / sqrt(sum of squares + eps) |

    The last step of Adam was thus -lr m_hat D / (1 + eps). Which parts of the state are second moments is found by
    running the optimiser on one coordinate: they depend on the gradient but not on its sign. Their new values are those
    that the last update used: read D after a step. Before the first step Adam has nu = 0 and D is about 1/eps.

    Args:
        optimizer: an optax transformation that acts coordinate by coordinate; wrappers and chains are welcome.
        opt_state: its state after a step.
        params: the parameters. Without them their structure is read from the state, and D is the number 1 if no part of the
            state looks like parameters.

    Returns:
        A pytree like the inexact part of `params` (`None` elsewhere); `nan` where the second moments cannot be frozen (b2 = 0).
        Costs about thirty evaluations of the optimiser per coordinate, less than a product with the Hessian.

    Raises:
        TypeError: if `optimizer` is no optax transformation.
        ValueError: if it does not act coordinate by coordinate, or the state is not of this optimiser or of these `params`.

    Example:
        ```python
        D = dj.preconditioner(optax.adam(1e-3), opt_state)
        dj.eigsh(dj.preconditioned(dj.hessian(loss, params, x, y), D))
        ```
    """
    check_optimizer(optimizer)
    return _preconditioner(optimizer, opt_state, None if params is None else split_inexact(params)[0])


@eqx.filter_jit
def _preconditioner(optimizer: Any, opt_state: Any, template: PyTree) -> PyTree[Array]:
    coordinate = Coordinate(optimizer, work_dtype(template, opt_state))
    return diagonal_scale(coordinate, opt_state, template)


def diagonal_scale(coordinate: Coordinate, opt_state: Any, template: PyTree) -> PyTree[Array]:
    """D for a coordinate already analysed; `template` is the inexact part of the parameters, or None to find it."""
    subtrees = coordinate.subtrees(opt_state)
    parts = [split_inexact(subtrees[i])[0] for i in coordinate.floats]
    if template is None:
        template = next((part for part in parts if not is_number(part)), jnp.ones((), coordinate.dtype))
    leaves, treedef = jax.tree_util.tree_flatten(template)
    if coordinate.nothing_even():
        return jax.tree_util.tree_map(lambda leaf: jnp.ones(jnp.shape(leaf), jnp.result_type(leaf)), template)
    columns = [_per_leaf(part, leaves, treedef) for part in parts]
    kept, rest = read_shared(coordinate, opt_state)
    before, age = coordinate.clock(rest)
    reference = coordinate.reference(kept, before, age)
    unit, exists = _response(coordinate, reference, kept, before)
    scales = []
    for number, leaf in enumerate(leaves):
        values = [column[number] for column in columns]
        scales.append(_leaf_scale(coordinate, values, leaf, unit, kept, before))
    scales = [jnp.where(exists, scale, jnp.nan) for scale in scales]
    return jax.tree_util.tree_unflatten(treedef, scales)


def _response(
    coordinate: Coordinate, frozen: Float[Array, "leaves"], kept: Float[Array, "leaves"], before: list[Any]
) -> tuple[Array, Array]:
    x, exists = coordinate.before_freezing(frozen, kept, before)
    return coordinate.response(x, before), exists


def _leaf_scale(
    coordinate: Coordinate, values: list[Any], leaf: Array, unit: Array, kept: Float[Array, "leaves"], before: list[Any]
) -> Array:
    """D on one leaf of the parameters: the scalar response mapped over its entries."""
    if all(is_number(value) for value in values) and leaf.shape != ():
        # Nothing in the state varies over this leaf.
        shape: tuple[int, ...] = ()
    else:
        values, shape = [jnp.broadcast_to(value, leaf.shape) for value in values], leaf.shape
    dead = least_moment(coordinate.dtype)

    def scale(entries: Float[Array, "leaves"]) -> Array:
        # A second moment of exactly 0 (a parameter without gradient) would make the derivative of its root 0/0.
        frozen = jnp.where((entries == 0) & ~coordinate.centred, dead, entries)
        own = jnp.where(coordinate.even, frozen, kept)
        response, exists = _response(coordinate, own, entries, before)
        return jnp.where(exists, response, jnp.nan)

    entries = jnp.asarray([jnp.ravel(jnp.asarray(value, coordinate.dtype)) for value in values], coordinate.dtype)
    entries = entries.reshape(len(values), -1) if values else jnp.zeros((0, 1), coordinate.dtype)
    response = jax.vmap(scale, in_axes=1)(entries)
    # A learning rate of 0 scales nothing.
    ratio = jnp.where(unit == 0, 1, response / jnp.where(unit == 0, 1, unit))
    return jnp.broadcast_to(ratio.reshape(shape if values else ()), leaf.shape).astype(jnp.result_type(leaf))


def _per_leaf(part: Any, leaves: list[Any], treedef: Any) -> list[Any]:
    """The values of one part of the state for each leaf of the parameters: arrays of its shape, or numbers."""
    if is_number(part):
        return [part] * len(leaves)
    values, structure = jax.tree_util.tree_flatten(part)
    same = structure == treedef and all(
        jnp.shape(value) in ((), jnp.shape(leaf)) for value, leaf in zip(values, leaves, strict=False)
    )
    check_that(
        same,
        "opt_state",
        "hold one number per parameter, in parts like `params`",
        f"a part has shapes {[jnp.shape(v) for v in values]} for parameters of shapes {[jnp.shape(p) for p in leaves]}",
    )
    return values


def work_dtype(template: PyTree, opt_state: Any) -> Any:
    """The widest floating-point dtype of the parameters, single precision at least."""
    tree = split_inexact(opt_state if template is None else template)[0]
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree_util.tree_leaves(tree)]
    return jnp.result_type(*dtypes, jnp.float32) if dtypes else jnp.result_type(float)
