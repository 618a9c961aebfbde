"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Train generative flows to a Gaussian mixture, over kinds, learning rates and seeds, and compare them with the exact flow.

    Args:
        config: target, kinds, learning rates, and training.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with lanes (diffusion, learning_rate, seed). At each reading `loss` (mean over the batches since the
        last one), `floor`, `excess` with `excess_error`, and `field_error`; at the end `samples` (lane, sample, axis),
        `log_likelihood` and `log_density` (lane, sample) at fresh points of the target, and, with source 0 for the trained field
        and 1 for the exact one, `path` (lane, source, trajectory, time, axis), `exponents`, `commitment` and `stiffness`.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import flow

        config = flow.Config(target="pair", learning_rates=(2e-3,), num_seeds=1, num_steps=1000)
        runs = flow.run(config, "flow.zarr", workers=0)
        print(flow.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("flow", config, store, **options)
