"""Networks of six architectures never contradict the theorems, and the pages say so."""

import json

import jax
import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import morse
from dynjax.propagation import classify

SMALL = morse.Config(num_seeds=2, ode_steps=4, horizon=0.25, max_cells=600)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two random networks of each architecture."""
    return morse.run(SMALL, tmp_path_factory.mktemp("morse") / "run.zarr")


def test_no_network_contradicts_its_theorem_and_all_degrees_agree(runs):
    lanes = morse.summarise(runs)
    assert len(lanes) == 12
    assert {lane.verdict for lane in lanes} == {"agrees with the theorem"}
    for kind in morse.by_architecture(runs):
        assert kind.contradictions == kind.lost_rank == 0
        assert {lane.found for lane in kind.lanes} <= set(kind.architecture.allowed)
        agree, compared = kind.degrees
        assert agree == compared


def test_non_augmented_networks_have_a_proved_gradient(runs):
    for lane in morse.summarise(runs):
        if lane.architecture in ("mlp", "ode"):
            assert lane.completeness == "gradient bound"
            assert 0 < lane.certificate <= lane.least_gradient
            assert (lane.minima, lane.saddles, lane.maxima, lane.degenerate) == (0, 0, 0, 0)
        else:
            assert np.isnan(lane.certificate)
        if lane.architecture in ("mlp-bottleneck", "ode-degenerate"):
            assert lane.minima == lane.saddles == lane.maxima == 0


def test_stored_points_are_critical_and_of_the_stored_kind(runs, x64):
    """Gradients and Hessians of the networks themselves, made again from the configuration."""
    checked = 0
    for number, kind in enumerate(morse.ARCHITECTURES):
        for seed, model in enumerate(morse.networks(kind, SMALL)):
            lane = number * SMALL.num_seeds + seed
            assert str(runs.architecture.values[lane]) == kind.name
            codes = runs.kind.values[lane]
            points, codes = runs.point.values[lane][codes >= 0], codes[codes >= 0]
            for point, code in zip(points, codes, strict=True):
                scalar = lambda x, model=model: model(x)[0]
                values = np.linalg.eigvalsh(np.asarray(jax.hessian(scalar)(point)))
                assert np.linalg.norm(jax.grad(scalar)(point)) <= 1e-9
                assert np.sum(values < 0) == code if code < 3 else np.min(np.abs(values)) <= 1e-6
                checked += 1
    assert checked > 0


def test_the_map_on_the_grid_is_that_of_the_network(runs, x64):
    for number, kind in enumerate(morse.ARCHITECTURES):
        model = morse.networks(kind, SMALL)[1]
        values = runs.value.values[number * SMALL.num_seeds + 1]
        x, y = runs.x.values, runs.y.values
        assert values[7, 60] == pytest.approx(float(model(np.array([x[60], y[7]]))[0]), rel=1e-12)


def test_training_keeps_the_bound_and_the_rank_of_a_degenerate_lift(x64):
    config = morse.Config(num_seeds=1, weights="trained", num_steps=40, ode_steps=4)
    kind = morse.ARCHITECTURES[5]
    before, after = morse.networks(kind, config)[0], morse.train(morse.networks(kind, config), config)[0]
    np.testing.assert_array_equal(before.lift.weight, after.lift.weight)
    assert not np.array_equal(before.readout.weight, after.readout.weight)
    assert classify(after).architecture == "degenerate"
    assert morse.bowl_bound() == 0.5


def test_report_and_table_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    morse.write_report(runs, page)
    text = page.read_text()
    for words in (
        "Kuehn and Kuntz",
        "agrees with the theorem",
        "gradient bound",
        "Figure 3",
        "foliation",
        "winding number",
    ):
        assert words in text, words
    assert 'src="http' not in text
    table = morse.table(runs)
    assert table.count("2 of 2") >= 4
    for kind in morse.ARCHITECTURES:
        assert kind.title in table
        assert kind.title in text
    assert morse.error_figure(runs) is None


def test_a_lane_against_its_theorem_is_called_a_contradiction(runs):
    forged = runs.copy(deep=True)
    forged["consistent"].values[3] = 0
    forged["certificate"].values[0] = 2 * forged["least_gradient"].values[0]
    forged["degree"].values[2], forged["boundary_degree"].values[2] = 1, 0
    verdicts = [lane.verdict for lane in morse.summarise(forged)]
    assert verdicts[0] == verdicts[3] == "contradiction"
    assert verdicts[2] == "degrees differ"


def test_the_command_runs_and_reports(tmp_path, capsys):
    out = tmp_path / "run.zarr"
    small = ["--num-steps", "20", "--ode-steps", "4", "--horizon", "0.25", "--max-cells", "0"]
    arguments = ["morse", "--num-seeds", "1", "--weights", "trained", *small, "--out", str(out), "--report"]
    assert main(arguments) == 0
    assert "rank lost" in capsys.readouterr().out
    assert "What augmentation buys" in out.with_suffix(".html").read_text()
    dataset = dj.sweep.open(out)
    assert json.loads(dataset.attrs["config"])["weights"] == "trained"
    for lane in morse.summarise(dataset):
        assert lane.verdict == "agrees with the theorem"
        assert lane.completeness in ("not tried", "gradient bound", "degenerate point")
        if lane.architecture not in ("mlp-augmented", "ode-augmented"):
            assert lane.sup_error >= morse.bowl_bound()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num-seeds", "0"], "num_seeds"),
        (["--weights", "frozen"], "weights"),
        (["--gain", "-1"], "positive"),
        (["--half-width", "nan"], "half_width"),
        (["--max-cells", "-5"], "max_cells"),
        (["--seed", "-3"], "seed"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("morse", arguments, words, words.replace("_", "-"))


@pytest.mark.slow  # two minutes on two cores
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_the_default_run_has_no_contradiction(weights, tmp_path):
    """48 networks; trained ones show what augmentation buys: a sup error below half the depth of the bowl."""
    runs = morse.run(morse.Config(weights=weights), tmp_path / "run.zarr")
    assert {lane.verdict for lane in morse.summarise(runs)} == {"agrees with the theorem"}
    kinds = {kind.architecture.name: kind for kind in morse.by_architecture(runs)}
    if weights == "random":
        assert all(kind.lost_rank == 0 for kind in kinds.values())
        assert kinds["mlp"].proved == kinds["ode"].proved == 8
        return
    for kind in kinds.values():
        if kind.architecture.extremum:
            assert kind.best_error < 0.25
        else:
            assert kind.best_error >= morse.bowl_bound()
    assert kinds["mlp"].lost_rank > 0
