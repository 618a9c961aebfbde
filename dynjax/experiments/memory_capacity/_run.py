"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Train scalar neural delay equations over a grid of memory capacities K tau and horizons T / tau.

    Args:
        config: horizons, memory capacities, target and training.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with lanes (horizon, memory, seed): for the best network of each the error `mse`, measured on a finer
        mesh, the map `learnt` (lane, x), `smallest_slope` of y(T), the readout and the `weights`; and during training `loss`,
        `gain` and `slope` (lane, reading).

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import memory_capacity

        config = memory_capacity.Config(horizons=(3.0,), memories=(0.47, 0.7))
        runs = memory_capacity.run(config, "memory.zarr", workers=0)
        print(memory_capacity.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("memory-capacity", config, store, **options)
