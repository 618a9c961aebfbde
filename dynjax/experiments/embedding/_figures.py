"""Figures of the embedding experiment: maps and fits, paths of the state, and what happens to a grid of the plane."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import report
from .._drawing import FAINT, INK, RULE
from ._constructions import EXACT
from ._measures import plot_points
from ._targets import TARGETS, Target, find_target, sup_bound

_SIDE = 21
_SNAPSHOTS = 5


def fits_figure(dataset: Any) -> Any:
    """The scalar maps, their exact embeddings, and the best networks with and without augmentation.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    targets = [target for target in TARGETS if target.in_size == 1]
    figure, axes = report.panels(1, len(targets), height=2.9, width=7.8)
    x = plot_points(1)[:, 0]
    for ax, target in zip(axes, targets, strict=True):
        _dress(ax, target.formula)
        exact, narrow, wide = (
            _lane_of(dataset, target, *which) for which in (("shear", 2), ("trained", 1), ("trained", 2))
        )
        draw = lambda lane, ax=ax, **style: lane is not None and ax.plot(x, dataset.output.values[lane][:, 0], **style)
        ax.plot(x, _values(target)[:, 0], color=RULE, linewidth=5, solid_capstyle="round")
        draw(exact, color=INK, linewidth=1.1)
        draw(narrow, color=report.TONES["bad"], linewidth=1.6, linestyle=(0, (5, 2)))
        draw(wide, color=report.TONES["good"], linewidth=1.6, linestyle=(0, (1.2, 1.4)))
        if narrow is not None:
            bound = sup_bound(target, 1)
            text = f"m = 1: sup error {float(dataset.sup_error.values[narrow]):.3f}"
            text += f"\nbelow {bound:.3g} is impossible" if bound > 0 else "\nnothing forbids 0"
            ax.text(0.5, -0.2, text, transform=ax.transAxes, ha="center", va="top", fontsize=8, color=FAINT)
    _fit_legend(figure)
    return figure


def _fit_legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=RULE, linewidth=5, label="map"),
        Line2D([], [], color=INK, linewidth=1.1, label="shear, m = 2"),
        Line2D([], [], color=report.TONES["bad"], linewidth=1.6, linestyle=(0, (5, 2)), label="trained, m = 1"),
        Line2D([], [], color=report.TONES["good"], linewidth=1.6, linestyle=(0, (1.2, 1.4)), label="trained, m = 2"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8.5)


def paths_figure(dataset: Any) -> Any:
    """How the state moves for x^2: without augmentation, with one more dimension, and through the history.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    target = find_target("square")
    figure, (narrow, shear, delay) = report.panels(1, 3, height=3.0, width=7.8)
    for ax, which, title in (
        (narrow, ("trained", 1), "m = 1: order is kept"),
        (shear, ("shear", 2), "m = 2: the shear"),
        (delay, ("delay", 1), "m = 1 with a delay"),
    ):
        _dress(ax, title)
        lane = _lane_of(dataset, target, *which)
        if lane is None:
            continue
        path, times = dataset.path.values[lane], dataset.time_of_path.values[lane]
        if which[0] == "shear":
            _draw_lift(ax, path)
        else:
            for number, colour in enumerate(_colours(path.shape[1])):
                ax.plot(times, path[:, number, 0], color=colour, linewidth=1.1)
            ax.set(xlabel="time", ylabel="state")
        if which[0] == "delay":
            _draw_end(ax, times, path)
    shear.set(xlabel="u, the input at rest", ylabel="v, the output")
    return figure


def _draw_lift(ax: Any, path: np.ndarray) -> None:
    """The image of the line at some times, and the points that rise on it: u rests, v grows."""
    shown = np.linspace(0, path.shape[0] - 1, _SNAPSHOTS).round().astype(int)
    for time in shown:
        ax.plot(path[time, :, 0], path[time, :, 1], color=RULE, linewidth=1.0, zorder=1)
    for number, colour in enumerate(_colours(path.shape[1])):
        ax.plot(path[:, number, 0], path[:, number, 1], color=colour, linewidth=1.1, zorder=2)
        ax.plot(path[-1, number, 0], path[-1, number, 1], "o", color=colour, markersize=3.4, zorder=3)


def _draw_end(ax: Any, times: np.ndarray, path: np.ndarray) -> None:
    """The last states, which are small, magnified: they are ordered by x^2."""
    inset = ax.inset_axes((0.5, 0.56, 0.5, 0.42))
    late = times >= 0.55 * times[-1]
    for number, colour in enumerate(_colours(path.shape[1])):
        inset.plot(times[late], path[late, number, 0], color=colour, linewidth=0.9)
    top = 1.15 * float(np.max(path[-1, :, 0]))
    inset.set(ylim=(-0.5 * top, top), xlim=(times[late][0], times[-1]), xticks=[], yticks=[0, round(top / 1.15, 3)])
    inset.tick_params(colors=RULE, labelcolor=FAINT, labelsize=6.5, width=0.8, length=2)
    for spine in inset.spines.values():
        spine.set(color=RULE, linewidth=0.8)


def plane_figure(dataset: Any) -> Any:
    """The image of a grid of the square under the maps of the plane, exactly and under trained networks.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    targets = [target for target in TARGETS if target.out_size == 2]
    columns = (("shear", 4), ("trained", 2), ("trained", 3), ("trained", 4))
    figure, axes = report.panels(len(targets), len(columns), height=2.15, width=7.8)
    for row, target in zip(axes, targets, strict=True):
        wanted = _values(target)
        low, high = wanted.min(0), wanted.max(0)
        for ax, which in zip(row, columns, strict=True):
            _dress(ax, f"{which[0]}, m = {which[1]}")
            lane = _lane_of(dataset, target, *which)
            if lane is not None:
                _draw_grid(ax, dataset.output.values[lane].reshape(_SIDE, _SIDE, 2))
                error = float(dataset.sup_error.values[lane])
                ax.set_xlabel(
                    f"error {error:.1g}" if which[0] in EXACT else f"error {error:.3f}", fontsize=8, color=FAINT
                )
            margin = 0.18 * (high - low)
            ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(target.formula, fontsize=8.5, color=INK)
    return figure


def _draw_grid(ax: Any, image: np.ndarray) -> None:
    """Both families of grid lines, coloured across, so that a fold and its two sheets can be seen."""
    for line, colour in enumerate(_colours(_SIDE)):
        if line % 2 == 0:
            ax.plot(image[:, line, 0], image[:, line, 1], color=colour, linewidth=1.0, alpha=0.9)
            ax.plot(image[line, :, 0], image[line, :, 1], color=RULE, linewidth=0.7, zorder=1)


def bowl_figure(dataset: Any) -> Any:
    """Level sets of |x|^2, of its embedding and of the trained networks."""
    target = find_target("bowl")
    columns = (("shear", 3), ("delay", 2), ("trained", 2), ("trained", 3))
    figure, axes = report.panels(1, len(columns), height=2.35, width=7.8)
    axis = np.linspace(-1, 1, _SIDE)
    for ax, which in zip(axes, columns, strict=True):
        _dress(ax, f"{which[0]}, m = {which[1]}")
        ax.set(xticks=[], yticks=[], aspect="equal")
        lane = _lane_of(dataset, target, *which)
        if lane is None:
            continue
        values = dataset.output.values[lane][:, 0].reshape(_SIDE, _SIDE)
        ax.contourf(axis, axis, values, levels=np.linspace(-0.5, 2.5, 16), cmap="cividis", extend="both", alpha=0.92)
        ax.contour(
            axis, axis, values, levels=np.linspace(-0.5, 2.5, 16), colors="white", linestyles="solid", linewidths=0.5
        )
        error = float(dataset.sup_error.values[lane])
        ax.set_xlabel(f"error {error:.1g}" if which[0] in EXACT else f"error {error:.3f}", fontsize=8, color=FAINT)
    return figure


def _colours(number: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](share) for share in np.linspace(0, 0.9, number)]


def _values(target: Target) -> np.ndarray:
    return np.asarray(jax.vmap(target.function)(jnp.asarray(plot_points(target.in_size))))


def _lane_of(dataset: Any, target: Target, construction: str, state_size: int) -> int | None:
    same = (dataset.target.values == target.name) & (dataset.construction.values == construction)
    rows = np.flatnonzero(same & (dataset.state_size.values == state_size) & np.isfinite(dataset.sup_error.values))
    return int(rows[0]) if rows.size else None


def _dress(ax: Any, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK, pad=6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=RULE, linewidth=0.8)
    ax.tick_params(colors=RULE, labelcolor=FAINT, labelsize=7.5, width=0.8, length=3)
    ax.xaxis.label.set(fontsize=8.5, color=INK)
    ax.yaxis.label.set(fontsize=8.5, color=INK)
