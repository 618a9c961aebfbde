"""Embedding: maps as neural ODEs and delay equations, exactly, and what narrower networks cannot do."""

from ._config import Config as Config
from ._constructions import (
    EXACT as EXACT,
    Lane as Lane,
    embedding as embedding,
    measurements as measurements,
    plan as plan,
)
from ._figures import (
    bowl_figure as bowl_figure,
    fits_figure as fits_figure,
    paths_figure as paths_figure,
    plane_figure as plane_figure,
)
from ._measures import measure as measure
from ._program import fingerprint as fingerprint, labels as labels, lanes as lanes, program as program
from ._report import write_report as write_report
from ._run import run as run
from ._summary import LaneSummary as LaneSummary, summarise as summarise, table as table
from ._targets import (
    TARGETS as TARGETS,
    Target as Target,
    find_target as find_target,
    mean_square_bound as mean_square_bound,
    representable as representable,
    sup_bound as sup_bound,
)
from ._training import trained as trained
