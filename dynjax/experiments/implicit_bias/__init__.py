"""Implicit bias: which minima of f(x) = a b x gradient descent and SGD find, against the predicted edges."""

from ._config import Config as Config
from ._program import (
    BiasProgram as BiasProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import limits_figure as limits_figure, write_report as write_report
from ._run import run as run
from ._summary import Edges as Edges, LaneSummary as LaneSummary, edges as edges, summarise as summarise, table as table
