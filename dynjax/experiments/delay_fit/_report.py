"""The report of a fit of a delay equation: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from ._series import KNOWN
from ._summary import COLUMNS, SURE, LaneSummary, summarise, table_rows

_TONES = {
    "chaos reproduced": "good",
    "exponent reproduced": "good",
    "chaotic": "neutral",
    "not chaotic": "neutral",
    "unfinished": "warning",
    "exponent too uncertain": "warning",
    "low error, wrong exponent": "warning",
    "low error without chaos": "bad",
    "not learnt": "special",
}
_SHOWN = 25  # delays of a forecast that are drawn


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of a fit of a delay equation: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, summaries = json.loads(dataset.attrs["config"]), summarise(dataset)
    page = report.Page("A delay equation learnt from a series", _subtitle(config, summaries))
    page.headline(_headline(summaries))
    _training_section(page, dataset, summaries)
    if np.any(np.isfinite(dataset.exponents.values)):
        _forecast_section(page, dataset)
        _exponent_section(page, dataset, config)
    _table_section(page, config, summaries)
    add_provenance(page, dataset)
    page.write(path)


def _subtitle(config: dict[str, Any], summaries: list[LaneSummary]) -> str:
    source = KNOWN[config["series"]].names if config["series"] in KNOWN else config["series"]
    noise = f" with {config['noise']:.0%} noise" if config["noise"] else ""
    horizons = " or ".join(str(horizon) for horizon in config["horizons"])
    starts = sorted({lane.initial_delay for lane in summaries})
    return (
        f"{config['num_samples']:,} samples of {source}{noise}; y' = f(y, y(t - tau)) with a network f and a trainable delay "
        f"tau that starts between {starts[0]:g} and {starts[-1]:g}; forecasts of {horizons} samples in the loss"
    )


def _headline(summaries: list[LaneSummary]) -> list[tuple[str, str, str]]:
    count = lambda *verdicts: sum(lane.verdict in verdicts for lane in summaries)
    total, first = len(summaries), summaries[0]
    entries = []
    if np.isfinite(first.true_delay):
        found = sum(lane.delay_found for lane in summaries)
        entries.append(("delay found", f"{found} of {total}", f"lanes, to within 1 % of {first.true_delay:g}"))
        entries.append(
            ("true exponent", f"{first.true_exponent:.5f}", f"± {first.true_exponent_error:.5f}, by the same steps")
        )
        reproduced = count("chaos reproduced", "exponent reproduced")
        entries.append(("exponent reproduced", f"{reproduced} of {total}", "lanes"))
        failed = count("low error without chaos", "low error, wrong exponent")
        entries.append(
            (
                "low error, wrong exponent",
                f"{failed} of {total}",
                f"lanes, {count('low error without chaos')} without chaos",
            )
        )
        return entries
    return [
        ("chaotic", f"{count('chaotic')} of {total}", "lanes"),
        ("not learnt", f"{count('not learnt')} of {total}", "lanes"),
    ]


def _training_section(page: Any, dataset: Any, summaries: list[LaneSummary]) -> None:
    page.section(
        "Finding the delay",
        "Forecasts start from measured histories. While they are shorter than the delay all delayed values are data, and the "
        "delay is a parameter of a regression, which has other minima than the true one: a start too far away ends "
        "elsewhere. Forecasts grow to the horizon of their lane; those longer than the delay are fed with their own past.",
    )
    page.figure(
        delay_figure(dataset),
        "Delay (above) and test error of forecasts up to the horizon of the lane, in units of the deviation of the series "
        "(below), against the training step; dashed, the true delay.",
        alt="Delays converge to the true one; errors fall.",
    )


def delay_figure(dataset: Any) -> Any:
    """Delay and error against training step, one line for each lane in the colour of its horizon.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure, (top, bottom) = report.panels(2, height=2.7, share_x=True)
    shared = {"values": dataset.horizon.values, "value_label": "horizon (samples)"}
    report.curves(dataset.reading.values, dataset.delay.values, ax=top, y_label="delay", x_label="", **shared)
    true = float(dataset.true_delay.values[0])
    if np.isfinite(true):
        top.axhline(true, color="#22262b", linewidth=0.9, linestyle=(0, (4, 2.5)), zorder=1)
    report.curves(
        dataset.reading.values,
        dataset.horizon_error.values,
        ax=bottom,
        log_y=True,
        y_label="test error",
        show_values=False,
        **shared,
    )
    return figure


def _chosen(dataset: Any) -> list[int]:
    """For each horizon the lane with the middle first exponent (the lower one of two) of those that have learnt."""
    chosen = []
    exponent, learnt = dataset.exponents.values[:, 0], _learnt(dataset)
    if not learnt.any():
        learnt = np.isfinite(exponent)
    for horizon in np.unique(dataset.horizon.values):
        lanes = np.flatnonzero((dataset.horizon.values == horizon) & learnt)
        if lanes.size:
            chosen.append(int(lanes[np.argsort(exponent[lanes])[(lanes.size - 1) // 2]]))
    return chosen


def _learnt(dataset: Any) -> np.ndarray:
    """Which lanes have finished with a low error."""
    return np.asarray([lane.verdict not in ("not learnt", "unfinished") for lane in summarise(dataset)])


def _name(dataset: Any, lane: int) -> str:
    horizon = int(dataset.horizon.values[lane])
    return f"horizon {horizon}, delay from {float(dataset.initial_delay.values[lane]):g}"


def _forecast_section(page: Any, dataset: Any) -> None:
    page.section(
        "Forecasts and portraits",
        "In chaos no forecast stays right for long; what a good model keeps is the attractor. A model can have a small error "
        "at every lead that it was asked for, and yet settle on a cycle. Runs and portraits are, for each horizon of the loss, "
        "those of the lane with the middle first exponent.",
    )
    page.figure(
        error_figure(dataset),
        "Error of forecasts on the test part against how far ahead they go, in units of the deviation of the series.",
        alt="Forecast error rising with the lead, one line for each lane.",
    )
    page.figure(
        forecast_figure(dataset),
        "A free run of the learnt equation from a measured history, and what was observed.",
        alt="Learnt and observed series against time.",
    )
    page.figure(
        portrait_figure(dataset),
        "The present against the value one delay ago: the series, and free runs of learnt equations without their first half.",
        alt="Delay portraits of the series and of learnt equations.",
    )


def error_figure(dataset: Any) -> Any:
    """Forecast error against lead, one line for each lane.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    ax = report.curves(
        dataset.lead.values,
        dataset.error.values,
        values=dataset.horizon.values,
        value_label="horizon (samples)",
        log_y=True,
        x_label="lead (time)",
        y_label="error",
    )
    return ax.get_figure()


def forecast_figure(dataset: Any) -> Any:
    """Free runs of learnt equations beside the series, one panel for each horizon.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    chosen = _chosen(dataset)
    observed, orbits = dataset.observed.values, dataset.orbit.values
    length = int(min(observed.shape[1], orbits.shape[1]))
    step = float(dataset.time.values[1])
    length = min(length, max(50, int(_SHOWN * float(np.nanmedian(dataset.delay.values[:, -1])) / step)))
    figure, axes = report.panels(len(chosen), height=1.9, share_x=True)
    for lane, ax in zip(chosen, np.atleast_1d(axes), strict=True):
        report.band(
            dataset.time.values[:length],
            {"observed": observed[lane, :length], "learnt": orbits[lane, :length]},
            ax=ax,
            x_label="time" if lane == chosen[-1] else "",
            y_label="series",
            title=_name(dataset, lane),
            show_legend=lane == chosen[0],
        )
    return figure


def portrait_figure(dataset: Any) -> Any:
    """The present against the value one delay ago: the series, and one learnt equation for each horizon.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    chosen = _chosen(dataset)
    true = float(dataset.true_delay.values[0])
    delay = true if np.isfinite(true) else float(dataset.delay.values[chosen[-1], -1])
    step = float(dataset.time.values[1])
    settled = dataset.orbit.values[:, dataset.sizes["time"] // 2 :]
    runs = {"the series": dataset.observed.values[chosen[0]]} | {_name(dataset, lane): settled[lane] for lane in chosen}
    figure, axes = report.panels(1, len(runs), height=2.9)
    for (name, run), ax in zip(runs.items(), np.atleast_1d(axes), strict=True):
        fine = np.arange(delay / step, run.size - 1, 0.25)
        now, before = (_cubic(run, at) for at in (fine, fine - delay / step))
        report.curves(before, now, ax=ax, values=None, x_label="one delay ago", y_label="present", title=name)
    every = np.concatenate([run[np.isfinite(run)] for run in runs.values()])
    low, high = float(every.min()), float(every.max())
    room = 0.05 * (high - low)
    for ax in np.atleast_1d(axes):
        ax.set(xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
    return figure


def _cubic(run: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubic interpolation through the four nearest samples (Lagrange), for smooth curves."""
    first = np.clip(np.floor(at).astype(int) - 1, 0, run.size - 4)
    s = at - first
    total = np.zeros_like(at)
    for i in range(4):
        weight = np.ones_like(at)
        for j in range(4):
            if j != i:
                weight *= (s - j) / (i - j)
        total += weight * run[first + i]
    return total


def _exponent_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    page.section(
        "Exponents",
        f"Exponents of every learnt equation over {config['exponent_steps']:,} of the numerical steps that it was trained with. "
        "The band around the first is three standard errors of the truth and the margin of "
        f"{config['exponent_margin']:g}. Where the first exponent is zero the equation has settled on a cycle.",
    )
    page.figure(
        exponent_figure(dataset),
        "First and last exponent of each equation with three standard errors, and those of the truth (line). Lanes that have "
        "not learnt are left out.",
        alt="Exponents of all lanes with error bars against the true ones.",
    )


def exponent_figure(dataset: Any) -> Any:
    """First and last exponent of each lane that has learnt, with three standard errors, against the truth.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    config = json.loads(dataset.attrs["config"])
    lanes, modes = dataset.sizes["lane"], dataset.sizes["mode"]
    shown = [0] if modes < 3 else [0, modes - 1]
    figure, axes = report.panels(len(shown), height=2.5, share_x=True)
    ends, learnt = np.asarray([-0.5, lanes - 0.5]), _learnt(dataset)
    names = [
        f"{int(h)} from {float(d):g}" for h, d in zip(dataset.horizon.values, dataset.initial_delay.values, strict=True)
    ]
    for mode, ax in zip(shown, np.atleast_1d(axes), strict=True):
        values = np.where(learnt, dataset.exponents.values[:, mode], np.nan)
        errors = SURE * np.where(learnt, dataset.exponent_errors.values[:, mode], np.nan)
        true, true_error = (float(dataset[name].values[0, mode]) for name in ("true_exponents", "true_exponent_errors"))
        margin = config["exponent_margin"] if mode == 0 else 0.0
        report.band(
            ends,
            {"truth": np.full(2, true)},
            errors=np.full(2, SURE * true_error + margin),
            ax=ax,
            points=(np.arange(lanes), values, errors),
            points_label="learnt",
            x_label="horizon of the loss, and first delay" if mode == shown[-1] else "",
            y_label="exponent",
            title=f"exponent {mode + 1}",
        )
        ax.set_xticks(np.arange(lanes), names, rotation=30, ha="right")
    return figure


def _table_section(page: Any, config: dict[str, Any], summaries: list[LaneSummary]) -> None:
    page.section(
        "Every lane",
        "A lane is not learnt if the test error up to the horizon of its loss exceeds "
        f"{config['noise'] + config['error_margin']:g}. Otherwise the first exponent decides: reproduced if it differs from the "
        f"truth by at most three standard errors of the difference plus {config['exponent_margin']:g}; without chaos if the "
        "truth is chaotic and it is not positive by three standard errors. For the scale: 1 % in the rates of the Mackey-Glass "
        "equation changes its first exponent of 0.0052 by up to 0.0012, and with 1 % less delay there is a cycle.",
    )
    rows = [
        [*row[:-1], report.Chip(row[-1], _TONES[lane.verdict])]
        for row, lane in zip(table_rows(summaries), summaries, strict=True)
    ]
    page.table(
        [*COLUMNS],
        rows,
        caption="Delays in units of time, errors in deviations of the series, exponents per unit of time.",
    )
