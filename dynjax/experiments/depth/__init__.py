"""Depth as time: exponents of deep networks, what they mean for gradients, and which depths can be trained."""

from ._config import Config as Config
from ._figures import (
    exponent_figure as exponent_figure,
    gradient_figure as gradient_figure,
    trainability_figure as trainability_figure,
    training_figure as training_figure,
)
from ._flossing import Arm as Arm, Flossing as Flossing, flossing_experiment as flossing_experiment
from ._prediction import Prediction as Prediction, critical_variance as critical_variance, predict as predict
from ._program import (
    DepthProgram as DepthProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import write_report as write_report
from ._run import run as run
from ._summary import Cell as Cell, summarise as summarise, table as table
