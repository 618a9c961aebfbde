"""Oscillators on graphs: order parameter against coupling at several sizes, its limit, and the critical coupling."""

from ._config import FILES as FILES, GRAPHS as GRAPHS, Config as Config
from ._figures import (
    approach_figure as approach_figure,
    fluctuation_figure as fluctuation_figure,
    order_figure as order_figure,
    profile_figure as profile_figure,
    relaxation_figure as relaxation_figure,
)
from ._graphs import measure as measure, population as population, read_graph as read_graph
from ._prediction import Prediction as Prediction, predict as predict
from ._program import (
    MeanFieldProgram as MeanFieldProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import write_report as write_report
from ._run import run as run
from ._summary import Summary as Summary, summarise as summarise, table as table
