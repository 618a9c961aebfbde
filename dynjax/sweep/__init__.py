"""Sweeps over lanes: equal blocks, a checked Zarr store, resume after any kill, shards and worker processes."""

from ._errors import (
    BlockTooLarge as BlockTooLarge,
    LaneError as LaneError,
    Stopped as Stopped,
    StorageFailed as StorageFailed,
    StoreDamaged as StoreDamaged,
    StoreError as StoreError,
    StoreMismatch as StoreMismatch,
    SweepError as SweepError,
)
from ._memory import memory_limit as memory_limit
from ._open import open as open
from ._program import AbstractProgram as AbstractProgram
from ._run import RunResult as RunResult, Sweep as Sweep, prepare as prepare, run as run
from ._signals import (
    StopRequest as StopRequest,
    stop_on_signals as stop_on_signals,
    worker_identity as worker_identity,
)
from ._state import load_newest as load_newest, load_state as load_state, save_state as save_state
from ._store import Store as Store
from ._verify import VerifyReport as VerifyReport, reset_blocks as reset_blocks, verify as verify
from ._workers import run_workers as run_workers, usable_cores as usable_cores
