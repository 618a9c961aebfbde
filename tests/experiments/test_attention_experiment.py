"""Tokens under self-attention form as many clusters as the fastest mode has maxima, at its rate, and keep them for a while."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import attention

# Two inverse temperatures with two and three clusters; all tests with this shape share one compiled program.
CONFIG = attention.Config(betas=(2.0, 5.0), num_seeds=2, num_tokens=48, time=150.0, num_readings=90)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The four lanes of `CONFIG`."""
    return attention.run(CONFIG, tmp_path_factory.mktemp("attention") / "run.zarr", workers=0, block=4)


def bessel_rates(beta, kind="usa"):
    """k^2 I_k(beta)/beta by SciPy, over I_0 for "sa"."""
    k = np.arange(1, 41)
    return k**2 * special.iv(k, beta) / beta / (special.iv(0, beta) if kind == "sa" else 1)


def test_predictions_are_those_of_the_bessel_functions():
    fastest = {1: 1, 2: 2, 3: 2, 5: 3, 7: 4, 9: 4, 16: 6, 25: 7, 50: 10}
    for beta, mode in fastest.items():
        for kind in ("usa", "sa"):
            found = attention.scales(float(beta), kind)
            assert found.fastest_mode == mode
            assert found.rate == pytest.approx(bessel_rates(beta, kind)[mode - 1], rel=1e-12)
    assert attention.scales(5.0, "usa").rate == pytest.approx(18.596070304472, rel=1e-12)
    assert attention.scales(5.0, "usa").noise_threshold == pytest.approx(4.867128428490, rel=1e-12)
    assert attention.scales(5.0, "usa", 1.01).growing_mode == 0
    assert attention.scales(5.0, "usa", 0.99).growing_mode == 1
    assert attention.scales(1.0, "usa").growing_rate == attention.scales(1.0, "usa").rate


def test_clusters_and_rates_are_the_predicted_ones(runs):
    two, three = attention.summarise(runs)
    assert (two.clusters, three.clusters) == ((2, 2), (3, 3))
    assert (two.dominant, three.dominant) == ((2, 2), (3, 3))
    assert two.verdict == three.verdict == "as predicted"
    assert two.fitted == pytest.approx(1, abs=1e-3)
    assert three.fitted == pytest.approx(1, abs=1e-3)
    for number in range(4):
        lane = attention.read_lane(runs, number)
        known = np.isfinite(lane.rates)
        theory = bessel_rates(lane.beta)
        assert known.sum() >= 3
        np.testing.assert_allclose(lane.rates[known], (theory / theory.max())[: lane.rates.size][known], atol=2e-3)


def test_the_energy_never_falls_and_rests_on_the_plateau(runs):
    for number in range(4):
        lane = attention.read_lane(runs, number)
        assert lane.energy_drop <= 100 * np.finfo(float).eps
    # three nearly equal clusters: (1 + 2 e^{-3 beta/2})/3 of the energy of one
    row = runs.isel(lane=2)
    level = float(row.energy.values[np.searchsorted(runs.reading.values, 30.0)]) * 2 * 5 * np.exp(-5)
    assert level == pytest.approx((1 + 2 * np.exp(-7.5)) / 3, rel=0.02)


def test_two_clusters_merge_after_a_life_on_the_predicted_scale(runs):
    """Two clusters at distance pi - s: s' = e^{-beta cos s} sin s, so they leave at the rate e^{-beta}."""
    from dynjax.experiments.attention._scales import plateau_rate

    assert plateau_rate(2, 2.0, "usa") == pytest.approx(np.exp(-2), rel=1e-12)
    assert plateau_rate(1, 2.0, "usa") == 0
    # corner k of a triangle: (1/3) 2 K'(2 pi/3) (cos(2 pi/3) - 1), K'(u) = e^{b cos u} (cos u - b sin^2 u)
    slope = np.exp(-2.5) * (-0.5 - 5 * 0.75)
    assert plateau_rate(3, 5.0, "usa") == pytest.approx(-slope, rel=1e-12)
    two, three = attention.summarise(runs)
    assert two.final == (1, 1)
    assert two.leaving_time < two.lifetime < 20 * two.leaving_time
    assert not two.censored
    assert three.leaving_time == pytest.approx(three.rate / -slope, rel=1e-9)


def test_lanes_run_what_the_module_runs(runs, x64):
    """Angles of a lane from the general attention flow on tokens, with the same steps."""
    lane = runs.isel(lane=2)
    dt = CONFIG.dt / float(lane.rate)
    steps = int(CONFIG.reading_steps[45])
    prog = attention.program(CONFIG)
    start = prog.init({name: jnp.asarray(value[2]) for name, value in attention.lanes(CONFIG).items()})
    flow = dj.meanfield.attention_flow(5.0, dt=dt, kind="usa")
    tokens = jnp.stack([jnp.cos(start.x), jnp.sin(start.x)], -1)
    final = jax.jit(lambda x: dj.systems.evolve(flow, x, num_steps=steps))(tokens)
    angles = lane.angles.values[45].astype(float)
    direction = np.stack([np.cos(angles), np.sin(angles)], -1)
    assert steps > 100
    # Both are of order four, in different coordinates, and angles are stored in single precision.
    np.testing.assert_allclose(final, direction, atol=2e-3)


def test_readings_are_dense_early_and_even_in_the_logarithm_late():
    steps = CONFIG.reading_steps
    assert steps[0] == 0
    assert steps[-1] == CONFIG.num_steps == 1_500
    assert np.all(np.diff(steps) > 0)
    long = attention.Config(betas=(5.0,), time=10_000.0, num_readings=200).reading_steps
    gaps = np.diff(long)
    assert np.all(np.diff(gaps) >= -1)
    late = np.log(long[long > 20_000])
    assert np.ptp(np.diff(late)) < 0.02 * np.mean(np.diff(late))
    assert CONFIG.num_segments * -(-steps.size // CONFIG.num_segments) >= steps.size


def test_a_lane_that_is_not_finite_stands_still_and_leaves_its_neighbours_alone(runs, x64):
    from dynjax.sweep._program import init_block, segment_block

    program = attention.program(CONFIG)
    state = init_block(program, {name: jnp.asarray(lane) for name, lane in attention.lanes(CONFIG).items()})
    after, records, status = segment_block(program, state._replace(x=state.x.at[1, 0].set(jnp.nan)))
    assert status.tolist() == [int(dj.Status.RUNNING), int(dj.Status.NONFINITE), *[int(dj.Status.RUNNING)] * 2]
    assert np.all(np.isnan(records["energy"][1]))
    assert np.all(records["clusters"][1] == -1)
    assert after.step.tolist()[1] == 0
    first = slice(0, records["energy"].shape[1])
    np.testing.assert_array_equal(np.delete(records["energy"], 1, 0), np.delete(runs.energy.values[:, first], 1, 0))


def noisy_run(noise, path):
    """One lane at beta = 2 under softmax weights, from independent tokens."""
    config = attention.Config(betas=(2.0,), num_seeds=1, kind="sa", num_tokens=256, noise=noise, start="uniform",
                              time=60.0, num_readings=60)  # fmt: skip
    runs = attention.run(config, path, workers=0, block=1)
    (cell,) = attention.summarise(runs)
    return runs, cell


def test_noise_above_the_threshold_keeps_the_tokens_apart(tmp_path):
    """At twice the threshold all modes decay, and kicks of 1/sqrt(n) keep the first at mean |z|^2 = D/(n (D - D_1))."""
    runs, cell = noisy_run(2.0, tmp_path / "run.zarr")
    assert cell.predicted == 0
    assert cell.verdict == "stays uniform, as predicted"
    assert cell.survived == 1
    # Some 13 independent readings of an exponential law: a standard error of about a quarter.
    assert attention.read_lane(runs, 0).order == pytest.approx(np.sqrt(2 / 256), rel=0.6)
    assert attention.growth_figure(runs) is None
    attention.write_report(runs, tmp_path / "page.html")
    assert "stays uniform, as predicted" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_noise_below_the_threshold_does_not(tmp_path):
    """At a tenth of it the second mode grows fastest, and the first hardly slower. Ten seconds, most of them compiling."""
    _, cell = noisy_run(0.1, tmp_path / "run.zarr")
    assert cell.predicted == 2
    assert cell.survived == 0
    assert cell.verdict in ("as predicted", "within one")


def test_a_sphere_ends_with_one_cluster_and_gets_a_report(tmp_path):
    config = attention.Config(betas=(1.0,), num_seeds=1, dimension=3, num_tokens=32, start="uniform", time=60.0,
                              num_readings=40)  # fmt: skip
    runs = attention.run(config, tmp_path / "run.zarr", workers=0, block=1)
    (cell,) = attention.summarise(runs)
    assert cell.predicted is None
    assert cell.final == (1,)
    assert cell.verdict == "one cluster"
    np.testing.assert_allclose(np.linalg.norm(runs.tokens.values[0], axis=-1), 1, atol=1e-12)
    assert attention.read_lane(runs, 0).energy_drop <= 100 * np.finfo(float).eps
    assert attention.space_time_figure(runs) is None
    attention.write_report(runs, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "unit sphere of R^3" in text
    assert "Tokens in space and time" not in text


def test_verdicts_follow_the_lanes():
    """The words for what may be seen."""
    from dynjax.experiments.attention._summary import _verdict

    def lane(clusters, order=1.0, dominant=3, final=1):
        return attention.Lane(5.0, 0, dominant, np.zeros(0), 1.0, clusters, 9.0, False, final, order, 0.0, True)

    assert _verdict(3, [lane(3), lane(3), lane(2)], noisy=False) == "as predicted"
    assert _verdict(3, [lane(2), lane(3), lane(4)], noisy=False) == "within one"
    assert _verdict(3, [lane(5), lane(5), lane(3)], noisy=False) == "different"
    assert _verdict(3, [lane(0), lane(0)], noisy=False) == "not formed yet"
    assert _verdict(3, [], noisy=False) == "unfinished"
    assert _verdict(0, [lane(0, order=0.1)], noisy=True) == "stays uniform, as predicted"
    assert _verdict(0, [lane(0)], noisy=True) == "clusters against the prediction"
    assert _verdict(2, [lane(0, order=0.1)], noisy=True) == "stays uniform against the prediction"
    assert _verdict(3, [lane(0)], noisy=True) == "as predicted"
    assert _verdict(None, [lane(3, final=2)], noisy=False) == "several clusters left"
    assert set(attention._summary.VERDICTS.values()) <= set(dj.report.TONES)


def test_report_table_and_figures_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    attention.write_report(runs, page)
    text = page.read_text()
    for words in (
        "Bruno, Pasqualotto and Agazzi",
        "as predicted",
        "18.596",
        "Figure 4",
        "derived here",
        "Tokens in space",
    ):
        assert words in text, words
    assert 'src="http' not in text
    assert "as predicted" in attention.table(runs)


def test_a_store_that_is_not_finished_is_shown_as_such(runs, tmp_path):
    part = runs.copy(deep=True)
    part.energy.values[part.beta.values == 5.0, -10:] = np.nan
    assert [cell.verdict for cell in attention.summarise(part)] == ["as predicted", "unfinished"]
    attention.write_report(part, tmp_path / "page.html")
    part.energy.values[:] = np.nan
    assert [cell.verdict for cell in attention.summarise(part)] == ["unfinished", "unfinished"]
    assert attention.space_time_figure(part) is None
    assert attention.growth_figure(part) is None
    assert attention.energy_figure(part) is None


def test_the_command_runs_resumes_and_reports(runs, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    command = ["attention", "--betas", "2", "5", "--num-seeds", "2", "--num-tokens", "48", "--time", "150", "--num-readings",
               "90", "--out", str(out), "--report", "--workers", "0", "--block", "4"]  # fmt: skip
    assert main([*command, "--time-budget", "1e-6"]) == 75
    assert main(command) == 0
    assert "1 / leaving" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    np.testing.assert_array_equal(dj.sweep.open(out).energy, runs.energy)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--betas", "0"], "positive"),
        (["--betas", "100"], "at most 80"),
        (["--betas", "5", "5"], "twice"),
        (["--num-seeds", "0"], "num_seeds"),
        (["--dimension", "1"], "dimension"),
        (["--dimension", "3"], "start"),
        (["--num-tokens", "4"], "num_tokens"),
        (["--dt", "0.5"], "fall into clusters"),
        (["--time", "inf"], "finite"),
        (["--time", "5"], "two steps"),
        (["--noise", "-1"], "noise"),
        (["--perturbation", "2"], "perturbation"),
        (["--precision", "float32"], "rounding"),
        (["--kind", "softmax"], "kind"),
        (["--start", "poles"], "start"),
        (["--seed", "-3"], "seed"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("attention", arguments, words)
