"""Generative flows against the exact ones: losses, distances, likelihoods, and the dynamics of sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import flow
from dynjax.generative import flow_matching_loss, loss_floor, score_matching_loss

CONFIG = flow.Config(target="pair", variance=0.25, learning_rates=(1e-5, 1e-2), num_seeds=2, width=24, num_layers=2,
                     num_steps=600, batch_size=128, num_readings=6, num_tests=2048, num_samples=200,
                     sampling_steps=64)  # fmt: skip
FLAGS = ["--target", "pair", "--variance", "0.25", "--learning-rates", "1e-5", "1e-2", "--num-seeds", "2", "--width", "24",
         "--num-layers", "2", "--num-steps", "600", "--batch-size", "128", "--num-readings", "6", "--num-tests", "2048",
         "--num-samples", "200", "--sampling-steps", "64"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The eight lanes of `CONFIG`."""
    return flow.run(CONFIG, tmp_path_factory.mktemp("flow") / "run.zarr", workers=0, block=8)


def test_trained_flows_come_close_and_untrained_ones_do_not(runs):
    cells = {(cell.kind, cell.learning_rate): cell for cell in flow.summarise(runs)}
    assert len(cells) == 4
    for kind in flow.KINDS:
        poor, good = cells[kind, 1e-5], cells[kind, 1e-2]
        assert poor.verdict in ("far", "misses modes")
        assert good.verdict == "close"
        assert good.ratio < 2 < poor.ratio
        assert good.excess < 0.2 * poor.excess
        # A divergence is not negative, and its estimate is so by chance alone.
        assert -4 * good.divergence_error < good.divergence < 0.2 < poor.divergence
        # On the clock of the noise level both exact flows decide alike.
        assert good.exact_commitment == pytest.approx(cells["flow-matching", 1e-2].exact_commitment, rel=0.1)
        assert good.commitment == pytest.approx(good.exact_commitment, rel=0.2)


def test_losses_lie_above_the_floor_by_the_error_of_the_field(runs):
    """E (loss - loss of the exact field) = E |u - u*|^2, on every lane at every reading."""
    gap = runs.excess.values - runs.field_error.values
    assert np.all(np.abs(gap) < 4.5 * runs.excess_error.values)
    matching = runs.diffusion.values == 0
    exact = loss_floor(flow.program(CONFIG).law, key=jax.random.key(3))
    means = runs.floor.values[matching, -1]
    assert np.all(np.abs(means - float(exact.value)) < 4 * (float(exact.standard_error) + 4 / 2048**0.5))
    # The training loss is that of other draws, at parameters from before.
    assert np.all(runs.loss.values[:, -1] > 0.8 * runs.floor.values[:, -1])


@pytest.mark.parametrize("kind", flow.KINDS)
def test_a_lane_trains_the_loss_of_the_library(kind):
    program = flow.program(CONFIG)
    diffusion = jnp.asarray(kind == "diffusion")
    lane = {"diffusion": diffusion.astype(jnp.int32), "learning_rate": jnp.asarray(1e-2), "seed": jnp.asarray(0)}
    state = eqx.filter_jit(program.init)(lane)
    x, key = program.law.sample(300, jax.random.key(1)), jax.random.key(2)
    velocity, score = program._fields(state.network)
    expected = score_matching_loss(score, x, key) if kind == "diffusion" else flow_matching_loss(velocity, x, key)
    draws = program.draws(diffusion, x, key)
    np.testing.assert_allclose(program._loss(state.network, draws), expected, rtol=1e-5)
    exact = program.law.score_field() if kind == "diffusion" else program.law.flow_matching_field()
    loss = score_matching_loss if kind == "diffusion" else flow_matching_loss
    best = jax.vmap(program._exact_output, (None, 0, 0))(diffusion, draws.s, draws.x)
    np.testing.assert_allclose(jnp.mean((best - draws.target) ** 2), loss(exact, x, key), rtol=2e-5)


def test_the_exact_flow_is_the_same_for_both_kinds(runs):
    """Reparametrised by the noise level, both exact flows are one: what they commit to, and how they stretch, agrees."""
    commitment = runs.commitment.values[:, 1]
    matching, diffusion = (commitment[runs.diffusion.values == kind][0] for kind in (0, 1))
    # The diffusion begins at the noise level 150 and not at infinity, and is seen at 33 times.
    both = np.isfinite(matching) & np.isfinite(diffusion)
    assert np.mean(both) > 0.98
    assert np.median(np.abs(np.log(matching[both] / diffusion[both]))) < 0.05
    stretch = runs.exponents.values[:, 1, :, 0]
    first, second = (stretch[runs.diffusion.values == kind][0] for kind in (0, 1))
    np.testing.assert_allclose(first, second, atol=0.1)


def test_report_table_and_figures(runs, tmp_path):
    page = tmp_path / "page.html"
    flow.write_report(runs, page)
    text = page.read_text()
    for words in ("two modes at distance 4", "Lipman", "Raya", "close", "Figure 5", "divergence"):
        assert words in text, words
    assert 'src="http' not in text
    assert "loss above it" in flow.table(runs)


def test_a_store_that_is_not_finished_is_shown_as_such(runs, tmp_path):
    part = runs.copy(deep=True)
    part.samples.values[part.diffusion.values == 1] = np.nan
    assert [cell.verdict for cell in flow.summarise(part)][2:] == ["unfinished", "unfinished"]
    flow.write_report(part, tmp_path / "page.html")
    part.samples.values[:] = np.nan
    part.field_error.values[:] = np.nan
    figures = (flow.sample_figure, flow.loss_figure, flow.distance_figure, flow.decision_figure, flow.stiffness_figure)
    for figure in figures:
        assert figure(part) is None
    flow.write_report(part, tmp_path / "page.html")
    assert "Dashes" in (tmp_path / "page.html").read_text()


def test_a_loss_below_the_floor_is_called_an_error(runs, tmp_path):
    part = runs.copy(deep=True)
    part.excess.values[0, -1] = -5 * part.excess_error.values[0, -1]
    assert flow.summarise(part)[0].verdict == "below the floor"
    flow.write_report(part, tmp_path / "page.html")
    assert "that no field can have" in (tmp_path / "page.html").read_text()


def test_samples_without_a_mode_are_no_success(runs):
    part = runs.copy(deep=True)
    part.samples.values[..., 0] = np.abs(part.samples.values[..., 0])
    assert {cell.verdict for cell in flow.summarise(part)} == {"misses modes"}


def test_a_lane_that_overflows_is_no_success(tmp_path):
    config = flow.Config(target="pair", kinds=("flow-matching",), learning_rates=(1e30,), num_seeds=1, width=4, num_layers=1,
                         num_steps=20, batch_size=4, num_readings=2, num_tests=16, num_samples=16,
                         sampling_steps=32)  # fmt: skip
    runs = flow.run(config, tmp_path / "run.zarr", workers=0)
    (cell,) = flow.summarise(runs)
    assert (cell.verdict, cell.failed) == ("not finite", 1)
    flow.write_report(runs, tmp_path / "page.html")
    assert "overflowed" in (tmp_path / "page.html").read_text()


def test_the_command_runs_resumes_and_reports(runs, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    command = ["flow", *FLAGS, "--out", str(out), "--report", "--workers", "0", "--block", "8"]
    assert main([*command, "--time-budget", "1e-6"]) == 75
    assert main(command) == 0
    assert "loss above it" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    np.testing.assert_array_equal(dj.sweep.open(out).samples, runs.samples)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "moons"], "target"),
        (["--variance", "0"], "variance"),
        (["--kinds", "gan"], "kinds"),
        (["--learning-rates", "0"], "positive"),
        (["--learning-rates", "1", "1"], "twice"),
        (["--num-seeds", "0"], "num_seeds"),
        (["--num-samples", "3"], "num_samples"),
        (["--num-readings", "7"], "divide 4000"),
        (["--sampling-steps", "33"], "multiple of 32"),
        (["--seed", "-3"], "seed"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("flow", arguments, words)
