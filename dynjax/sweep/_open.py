"""Reading a store as an `xarray.Dataset`, checked."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layout import BLOCK, COUNTER, SEGMENT, STATUS, Variable
from ._metadata import coordinate_dims
from ._store import Store

if TYPE_CHECKING:
    import xarray


def open(path: "str | os.PathLike[str]") -> "xarray.Dataset":
    """Load a sweep into memory.

    Cells that are not finished hold the fill value (NaN for floats, -1 for integers), also where a killed process had
    already written; a chunk that should be there and is missing or damaged is an error, never data. A plain
    `xarray.open_zarr(path, consolidated=False)` reads the same arrays without these checks.

    Args:
        path: the store.

    Returns:
        The data set: every record over `lane` and its own dimensions, `status` and the coordinates of the lanes,
        `steps_done` over `block` (finished segments), and the attributes of the store (configuration as JSON text).

    Raises:
        StoreMismatch: if there is no sweep store at `path`, or one of a newer schema.
        StoreDamaged: naming variable, lanes and file of the first chunk that is missing or damaged.

    Example:
        ```python
        data = dynjax.sweep.open("run.zarr")
        data.sharpness.sel(lane=3)
        ```
    """
    import xarray

    store = Store(path)
    steps = store.all_steps_done()
    variables: dict[str, Any] = {
        variable.name: (variable.dims, _load(store, variable, steps), dict(store.arrays[variable.name].attrs))
        for variable in store.layout
    }
    variables[COUNTER] = ((BLOCK,), steps, dict(store.arrays[COUNTER].attrs))
    coords = {name: ((dim,), store.read_coordinate(name)) for name, dim in coordinate_dims(store.identity).items()}
    attributes = {name: value for name, value in store.attributes.items() if name != "coordinates"}
    return xarray.Dataset(variables, coords, attributes)


def _load(store: Store, variable: Variable, steps: np.ndarray) -> np.ndarray:
    """All cells of a variable: in one read if possible, chunk by chunk if something is amiss."""
    promised = [
        chunk for block, done in enumerate(steps) for chunk in variable.promised(block, int(done), store.num_segments)
    ]
    if all(store.chunk_file(variable.name, chunk).is_file() for chunk in promised):
        try:
            values = np.array(store.arrays[variable.name][...])
        except Exception:  # a chunk is damaged: the loop below says which, unless nobody promised it
            pass
        else:
            return _masked(store, variable, values, steps)
    values = np.full(variable.shape, variable.fill, variable.dtype)
    for chunk in promised:
        values[variable.cells(chunk)] = store.read_chunk(variable, chunk)
    return values


def _masked(store: Store, variable: Variable, values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Take back what was written of a segment whose counter was not."""
    if variable.name == STATUS:  # a block that failed before its first segment has a status and nothing else
        return values
    for block in np.flatnonzero(steps < store.num_segments):
        members = store.members(int(block))
        if variable.kind == SEGMENT:
            values[members, int(steps[block]) * variable.chunks[1] :] = variable.fill
        elif not variable.promised(int(block), int(steps[block]), store.num_segments):
            values[members] = variable.fill
    return values
