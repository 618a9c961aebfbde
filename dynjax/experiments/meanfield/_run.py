"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Run Kuramoto oscillators on a graph over couplings and seeds, at several sizes, next to their limit.

    Args:
        config: graph, frequencies, noise, sizes and couplings.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with lanes (coupling, seed): `order`, `fluctuation` (N E|z|^2) and `projected` (lane, reading,
        size), averages between two readings; the `profile` (lane, label) of the largest size by label; and the limit: `limit`,
        `limit_profile`, `critical`, and r on a finer grid of couplings, `curve`.

    Raises:
        FileNotFoundError: if the graph is a file that is not there.
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import meanfield

        config = meanfield.Config(graph="ring", frequencies="gaussian", sizes=(500, 2000))
        runs = meanfield.run(config, "meanfield.zarr", workers=0)
        print(meanfield.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("meanfield", config, store, **options)
