"""A mesh of all devices, and arrays spread over it or copied to every device of it."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree

from .._core import check_that, found, is_concrete

_AXIS = "samples"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with one axis, "samples", over all devices of all processes.

    Args:
        devices: the devices; `jax.devices()` by default.

    Example:
        ```python
        mesh = dj.distributed.data_mesh()
        x, y = dj.distributed.shard_samples((x, y), mesh)
        dj.eigsh(dj.hessian(loss, params, x, y), k=5)      # every device holds its part of the data
        ```
    """
    devices = list(jax.devices() if devices is None else devices)
    check_that(bool(devices), "devices", "name at least one device", "it is empty")
    # With explicit axes a vmapped scan fails; the compiler is to choose.
    return jax.make_mesh((len(devices),), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def shard_samples(data: PyTree, mesh: Mesh) -> PyTree:
    """Spread arrays over a mesh along their first axis.

    Everything that dynjax computes of them is then computed where they are: a Hessian product of a mean over samples is one
    sum over the devices of as many numbers as there are parameters, whatever the number of samples; with `chunk_size`, one such
    sum for every chunk. A chunk size that the number of devices divides, and that divides the number of samples, leaves every
    sample where it is; with any other one the chunks have to be put together from all devices.

    Args:
        data: pytree of arrays with samples along the first axis. In several processes each one passes all of it, or arrays
            that are spread already; only the part of its own devices is copied to them.
        mesh: of `data_mesh`.

    Raises:
        ValueError: if the devices do not divide the number of samples, or an array has no axes.
    """
    sharding, count = NamedSharding(mesh, PartitionSpec(_AXIS)), mesh.devices.size

    def spread(leaf: Any) -> Any:
        if not _is_array(leaf):
            return leaf
        check_that(leaf.ndim > 0, "data", "hold arrays with samples along the first axis", found(leaf))
        rest = leaf.shape[0] % count
        but = f"found {leaf.shape[0]}: leave {rest} out, or repeat some"
        check_that(rest == 0, "data", f"have a number of samples that the {count} devices divide", but)
        return _put(leaf, sharding)

    return jax.tree_util.tree_map(spread, data)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy arrays, such as parameters, to every device of a mesh; what is no array stays as it is.

    Args:
        tree: any pytree. In several processes all of them must pass the same values.
        mesh: of `data_mesh`.
    """
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree_util.tree_map(lambda leaf: _put(leaf, sharding) if _is_array(leaf) else leaf, tree)


def on_host(leaf: Any) -> Any:
    """The values of an array on this host, collected from all processes where they are spread; other leaves as they are."""
    if not isinstance(leaf, jax.Array):
        return leaf
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(on_host(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf))
    if is_concrete(leaf):
        return np.asarray(leaf)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def placed_like(values: Any, like: Any) -> Any:
    """An array with these values, on the devices of another."""
    return _put(values, like.sharding) if isinstance(like, jax.Array) else values


def _put(leaf: Any, sharding: Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if _is_key(leaf):
        impl = jax.random.key_impl(leaf)
        # The words of a key are one more axis at the end, which no sharding here names.
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=impl)
    values = np.asarray(leaf)
    part: Callable[[Any], np.ndarray] = lambda index: values[index]
    return jax.make_array_from_callback(values.shape, sharding, part)


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
