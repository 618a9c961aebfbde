"""Delay equations learnt from a series with an unknown delay: their exponents against those of the truth."""

from ._config import Config as Config
from ._model import DelayModel as DelayModel
from ._program import (
    FitProgram as FitProgram,
    fingerprint as fingerprint,
    labels as labels,
    lanes as lanes,
    program as program,
)
from ._report import (
    delay_figure as delay_figure,
    error_figure as error_figure,
    exponent_figure as exponent_figure,
    forecast_figure as forecast_figure,
    portrait_figure as portrait_figure,
    write_report as write_report,
)
from ._run import run as run
from ._series import Series as Series, make_series as make_series
from ._summary import LaneSummary as LaneSummary, summarise as summarise, table as table
