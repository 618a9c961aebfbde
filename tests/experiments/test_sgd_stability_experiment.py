"""Predictions and real runs of SGD at an interpolation solution, at a size of seconds."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import sgd_stability as sgd
from dynjax.experiments.sgd_stability._summary import _growth_rate, _verdict

TINY = sgd.Config(
    num_samples=6, widths=(8,), num_seeds=16, num_steps=2000, check_rates=(0.7, 1.5), exponent_steps=20_000,
    threshold_steps=5000, alignment_steps=5000,
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return sgd.run(TINY, tmp_path_factory.mktemp("sgd") / "run.zarr")


@pytest.fixture(scope="module")
def made():
    with jax.enable_x64(True):
        yield sgd.predictions(TINY)


def test_runs_escape_above_the_threshold_and_stay_below(runs):
    below, above = sgd.summarise(runs)
    assert below.verdict == "stays, as predicted"
    assert below.exponent < 0
    assert below.stayed == 1
    assert above.verdict == "escapes, as predicted"
    assert above.exponent > 0
    assert above.escaped >= 0.95
    assert np.all(runs.stop_step.values[0] == -1)
    assert np.all(np.isnan(runs.residual.values[1][-1]))


def test_measured_growth_agrees_with_the_exponent(runs):
    """Within 3 standard errors, two rates, one fixed seed."""
    for lane in sgd.summarise(runs):
        assert lane.measured_steps > 0
        assert lane.measured_error < 0.5 * abs(lane.exponent)
        assert lane.agrees, lane


def test_stored_predictions_are_those_of_the_library(runs, made):
    assert runs.threshold.dims == ("lane", "criterion")
    almost_sure, mean_square, gd = runs.threshold.values[0]
    kernel = np.asarray(dj.tangent_kernel(lambda m, x: jax.vmap(m)(x), made.params, made.inputs).as_matrix())
    assert gd == pytest.approx(2 * 6 / np.linalg.eigvalsh(kernel)[-1], rel=1e-9)
    assert 0 < mean_square <= almost_sure
    assert mean_square <= gd
    assert int(runs["rank"][0]) == int(runs.num_outputs[0]) == 6
    assert int(runs.num_params[0]) == 64 * 8 + 8 + 8 + 1
    assert float(runs.solution_residual[0]) < 1e-12
    np.testing.assert_allclose(runs.learning_rate, almost_sure * np.array([0.7, 1.5]), rtol=1e-12)
    grid = {name: runs[f"grid_{name}"].values[0] for name in ("exponent", "standard_error", "mean_square_rate")}
    assert np.all(grid["exponent"] <= grid["mean_square_rate"] + 4 * grid["standard_error"] + 1e-9)


@pytest.mark.parametrize("start", ["aligned", "random"])
def test_runs_start_at_their_distance_in_the_normal_space(made, start):
    with jax.enable_x64(True):
        program = sgd.SGDProgram(made, dataclasses.replace(TINY, start=start))
        state = program.init({"check": jnp.asarray(0)})
        moved = jax.tree_util.tree_map(lambda a, b: a - b, state.training.params, made.params)
        flat = np.concatenate(
            [np.asarray(leaf).reshape(TINY.num_seeds, -1) for leaf in jax.tree_util.tree_leaves(moved)], axis=1
        )
        np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1e-6, rtol=1e-6)
        # On the normal space |J d| is at least sqrt(k_min) |d|, which tangent parts would spoil.
        eigenvalues = np.asarray(made.eigenvalues)
        assert np.all(np.asarray(state.start) >= 0.999 * 1e-6 * np.sqrt(eigenvalues[-1]))
        assert np.all(np.asarray(state.start) <= 1.001 * 1e-6 * np.sqrt(eigenvalues[0]))


def test_growth_rate_stops_before_the_first_run_leaves_the_window():
    reading = np.array([10, 20, 30, 40])
    rates = np.array([0.01, 0.03])
    residual = 1e-6 * np.exp(reading[:, None] * rates)
    mean, error, steps = _growth_rate(residual, np.full(2, 1e-6), reading, [1e-10, 1e-6 * np.exp(0.95)])
    assert steps == 30
    assert mean == pytest.approx(0.02)
    assert error == pytest.approx(0.01)
    assert _growth_rate(residual, np.full(2, 1e-3), reading, [1e-10, 1e-4])[2] == 0


@pytest.mark.parametrize(
    ("exponent", "escaped", "stayed", "verdict"),
    [
        (1.0, 1.0, 0.0, "escapes, as predicted"),
        (1.0, 0.0, 1.0, "stays, against the prediction"),
        (1.0, 0.5, 0.0, "not decided yet"),
        (-1.0, 0.0, 1.0, "stays, as predicted"),
        (-1.0, 1.0, 0.0, "escapes, against the prediction"),
        (0.1, 0.5, 0.5, "no clear sign"),
    ],
)
def test_verdicts_follow_their_definition(exponent, escaped, stayed, verdict):
    assert _verdict(exponent, 0.1, escaped, stayed) == verdict


def test_a_run_that_ran_out_of_time_resumes_to_the_same_bits(runs, tmp_path):
    path = tmp_path / "run.zarr"
    with pytest.raises(dj.sweep.Stopped):
        sgd.run(TINY, path, time_budget=1e-6)
    again = sgd.run(TINY, path)
    for name in ("residual", "start", "stop_step", "exponent"):
        np.testing.assert_array_equal(again[name].values, runs[name].values)


def test_report_and_table_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    sgd.write_report(runs, page)
    text = page.read_text()
    for words in ("almost sure threshold", "Chemnitz and Engel", "escapes, as predicted", "stays, as predicted", "Figure 3",
                  "derived", "rank of the Jacobian"):  # fmt: skip
        assert words in text, words
    assert 'src="http' not in text
    table = sgd.table(runs)
    assert "critical learning rates: almost sure" in table
    assert "escapes, as predicted" in table


def test_the_command_writes_what_the_function_writes(runs, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    flags = ["--num-samples", "6", "--widths", "8", "--num-seeds", "16", "--num-steps", "2000", "--check-rates", "0.7", "1.5",
             "--exponent-steps", "20000", "--threshold-steps", "5000", "--alignment-steps", "5000"]  # fmt: skip
    assert main(["sgd", *flags, "--out", str(out), "--report"]) == 0
    assert "as predicted" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    stored = dj.sweep.open(out)
    assert json.loads(stored.attrs["config"])["num_samples"] == 6
    np.testing.assert_array_equal(stored.residual.values, runs.residual.values)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"check_rates": ()}, "`check_rates` must hold at least one"),
        ({"check_rates": (1.0, 1.0)}, "`check_rates` must hold no rate twice"),
        ({"learning_rates": (-1.0,)}, "`learning_rates` must be positive and finite"),
        ({"num_seeds": 1}, "`num_seeds` must be at least 2"),
        ({"num_steps": 0}, "`num_steps` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be positive"),
        ({"distance": 1e-14}, "`distance` must be at least 2.2e-13"),
        ({"precision": "float32"}, "`distance` must be at least 1.2e-04"),
        ({"precision": "float16"}, "`precision` must be float32 or float64"),
        ({"start": "there"}, "`start` must be aligned or random"),
        ({"window": (1.0, 0.1)}, "`window` must hold two positive numbers"),
        ({"escape": 2.0}, "`escape` must be at least `stay`"),
        ({"seed": -1}, "`seed` must lie in"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        sgd.Config(**changes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "1000"], "number of samples 100"),
        (["--check-rates", "-1"], "positive"),
        (["--task", "no_such_file.npz"], "no file"),
        (["--num-samples", "60", "--widths", "1", "--task", "digits"], "fit to rounding"),
        (["--shard", "half"], "k/n"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("sgd", arguments, words)


@pytest.mark.slow
def test_on_digits_runs_escape_above_the_threshold_and_stay_below(tmp_path):
    """64 runs of 20,000 steps: 95 % escape at 1.1 x the threshold, none grows by 10 at 0.9 x; five measured rates agree.

    About two minutes.
    """
    config = sgd.Config(num_seeds=64, num_steps=20_000, check_rates=(0.8, 0.9, 1.1, 1.2, 1.3))
    lanes = {lane.factor: lane for lane in sgd.summarise(sgd.run(config, tmp_path / "run.zarr"))}
    assert lanes[1.1].exponent > 0
    assert lanes[1.1].escaped >= 0.95
    assert lanes[0.9].exponent < 0
    assert lanes[0.9].stayed == 1
    for lane in lanes.values():
        assert lane.measured_steps > 0
        assert lane.agrees, lane
