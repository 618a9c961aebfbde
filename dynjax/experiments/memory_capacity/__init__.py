"""Memory capacity: which (K tau, T / tau) let trained neural delay equations merge inputs, against the sharp curve."""

from ._config import Config as Config
from ._figures import error_figure as error_figure, maps_figure as maps_figure, phase_figure as phase_figure
from ._network import network as network
from ._program import (
    MemoryProgram as MemoryProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import write_report as write_report
from ._run import run as run
from ._summary import Cell as Cell, summarise as summarise, table as table
from ._targets import TARGETS as TARGETS, Target as Target
