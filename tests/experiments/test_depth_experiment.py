"""Deep plain networks around the edge of chaos: exponents, gradients, and depths that can be trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import depth
from dynjax.reference import deep_linear_exponents, relu_network_exponent, wide_network_exponent

CONFIG = depth.Config(weight_variances=(0.4, 1.76), depths=(4, 40), num_seeds=2, width=16, num_exponents=4, num_points=32,
                      num_probes=4, num_steps=150, num_readings=5, learning_rate=1e-3)  # fmt: skip
FLAGS = ["--weight-variances", "0.4", "1.76", "--depths", "4", "40", "--num-seeds", "2", "--width", "16", "--num-exponents", "4",
         "--num-points", "32", "--num-probes", "4", "--num-steps", "150", "--num-readings", "5", "--learning-rate",
         "1e-3"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The eight lanes of `CONFIG`."""
    return depth.run(CONFIG, tmp_path_factory.mktemp("depth") / "run.zarr", workers=0, block=8)


def test_deep_networks_train_at_the_edge_alone(runs):
    ordered, critical = depth.summarise(runs)
    assert ordered.trained_depth == 4
    assert critical.trained_depth == 40
    assert ordered.verdict == "vanish"
    assert ordered.exponent == pytest.approx(ordered.mean_field, abs=0.1)
    # Finite networks lie below infinite ones, by an amount of order 1 / width.
    assert -2 / 16 < critical.exponent - critical.mean_field < 0
    # Training makes inputs of one class alike.
    assert critical.trained_exponent < critical.exponent
    # Over 40 layers of which half settle, gradients fall at the rate of the exponent.
    assert ordered.change == pytest.approx(40 * ordered.exponent, rel=0.15)


def test_a_lane_sees_what_the_library_sees(runs):
    """Exponents and gradients of a deep lane, from a stack without the layers that are switched off."""
    program = depth.program(CONFIG)
    lane = {name: jnp.asarray(value[0]) for name, value in depth.lanes(CONFIG).items()}
    state = eqx.filter_jit(program.init)(lane)
    assert int(jnp.sum(state.active)) == 4
    layers = program._layers(state.parameters, state.active)
    shallow = dj.systems.LayerMap(jax.tree_util.tree_map(lambda leaf: leaf[:4], layers))
    hidden = depth._network.lifted(state.parameters.lift, state.points[np.array([0, 10, 21, 31])])
    exponents = dj.layer_exponents(shallow, hidden, k=4)
    np.testing.assert_allclose(runs.exponents.values[0, 0], np.mean(exponents.increments[2:], 0), rtol=1e-4, atol=1e-5)
    norms = dj.propagation.gradient_norms(shallow, hidden, key=state.key).log_norms
    expected = np.mean(norms - norms[:, -1:], 0)
    np.testing.assert_allclose(runs.gradients.values[0, 0, :5], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(runs.gradients.values[0, 0, 5:], 0)


def test_predictions_are_those_of_the_references(x64):
    found = depth.predict("tanh", "gaussian", 32, 1.5, 0.05)
    assert found.exponent == pytest.approx(float(wide_network_exponent(1.5, 0.05)), rel=1e-10)
    assert np.isnan(found.finite_width)
    relu = depth.predict("relu", "gaussian", 50, 2.0, 0.0)
    assert relu.exponent == 0
    assert relu.correlation_depth == np.inf
    assert relu.finite_width == pytest.approx(float(relu_network_exponent(50)), rel=1e-12)
    assert np.isnan(depth.predict("relu", "orthogonal", 50, 2.0, 0.0).finite_width)
    assert np.isnan(depth.predict("relu", "gaussian", 50, 2.0, 0.1).finite_width)
    linear = depth.predict("identity", "gaussian", 20, 0.5, 0.1)
    assert linear.finite_width == pytest.approx(float(deep_linear_exponents(20, 0.5)[0]), rel=1e-12)
    assert linear.correlation_depth == pytest.approx(1 / np.log(2))
    assert depth.predict("identity", "orthogonal", 20, 0.5, 0.1).finite_width == pytest.approx(np.log(0.5) / 2)
    assert depth.critical_variance("tanh", 0.05) == pytest.approx(1.7609546396, abs=1e-9)
    assert depth.critical_variance("relu", 0.0) == 2


def test_report_table_and_figures(runs, tmp_path):
    page = tmp_path / "page.html"
    depth.write_report(runs, page)
    text = page.read_text()
    for words in ("edge of chaos", "1.761", "Schoenholz", "vanish", "Depths that can be trained", "Figure 4"):
        assert words in text, words
    assert 'src="http' not in text
    assert "trained to" in depth.table(runs)


def test_a_store_that_is_not_finished_is_shown_as_such(runs, tmp_path):
    part = runs.copy(deep=True)
    part.exponents.values[part.weight_variance.values > 1] = np.nan
    assert [cell.verdict for cell in depth.summarise(part)] == ["vanish", "unfinished"]
    assert depth.trainability_figure(part) is None
    depth.write_report(part, tmp_path / "page.html")
    part.exponents.values[:] = np.nan
    assert [cell.num_lanes for cell in depth.summarise(part)] == [0, 0]
    for figure in (depth.exponent_figure, depth.gradient_figure, depth.training_figure):
        assert figure(part) is None
    depth.write_report(part, tmp_path / "page.html")


def test_a_lane_that_overflows_is_no_success(runs, tmp_path):
    part = runs.copy(deep=True)
    part.accuracy.values[:] = np.nan
    cells = depth.summarise(part)
    assert [cell.verdict for cell in cells] == ["not finite", "not finite"]
    assert [cell.trained_depth for cell in cells] == [0, 0]
    depth.write_report(part, tmp_path / "page.html")
    assert "overflowed" in (tmp_path / "page.html").read_text()


def test_the_command_runs_resumes_and_reports(runs, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    command = ["depth", *FLAGS, "--out", str(out), "--report", "--workers", "0", "--block", "8"]
    assert main([*command, "--time-budget", "1e-6"]) == 75
    assert main(command) == 0
    assert "infinite width" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    np.testing.assert_array_equal(dj.sweep.open(out).loss, runs.loss)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weight-variances", "0"], "positive"),
        (["--weight-variances", "1", "1"], "twice"),
        (["--depths", "1"], "depths"),
        (["--num-seeds", "0"], "num_seeds"),
        (["--num-exponents", "33"], "at most 32"),
        (["--num-probes", "65"], "at most 64"),
        (["--num-readings", "7"], "divide 300"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--bias-variance", "-1"], "bias_variance"),
        (["--seed", "-3"], "seed"),
        (["--activation", "sine"], "activation"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("depth", arguments, words)
