"""Figures of the attention experiment: the staircase, the growth of modes, energies and clusters, tokens in space and time."""

import json
from typing import Any

import numpy as np

from ... import report
from .._drawing import FAINT, INK, legend, spread_out
from ._lane import Lane, read_lane
from ._scales import mode_rates, plateau_energy
from ._summary import Cell, summarise

_TIME = "time, in units of 1 / fastest rate"
_MOST_PICTURES = 4
_MOST_MODES = 4


def staircase_figure(dataset: Any) -> Any:
    """Above, predicted and measured numbers of clusters over beta; below, how long they live.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    config, cells = json.loads(dataset.attrs["config"]), summarise(dataset)
    betas = np.array([cell.beta for cell in cells])
    figure, (above, below) = report.panels(2, height=2.7, share_x=True)
    limits = (betas.min() - 0.03 * np.ptp(betas) - 0.2, betas.max() + 0.03 * np.ptp(betas) + 0.2)
    _draw_staircase(above, config, cells, limits)
    _draw_lifetimes(below, dataset, cells, limits)
    return figure


def _draw_staircase(ax: Any, config: dict[str, Any], cells: list[Cell], limits: tuple[float, float]) -> None:
    report.curves([0.0], [np.nan], ax=ax, x_label="", y_label="clusters")
    if config["dimension"] == 2:
        fine = np.linspace(max(limits[0], 0.05), limits[1], 300)
        rates = mode_rates(fine, config["kind"])
        rates = rates - config["noise"] * rates[:, :1] * np.arange(1, rates.shape[1] + 1) ** 2
        steps = np.where(rates.max(axis=1) > 0, np.argmax(rates, axis=1) + 1, 0)
        ax.plot(fine, steps, color=INK, linewidth=1.3, drawstyle="steps-mid", zorder=2,
                label="argmax k² (I_k(β)/β − D)" if config["noise"] else "argmax k² I_k(β)")  # fmt: skip
        ax.plot(fine, np.sqrt(2 * fine), color=FAINT, linewidth=0.9, linestyle=(0, (4, 2.5)), label="√(2β)")
    shown: dict[str, tuple[str, str, str]] = {
        "clusters": ("o", report.TONES["good"], "first plateau"),
        "dominant": ("x", report.TONES["bad"], "dominant mode, before"),
    }
    for name, (marker, colour, words) in shown.items():
        if name == "dominant" and config["dimension"] != 2:
            continue
        counts = [(cell.beta, n, getattr(cell, name).count(n)) for cell in cells for n in set(getattr(cell, name)) if n]
        if not counts:
            continue
        beta, number, many = np.array(counts, float).T
        size = 14 + 50 * many / many.max() if marker == "o" else 26
        edge: dict[str, Any] = {"linewidth": 0, "alpha": 0.75} if marker == "o" else {"linewidth": 1.2}
        ax.scatter(beta, number, s=size, marker=marker, color=colour, zorder=3 + (marker == "x"), label=words, **edge)
    highest = max([1, *(n for cell in cells for n in (*cell.clusters, *cell.dominant, cell.predicted or 0))])
    ax.set_ylim(0, highest + 1)
    ax.set_yticks(range(0, highest + 2, 1 if highest < 12 else 2))
    ax.set_xlim(*limits)
    legend(ax)


def _draw_lifetimes(ax: Any, dataset: Any, cells: list[Cell], limits: tuple[float, float]) -> None:
    report.curves([0.0], [np.nan], ax=ax, log_y=True, x_label="inverse temperature β",
                  y_label="life of the plateau")  # fmt: skip
    lanes = [lane for lane in _lanes(dataset) if lane.clusters > 1 and lane.lifetime > 0]
    for censored, words in ((False, "until the first merger"), (True, "longer than the run")):
        some = [lane for lane in lanes if lane.censored is censored]
        if some:
            colour = report.TONES["good" if not censored else "neutral"]
            ax.scatter([lane.beta for lane in some], [lane.lifetime for lane in some], s=20, alpha=0.75, linewidth=0,
                       marker="^" if censored else "o", color=colour, label=words, zorder=3)  # fmt: skip
    scale = [(cell.beta, cell.leaving_time) for cell in cells if np.isfinite(cell.leaving_time)]
    if scale:
        ax.plot(*np.array(scale).T, "_", color=INK, markersize=9, markeredgewidth=1.4, zorder=2,
                label="1 / rate of leaving equal clusters")  # fmt: skip
    if lanes or scale:
        values = [lane.lifetime for lane in lanes] + [value for _, value in scale]
        ax.set_ylim(min(values) / 1.7, max(values) * 6)
        legend(ax)
    ax.set_xlim(*limits)
    betas = np.array([cell.beta for cell in cells])
    if betas.size <= 16:
        ax.set_xticks(betas[np.r_[True, np.diff(betas) >= 0.025 * (limits[1] - limits[0])]])


def growth_figure(dataset: Any) -> Any:
    """Left, the modes of one lane in time with the predicted slopes; right, fitted rates against the predicted ones.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None off the circle, with noise, or where no mode has grown by itself.
    """
    config = json.loads(dataset.attrs["config"])
    if "modes" not in dataset or config["noise"]:
        return None
    fits = [lane for lane in _lanes(dataset) if np.isfinite(lane.rates).any()]
    if not fits:
        return None
    figure, (left, right) = report.panels(1, 2, height=3.2)
    betas = sorted({lane.beta for lane in fits})
    middle = betas[len(betas) // 2]
    _draw_modes(left, dataset, config["kind"], next(lane for lane in fits if lane.beta == middle))
    _draw_rates(right, config["kind"], fits, spread_out(betas, 4))
    return figure


def _draw_modes(ax: Any, dataset: Any, kind: str, lane: Lane) -> None:
    row = _row(dataset, lane)
    time, modes = np.asarray(dataset.reading.values, float), np.asarray(row.modes.values, float)
    theory = mode_rates([lane.beta], kind)[0]
    shown = sorted(np.argsort(-theory)[:_MOST_MODES])
    end = np.searchsorted(time, 1.4 * time[np.argmax(modes.max(1) >= 0.5)]) if modes.max() >= 0.5 else time.size
    end = max(int(end), 2)
    report.curves(time[:end], modes[:end, shown].T, ax=ax, values=[k + 1 for k in shown], value_label="mode", log_y=True,
                  x_label="time, 1 / fastest rate", y_label="|mean exp(i k θ)|", show_values=False,
                  title=f"β = {lane.beta:g}")  # fmt: skip
    colours = [line.get_color() for line in ax.get_lines()[: len(shown)]]
    bottom = float(modes[:end, shown].min())
    for k, colour in zip(shown, colours, strict=True):
        straight = modes[0, k] * np.exp(theory[k] / theory.max() * time[:end])
        ax.plot(time[:end], np.where(straight < 2, straight, np.nan), color=INK, linewidth=0.8,
                linestyle=(0, (1.2, 1.6)), zorder=3)  # fmt: skip
        ax.plot([], [], color=colour, linewidth=2, label=f"k = {k + 1}")
    ax.plot([], [], color=INK, linewidth=0.8, linestyle=(0, (1.2, 1.6)), label="predicted")
    ax.set_ylim(bottom / 2, 3)
    legend(ax)


def _draw_rates(ax: Any, kind: str, fits: list[Lane], betas: list[float]) -> None:
    modes = np.arange(1, fits[0].rates.size + 1)
    theory = mode_rates(betas, kind)
    theory = (theory / theory.max(axis=1, keepdims=True))[:, : modes.size]
    report.curves(
        modes, theory, ax=ax, values=betas, x_label="mode k", y_label="rate / fastest rate", show_values=False
    )
    for beta, line in zip(betas, list(ax.get_lines()), strict=True):
        line.set_label(f"β = {beta:g}")
        for lane in fits:
            if lane.beta == beta:
                ax.plot(modes, lane.rates, "o", color=line.get_color(), markersize=4, markeredgewidth=0, alpha=0.7)
    ax.plot([], [], "o", color=FAINT, markersize=4, label="fitted")
    ax.set_ylim(0, 1.6)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_xlim(0.5, modes[-1] + 0.5)
    ax.set_xticks(modes)
    legend(ax)


def energy_figure(dataset: Any) -> Any:
    """Above, energies against time; below, the numbers of clusters; the first seed at a few inverse temperatures.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    chosen = _pictured(dataset, 5)
    if not chosen:
        return None
    circular = json.loads(dataset.attrs["config"])["dimension"] == 2
    time = np.asarray(dataset.reading.values, float)
    rows = [_row(dataset, lane) for lane in chosen]
    betas = np.array([lane.beta for lane in chosen])
    energies = [np.asarray(row.energy.values, float) * 2 * row_beta * np.exp(-row_beta)
                for row, row_beta in zip(rows, betas, strict=True)]  # fmt: skip
    figure, (above, below) = report.panels(2, height=2.5, share_x=True)
    report.curves(time[1:], np.array(energies)[:, 1:], ax=above, values=betas, value_label="β", log_x=True, x_label="",
                  y_label="energy / that of one cluster")  # fmt: skip
    counts = np.array([np.asarray(row.clusters.values, float) for row in rows])
    colours = [line.get_color() for line in above.get_lines()[: len(chosen)]]
    for lane, colour, count in zip(chosen, colours, counts, strict=True):
        since = time >= lane.formed
        below.plot(time[since], count[since], color=colour, linewidth=1.4, drawstyle="steps-post", alpha=0.9)
        if circular and lane.clusters > 1:
            level = plateau_energy(lane.clusters, lane.beta)
            above.axhline(level, color=colour, linewidth=0.9, linestyle=(0, (4, 2.5)), zorder=1.5)
    report.curves(
        time[1:], np.full((1, time.size - 1), np.nan), ax=below, log_x=True, x_label=_TIME, y_label="clusters"
    )
    top = int(max([1, *(lane.clusters for lane in chosen)]))
    below.set_ylim(0, top + 1)
    below.set_yticks(range(top + 2))
    above.set_ylim(0, 1.06)
    return figure


def space_time_figure(dataset: Any) -> Any:
    """Angles of all tokens against time, the first seed at up to four inverse temperatures; None off the circle.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None off the circle or where no lane is finished.
    """
    chosen = _pictured(dataset, _MOST_PICTURES)
    if "angles" not in dataset or not chosen:
        return None
    columns = 1 if len(chosen) == 1 else 2
    figure, axes = report.panels(-(-len(chosen) // columns), columns, height=3.0, share_x=True)
    flat = np.ravel(axes)
    time = np.asarray(dataset.reading.values, float)
    for number, (ax, lane) in enumerate(zip(flat, chosen, strict=False)):
        _draw_tokens(ax, time, np.asarray(_row(dataset, lane).angles.values, float), lane)
        ax.set_xlabel("time, 1 / fastest rate" if number >= len(chosen) - columns else "", fontsize=9, color=INK)
        ax.set_ylabel("angle" if number % columns == 0 else "", fontsize=9, color=INK)
    for ax in flat[len(chosen) :]:
        ax.set_axis_off()
    return figure


def _draw_tokens(ax: Any, time: np.ndarray, angles: np.ndarray, lane: Lane) -> None:
    """A line for each token, coloured by its first angle; lines end where they leave the circle cut open at 0."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    first = np.flatnonzero(time > 0)[0]
    start = np.mod(angles[0], 2 * np.pi) / (2 * np.pi)
    # Both ends of a colour circle agree; its light half is left out, since it cannot be seen on white.
    around = np.concatenate([np.linspace(0.1, 0.85, 64), np.linspace(0.85, 0.1, 64)])
    palette = ListedColormap(colormaps["plasma"](around))
    wrapped = np.mod(angles, 2 * np.pi)
    jumps = np.abs(np.diff(wrapped, axis=0)) > np.pi
    wrapped[1:][jumps] = np.nan
    report.curves(time[first:], np.full((1, time.size - first), np.nan), ax=ax, log_x=True, x_label="",
                  title=f"β = {lane.beta:g}: {lane.clusters} clusters at first, {lane.final_clusters} at the end")  # fmt: skip
    for column in range(angles.shape[1]):
        ax.plot(time[first:], wrapped[first:, column], color=palette(start[column]), linewidth=0.7, alpha=0.8)
    ax.set_ylim(0, 2 * np.pi)
    ax.set_yticks([0, np.pi / 2, np.pi, 3 * np.pi / 2, 2 * np.pi], ["0", "π/2", "π", "3π/2", "2π"])
    if np.isfinite(lane.formed):
        ax.axvline(max(lane.formed, time[first]), color=FAINT, linewidth=0.9, linestyle=(0, (4, 2.5)), zorder=1)


def _lanes(dataset: Any) -> list[Lane]:
    lanes = [read_lane(dataset, number) for number in range(dataset.sizes["lane"])]
    return [lane for lane in lanes if lane.finished]


def _row(dataset: Any, lane: Lane) -> Any:
    same = (dataset.beta.values == lane.beta) & (dataset.seed.values == lane.seed)
    return dataset.isel(lane=int(np.flatnonzero(same)[0]))


def _pictured(dataset: Any, most: int) -> list[Lane]:
    """The first finished seed at a few inverse temperatures, those with one cluster from the start left out if others are."""
    first: dict[float, Lane] = {}
    for lane in sorted(_lanes(dataset), key=lambda lane: (lane.beta, lane.seed)):
        first.setdefault(lane.beta, lane)
    several = [beta for beta, lane in first.items() if lane.clusters != 1] or list(first)
    return [first[beta] for beta in spread_out(several, most)]
