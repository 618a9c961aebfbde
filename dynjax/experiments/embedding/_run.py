"""The experiment from Python."""

import os
from typing import Any

from ... import sweep
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
    from .._runner import find_experiment, run_experiment

    code = run_experiment(find_experiment("embedding"), config, store, **({"workers": 0, "block": 32} | options))
    if code == sweep.Stopped.exit_code:
        raise sweep.Stopped(f"The sweep in {store} was stopped; run it again to resume.")
    if code:
        raise sweep.LaneError(f"At least one lane of {store} could not be computed (exit code {code}).")
    return sweep.open(store)
