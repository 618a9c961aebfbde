"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Learn a delay equation from a series, and compare its exponents with those of the truth.

    Args:
        config: the series, the lanes and the training.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with `loss`, `delay`, `one_step_error` and `horizon_error` (lane, reading); `error` (lane, lead) of
        forecasts after training; `orbit`, a free run of the learnt equation, beside `observed` (lane, sample); `exponents`,
        `exponent_errors`, `true_exponents` and `true_exponent_errors` (lane, mode), per unit of time.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import delay_fit

        runs = delay_fit.run(delay_fit.Config(initial_delays=(14.0,)), "delay.zarr")
        print(delay_fit.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("delay-fit", config, store, **options)
