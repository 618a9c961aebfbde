"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Run gradient descent and SGD on f(x) = a b x from many starts, and see which minima they find.

    Args:
        config: learning rates, samples and runs.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`; one
            process by default.

    Returns:
        An `xarray.Dataset` with the end points `a` and `b` (lane, run), NaN where a run has diverged, and the fractions
        `converged` and `diverged` (lane, reading).

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import implicit_bias

        runs = implicit_bias.run(implicit_bias.Config(learning_rates=(0.55,)), "bias.zarr")
        print(implicit_bias.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("implicit-bias", config, store, **options)
