"""Training as a dynamical system: optimiser steps, stability of minima under them, and the edge of stability."""

from ._critical_learning_rate import (
    CriticalLearningRate as CriticalLearningRate,
    critical_learning_rate as critical_learning_rate,
)
from ._edge import EdgeResult as EdgeResult, edge_ratio as edge_ratio
from ._interpolation import Interpolation as Interpolation, find_interpolation as find_interpolation
from ._map import TrainingMap as TrainingMap, TrainState as TrainState
from ._mean_square import (
    MeanSquareRate as MeanSquareRate,
    MeanSquareThreshold as MeanSquareThreshold,
    mean_square_rate as mean_square_rate,
    mean_square_threshold as mean_square_threshold,
    second_moment_operator as second_moment_operator,
)
from ._minimum_stability import MinimumStability as MinimumStability, minimum_stability as minimum_stability
from ._normal_space import NormalSpace as NormalSpace, normal_space as normal_space
from ._preconditioner import preconditioner as preconditioner
from ._sgd_exponent import sgd_exponent as sgd_exponent
from ._sgd_stability import SGDStability as SGDStability, sgd_stability as sgd_stability
from ._stability_diagram import StabilityDiagram as StabilityDiagram, stability_diagram as stability_diagram
from ._threshold import stability_threshold as stability_threshold
from ._tracker import SharpnessTracker as SharpnessTracker, Track as Track
