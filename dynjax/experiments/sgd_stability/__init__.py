"""SGD stability: the Lyapunov exponent at an interpolation solution, its thresholds, and real runs of SGD as a check."""

from ._config import Config as Config
from ._predictions import Predictions as Predictions, predictions as predictions
from ._program import (
    SGDProgram as SGDProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import exponent_figure as exponent_figure, write_report as write_report
from ._run import run as run
from ._summary import LaneSummary as LaneSummary, summarise as summarise, table as table
from ._threshold_comparison import (
    SideOfThreshold as SideOfThreshold,
    compare_across_threshold as compare_across_threshold,
)
from ._walk import Walk as Walk, walk_to_boundary as walk_to_boundary
