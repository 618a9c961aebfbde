"""Things that step: the abstraction, maps, flows, delay equations, noise paths, trajectories and standard systems."""

from ._catalogue import initial_state as initial_state
from ._ddesolve import DelaySolution as DelaySolution, ddesolve as ddesolve
from ._delay import DelayFlow as DelayFlow, History as History
from ._distributed_delay import DistributedDelay as DistributedDelay, distributed_delay as distributed_delay
from ._flow import Flow as Flow, FlowSolution as FlowSolution
from ._layers import LayerMap as LayerMap
from ._paths import (
    FullBatch as FullBatch,
    MiniBatches as MiniBatches,
    ReshuffledBatches as ReshuffledBatches,
    WhiteNoise as WhiteNoise,
)
from ._standard_flows import (
    linear_delay as linear_delay,
    linear_flow as linear_flow,
    lorenz63 as lorenz63,
    lorenz96 as lorenz96,
    mackey_glass as mackey_glass,
    rossler as rossler,
    stuart_landau as stuart_landau,
)
from ._standard_maps import (
    arnold_cat as arnold_cat,
    baker as baker,
    chebyshev as chebyshev,
    coupled_lattice as coupled_lattice,
    folded_towel as folded_towel,
    geometric_brownian_motion as geometric_brownian_motion,
    henon as henon,
    linear_map as linear_map,
    logistic as logistic,
    standard_map as standard_map,
    tent as tent,
)
from ._system import (
    AbstractMap as AbstractMap,
    AbstractSystem as AbstractSystem,
    Map as Map,
    RandomMap as RandomMap,
    tangent_space as tangent_space,
)
from ._trajectory import (
    Trajectory as Trajectory,
    check_system as check_system,
    evolve as evolve,
    trajectory as trajectory,
)
