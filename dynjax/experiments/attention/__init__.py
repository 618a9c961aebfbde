"""Self-attention as particles on a sphere: how many clusters of tokens form, how fast, and how long they live."""

from ._config import Config as Config
from ._figures import (
    energy_figure as energy_figure,
    growth_figure as growth_figure,
    space_time_figure as space_time_figure,
    staircase_figure as staircase_figure,
)
from ._lane import Lane as Lane, read_lane as read_lane
from ._program import (
    AttentionProgram as AttentionProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import write_report as write_report
from ._run import run as run
from ._scales import Scales as Scales, scales as scales
from ._summary import Cell as Cell, summarise as summarise, table as table
