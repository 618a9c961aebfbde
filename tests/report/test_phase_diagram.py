"""A predicted boundary with measured dots on its two sides."""

import numpy as np
import pytest

import dynjax as dj

X = np.linspace(0.1, 1, 10)
BOUNDARY = (X, np.where(X < 0.3, np.inf, 1 / X))
DOTS = ([0.2, 0.5, 0.8], [1.0, 1.0, 2.0], [0.5, 0.01, np.nan])


def diagram(**options):
    return dj.report.phase_diagram(*DOTS, **({"boundary": BOUNDARY} | options))


def test_the_region_under_the_boundary_is_shaded_up_to_the_top_where_that_is_infinite():
    ax = diagram(y_limits=(0.5, 4))
    shaded = ax.collections[0].get_paths()[0]
    assert shaded.contains_point((0.2, 3.9))
    assert shaded.contains_point((0.8, 1.1))
    assert not shaded.contains_point((0.8, 1.4))
    line = next(line for line in ax.lines if len(line.get_xdata()) == X.size)
    assert np.isnan(line.get_ydata()[:2]).all()
    np.testing.assert_allclose(line.get_ydata()[3:], 1 / X[3:])


def test_dots_change_their_shape_at_the_level_and_missing_ones_are_crosses():
    ax = diagram(level=0.1, level_labels=("high", "low"), lines={"limit": 0.3}, names={"left": (0.2, 1.5)})
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["theory", "limit 0.3", "high", "low", "no value"]
    dots = [collection.get_offsets().data.tolist() for collection in ax.collections[1:]]
    assert dots == [[[0.8, 2.0]], [[0.2, 1.0]], [[0.5, 1.0]]]
    shapes = [len(collection.get_paths()[0].vertices) for collection in ax.collections[2:]]
    assert shapes[0] > shapes[1]
    assert "left" in [text.get_text() for text in ax.texts]


def test_contours_lie_at_their_levels():
    up = np.linspace(0.5, 3, 7)
    ax = diagram(contours=(X, up, up[:, None] + 0 * X, [2.0]), y_limits=(0.5, 3))
    drawn = [c for c in ax.collections if hasattr(c, "levels")]
    np.testing.assert_allclose(np.concatenate([p.vertices[:, 1] for p in drawn[0].get_paths()]), 2)


def test_axes_may_be_logarithmic_and_dots_may_all_be_missing():
    ax = dj.report.phase_diagram([0.2, 0.4], [1, 2], [np.nan, np.nan], boundary=BOUNDARY, log_x=True, log_y=True)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_xlim() == (X[0], X[-1])
    assert len(ax.collections[1].get_offsets()) == 2


@pytest.mark.parametrize(
    ("dots", "options", "words"),
    [
        (([1, 2], [1], [1]), {}, "`values` must have shape"),
        (DOTS, {"boundary": (X, X[:3])}, "`boundary` must hold"),
        (DOTS, {"contours": (X, X[:3], np.zeros((10, 3)), [1])}, "`contours` must have z"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(dots, options, words):
    with pytest.raises(ValueError, match=words):
        dj.report.phase_diagram(*dots, **({"boundary": BOUNDARY} | options))
