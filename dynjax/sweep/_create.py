"""Making a store, or finding the one that is there and comparing configurations, before anything is computed."""

import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._core import Status, check_that
from ._config import array_digest, canonical, differences, digest, to_json
from ._errors import StorageFailed, StoreMismatch, storing
from ._lanes import Lanes
from ._layout import BLOCK, COUNTER, LANE, STATUS, Variable, layout_of
from ._metadata import SCHEMA, read_attributes
from ._program import AbstractProgram, Shapes
from ._provenance import provenance
from ._store import Store


def identity_of(
    program: AbstractProgram, shapes: Shapes, lanes: Lanes, config: Any, experiment: str, data_hash: str
) -> dict[str, Any]:
    """Everything that must agree for a run to continue a store, as JSON."""
    layout = layout_of(program, shapes, lanes)
    axes = {name: np.asarray(values) for name, values in program.coords().items()}
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "config": to_json(config),
        "data_hash": data_hash,
        "num_lanes": lanes.num_lanes,
        "block": lanes.block,
        "num_blocks": lanes.num_blocks,
        "num_segments": program.num_segments,
        "x64": int(jnp.result_type(float) == jnp.float64),
        "lanes": {name: _sketch(array) for name, array in {**lanes.numeric, **lanes.labels}.items()},
        "coords": {name: _sketch(array) for name, array in axes.items()},
        "layout": [_row(variable) for variable in layout],
    }


def create_or_open(
    path: pathlib.Path, identity: dict[str, Any], arrays: Mapping[str, np.ndarray], argv: Sequence[str] | None
) -> Store:
    """Open the store at `path` if it has this identity, or create it; the first creator wins.

    Raises:
        StoreMismatch: if another configuration is there, with the differences.
        StoreDamaged: if what is there cannot be read.
        StorageFailed: if it cannot be created.
    """
    if not path.exists():
        _create(path, identity, arrays, argv)
    stored = json.loads(read_attributes(path)["identity"])
    lines = differences(stored, identity)
    if lines:
        listed = "\n  ".join(lines[:20] + ([f"... and {len(lines) - 20} more"] if len(lines) > 20 else []))
        raise StoreMismatch(
            f"{path} holds another configuration; choose another path or the same settings:\n  {listed}"
        )
    store = Store(path, writable=True)
    with storing(store.state_directory):
        store.state_directory.mkdir(exist_ok=True)
    return store


def check_free_space(path: pathlib.Path, needed: int) -> None:
    """Raise before computing if the file system of `path` cannot hold `needed` bytes more.

    Raises:
        StorageFailed: naming the bytes needed and those free.
    """
    directory = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    with storing(path, needed):
        free = shutil.disk_usage(directory).free
    if needed > free:
        raise StorageFailed(f"{path} needs up to {needed} more bytes, but only {free} are free on its file system.")


def _create(
    path: pathlib.Path, identity: dict[str, Any], arrays: Mapping[str, np.ndarray], argv: Sequence[str] | None
) -> None:
    temporary = path.with_name(f"{path.name}.new{os.getpid()}")
    size = sum(np.asarray(array).nbytes for array in arrays.values())
    with storing(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            _write_group(temporary, identity, arrays, argv)
            os.rename(temporary, path)
        except OSError:
            if not (path / "zarr.json").is_file():  # otherwise another process was first, and its store is as good
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_group(
    path: pathlib.Path, identity: dict[str, Any], arrays: Mapping[str, np.ndarray], argv: Sequence[str] | None
) -> None:
    import zarr

    attributes = {
        "schema": SCHEMA,
        "experiment": identity["experiment"],
        "config": canonical(identity["config"]),
        "config_hash": digest(identity),
        "identity": canonical(identity),
        "data_hash": identity["data_hash"],
        "block": identity["block"],
        "num_segments": identity["num_segments"],
        "x64": identity["x64"],
        "store_id": uuid.uuid4().hex,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **{name: _flat(value) for name, value in provenance(argv).items()},
        "coordinates": " ".join(identity["lanes"]),
    }
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for row in identity["layout"]:
        attrs = _status_attributes() if row["name"] == STATUS else {}
        fill = Variable(**row).fill
        _create_array(group, row["name"], row["shape"], row["chunks"], row["dtype"], row["dims"], fill, attrs)
    about = {"long_name": "finished segments of the block"}
    _create_array(group, COUNTER, (identity["num_blocks"],), (1,), "int32", (BLOCK,), 0, about)
    for name, values in arrays.items():
        _write_coordinate(group, name, LANE if name in identity["lanes"] else name, np.asarray(values))


def _create_array(group: Any, name: str, shape: Any, chunks: Any, dtype: Any, dims: Any, fill: Any, attrs: Any) -> Any:
    """The default zstd codec has no checksum and lets almost every flipped bit through."""
    from zarr.codecs import ZstdCodec

    return group.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(chunks),
        dtype=dtype,
        dimension_names=tuple(dims),
        fill_value=fill,
        attributes=attrs,
        compressors=[ZstdCodec(level=3, checksum=True)],
        config={"write_empty_chunks": True},
    )


def _write_coordinate(group: Any, name: str, dim: str, values: np.ndarray) -> None:
    text = values.dtype.kind not in "biufc"
    fill = "" if text else np.zeros((), values.dtype).item()
    array = _create_array(group, name, values.shape, values.shape, "str" if text else values.dtype, (dim,), fill, {})
    array[:] = values.astype(object) if text else values


def _status_attributes() -> dict[str, Any]:
    return {"flag_values": [int(s) for s in Status], "flag_meanings": " ".join(s.name for s in Status)}


def _flat(value: Any) -> Any:
    """Attributes stay flat, so that every export format can hold them."""
    return canonical(value) if isinstance(value, dict | list) else value


def _row(variable: Variable) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(variable).items()}


def _sketch(values: np.ndarray) -> dict[str, Any]:
    """Enough of an array to tell two apart and to say how they differ."""
    check_that(values.ndim == 1, "coords", "be one-dimensional", f"found shape {values.shape}")
    head = [str(v) if values.dtype.kind not in "biuf" else v for v in values[:8].tolist()]
    return {"size": len(values), "first": to_json(head), "sha256": array_digest(values)}
