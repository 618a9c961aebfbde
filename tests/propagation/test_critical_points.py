"""Critical points of maps for which all of them are known, and what may be said to be proved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from landscapes import HIMMELBLAU, Line, Polynomial, Waves

from dynjax._core import Status
from dynjax.networks import MLP, NeuralODE
from dynjax.propagation import critical_points
from dynjax.propagation._critical_points import as_landscape
from dynjax.propagation._morse_proof import Bounds, isolate, prove

PAIR = Polynomial.of(x3y0=1, x1y0=-1, x0y2=1)
NOTHING = Polynomial.of(x3y0=1, x1y0=1, x0y2=1)
MONKEY = Polynomial.of(x3y0=1, x1y2=-3)
RING = Polynomial.of(x4y0=1, x2y2=2, x0y4=1, x2y0=-2, x0y2=-2, x0y0=1)


def test_himmelblau_has_its_nine_points_and_the_proof_says_so(x64, key):
    report = critical_points(HIMMELBLAU, [-5, -5], [5, 5], key=key)
    assert np.bincount(np.asarray(report.morse_index)).tolist() == [4, 4, 1]
    assert report.complete
    assert report.degree_matches
    assert bool(jnp.all(report.certified))
    # The four minima have the value 0; one of them is known exactly, the rest from the literature.
    expected = [
        [3, 2],
        [-2.805118086953, 3.131312518250],
        [-3.779310253378, -3.283185991286],
        [3.584428340330, -1.848126526964],
    ]
    minima = np.asarray(report.points)[:4]
    distances = np.linalg.norm(minima[:, None] - np.asarray(expected), axis=2).min(axis=0)
    np.testing.assert_allclose(distances, 0, atol=1e-11)
    np.testing.assert_allclose(report.values[:4], 0, atol=1e-13)  # rounding of terms of size 200
    np.testing.assert_allclose(report.points[8], [-0.270845, -0.923039], atol=1e-6)


def test_equal_degrees_do_not_hide_a_pair(x64, key):
    """Both maps have degree 0 on the box; one has a minimum and a saddle, the other nothing."""
    pair = critical_points(PAIR, [-2, -2], [2, 2], key=key)
    root = 1 / np.sqrt(3)
    np.testing.assert_allclose(pair.points, [[root, 0], [-root, 0]], atol=1e-14)
    np.testing.assert_allclose(pair.eigenvalues, [[2, 6 * root], [-6 * root, 2]], rtol=1e-13)
    assert (pair.degree, pair.boundary_degree, pair.complete) == (0, 0, True)
    assert pair.morse_class == "C2"
    nothing = critical_points(NOTHING, [-2, -2], [2, 2], key=key)
    assert nothing.points.shape == (0, 2)
    assert (nothing.degree, nothing.boundary_degree, nothing.complete) == (0, 0, True)
    assert nothing.morse_class == "C1"


def test_the_proof_finds_what_the_search_missed(x64):
    landscape = as_landscape(PAIR, [-2, -2], [2, 2])
    proof = prove(landscape, Bounds(landscape), np.zeros((0, 2)), 1000)
    middles = sorted(0.5 * (zero.inner_lo + zero.inner_hi)[0] for zero in proof.zeros)
    assert proof.complete
    np.testing.assert_allclose(middles, [-1 / np.sqrt(3), 1 / np.sqrt(3)], atol=1e-14)
    root = 1 / np.sqrt(3)
    for zero, exact in zip(sorted(proof.zeros, key=lambda z: z.inner_lo[0]), (-root, root), strict=True):
        assert zero.inner_lo[0] <= exact <= zero.inner_hi[0]
        assert zero.inner_hi[0] - zero.inner_lo[0] < 1e-11


def test_no_zero_is_proved_where_there_is_none(x64):
    landscape = as_landscape(NOTHING, [-2, -2], [2, 2])
    bounds = Bounds(landscape)
    for x in np.random.default_rng(0).uniform(-2, 2, (20, 2)):
        assert isolate(bounds, x, landscape.size) is None


def test_a_single_start_is_enough_where_the_proof_completes_the_list(x64, key):
    report = critical_points(HIMMELBLAU, [-5, -5], [5, 5], key=key, num_starts=1, max_restarts=0)
    assert report.points.shape == (9, 2)
    assert report.complete
    assert report.degree_matches


def test_restarts_go_on_until_the_degrees_agree(x64, key):
    report = critical_points(HIMMELBLAU, [-5, -5], [5, 5], key=key, num_starts=1, max_restarts=30, prove_complete=False)
    assert report.num_restarts > 0
    assert report.degree_matches
    few = critical_points(HIMMELBLAU, [-5, -5], [5, 5], key=key, num_starts=1, max_restarts=0, prove_complete=False)
    assert few.degree_matches is False
    assert int(few.status) == Status.NOT_CONVERGED
    assert not few.complete


def test_a_monkey_saddle_is_degenerate(x64, key):
    report = critical_points(MONKEY, [-1, -1], [1.3, 1.2], key=key)
    assert report.points.shape == (1, 2)
    np.testing.assert_allclose(report.points, 0, atol=1e-6)
    assert bool(report.degenerate[0])
    assert report.boundary_degree == -2
    assert report.degree_matches is None
    assert not report.complete
    assert "degenerate" in report.incomplete_reason


def test_a_circle_of_critical_points_is_a_few_degenerate_ones(x64, key):
    report = critical_points(RING, [-2, -2], [2, 2], key=key)
    degenerate = np.asarray(report.degenerate)
    radii = np.linalg.norm(np.asarray(report.points), axis=1)
    assert 4 <= degenerate.sum() <= 16
    np.testing.assert_allclose(radii[degenerate], 1, atol=1e-8)
    np.testing.assert_allclose(radii[~degenerate], 0, atol=1e-12)
    assert np.asarray(report.morse_index)[~degenerate].tolist() == [2]
    assert report.morse_class == "C3"


def test_two_points_close_together_are_two_nondegenerate_ones(x64, key):
    near = Polynomial.of(x3y0=1, x1y0=-3e-6, x0y2=1)
    report = critical_points(near, [-2, -2], [2, 2], key=key)
    np.testing.assert_allclose(report.points[:, 0], [1e-3, -1e-3], rtol=1e-9)
    assert not bool(jnp.any(report.degenerate))
    assert report.complete


def test_a_point_on_the_boundary_is_never_proved(x64, key):
    bowl = Polynomial.of(x2y0=1, x0y2=1)
    report = critical_points(bowl, [0, -1], [1, 1], key=key)
    assert not report.complete
    assert "boundary" in report.incomplete_reason
    assert report.boundary_degree is None
    assert report.degree_matches is None


def test_a_budget_that_is_too_small_is_the_reason(x64, key):
    report = critical_points(HIMMELBLAU, [-5, -5], [5, 5], key=key, max_cells=4)
    assert not report.complete
    assert "max_cells" in report.incomplete_reason
    assert report.points.shape == (9, 2)


@pytest.mark.parametrize(
    ("coefficients", "points", "index", "degree"),
    [
        ((0, 0, 1, 0, 0), [0], [0], 1),
        ((0, -1, 0, 1, 0), [3**-0.5, -(3**-0.5)], [0, 1], 0),
        ((0, 1, 0, 1, 0), [], [], 0),
    ],
)
def test_one_dimension_by_signs(x64, key, coefficients, points, index, degree):
    report = critical_points(Line(jnp.array(coefficients, float)), -1.3, 2.0, key=key)
    np.testing.assert_allclose(report.points[:, 0], points, atol=1e-14)
    assert report.morse_index.tolist() == index
    assert (report.degree, report.boundary_degree, report.complete) == (degree, degree, True)


def test_random_quartics_have_the_roots_of_their_derivative(x64, key):
    """With a single start, so that the proof has to find the rest, each once."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        coefficients = rng.normal(size=5)
        report = critical_points(Line(jnp.asarray(coefficients)), -1.5, 1.7, key=key, num_starts=1, max_restarts=0)
        roots = np.polynomial.polynomial.polyroots(np.polynomial.polynomial.polyder(coefficients))
        real = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
        assert report.complete
        np.testing.assert_allclose(np.sort(report.points[:, 0]), real[(real > -1.5) & (real < 1.7)], atol=1e-12)


def test_the_fourth_power_is_degenerate_in_one_dimension(x64, key):
    report = critical_points(Line(jnp.array([0.0, 0, 0, 0, 1])), -1.0, 1.5, key=key)
    assert report.degenerate.tolist() == [True]
    assert report.boundary_degree == 1


def test_waves_in_three_dimensions(x64, key):
    """Without coupling the points are the grid k pi / w, and the index counts the maxima."""
    frequencies = jnp.array([1.0, 1.3, 0.7])
    report = critical_points(Waves(frequencies, jnp.zeros((3, 3))), [-4, -4, -3.9], [4, 4, 4], key=key)
    grid = [np.pi * np.arange(-1, 2), np.pi / 1.3 * np.arange(-1, 2), np.zeros(1)]
    expected = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 3)
    found = np.asarray(report.points)
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - expected, axis=2).min(axis=0), 0, atol=1e-12)
    index = np.sum(np.cos(found * np.asarray(frequencies)) > 0, axis=1)
    np.testing.assert_array_equal(report.morse_index, index)
    assert report.complete
    assert report.degree_matches


def test_a_quadratic_form_in_three_dimensions_has_the_degree_of_its_determinant(x64, key):
    matrix = jnp.array([[1.0, 0.2, 0.3], [0.2, -2.0, 0.1], [0.3, 0.1, -1.5]])
    report = critical_points(Waves(jnp.zeros(3), matrix), [-1, -1, -1], [1, 1.2, 1.1], key=key)
    np.testing.assert_allclose(report.eigenvalues[0], np.linalg.eigvalsh(2 * np.asarray(matrix)), rtol=1e-12)
    assert report.morse_index.tolist() == [2]
    assert (report.degree, report.boundary_degree, report.complete) == (1, 1, True)


def test_exponential_decay_is_no_critical_point(x64, key):
    report = critical_points(lambda x: jnp.exp(10 * x[0]), [-5.0], [5.0], key=key)
    assert report.points.shape == (0, 1)
    assert report.complete


def test_random_perceptrons_are_decided_completely(x64, key):
    total = 0
    for seed in range(8):
        report = critical_points(MLP((2, 8, 1), key=jax.random.key(seed)), [-4, -4], [4, 4], key=key)
        assert report.complete
        assert report.degree_matches
        assert float(jnp.max(report.gradient_norm, initial=0)) < 1e-13
        total += report.points.shape[0]
    assert total > 0


def test_networks_of_one_architecture_share_their_programs(key):
    traces = []

    def counted(z):
        traces.append(1)
        return jnp.tanh(z)

    for seed in range(3):
        before = len(traces)
        model = MLP((1, 3, 1), activation=counted, key=jax.random.key(seed))
        critical_points(model, -2.0, 2.0, key=key, num_starts=8, prove_complete=False)
        if seed == 0:
            assert len(traces) > 3
        else:
            assert len(traces) - before <= 1  # the check of the output's shape


def test_single_precision_gives_the_same_points(key):
    model = MLP((2, 8, 1), key=jax.random.key(1))
    single = critical_points(model, [-4.0, -4.0], [4.0, 4.0], key=key)
    assert single.points.dtype == jnp.float32
    assert single.complete
    with jax.enable_x64(True):
        wide = jax.tree_util.tree_map(lambda a: a.astype(jnp.float64), model)
        double = critical_points(wide, [-4.0, -4.0], [4.0, 4.0], key=key)
        assert double.points.shape == single.points.shape == (1, 2)
        np.testing.assert_allclose(single.points, double.points, atol=1e-4)
    assert single.morse_index.tolist() == double.morse_index.tolist()


def test_a_kink_is_not_proved_across(x64, key):
    report = critical_points(lambda x: jnp.abs(x[0]) + x[0] ** 2, [-1.0], [1.5], key=key)
    assert not report.complete


def test_an_adaptive_solver_is_refused_with_its_default_adjoint(x64, key):
    with pytest.raises(TypeError, match="twice differentiable"):
        critical_points(NeuralODE((1, 1, 1), max_steps=16, key=key), -1.0, 1.0, key=key)


def test_a_program_without_enclosures_has_no_proof(x64, key):
    report = critical_points(lambda x: jnp.sum(jnp.sort(x) ** 2), [-1.0], [1.3], key=key)
    np.testing.assert_allclose(report.points, [[0]], atol=1e-14)
    assert not report.complete
    assert report.incomplete_reason == "the primitive `sort` has no interval enclosure"


def test_results_print_and_repeat(x64, key):
    first = critical_points(PAIR, [-2, -2], [2, 2], key=key)
    again = critical_points(PAIR, [-2, -2], [2, 2], key=key)
    np.testing.assert_array_equal(first.points, again.points)
    assert str(first) == "CriticalPoints(C2: 1 of index 0, 1 of index 1; complete)"


@pytest.mark.parametrize(
    ("fn", "lower", "upper", "message", "error"),
    [
        (PAIR, [0.0, 1.0], [1.0, 1.0], "must be below `upper`", ValueError),
        (PAIR, [1.0, 0.0], [0.0, 1.0], "must be below `upper`", ValueError),
        (PAIR, [0.0, 0.0], [1.0, np.inf], "must be finite", ValueError),
        (PAIR, [np.nan, 0.0], [1.0, 1.0], "must be finite", ValueError),
        (PAIR, [0.0, 0.0], [1.0, 1.0, 1.0], "have the shape", ValueError),
        (PAIR, [[0.0]], [[1.0]], "must be a vector", ValueError),
        (lambda x: x, [0.0, 0.0], [1.0, 1.0], "must return one real number", TypeError),
        ("map", [0.0], [1.0], "must be callable", TypeError),
        (MLP((3, 1), key=jax.random.key(0)), [0.0, 0.0], [1.0, 1.0], "must accept one sample", ValueError),
    ],
)
def test_bad_input_is_named(fn, lower, upper, message, error, key):
    with pytest.raises(error, match=message):
        critical_points(fn, lower, upper, key=key)


def test_a_traced_box_is_refused(key):
    with pytest.raises(TypeError, match="known numbers"):
        jax.jit(lambda a: critical_points(PAIR, a, a + 1, key=key))(jnp.zeros(2))


def test_a_map_without_finite_gradients_has_a_status(x64, key):
    report = critical_points(lambda x: jnp.log(-(x[0] ** 2) - 1), [-1.0], [1.5], key=key)
    assert int(report.status) == Status.NONFINITE
    assert not report.complete
