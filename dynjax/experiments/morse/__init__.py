"""Morse: which architectures can have critical points, of which kind, and what is found in random and trained networks."""

from ._architectures import ARCHITECTURES as ARCHITECTURES, Architecture as Architecture, networks as networks
from ._classification import classifications as classifications
from ._config import Config as Config
from ._figures import (
    error_figure as error_figure,
    gallery_figure as gallery_figure,
    gradient_figure as gradient_figure,
    level_sets as level_sets,
    levels_figure as levels_figure,
)
from ._program import fingerprint as fingerprint, labels as labels, lanes as lanes, program as program
from ._report import write_report as write_report
from ._run import run as run
from ._summary import (
    KindSummary as KindSummary,
    LaneSummary as LaneSummary,
    by_architecture as by_architecture,
    summarise as summarise,
    table as table,
)
from ._training import bowl as bowl, bowl_bound as bowl_bound, train as train
