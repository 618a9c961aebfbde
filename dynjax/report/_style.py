"""The look of all figures: sizes, palettes, number labels. Nothing global is changed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinct for every common colour deficiency, in grey, and on white (contrast at least 4.5).
TONES = {"good": "#1f6fb4", "neutral": "#6b6b6b", "warning": "#8a6100", "bad": "#b8442a", "special": "#8b3a8f"}
INK, FAINT, RULE = "#22262b", "#5c636b", "#c9ced4"
WIDTH = 7.4
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def panels(
    rows: int = 1, columns: int = 1, *, height: float = 3.1, width: float = WIDTH, share_x: bool = False
) -> "tuple[Figure, Any]":
    """A new figure in the house style, outside of pyplot, so that nothing is kept alive or shown.

    Args:
        rows: of panels.
        columns: of panels.
        height: of one row, in inches.
        width: of the whole figure, in inches; pages show it at full width whatever it is.
        share_x: whether the panels of a column share their horizontal axis.

    Returns:
        (figure, axes): one Axes, or an array of them if there is more than one panel.

    Example:
        ```python
        figure, (above, below) = dj.report.panels(2, share_x=True)
        ```
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, rows * height), layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, sharex=share_x)


def prepared(ax: "Axes | None", *, height: float = 3.1) -> "Axes":
    """`ax`, or the Axes of a new figure, dressed in the house style."""
    if ax is None:
        ax = panels(height=height)[1]
    ax.set_axisbelow(True)
    ax.grid(True, color="#eceff2", linewidth=0.7)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set(color=RULE, linewidth=0.8)
    ax.tick_params(which="both", colors=RULE, labelcolor=FAINT, labelsize=8, width=0.8, length=3)
    ax.tick_params(which="minor", length=1.6)
    return ax


def label(ax: "Axes", x_label: str, y_label: str, title: str | None) -> None:
    """Axis labels and a left-aligned title. A dollar sign is a dollar sign, not the start of a formula."""
    for text in (ax.set_xlabel(trimmed(x_label, 80)), ax.set_ylabel(trimmed(y_label, 40))):
        text.set(color=INK, fontsize=9, parse_math=False)
    if title:
        ax.set_title(trimmed(title, 80), loc="left", fontsize=9.5, color=INK, fontweight="bold", pad=8).set_parse_math(
            False
        )


def trimmed(text: str, most: int) -> str:
    """`text`, or its beginning and an ellipsis: long names must not squeeze a figure to nothing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def set_scales(ax: "Axes", *, log_x: bool = False, log_y: bool = False) -> None:
    """Logarithmic axes where asked for, and plain number labels (0.01, 10,000, 10⁻⁵) on both."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    for axis, log, set_scale in ((ax.xaxis, log_x, ax.set_xscale), (ax.yaxis, log_y, ax.set_yscale)):
        if log:
            set_scale("log")
            axis.set_minor_formatter(NullFormatter())
        else:
            axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def finish_log_ticks(ax: "Axes") -> None:
    """Once limits are set: label 1, 2 and 5 of every decade on logarithmic axes of less than two decades."""
    from matplotlib.ticker import LogLocator

    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,), numticks=9))


def lane_ticks(axis: Any, values: Any, *, gap: float) -> None:
    """Ticks at the values of lanes, not at round numbers, but none closer than `gap` (of the axis) to the last.

    Nothing changes if there are more than 16 different values.
    """
    different = np.unique(values)
    if not 1 <= different.size <= 16:
        return
    position = axis.get_transform().transform(different)
    low, high = axis.get_transform().transform(np.asarray(axis.get_view_interval()))
    shown = [0]
    for index in range(1, different.size):
        if position[index] - position[shown[-1]] >= gap * abs(high - low):
            shown.append(index)
    axis.set_ticks(different[shown])
    axis.set_ticks([], minor=True)


def number(value: float, digits: int = 4) -> str:
    """A number as it is printed everywhere: 4 significant digits, a true minus sign, powers of ten when far from one.

    Zeros at the end are kept where the number was rounded (1.0002 is 1.000), and left out where it was not (0.02).
    Infinities are ∞ and −∞, and NaN is an en dash.
    """
    value = float(value)
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.split("e")[1])
    exact = abs(float(scientific) - value) <= 1e-6 * abs(value)  # a float32 0.02 is 0.02
    far = not -4 < exponent < 7
    text = scientific.split("e")[0] if far else f"{value:,.{max(0, digits - 1 - exponent)}f}"
    if exact and "." in text:
        text = text.rstrip("0").rstrip(".")
    text = text.replace("-", "−")
    if not far:
        return text
    power = "10" + str(exponent).translate(_SUPERSCRIPTS)
    return power if text == "1" else f"{text}·{power}"


def lane_colours(values: Any, *, log: bool | None = None) -> tuple[list[Any], Any]:
    """One colour for each value, from dark violet (small) to light green (large), and the mappable for a colour bar.

    Args:
        values: real numbers, shape (lanes,).
        log: whether colours follow the logarithm; by default if all values are positive and span more than a factor 3.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    values = np.asarray(values, float)
    low, high = float(values.min()), float(values.max())
    if log is None:
        log = low > 0 and high > 3 * low
    # Yellow, the last eighth of viridis, cannot be read on white.
    palette = ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.88, 256)))
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    mappable = ScalarMappable((LogNorm if log else Normalize)(low, high), palette)
    return [tuple(float(c) for c in mappable.to_rgba(value)) for value in values], mappable


def tone_colours(words: Sequence[str], tones: Mapping[str, str] | None) -> dict[str, str]:
    """A colour for every different word: the tone that it is given, else one that is still free, else grey."""
    tones = dict(tones or {})
    for word, tone in tones.items():
        check_that(tone in TONES, "tones", f"map words to one of {', '.join(TONES)}", f"{word!r} has {tone!r}")
    free = [tone for tone in TONES if tone not in tones.values()]
    different = list(dict.fromkeys(words))
    for word in different:
        tones.setdefault(word, free.pop(0) if free else "neutral")
    ordered = [word for word in tones if word in different]
    return {word: TONES[tones[word]] for word in ordered}


def legend(ax: "Axes", handles: Sequence[Any] | None = None, *, title: str | None = None, beside: bool = False) -> None:
    """A legend without a box, in the best free corner or beside the axes."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    labels = [trimmed(str(handle.get_label()), 36) for handle in handles]
    place: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02), "borderaxespad": 0.0} if beside else {}
    )
    drawn = ax.legend(
        handles=handles, labels=labels, title=title and trimmed(title, 36), frameon=not beside, framealpha=0.9,
        edgecolor="none", fontsize=8, title_fontsize=8, labelcolor=INK, handlelength=1.6, labelspacing=0.45, **place,
    )  # fmt: skip
    for text in (*drawn.get_texts(), drawn.get_title()):
        text.set_parse_math(False)
    drawn.get_title().set_color(FAINT)


def colour_bar(ax: "Axes", mappable: Any, text: str) -> Any:
    """A slim colour bar beside the axes, with plain number labels."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(mappable, ax=ax, pad=0.015, aspect=28, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", labelsize=8, labelcolor=FAINT, color=RULE, width=0.8, length=3)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label(trimmed(text, 40), fontsize=9, color=INK)
    bar.ax.yaxis.label.set_parse_math(False)
    return bar
