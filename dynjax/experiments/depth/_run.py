"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Look at plain deep networks before and after training, over weight variances, depths and seeds.

    Args:
        config: weight variances, depths, the law of the weights, and training.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with lanes (weight_variance, depth, seed): `loss` and `accuracy` (lane, reading), `exponents` per
        layer (lane, stage, exponent) and `gradients`, log |dL/dh_l| over that at the top (lane, stage, layer); stage 0 is before
        training, 1 after it. Layers above the depth of a lane hand their input on.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import depth

        config = depth.Config(weight_variances=(0.9, 1.76, 2.6), depths=(8, 32), num_seeds=1)
        runs = depth.run(config, "depth.zarr", workers=0)
        print(depth.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("depth", config, store, **options)
