"""Which minima of f(x) = a b x gradient descent and SGD find: acceptance test 10 and the edges."""

import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import implicit_bias as bias


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """40,000 runs at two rates."""
    return bias.run(bias.Config(learning_rates=(0.45, 0.55)), tmp_path_factory.mktemp("bias") / "run.zarr")


def lane_of(runs, rate, algorithm):
    return next(lane for lane in bias.summarise(runs) if lane.learning_rate == rate and lane.algorithm == algorithm)


def test_edges_are_those_of_the_theory():
    edges = bias.edges((1.0, 3.0))
    assert edges.almost_sure == pytest.approx(4 / 3, rel=1e-6)
    assert edges.gd == pytest.approx(1, rel=1e-12)
    assert edges.mean_square == pytest.approx(4 / 5, rel=1e-12)
    assert len(edges.crossings) == 1
    np.testing.assert_allclose(bias.edges((1.0, 10.0)).crossings, (0.22984, 0.87016, 1.10001), atol=2e-5)


def test_a_sample_at_zero_changes_gradient_descent_alone():
    edges = bias.edges((0.0, 1.0, 3.0))
    assert edges.almost_sure == pytest.approx(4 / 3, rel=1e-6)
    assert edges.gd == pytest.approx(1.5, rel=1e-12)
    assert edges.mean_square == pytest.approx(4 / 5, rel=1e-12)


def test_sgd_finds_minima_where_gradient_descent_finds_none(runs):
    """At learning rate .55: SGD in more than 60 % of the runs, and 99 % of its limits within 1.01 x 2.4242; GD in none."""
    sgd, gd = lane_of(runs, 0.55, "SGD"), lane_of(runs, 0.55, "GD")
    assert sgd.converged > 0.6
    assert sgd.edge == pytest.approx(2.4242, abs=1e-4)
    assert sgd.within > 0.99
    assert gd.converged == 0
    assert sgd.verdict == "within the edge"
    assert gd.verdict == "none, as predicted"
    # exact zeros and slow neighbours of the edge may lie above it, but few
    assert sgd.above < 0.01


def test_sgd_goes_beyond_the_edge_of_gradient_descent(runs):
    """At learning rate .45 limits of GD stop at 1/.45 = 2.2222, those of SGD go on towards 2.963."""
    sgd, gd = lane_of(runs, 0.45, "SGD"), lane_of(runs, 0.45, "GD")
    assert gd.above == 0
    assert 2.2 < gd.largest < 2.2222
    assert sgd.quantile > 1.2 * gd.edge
    assert sgd.within > 0.99


def test_limits_are_minima_and_starts_are_shared(runs):
    a, b = runs.a.values, runs.b.values
    for lane in range(4):
        good = np.abs(a[lane] * b[lane] - 1) <= 1e-6
        assert np.mean(good) == pytest.approx(float(runs.converged[lane, -1]), abs=1e-6)
    program = bias.program(bias.Config(num_runs=10, precision="float32"))
    one, two = (program.init({"learning_rate": np.float32(0.5), "stochastic": np.int32(s)}) for s in (0, 1))
    np.testing.assert_array_equal(one.weights[0], two.weights[0])


def test_many_samples_are_chosen_like_few():
    """More than 16 samples take another route to the same law."""
    import jax

    squares = tuple(np.linspace(0, 2, 20))
    program = bias.program(bias.Config(input_squares=squares, num_runs=4000, precision="float32"))
    drawn = np.asarray(program._curvatures(jax.random.key(1), np.asarray(True)))
    assert set(np.round(drawn, 4)) <= set(np.round(np.float32(squares), 4))
    assert abs(drawn.mean() - 1) < 4 * np.std(squares) / np.sqrt(4000)
    mean = np.asarray(program._curvatures(jax.random.key(1), np.asarray(False)))
    np.testing.assert_allclose(mean, 1, rtol=1e-6)


def test_report_and_table_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    bias.write_report(runs, page)
    text = page.read_text()
    for words in (
        "Chemnitz and Engel",
        "within the edge",
        "none, as predicted",
        "1.333",
        "Figure 1",
        "exactly stays there",
    ):
        assert words in text, words
    assert 'src="http' not in text
    assert "2.4242" in bias.table(runs)


def test_the_command_runs_resumes_and_reports(tmp_path, capsys):
    out = tmp_path / "run.zarr"
    small = ["bias", "--num-runs", "500", "--num-steps", "200", "--learning-rates", "0.4", "--input-squares", "1", "10",
             "--out", str(out), "--report"]  # fmt: skip
    assert main([*small, "--time-budget", "1e-6"]) == 75
    assert main(small) == 0
    assert "several stable intervals" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    assert dj.sweep.open(out).a.shape == (2, 500)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--learning-rates", "-1"], "positive"),
        (["--input-squares", "-1", "2"], "negative"),
        (["--input-squares", "0"], "not all zero"),
        (["--num-runs", "0"], "num_runs"),
        (["--seed", "-3"], "seed"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("bias", arguments, words)
