"""Figure pieces that take arrays and return Axes, and the assembler of self-contained HTML pages."""

from ._band import band as band
from ._curves import curves as curves
from ._densities import densities as densities
from ._heat_map import heat_map as heat_map
from ._page import Page as Page
from ._phase_diagram import phase_diagram as phase_diagram
from ._ratio import ratio_against as ratio_against
from ._status_map import status_map as status_map
from ._style import TONES as TONES, panels as panels
from ._table import Chip as Chip
