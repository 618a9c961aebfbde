"""Things that step: the abstraction, maps, noise paths and trajectories."""

from ._paths import (
    FullBatch as FullBatch,
    MiniBatches as MiniBatches,
    ReshuffledBatches as ReshuffledBatches,
    WhiteNoise as WhiteNoise,
)
from ._system import (
    AbstractMap as AbstractMap,
    AbstractSystem as AbstractSystem,
    Map as Map,
    RandomMap as RandomMap,
    tangent_space as tangent_space,
)
from ._trajectory import Trajectory as Trajectory, evolve as evolve, trajectory as trajectory
