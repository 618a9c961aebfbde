"""Reading and checking what a store says about itself, before a single number is read."""

import json
import pathlib
from typing import Any

import numpy as np

from ._config import digest
from ._errors import StoreDamaged, StoreMismatch
from ._layout import BLOCK, COUNTER, LANE, Variable

SCHEMA = 1


def read_attributes(path: pathlib.Path) -> dict[str, Any]:
    """The attributes of the store at `path`.

    Raises:
        StoreMismatch: if there is no sweep store, or one of a newer schema.
        StoreDamaged: if its metadata cannot be read or does not fit its own hash.
    """
    file = path / "zarr.json"
    if not path.exists():
        raise StoreMismatch(f"There is no store at {path}.")
    if not file.is_file():
        raise StoreMismatch(f"{path} is not a sweep store: it has no zarr.json.")
    attributes = _read_json(file).get("attributes")
    if not isinstance(attributes, dict) or "schema" not in attributes or "config_hash" not in attributes:
        raise StoreMismatch(f"{path} is not a sweep store: its zarr.json has no schema.")
    schema = attributes["schema"]
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreMismatch(f"{path} has schema {schema}, but this version reads up to {SCHEMA}: use a newer dynjax.")
    try:
        intact = digest(json.loads(attributes["identity"])) == attributes["config_hash"]
    except (KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        raise StoreDamaged(f"{file} was changed: its configuration does not fit its hash.")
    return attributes


def layout_from(attributes: dict[str, Any]) -> tuple[Variable, ...]:
    """The variables that the attributes describe."""
    rows: list[dict[str, Any]] = json.loads(attributes["identity"])["layout"]
    tuples = ("dims", "shape", "chunks")
    return tuple(Variable(**{**row, **{name: tuple(row[name]) for name in tuples}}) for row in rows)


def check_arrays(path: pathlib.Path, identity: dict[str, Any], layout: tuple[Variable, ...]) -> None:
    """Compare the metadata of every array with the layout; in particular a chunk is a block.

    Raises:
        StoreDamaged: naming the first file that does not fit.
    """
    num_blocks = identity["num_blocks"]
    counter = Variable(COUNTER, (BLOCK,), (num_blocks,), (1,), "int32", COUNTER)
    for variable in (*layout, counter):
        file = path / variable.name / "zarr.json"
        if not file.is_file():
            raise StoreDamaged(f"{file} is missing.")
        found = _read_json(file)
        try:
            grid = found["chunk_grid"]["configuration"]["chunk_shape"]
            described = (found["shape"], grid, found["dimension_names"], np.dtype(found["data_type"]).name)
        except (KeyError, TypeError) as error:
            raise StoreDamaged(f"{file} does not describe an array: {error!r}.") from error
        wanted = (list(variable.shape), list(variable.chunks), list(variable.dims), variable.dtype)
        if described != wanted:
            raise StoreDamaged(f"{file} does not fit the layout of the store: {described} instead of {wanted}.")
    for name in (*identity["lanes"], *identity["coords"]):
        if not (path / name / "zarr.json").is_file():
            raise StoreDamaged(f"{path / name / 'zarr.json'} is missing.")
        _read_json(path / name / "zarr.json")


def coordinate_dims(identity: dict[str, Any]) -> dict[str, str]:
    """The dimension of every coordinate: "lane" for the lanes, its own name for the others."""
    return {**dict.fromkeys(identity["lanes"], LANE), **{name: name for name in identity["coords"]}}


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{file} is not readable JSON: {error}.") from error
    if not isinstance(content, dict):
        raise StoreDamaged(f"{file} is not a JSON object.")
    return content
