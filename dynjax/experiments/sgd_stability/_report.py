"""The report of a test of SGD stability: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from ._summary import COLUMNS, LEAST_ESCAPED, LaneSummary, summarise, table_rows

_TONES = {
    "escapes, as predicted": "good",
    "stays, as predicted": "good",
    "no clear sign": "neutral",
    "not decided yet": "warning",
    "unfinished": "warning",
    "stays, against the prediction": "bad",
    "escapes, against the prediction": "bad",
}
_LINES = {"almost_sure": "almost sure", "mean_square": "mean square", "gd": "gradient descent"}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of a test of SGD stability: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config = json.loads(dataset.attrs["config"])
    summaries = summarise(dataset)
    page = report.Page("Which solutions can SGD find?", _subtitle(dataset, config))
    page.headline(_headline(dataset, summaries))
    _exponent_section(page, dataset)
    _growth_section(page, dataset, config)
    _rate_section(page, dataset, config, summaries)
    _table_section(page, summaries, config)
    add_provenance(page, dataset, {"The solution": _solution(dataset)})
    page.write(path)


def _thresholds(dataset: Any) -> dict[str, float]:
    names = [str(name) for name in dataset.criterion.values]
    return dict(zip(names, map(float, dataset.threshold.values[0]), strict=True))


def _solution(dataset: Any) -> dict[str, Any]:
    eigenvalues = dataset.eigenvalue.values[0]
    return {
        "parameters": int(dataset.num_params.values[0]),
        "outputs (samples x classes)": int(dataset.num_outputs.values[0]),
        "rank of the Jacobian": int(dataset["rank"].values[0]),
        "residual |f - y|": float(dataset.solution_residual.values[0]),
        "largest eigenvalue of the tangent kernel": float(eigenvalues[0]),
        "smallest nonzero eigenvalue": float(eigenvalues[-1]),
        "regular": bool(dataset.regular.values[0]),
    }


def _subtitle(dataset: Any, config: dict[str, Any]) -> str:
    return (
        f"{config['task']}, {dataset.num_params.values[0]} parameters, batch size {config['batch_size']}: the Lyapunov "
        f"exponent of SGD at a solution with zero loss, and {dataset.sizes['lane']} x {config['num_seeds']} real runs of SGD "
        f"started at distance {_short(config['distance'])} from it"
    )


def _short(value: float) -> str:
    """A number with a minus sign at which lines do not break."""
    return f"{value:g}".replace("-", "−")


def _headline(dataset: Any, summaries: list[LaneSummary]) -> list[tuple[str, str, str]]:
    found, facts = _thresholds(dataset), _solution(dataset)
    error = float(dataset.threshold_error.values[0][0])
    right = sum(lane.verdict.endswith("as predicted") for lane in summaries)
    measured = [lane for lane in summaries if lane.measured_steps]
    rank, outputs = facts["rank of the Jacobian"], facts["outputs (samples x classes)"]
    regular = "regular" if facts["regular"] else "not regular"
    return [
        (
            "almost sure threshold",
            f"{found['almost_sure']:.4g}",
            f"learning rate where the exponent is 0, ± {error:.0e}",
        ),
        ("mean-square threshold", f"{found['mean_square']:.4g}", "above it the variance grows"),
        ("gradient descent", f"{found['gd']:.4g}", "the threshold of the full batch"),
        ("rank", f"{rank} of {outputs}", f"of the Jacobian, {regular}; residual {facts['residual |f - y|']:.0e}"),
        ("verdicts", f"{right} of {len(summaries)}", "rates at which the runs do as predicted"),
        (
            "measured rates",
            f"{sum(lane.agrees for lane in measured)} of {len(measured)}",
            "within 3 standard errors of the exponent",
        ),
    ]


def _exponent_section(page: Any, dataset: Any) -> None:
    page.section(
        "The exponent against the learning rate",
        "At a solution with zero loss a step of SGD is linear to first order: A = I - (learning rate / B) times the "
        "sum of the "
        "products J_i^T J_i over its batch. Along the set of solutions nothing happens; the Lyapunov exponent is the "
        "almost sure growth rate of the product of these random matrices on the normal space. Where it is negative SGD "
        "converges to the solution from nearby, where it is positive it is driven away.\n\n"
        "That the sign of this exponent decides which solutions can be limits of SGD is the criterion of Chemnitz and Engel "
        "(JMLR 26, 2025, arXiv:2407.20209), there a theorem for regular solutions under hypotheses on the network "
        "and the law of the "
        "start; what is checked here of regularity is that the gradients are independent, that no step annihilates a "
        "direction, and that the samples do not split into groups without influence on each other. The "
        "mean-square rate and the lower bound, which bracket the exponent, and the exponent of gradient descent are derived "
        "from the same kernel.",
    )
    page.figure(
        exponent_figure(dataset),
        "The exponent with two standard errors; the vertical axis is linear near zero and logarithmic beyond. Above, "
        "all three "
        "thresholds; below, the neighbourhood of the almost sure one. Below its threshold the exponent is that of "
        "the slowest "
        "mode of the tangent kernel, very close to zero; above it rises at once.",
        alt="Lyapunov exponent of SGD against the learning rate, with the mean-square rate, the exponent of gradient descent, "
        "the lower bound, and three vertical threshold lines.",
    )


def exponent_figure(dataset: Any) -> Any:
    """Exponent with its band, its bounds and the thresholds: over all rates, and near the almost sure threshold.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    rate = dataset.grid_rate.values[0]
    curve = {name: dataset[f"grid_{name}"].values[0] for name in ("exponent", "mean_square_rate", "gd_exponent")}
    curve["lower_bound"] = dataset.grid_lower_bound.values[0]
    errors = 2 * dataset.grid_standard_error.values[0]
    found = _thresholds(dataset)
    lines = {_LINES[name]: value for name, value in found.items()}
    names = {"exponent": "exponent of SGD", "mean_square_rate": "mean-square rate", "gd_exponent": "exponent of GD",
             "lower_bound": "lower bound"}  # fmt: skip
    figure, (above, below) = report.panels(2, height=3.3)
    shown = {names[name]: values for name, values in curve.items()}
    smallest = float(np.nanmin(np.abs(curve["exponent"])))
    width = 10 ** np.floor(np.log10(max(smallest, 1e-12)))
    report.band(rate, shown, ax=above, errors=errors, lines=lines, log_x=True, linear_width=width, y_label="per step")
    near = (rate >= 0.8 * found["almost_sure"]) & (rate <= 1.3 * found["almost_sure"])
    near = near if near.sum() > 2 else np.ones_like(near)
    close = {names[name]: curve[name][near] for name in ("exponent", "mean_square_rate", "gd_exponent")}
    top = float(np.nanmax(curve["exponent"][near])) or 1.0
    low = min(-0.08 * abs(top), 1.4 * float(np.nanmin(curve["exponent"][near])))
    report.band(
        rate[near],
        close,
        ax=below,
        errors=errors[near],
        lines={name: value for name, value in lines.items() if rate[near][0] <= value <= rate[near][-1]},
        y_limits=(low, max(1.15 * top, -0.2 * low)),
        y_label="per step",
        show_legend=False,
    )
    return figure


def _growth_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    direction = (
        "in the direction that the linearised dynamics take after a long time, so that no transient has to die out first"
        if config["start"] == "aligned"
        else "in a random direction of the normal space; directions that decay faster than others make a transient at first"
    )
    page.section(
        "Real runs of SGD",
        "The network itself, not its linearisation, is trained by SGD from parameters at distance "
        f"{_short(config['distance'])} from the "
        f"solution, {direction}. Every line is one run with its own batches; a run ends when its residual has grown by "
        f"{config['escape']:g}.",
    )
    seeds = dataset.sizes["seed"]
    growth = dataset.residual.values / dataset.start.values[:, None, :]
    runs = np.moveaxis(growth, 2, 1).reshape(-1, dataset.sizes["reading"])
    figure, ax = report.panels(height=3.6)
    report.curves(
        dataset.reading.values,
        runs,
        ax=ax,
        values=np.repeat(dataset.learning_rate.values, seeds),
        log_y=True,
        y_label="growth of the residual |f - y|",
    )
    page.figure(
        figure,
        "Residual norm over its start, one line for each run in the colour of its learning rate; crosses mark escapes.",
        alt="Growth of the residual of real SGD runs against the step, coloured by learning rate.",
    )


def _rate_section(page: Any, dataset: Any, config: dict[str, Any], summaries: list[LaneSummary]) -> None:
    if not any(lane.measured_steps for lane in summaries):
        return
    low, high = config["window"]
    page.section(
        "Measured against predicted rates",
        "The mean growth of log |f - y| per step, from the start to the last reading before which all residuals of "
        "a learning "
        f"rate lie in [{_short(low)}, {_short(high)}], where the dynamics are linear in good approximation; the "
        "standard error is that of the "
        "mean over the runs.",
    )
    lanes = sorted(summaries, key=lambda lane: lane.learning_rate)
    rate = np.array([lane.learning_rate for lane in lanes])
    exponent = np.array([lane.exponent for lane in lanes])
    measured, error = (np.array([getattr(lane, name) for lane in lanes]) for name in ("measured", "measured_error"))
    deviation = np.array([lane.deviation for lane in lanes])
    lines = {"almost sure": _thresholds(dataset)["almost_sure"]}
    margin = 0.04 * (rate.max() - rate.min() or rate.max())
    limits = (rate.min() - margin, rate.max() + margin)
    figure, (above, below) = report.panels(2, height=2.7)
    width = 10 ** np.floor(np.log10(np.nanmin(np.abs(exponent)) or 1e-9))
    bars = np.array([2 * lane.exponent_error for lane in lanes])
    report.band(
        rate, {"predicted": exponent}, errors=bars, ax=above, points=(rate, measured, 2 * error), lines=lines,
        linear_width=width, x_limits=limits, y_label="growth per step",
    )  # fmt: skip
    report.band(
        np.array(limits), {"predicted": np.zeros(2)}, errors=np.full(2, 3.0), ax=below, lines=lines,
        points=(rate, deviation, np.ones_like(rate)), x_limits=limits, y_label="standard errors", show_legend=False,
    )  # fmt: skip
    page.figure(
        figure,
        "Above, measured and predicted growth with two standard errors each. Below, their difference in units of "
        "both standard "
        "errors together; the band reaches from -3 to 3.",
        alt="Measured growth rates with error bars on the predicted exponents, and the deviations in standard errors.",
    )


def _table_section(page: Any, summaries: list[LaneSummary], config: dict[str, Any]) -> None:
    page.section(
        "Every learning rate",
        f"A run escapes when its residual grows by {config['escape']:g} within {config['num_steps']:,} steps, and "
        "stays when it never "
        f"grows by {config['stay']:g}. Where the exponent is positive at least {LEAST_ESCAPED:.0%} of the runs are "
        "expected to escape, "
        "given enough steps, and where it is negative all to stay. Between the mean-square and the almost sure "
        "threshold runs "
        "converge with rare large excursions, which may exceed either factor.",
    )
    hidden = 3  # the standard error of the prediction, which figures show
    rows = [
        [
            *(cell.replace("-", "−") for position, cell in enumerate(row[:-1]) if position != hidden),
            report.Chip(row[-1], _TONES[lane.verdict]),
        ]
        for row, lane in zip(table_rows(summaries), summaries, strict=True)
    ]
    page.table(
        ["learning rate", "/ threshold", "exponent", "measured", "±", "deviation (s.e.)", *COLUMNS[7:]],
        rows,
        caption="Predicted exponent and measured growth of log |f - y| per step with its standard error, and what the runs did.",
    )
