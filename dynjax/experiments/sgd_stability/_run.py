"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Predict at which learning rates SGD stays near an interpolation solution, and let real runs of SGD check it.

    Args:
        config: the network and its data, and what to run.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`. By
            default everything runs in this process, since each worker would have to find the solution again.

    Returns:
        An `xarray.Dataset` with `residual` (lane, reading, seed), the residual norms of the real runs, NaN once a run has
        escaped; `start`, `peak` and `stop_step` (lane, seed); `learning_rate`, `exponent`, `standard_error`, ... (lane);
        `grid_rate`, `grid_exponent`, ... (lane, grid), `threshold` (lane, criterion) and `eigenvalue` (lane, mode), the
        same for every lane.

    Raises:
        ValueError: if the configuration cannot be run, or the network cannot fit its data.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import sgd_stability

        runs = sgd_stability.run(sgd_stability.Config(num_seeds=64, num_steps=20_000), "sgd.zarr")
        print(sgd_stability.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("sgd-stability", config, store, **options)
