"""The experiment from Python."""

import os
from typing import Any

from ._config import Config


def run(config: Config, store: str | os.PathLike[str], **options: Any) -> Any:
    """Run self-attention on a sphere over inverse temperatures and seeds, and record how tokens cluster.

    Args:
        config: inverse temperatures, start, noise and times.
        store: path of the Zarr store. The same call resumes it; a store of another configuration is refused.
        **options: `shard`, `workers`, `block`, `time_budget`, `progress` as in `dynjax.experiments.run_experiment`.

    Returns:
        An `xarray.Dataset` with lanes (beta, seed): `energy`, `clusters` and `spread`, the root mean square angle of a token
        to the centre of its cluster (lane, reading); on the circle the moduli `modes` of the Fourier modes (lane, reading,
        mode) and `angles` in radians (lane, reading, kept_token); the final `tokens` (lane, token, component). Readings are
        in units of 1 / `rate` of the lane; `diffusion` is its noise D.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.

    Example:
        ```python
        from dynjax.experiments import attention

        config = attention.Config(betas=(2.0, 5.0, 9.0), num_seeds=2, time=300.0)
        runs = attention.run(config, "attention.zarr", workers=0)
        print(attention.table(runs))
        ```
    """
    from .._runner import run_and_open

    return run_and_open("attention", config, store, **options)
