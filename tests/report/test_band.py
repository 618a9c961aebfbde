"""Curves with an error band, threshold lines and points with error bars."""

import numpy as np
import pytest

import dynjax as dj

X = np.linspace(1, 2, 11)


def test_the_band_surrounds_the_first_curve():
    ax = dj.report.band(X, {"first": X, "second": 2 * X}, errors=np.full(11, 0.25))
    drawn = ax.collections[0].get_paths()[0].vertices
    assert drawn[:, 1].min() == pytest.approx(0.75)
    assert drawn[:, 1].max() == pytest.approx(2.25)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["first", "second"]


def test_lines_inside_are_drawn_and_those_beyond_are_named():
    ax = dj.report.band(X, {"y": X}, lines={"inside": 1.5, "far": 7.0, "below": 0.1, "none": np.nan})
    texts = [text.get_text() for text in ax.texts]
    assert any(text.startswith("inside 1.5") for text in texts)
    assert any(text.startswith("beyond: far 7") for text in texts)
    assert any(text.startswith("beyond: below 0.1") for text in texts)
    assert not any("none" in text for text in texts)
    vertical = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in vertical] == [1.5]


def test_gaps_points_and_a_symmetric_logarithm_are_drawn():
    y = np.where(X > 1.5, np.nan, X - 1.2)
    ax = dj.report.band(
        X, {"y": y}, errors=np.full(11, 0.1), points=([1.1], [0.2], [0.05]), points_label="seen", linear_width=0.01,
        log_x=True, x_limits=(1, 3), y_limits=(-1, 1),
    )  # fmt: skip
    assert ax.get_yscale() == "symlog"
    assert ax.get_xlim() == (1, 3)
    assert ax.get_ylim() == (-1, 1)
    assert "seen" in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ys": {}}, "`ys` must hold 1 to 5"),
        ({"ys": {"a": X[:3]}}, "`ys` must have shape"),
        ({"ys": {"a": X}, "errors": X[:3]}, "`errors` must have shape"),
        ({"ys": {"a": X}, "points": ([1], [1, 2], [1])}, "`points` must have three equal shapes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        dj.report.band(X, **arguments)
