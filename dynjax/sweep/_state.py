"""The state of a block on disc: an atomic npz without pickle, the last two kept."""

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._errors import StoreDamaged, storing

META = "meta"


def save_state(path: pathlib.Path, state: PyTree, meta: dict[str, Any]) -> None:
    """Write the arrays of `state` to `path`, keeping the file that was there as `.prev.npz`.

    A temporary file is written, flushed to the disc and renamed, so that a kill or a power loss at any moment leaves a
    whole file. Random keys are stored as their data and the name of their implementation, dtypes that NumPy lacks as
    bytes.

    Args:
        path: ends in `.npz`; its directory exists.
        state: any pytree; what is not an array is not stored.
        meta: JSON, returned and checked by `load_state`.

    Raises:
        StorageFailed: if the file system refuses.
    """
    arrays, leaves = {}, {}
    for name, leaf in _named_arrays(state):
        arrays[name], leaves[name] = _encode(leaf)
    text = json.dumps({**meta, "leaves": leaves}, sort_keys=True).encode()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with storing(path, len(text) + sum(array.nbytes for array in arrays.values())):
        try:
            _write(temporary, {META: np.frombuffer(text, np.uint8), **arrays})
            if path.exists():
                os.replace(path, previous(path))
            os.replace(temporary, path)
            _sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def load_state(path: pathlib.Path, template: PyTree, expected: dict[str, Any]) -> tuple[PyTree, dict[str, Any]]:
    """Read what `save_state` wrote.

    Args:
        path: the file.
        template: a pytree of the same structure, with shapes and dtypes in place of arrays (or arrays).
        expected: entries that the stored metadata must hold, such as the hash of the configuration.

    Returns:
        (state, metadata).

    Raises:
        StoreDamaged: if the file is missing, fails a checksum, or holds other names, shapes, dtypes or metadata.
    """
    try:
        arrays = _read(path)
        meta = json.loads(bytes(arrays.pop(META)))
        leaves = meta.pop("leaves")
        for name, value in expected.items():
            if meta.get(name) != value:
                raise ValueError(f"its {name} is {meta.get(name)!r}, not {value!r}")
        names = [name for name, _ in _named_arrays(template)]
        if set(names) != set(arrays) or set(names) != set(leaves):
            raise ValueError("it holds other arrays than this program's state")
        decoded = {name: _decode(name, arrays[name], leaves[name], leaf) for name, leaf in _named_arrays(template)}
    except FileNotFoundError as error:
        raise StoreDamaged(f"State {path} does not exist.") from error
    except Exception as error:  # a damaged archive raises almost anything, and all of it means the same
        raise StoreDamaged(f"State {path} cannot be used: {error}.") from error
    return _fill(template, decoded), meta


def load_newest(
    path: pathlib.Path,
    template: PyTree,
    expected: dict[str, Any],
    *,
    required: bool = False,
    check: Callable[[pathlib.Path, dict[str, Any]], None] | None = None,
) -> tuple[PyTree, dict[str, Any] | None, list[str]]:
    """The newest of the two kept states that can be trusted.

    Args:
        path: as for `save_state`.
        template: as for `load_state`.
        expected: likewise.
        required: whether a file that is missing is a complaint, too.
        check: `check(file, metadata)`, raises `StoreDamaged` for a state that is not to be used.

    Returns:
        (state, metadata, complaints): None for the first two if there is none, and a sentence for each file passed over.
    """
    complaints = []
    for file in (path, previous(path)):
        if not file.exists() and not required:
            continue
        try:
            state, meta = load_state(file, template, expected)
            if check is not None:
                check(file, meta)
        except StoreDamaged as error:
            complaints.append(str(error))
            continue
        return state, meta, complaints
    return None, None, complaints


def previous(path: pathlib.Path) -> pathlib.Path:
    """Where the state before the newest one is kept."""
    return path.with_name(f"{path.stem}.prev.npz")


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _named_arrays(tree: PyTree) -> list[tuple[str, Any]]:
    """(name, leaf) of every array; the number keeps names apart when paths print alike."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(f"{i}{jax.tree_util.keystr(path)}", leaf) for i, (path, leaf) in enumerate(leaves) if _is_array(leaf)]


def _fill(template: PyTree, arrays: dict[str, Any]) -> PyTree:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    named = [arrays.get(f"{i}{jax.tree_util.keystr(path)}", leaf) for i, (path, leaf) in enumerate(leaves)]
    return jax.tree_util.tree_unflatten(treedef, named)


def _is_key(dtype: Any) -> bool:
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _encode(leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    if _is_key(leaf.dtype):
        data = np.asarray(jax.random.key_data(leaf))
        return data, {"dtype": str(leaf.dtype), "shape": list(leaf.shape), "key": str(jax.random.key_impl(leaf))}
    array = np.asarray(leaf)
    stored = np.frombuffer(array.tobytes(), np.uint8) if array.dtype.kind == "V" else array
    return stored, {"dtype": array.dtype.name, "shape": list(array.shape), "key": None}


def _decode(name: str, array: np.ndarray, leaf: dict[str, Any], like: Any) -> Any:
    dtype = str(like.dtype) if _is_key(like.dtype) else np.dtype(like.dtype).name
    if leaf["dtype"] != dtype or tuple(leaf["shape"]) != tuple(like.shape):
        raise ValueError(f"{name} is {leaf['dtype']}{leaf['shape']}, not {dtype}{list(like.shape)}")
    if _is_key(like.dtype):
        decoded = jax.random.wrap_key_data(jnp.asarray(array), impl=leaf["key"])
        if decoded.dtype != like.dtype or decoded.shape != tuple(like.shape):
            raise ValueError(f"{name} is a key {decoded.dtype}{decoded.shape}")
        return decoded
    if np.dtype(like.dtype).kind == "V":
        array = np.frombuffer(array.tobytes(), np.dtype(like.dtype)).reshape(like.shape)
    if array.dtype != like.dtype or array.shape != tuple(like.shape):
        raise ValueError(f"{name} holds {array.dtype}{array.shape}")
    return jnp.asarray(array)


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every member, read to its end so that its checksum is compared."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ValueError("it names an array twice")
        return {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in names
        }


def _sync_directory(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
