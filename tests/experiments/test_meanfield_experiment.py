"""Order parameters over couplings and sizes against the limit and the predicted critical coupling."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import meanfield as experiment
from dynjax.experiments.meanfield import _onset as onset_parts, _prediction as predicted, _program as parts, _summary

# One coupling below the critical one, 2, and three above it. Tests with lanes share this program where they can.
CONFIG = experiment.Config(
    graph="complete", sizes=(200, 800), couplings=(1.0, 3.0, 4.0, 6.0), num_seeds=3, time=24.0, burn_in=8.0
)
TRACES = []


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The twelve lanes of `CONFIG` in two blocks; counts how often a segment is traced."""
    segment = parts.MeanFieldProgram.segment

    def counted(self, state):
        TRACES.append(1)
        return segment(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.MeanFieldProgram, "segment", counted)
        return experiment.run(CONFIG, tmp_path_factory.mktemp("meanfield") / "run.zarr", workers=0, block=6)


def test_all_blocks_of_the_sweep_share_one_compiled_program(runs):
    """The shapes are followed once without computing; twenty calls of two blocks add one trace at most."""
    assert runs.sizes["lane"] == 12
    assert len(TRACES) <= 2


def test_order_parameters_follow_the_lorentzian_limit(runs):
    """R^2 = 1 - 2/K; independent frequencies scatter r by about 0.65 / sqrt(N), here over three seeds."""
    summary = experiment.summarise(runs)
    assert summary.critical == pytest.approx(2, rel=1e-6)
    for point in summary.points:
        exact = math.sqrt(max(0.0, 1 - 2 / point.coupling))
        assert point.limit == pytest.approx(exact, abs=1e-6)
        assert point.ratio == pytest.approx(point.coupling / 2)
        for size, value in zip(summary.sizes, point.order, strict=True):
            if exact > 0:
                assert abs(value - exact) <= 4 * 0.65 / math.sqrt(3 * size)
            else:  # the mean of a Rayleigh law, enhanced by (1 - K/Kc)^(-1/2)
                assert 0.5 < value * math.sqrt(size * (1 - point.ratio)) < 1.5
        assert point.verdict == "follows the limit"
    assert summary.verdicts == ("follows the limit", "follows the limit")
    assert summary.finite_critical == pytest.approx((2, 2), rel=1e-5)


def test_the_onset_is_found_from_the_curve(runs):
    onset = experiment.summarise(runs).onset
    assert onset.method == "matched curve"
    assert onset.value == pytest.approx(2, rel=0.1)
    assert 0 < onset.error < 0.2


def test_an_exact_curve_and_exact_fluctuations_give_the_critical_coupling_back():
    along = np.linspace(0.5, 8, 2000)
    curve = np.sqrt(np.maximum(1 - 2 / along, 0))
    couplings = np.linspace(1, 7, 12)
    for factor in (0.9, 1.0, 1.13):
        order = np.sqrt(np.maximum(1 - 2 * factor / couplings, 0))
        assert onset_parts._stretch(couplings, order, along, curve) == pytest.approx(factor, rel=2e-3)
    below = np.array([1.0, 1.4, 1.7])
    assert onset_parts._subcritical(below, 1 / (1 - below / 2.2)) == pytest.approx(2.2)
    assert math.isnan(onset_parts._subcritical(below, np.full(3, 0.9)))


def test_a_lane_is_a_run_of_the_room(runs):
    """The record of a lane is the average over the steps of `dynjax.meanfield.kuramoto` with the same draws."""
    lane = 7
    coupling, seed = float(runs.coupling.values[lane]), int(runs.seed.values[lane])
    program = experiment.program(CONFIG)
    omega = program._frequencies(jnp.int32(seed), 200, jnp.float32)
    system = dj.meanfield.kuramoto(dj.meanfield.AllToAll(200), omega, coupling, dt=0.1)
    orbit = dj.trajectory(
        system, system.init(jnp.zeros(200)), num_steps=42, observe=lambda n, x: dj.meanfield.order_parameter(x)
    )
    steps = CONFIG.steps_per_reading
    means = np.asarray(orbit.ys)[1:].reshape(-1, steps).mean(axis=1)
    np.testing.assert_allclose(runs.order.values[lane, : means.size, 0], means, atol=2e-5)


def test_seeds_draw_and_couplings_share_frequencies(x64):
    config = dataclasses.replace(CONFIG, precision="float64", draws="midpoints")
    program = experiment.program(config)
    first, again, other = (np.asarray(program._frequencies(jnp.int32(s), 200, jnp.float64)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    np.testing.assert_allclose(np.sort(first), dj.meanfield.Lorentzian(1.0).midpoints(200), rtol=1e-12)
    assert np.any(np.diff(first) < 0)


def test_report_table_and_figures_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    experiment.write_report(runs, page)
    text = page.read_text()
    for words in ("complete graph", "follows the limit", "matched curve", "Figure 4", "slope"):
        assert words in text, words
    assert 'src="http' not in text
    printed = experiment.table(runs)
    assert "critical coupling: 2 predicted" in printed
    assert "|r - limit| ~ N^" in printed


def test_what_limits_the_comparison_is_said(runs):
    summary = experiment.summarise(runs)
    assert _summary.validity(summary, CONFIG) == []
    drawn = experiment.Config(graph="small-world", sizes=(200, 800), mean_degree=400.0)
    sparse = dataclasses.replace(summary, mean_degrees=(84.0, 400.0))
    clipped, onset = _summary.validity(sparse, drawn)
    assert "400 was asked for" in clipped
    assert "1 / degree" in onset
    assert "1 / degree" not in "".join(_summary.validity(sparse, dataclasses.replace(drawn, weighted=True)))


def test_a_store_that_is_not_finished_is_shown_as_such(runs, tmp_path):
    part = runs.copy(deep=True)
    for name in ("order", "fluctuation", "projected", "profile", "limit", "limit_profile", "curve", "critical"):
        part[name].values[part.coupling.values == 6.0] = np.nan
    verdicts = [point.verdict for point in experiment.summarise(part).points]
    assert verdicts == ["follows the limit"] * 3 + ["unfinished"]
    experiment.write_report(part, tmp_path / "page.html")
    for name in ("order", "fluctuation", "projected", "profile"):
        part[name].values[:] = np.nan
    experiment.write_report(part, tmp_path / "page.html")
    assert {point.verdict for point in experiment.summarise(part).points} == {"unfinished"}


def test_the_command_runs_resumes_and_reports(runs, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    command = ["meanfield", "--graph", "complete", "--sizes", "200", "800", "--couplings", "1", "3", "4", "6", "--time", "24",
               "--burn-in", "8", "--out", str(out), "--report", "--workers", "0", "--block", "6"]  # fmt: skip
    assert main([*command, "--time-budget", "1e-6"]) == 75
    assert main(command) == 0
    assert "K / Kc" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    np.testing.assert_array_equal(dj.sweep.open(out).order, runs.order)


def test_noisy_identical_oscillators_show_their_threshold_below_it(tmp_path):
    """Kc = 2 D = 2: the line of the fluctuations, whose error is from three seeds; above it r = I1/I0 of row 8, K/D = 4."""
    config = experiment.Config(
        graph="complete", frequencies="identical", noise=1.0, sizes=(400,), couplings=(1.0, 1.5, 4.0), num_seeds=3,
        time=60.0, burn_in=5.0, dt=0.05,
    )  # fmt: skip
    runs = experiment.run(config, tmp_path / "run.zarr", workers=0, block=9)
    summary = experiment.summarise(runs)
    assert summary.critical == pytest.approx(2, rel=1e-6)
    assert summary.points[2].limit == pytest.approx(0.831462024754, abs=1e-6)
    assert summary.points[2].order[0] == pytest.approx(0.831462024754, abs=0.01)
    assert summary.onset.method == "subcritical fluctuations"
    assert abs(summary.onset.value - 2) <= max(4 * summary.onset.error, 0.1)
    assert summary.approaches[0].name == "below"
    assert experiment.approach_figure(runs) is None
    assert experiment.fluctuation_figure(runs) is not None


def test_the_volterra_kernel_has_no_threshold(tmp_path):
    config = experiment.Config(
        graph="volterra", sizes=(300,), couplings=(4.0, 20.0), num_seeds=1, time=16.0, burn_in=8.0
    )
    runs = experiment.run(config, tmp_path / "run.zarr", workers=0, block=2)
    summary = experiment.summarise(runs)
    assert math.isinf(summary.critical)
    assert summary.onset.method == "none"
    assert [point.limit for point in summary.points] == [0, 0]
    assert "no threshold" in experiment.table(runs)
    experiment.write_report(runs, tmp_path / "page.html")
    assert "no threshold" in (tmp_path / "page.html").read_text()


def test_couplings_are_chosen_around_the_prediction():
    ring = experiment.predict(experiment.Config(graph="ring", radius=0.2))
    assert ring.critical == pytest.approx(5, rel=1e-9)
    assert ring.couplings[0] == pytest.approx(1.5, rel=1e-3)
    assert ring.couplings[-1] == pytest.approx(12.5, rel=1e-3)
    assert len(ring.couplings) == 16
    np.testing.assert_allclose(ring.limit, np.sqrt(np.maximum(1 - 5 / ring.couplings, 0)), atol=1e-9)
    # without a threshold: around that of a complete graph of the same mean weight, 1/2
    free = experiment.predict(experiment.Config(graph="volterra"))
    assert free.couplings[0] == pytest.approx(0.3 * 4, rel=0.01)
    given = experiment.predict(experiment.Config(graph="complete", couplings=(3.0, 1.0)))
    assert given.couplings.tolist() == [1.0, 3.0]


def test_the_profile_of_the_power_law_is_that_of_its_closed_form():
    """Rank one: z = (-1 + sqrt(1 + K^2 w^2 h^2)) / (K w h), h = 0.591860535098 at K = 3 (row 12)."""
    config = experiment.Config(graph="power-law", exponent=0.25, couplings=(3.0,))
    found = experiment.predict(config)
    assert found.critical == pytest.approx(16 / 9, rel=1e-6)
    x = (np.arange(predicted.BINS) + 0.5) / predicted.BINS
    push = 3 * 0.75 * x**-0.25 * 0.591860535098
    np.testing.assert_allclose(found.profile[0][2:], ((np.sqrt(1 + push**2) - 1) / push)[2:], atol=2e-3)


def test_bins_are_averages_over_consecutive_labels():
    for count in (25, 40, 200, 1000, 37):
        matrix = predicted.bin_matrix(count)
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        assert np.all(np.diff(matrix @ np.arange(count)) >= 0)
    np.testing.assert_array_equal(predicted.bin_matrix(80) @ np.arange(80), np.arange(40) * 2 + 0.5)


@pytest.fixture
def matrix():
    """A directed weighted graph of 60 nodes."""
    generator = np.random.default_rng(3)
    return scipy.sparse.coo_array((generator.random((60, 60)) < 0.3) * generator.random((60, 60)))


@pytest.mark.parametrize("suffix", ["npz", "csv", "tsv", "txt"])
@pytest.mark.parametrize("scale", ["n", "degree"])
def test_a_graph_from_a_file_is_the_graph(matrix, suffix, scale, tmp_path, x64):
    path = tmp_path / f"graph.{suffix}"
    if suffix == "npz":
        scipy.sparse.save_npz(path, scipy.sparse.csr_array(matrix))
    else:
        mark = {"csv": ",", "tsv": "\t", "txt": " "}[suffix]
        lines = [mark.join(map(str, row)) for row in zip(matrix.col, matrix.row, matrix.data, strict=True)]
        path.write_text("\n".join(["# a comment", mark.join(["source", "target", "weight"]), *lines]))
    config = experiment.Config(graph=str(path), scale=scale, couplings=(3.0,))
    graph = experiment.read_graph(config)
    direct = dj.meanfield.GraphOperator.from_scipy(matrix, scale=scale)
    np.testing.assert_allclose(graph.as_matrix(), direct.as_matrix(), rtol=1e-14)
    assert experiment.population(config, 60).graph.num_nodes == 60


def test_the_limit_of_a_file_is_that_of_its_graph(matrix, tmp_path, x64):
    path = tmp_path / "graph.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(matrix))
    config = experiment.Config(graph=str(path), couplings=(20.0,))
    direct, law = dj.meanfield.GraphOperator.from_scipy(matrix), dj.meanfield.Lorentzian(1.0)
    found = experiment.predict(config)
    assert found.critical == pytest.approx(float(dj.meanfield.critical_coupling(direct, law)), rel=1e-10)
    assert found.limit[0] == pytest.approx(float(dj.meanfield.stationary_order_parameter(direct, law, 20.0)), rel=1e-10)
    assert np.all(np.diff(found.profile[0]) >= -0.1)  # nodes that receive more come last


def test_an_undirected_list_goes_both_ways(tmp_path, x64):
    path = tmp_path / "graph.csv"
    path.write_text("0,1\n1,2\n2,2\n")
    graph = experiment.read_graph(experiment.Config(graph=str(path), undirected=True, scale="none"))
    np.testing.assert_array_equal(graph.as_matrix(), [[0, 1, 0], [1, 0, 1], [0, 1, 1]])
    directed = experiment.read_graph(experiment.Config(graph=str(path), scale="none"))
    np.testing.assert_array_equal(directed.as_matrix(), [[0, 0, 0], [1, 0, 0], [0, 1, 1]])


@pytest.mark.parametrize("graph", experiment.GRAPHS)
def test_every_graph_of_the_library_has_a_population_and_a_limit_of_its_mass(graph, x64):
    config = experiment.Config(graph=graph, sizes=(100,), cells=25, mean_degree=40.0)
    people = experiment.population(config, 100)
    assert people.graph.num_nodes == 100
    weights = np.full(100, 0.01) if people.weights is None else people.weights
    assert weights.sum() == pytest.approx(1)
    grid = dj.meanfield.as_grid(experiment.measure(config))
    # random graphs scatter by one over the root of the number of edges, others by the ends of their label cells
    mass = float(weights @ np.asarray(people.graph.mass()))
    assert mass == pytest.approx(float(grid.mean(grid.operator.mass())), rel=0.08)


def test_a_file_with_anything_else_is_refused(tmp_path):
    for name, content, words in (
        ("a.csv", "0,1,2,3\n", "two or three columns"),
        ("b.csv", "0,1.5\n", "whole numbers"),
        ("c.csv", "0,-1\n", "whole numbers"),
        ("d.txt", "0 1 nan\n", "finite weights"),
        ("e.txt", "0 1\nx y\n", "no list of edges"),
        ("f.npz", "nothing", "save_npz"),
        ("g.csv", "", "two or three columns"),
    ):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(ValueError, match=words):
            experiment.read_graph(experiment.Config(graph=str(path)))
    with pytest.raises(FileNotFoundError, match="no file"):
        experiment.read_graph(experiment.Config(graph=str(tmp_path / "none.csv")))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--graph", "lattice"], "small-world"),
        (["--graph", "missing.csv"], "missing.csv"),
        (["--couplings", "-1"], "positive"),
        (["--couplings", "2", "2"], "twice"),
        (["--sizes", "10"], "at least 20"),
        (["--graph", "shift-ring", "--sizes", "110"], "multiples of cells"),
        (["--exponent", "0.5"], "exponent"),
        (["--radius", "0"], "radius"),
        (["--density", "0.5"], "density"),
        (["--noise", "-1"], "noise"),
        (["--width", "0"], "width"),
        (["--dt", "0"], "dt"),
        (["--burn-in", "40"], "burn_in"),
        (["--burn-in", "39"], "readings"),
        (["--num-seeds", "0"], "num_seeds"),
        (["--frequencies", "cauchy"], "lorentzian"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("meanfield", arguments, words)
