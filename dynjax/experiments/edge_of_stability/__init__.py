"""Edge of stability: train one network at many learning rates, follow the sharpness of every lane, report."""

from ._config import Config as Config
from ._program import (
    EdgeProgram as EdgeProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import training_figure as training_figure, write_report as write_report
from ._run import run as run
from ._summary import (
    LaneSummary as LaneSummary,
    local_exponents as local_exponents,
    summarise as summarise,
    table as table,
)
