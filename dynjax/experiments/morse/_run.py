"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Classify networks of six architectures by their critical points, and compare with the theorems.

    Args:
        config: how many networks, their weights, and the square.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`; one
            process by default.

    Returns:
        An `xarray.Dataset` with, for each lane, the critical points `point` and their `kind`, the map on a grid (`value`), its
        `least_gradient`, the degrees, and how completeness was proved.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import morse

        found = morse.run(morse.Config(num_seeds=2), "morse.zarr")
        print(morse.table(found))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("morse", config, store, **options)
