"""Generative flows against the exact ones: losses and their floor, distances, likelihoods, and the dynamics of sampling."""

from ._config import KINDS as KINDS, Config as Config
from ._figures import (
    decision_figure as decision_figure,
    distance_figure as distance_figure,
    loss_figure as loss_figure,
    sample_figure as sample_figure,
    stiffness_figure as stiffness_figure,
)
from ._program import (
    FlowProgram as FlowProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import write_report as write_report
from ._run import run as run
from ._summary import Cell as Cell, summarise as summarise, table as table
