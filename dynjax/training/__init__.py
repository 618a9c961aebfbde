"""Training as a dynamical system: optimiser steps, stability thresholds, preconditioners and the edge of stability."""

from ._edge import EdgeResult as EdgeResult, edge_ratio as edge_ratio
from ._interpolation import Interpolation as Interpolation, find_interpolation as find_interpolation
from ._map import TrainingMap as TrainingMap, TrainState as TrainState
from ._minimum_stability import MinimumStability as MinimumStability, minimum_stability as minimum_stability
from ._preconditioner import preconditioner as preconditioner
from ._threshold import stability_threshold as stability_threshold
from ._tracker import SharpnessTracker as SharpnessTracker, Track as Track
