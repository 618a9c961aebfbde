"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Run an edge-of-stability sweep into a store, or finish one that is there, and open it.

    Args:
        config: what to train and measure.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with `loss` (lane, step), `sharpness`, `edge_ratio`, `sharpness_residual` (lane, reading),
        `threshold`, `status`, `stop_step` (lane), `density_nodes` and `density_weights` (lane, probe, node), and for
        batches `batch_sharpness`, `batch_sharpness_error`, `full_loss` (lane, reading); NaN once a lane has diverged.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import edge_of_stability as edge

        runs = edge.run(edge.Config(learning_rates=(0.2, 0.3, 0.4)), "edge.zarr")
        print(edge.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("edge-of-stability", config, store, **options)
