"""Exact embeddings are exact, trained networks respect the bounds of their widths, and the pages say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import embedding

SMALL = embedding.Config(num_steps=10, num_restarts=1, ode_steps=3, width=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All embeddings, and networks that are hardly trained."""
    return embedding.run(SMALL, tmp_path_factory.mktemp("embedding") / "run.zarr")


def lane_of(runs, target, construction, widths=None):
    lanes = [x for x in embedding.summarise(runs) if x.target == target and x.construction == construction]
    return next(lane for lane in lanes if widths is None or lane.widths == widths)


def test_every_embedding_is_exact(runs):
    lanes = [lane for lane in embedding.summarise(runs) if lane.construction in embedding.EXACT]
    assert len(lanes) == 13
    for lane in lanes:
        assert lane.sup_error <= 1e-9
        assert lane.mean_square <= 1e-18
        assert lane.verdict == "exact"
        assert lane.representable is True


def test_widths_fields_and_gains_are_those_of_the_constructions(runs):
    assert lane_of(runs, "fold", "shear").widths == "2-4-2"
    assert lane_of(runs, "fold", "delay").widths == "2-2-2"
    # Lip(x^2) = 2 and Lip(|x|^2) = 2 sqrt 2 on the square, over T = 1
    assert lane_of(runs, "square", "shear").lipschitz == pytest.approx(2, rel=1e-9)
    assert lane_of(runs, "bowl", "shear").lipschitz == pytest.approx(2 * np.sqrt(2), rel=1e-9)
    assert lane_of(runs, "square", "delay").lipschitz == pytest.approx(SMALL.memory)
    model = dj.propagation.DelayEmbedding(lambda x: x**2, in_size=1, out_size=1, lipschitz=0.6, horizon=3.0)
    assert lane_of(runs, "square", "delay").gain == pytest.approx(float(model.gain), rel=1e-4)
    # |psi' - 1| / (1 - t/T + (t/T) psi') at t = T, where psi' is smallest: .9 / .1
    assert lane_of(runs, "climb", "isotopy").lipschitz == pytest.approx(9, rel=1e-3)


def test_bounds_are_those_of_the_theory(runs):
    square = lane_of(runs, "square", "trained", "1-1-1")
    assert square.sup_bound == pytest.approx(0.5, abs=1e-6)
    assert square.mean_square_bound == pytest.approx(9 / 160, abs=1e-8)
    assert lane_of(runs, "sine", "trained", "1-1-1").sup_bound == pytest.approx(1 / 2, abs=1e-6)
    assert lane_of(runs, "climb", "trained", "1-1-1").sup_bound == 0
    assert lane_of(runs, "bowl", "trained", "2-2-1").sup_bound == 0.5
    assert lane_of(runs, "fold", "trained", "2-3-2").sup_bound == 0
    possible = [lane_of(runs, "fold", "trained", f"2-{m}-2").representable for m in (2, 3, 4)]
    assert possible == [False, False, True]
    assert lane_of(runs, "twist", "trained", "2-2-2").representable is None
    assert lane_of(runs, "climb", "trained", "1-1-1").representable is True


def test_no_trained_network_beats_its_bound(runs):
    lanes = [lane for lane in embedding.summarise(runs) if lane.construction == "trained"]
    assert len(lanes) == 14
    assert {lane.verdict for lane in lanes} == {"above its bound", "approximates"}
    assert sum(lane.verdict == "above its bound" for lane in lanes) == 4


def test_states_keep_their_order_on_the_line_and_meet_with_a_delay(runs):
    pick = lambda construction, size: runs.path.values[
        np.flatnonzero((runs.target == "square") & (runs.construction == construction) & (runs.state_size == size))[0]
    ]
    narrow = np.diff(pick("trained", 1)[:, :, 0], axis=1)
    assert np.all(narrow > 0) or np.all(narrow < 0)
    delay = pick("delay", 1)[:, :, 0]
    assert np.min(np.ptp(delay, axis=1)) < 0.03 * np.ptp(delay[0])
    assert np.argmin(delay[-1]) == 10  # x = 0, so that the order is that of x^2
    shear = pick("shear", 2)
    np.testing.assert_allclose(shear[-1, :, 1], np.linspace(-1, 1, 21) ** 2, atol=1e-12)
    assert np.all(shear[:, :, 0] == shear[0, :, 0])


def test_paths_with_a_delay_are_those_of_the_equation(x64):
    """The closed form ends where the solver does."""
    target = embedding.find_target("bowl")
    model = embedding.embedding(target, "delay", SMALL)
    starts = jnp.asarray([[0.8, 0.0], [0.0, 0.8]])
    end = embedding.measure(model, target, jnp.float64)["path"][-1, :, :2]
    angle = 2 * np.pi * np.arange(21) / 20
    starts = 0.8 * np.stack([np.cos(angle), np.sin(angle)], -1)
    np.testing.assert_allclose(end, jax.vmap(model.solve)(jnp.asarray(starts)), atol=1e-12)


def test_training_lowers_the_error(x64):
    target = [embedding.find_target("square")]
    errors = [
        embedding.measure(
            embedding.trained(target, 2, embedding.Config(num_steps=n, num_restarts=1, ode_steps=3, width=8))[0],
            target[0],
            jnp.float64,
        )["mean_square"]
        for n in (1, 200)
    ]
    assert errors[1] < 0.05 * errors[0]


def test_report_and_table_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    embedding.write_report(runs, page)
    text = page.read_text()
    for words in ("Kuehn and Kuntz", "13 of 13", "4 of 4", "above its bound", "Figure 4", "memory threshold", "9/160"):
        assert words in text, words
    assert 'src="http' not in text
    table = embedding.table(runs)
    assert len(table.splitlines()) == 29
    assert "0.05625" in table
    assert table.count("exact") >= 13


def test_an_error_below_the_bound_is_called_a_contradiction(runs):
    forged = runs.copy(deep=True)
    lane = int(np.flatnonzero(forged.sup_bound.values > 0)[0])
    forged["sup_error"].values[lane] = 0.4
    forged["sup_error"].values[0] = 1e-3
    assert embedding.summarise(forged)[lane].verdict == "contradiction"
    assert embedding.summarise(forged)[0].verdict == "not exact"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num-steps", "0"], "num_steps"),
        (["--memory", "-1"], "positive"),
        (["--memory", "0.4"], "critical value"),
        (["--width", "0"], "width"),
        (["--seed", "-3"], "seed"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("embed", arguments, words)


@pytest.mark.slow  # 50 s on two cores
def test_the_default_run_shows_the_gap_between_widths(tmp_path):
    out = tmp_path / "run.zarr"
    assert main(["embed", "--out", str(out), "--report"]) == 0
    assert out.with_suffix(".html").exists()
    runs = dj.sweep.open(out)
    assert not {lane.verdict for lane in embedding.summarise(runs)} & {"contradiction", "not exact", "unfinished"}
    narrow, wide = (lane_of(runs, "square", "trained", f"1-{m}-1") for m in (1, 2))
    assert 9 / 160 <= narrow.mean_square < 0.1
    assert wide.mean_square < 1e-4
    bowl = [lane_of(runs, "bowl", "trained", f"2-{m}-1").sup_error for m in (2, 3)]
    assert bowl[0] >= 0.5 > 2 * bowl[1]
