import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure

from dynjax import report
from dynjax.report._curves import _thinned
from dynjax.report._style import lane_colours, number, tone_colours

RNG = np.random.default_rng(3)
STEPS = np.arange(100)
RATES = np.array([0.05, 0.1, 0.1, 0.4])
READINGS = 1 + RNG.random((4, 100))


def drawn(ax):
    """The figure of `ax`, drawn in full, so that errors of late layout show."""
    figure = ax.get_figure()
    figure.canvas.draw()
    assert isinstance(figure, Figure)
    return figure


def solid_lines(ax):
    return [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]


def every_piece(lanes=4, readings=READINGS):
    words = (["fine", "late", "fine", "lost"] * lanes)[:lanes]
    rates = np.geomspace(0.01, 1, lanes)
    readings = np.resize(readings, (lanes, 100))
    yield report.curves(STEPS, readings, values=rates, thresholds=2 / rates, log_y=True)
    yield report.ratio_against(rates, readings, verdicts=words)
    yield report.densities(STEPS - 10, readings, values=rates, markers=2 / rates)
    yield report.heat_map(STEPS, rates, readings, crossing=1.5, log_y=True)
    yield report.status_map(rates, np.zeros(lanes), words)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (-2.5, "−2.5"),
        (np.float32(0.02), "0.02"),
        (1.00021, "1.000"),
        (12345.678, "12,346"),
        (123456, "123,456"),
        (0.0012345, "0.001234"),
        (1e-5, "10⁻⁵"),
        (-3.25e-7, "−3.25·10⁻⁷"),
        (2.99792458e8, "2.998·10⁸"),
        (9.99999, "10.00"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (-float("inf"), "−∞"),
        (1e300, "10³⁰⁰"),
        (5e-324, "4.941·10⁻³²⁴"),
    ],
)
def test_numbers_have_four_digits_and_true_minus_signs(value, text):
    assert number(value) == text


def test_pieces_draw_into_the_axes_given_and_return_them():
    pieces = [
        lambda ax: report.curves(STEPS, READINGS, ax=ax),
        lambda ax: report.ratio_against(RATES, READINGS, ax=ax),
        lambda ax: report.densities(STEPS, READINGS, ax=ax),
        lambda ax: report.heat_map(STEPS, RATES, READINGS, ax=ax),
        lambda ax: report.status_map(RATES, RATES, ["fine"] * 4, ax=ax),
    ]
    figure, axes = report.panels(5, 2, height=2)
    for piece, (left, right) in zip(pieces, axes, strict=True):
        assert piece(left) is left
        assert left.has_data()
        assert not right.has_data()
    drawn(axes[0, 0])
    assert figure.get_size_inches()[1] == 10


def test_pieces_make_a_figure_of_their_own_by_default():
    figures = [drawn(ax) for ax in every_piece()]
    assert len({id(figure) for figure in figures}) == 5


@pytest.mark.parametrize("lanes", [1, 2, 64])
def test_pieces_hold_any_number_of_lanes(lanes):
    for ax in every_piece(lanes=lanes):
        drawn(ax)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pieces_hold_lanes_without_a_finite_reading(bad):
    readings = READINGS.copy()
    readings[0], readings[1, 40:], readings[2] = bad, bad, 1.0
    for ax in every_piece(readings=readings):
        drawn(ax)


def test_curves_mark_where_a_lane_ends_and_only_there():
    readings = READINGS.copy()
    readings[2, 41:] = np.nan
    ax = report.curves(STEPS, readings, values=RATES)
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(40, readings[2, 40])]
    np.testing.assert_array_equal(solid_lines(ax)[2].get_ydata(), readings[2])


def test_thresholds_have_the_colour_of_their_lane():
    thresholds = np.array([1.2, 1.4, np.nan, 1.6])
    ax = report.curves(STEPS, READINGS, values=[1, 2, 3, 4], thresholds=thresholds)
    dashed = {line.get_ydata()[0]: line.get_color() for line in ax.lines if line.get_linestyle() == "--"}
    colours = [line.get_color() for line in solid_lines(ax)]
    assert dashed == {1.2: colours[0], 1.4: colours[1], 1.6: colours[3]}


def test_one_diverging_lane_does_not_flatten_the_others():
    readings = np.ones((8, 1000)) + RNG.random((8, 1000))
    readings[0, 30:34], readings[0, 34:] = np.geomspace(10, 1e30, 4), np.nan
    for log_y in (False, True):
        low, high = report.curves(np.arange(1000), readings, log_y=log_y).get_ylim()
        assert 0.8 < low < 1.0
        assert 2.0 < high < 2.4


def test_equal_values_share_one_entry_and_many_values_a_colour_bar():
    few = report.curves(STEPS, READINGS, values=RATES)
    assert [text.get_text() for text in few.get_legend().get_texts()] == ["0.4", "0.1", "0.05"]
    many = report.curves(STEPS, np.ones((13, 100)), values=np.arange(13))
    assert many.get_legend() is None
    assert len(many.get_figure().axes) == 2


def test_thinning_keeps_extremes_ends_and_gaps():
    x, y = np.arange(100_000), RNG.normal(size=100_000)
    y[777], y[5555], y[90_000:] = 50, -50, np.nan
    thin_x, thin_y = _thinned(x, y, 300)
    assert len(thin_x) < 1000
    assert np.all(np.diff(thin_x) > 0)
    np.testing.assert_array_equal(thin_y, y[thin_x])
    assert {0, 777, 5555, 99_999} <= set(thin_x)
    assert np.isnan(thin_y[thin_x >= 90_000]).all()
    assert not np.isnan(thin_y[thin_x < 90_000]).any()


def test_ratio_shows_median_and_range():
    readings = np.vstack([np.linspace(0, 1, 101), np.full(101, np.nan)])
    ax = report.ratio_against([0.1, 0.2], readings, verdicts=["fine", "lost"], tones={"fine": "good", "lost": "bad"})
    (point,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert point.get_ydata()[0] == 0.5
    assert point.get_color() == report.TONES["good"]
    (bar,) = [line for line in ax.lines if line.get_color() == report.TONES["good"] and line is not point]
    np.testing.assert_allclose(bar.get_ydata(), [0.05, 0.95])
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert cross.get_color() == report.TONES["bad"]


def test_lanes_with_equal_rates_stand_beside_each_other():
    ax = report.ratio_against([0.1, 0.1, 0.1, 10.0], [1.0, 1.0, 1.0, 1.0])
    places = np.array([line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"])
    assert len(np.unique(places)) == 4
    np.testing.assert_allclose(np.prod(places[:3]), 1e-3, rtol=1e-12)  # around their common place
    np.testing.assert_allclose(places, [0.1, 0.1, 0.1, 10], rtol=0.05)


def test_ridges_have_logarithmic_heights_in_the_order_of_values():
    grid = np.linspace(0, 1, 5)
    density = np.array([[1.0, 0.1, 0.01, 1e-4, 0], [100.0, 1, 1, 1, 1]])
    ax = report.densities(grid, density, values=[2.0, 1.0], decades=4.0)
    upper, lower = (line.get_ydata() for line in sorted(ax.lines, key=lambda line: -line.get_ydata()[-1]))
    np.testing.assert_allclose(lower, 1.6 * np.array([1.0, 0.5, 0.5, 0.5, 0.5]))
    np.testing.assert_allclose(upper - 1, 1.6 * np.array([0.5, 0.25, 0, 0, 0]), atol=1e-12)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1", "2"]
    assert sum(isinstance(item, PolyCollection) for item in ax.collections) == 2


def test_heat_map_averages_lanes_of_equal_rate_and_marks_first_crossings():
    values = np.array([[0.0, 1.0, np.nan], [0.0, 3.0, np.nan], [0.0, 0.0, 5.0]])
    ax = report.heat_map([0, 10, 20], [0.1, 0.1, 1.0], values, crossing=2.0, log_y=True)
    (mesh,) = [item for item in ax.collections if isinstance(item, QuadMesh)]
    field = mesh.get_array().reshape(2, 3)
    np.testing.assert_array_equal(field.filled(-1), [[0, 2, -1], [0, 0, 5]])
    assert [float(line.get_xdata()[0]) for line in ax.lines] == [10, 20]
    edges = ax.lines[0].get_ydata()
    np.testing.assert_allclose(edges, [0.1 / np.sqrt(10), 0.1 * np.sqrt(10)])


def test_status_cells_carry_words():
    ax = report.status_map([0.1, 0.1, 0.2, 0.2], [0, 1, 0, 1], ["fine", "fine", "lost", "late"])
    assert sorted(text.get_text() for text in ax.texts) == ["fine", "fine", "late", "lost"]
    many = report.status_map(np.arange(40), np.zeros(40), ["at the edge"] * 39 + ["at rest"])
    assert {text.get_text() for text in many.texts} == {"1", "2"}
    assert len(many.get_legend().get_texts()) == 2


def test_colours_of_lanes_are_ordered_in_lightness():
    colours, _ = lane_colours(np.geomspace(1e-3, 1, 20))
    lightness = [0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2 for r, g, b, _ in colours]
    assert np.all(np.diff(lightness) > 0)
    assert lane_colours([2.0])[0] == lane_colours([2.0, 2.0])[0][:1]


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_tones_can_be_read_on_white():
    for colour in report.TONES.values():
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5  # WCAG 2, level AA


def test_words_without_a_tone_get_free_ones():
    colours = tone_colours(["b", "a", "b"], {"a": "good"})
    assert colours == {"a": report.TONES["good"], "b": report.TONES["neutral"]}
    assert len(set(tone_colours(list("abcde"), None).values())) == 5


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: report.curves(STEPS, np.ones((2, 99))), r"`ys` must have shape \(lanes, 100\), but found \(2, 99\)"),
        (lambda: report.curves(STEPS, READINGS, values=[1, 2]), r"`values` must have shape \(4,\)"),
        (lambda: report.curves(STEPS, READINGS, thresholds=[1]), r"`thresholds` must have shape \(4,\)"),
        (lambda: report.ratio_against([1, 2], [1.0]), "`ratio` must have 2 lanes"),
        (lambda: report.ratio_against([1, 2], [1.0, 1.0], verdicts=["a"]), "`verdicts` must have one word for each"),
        (
            lambda: report.ratio_against([1], [1.0], verdicts=["a"], tones={"a": "pink"}),
            "`tones` must map words to one",
        ),
        (lambda: report.densities(STEPS, np.ones((2, 9))), r"`grid` must have shape \(9,\) or \(2, 9\)"),
        (lambda: report.densities(STEPS, np.zeros(100)), "`density` must be positive somewhere"),
        (lambda: report.densities(STEPS, READINGS, markers=[1.0]), r"`markers` must have shape \(4,\)"),
        (lambda: report.heat_map([1, 2], [1], np.ones((2, 1))), r"`values` must have shape \(1, 2\)"),
        (lambda: report.status_map([1], [1, 2], ["a"]), "`words` must have as many entries"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_figures_leave_no_trace_in_matplotlib():
    before = dict(matplotlib.rcParams)
    for ax in every_piece():
        drawn(ax)
    assert dict(matplotlib.rcParams) == before


def test_import_loads_no_matplotlib_and_figures_no_pyplot():
    code = (
        "import sys, dynjax.report as r\nassert 'matplotlib' not in sys.modules\n"
        "r.curves([1, 2], [[1, 2]])\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
