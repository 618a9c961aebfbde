"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Embed six maps exactly, train networks of the same widths, and compare errors with lower bounds.

    Args:
        config: the delay equations and the training.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`; one
            process by default.

    Returns:
        An `xarray.Dataset` with, for each lane, `sup_error`, `mean_square`, `lipschitz` of the field, `gain`, the bounds, the
        `output` on a grid and paths of the state.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import embedding

        made = embedding.run(embedding.Config(), "embed.zarr")
        print(embedding.table(made))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("embedding", config, store, **options)
