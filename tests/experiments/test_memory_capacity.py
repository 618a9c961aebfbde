"""What trained delay equations can learn on both sides of the memory threshold."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main
from dynjax.experiments import memory_capacity as memory
from dynjax.experiments.memory_capacity import _program as parts

BOUND = 9 / 160


# One memory below .48199, one above, two seeds. All tests share this program, which takes longer to compile than to run.
CONFIG = memory.Config(horizons=(3.0,), memories=(0.47, 0.7), num_seeds=2, num_steps=300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The four networks of `CONFIG`."""
    return memory.run(CONFIG, tmp_path_factory.mktemp("memory") / "run.zarr", workers=0, block=4)


def errors(runs, value):
    return runs.mse.values[runs.memory.values == value]


def test_the_error_drops_across_the_threshold(runs):
    assert np.all(errors(runs, 0.47) >= BOUND)
    assert errors(runs, 0.7).min() <= 2e-3
    below, above = memory.summarise(runs)
    assert below.critical_memory == pytest.approx(0.48198707159518, abs=1e-12)
    assert below.injective
    assert not above.injective
    assert below.verdict == "respects the bound"
    assert above.verdict == "learnt"
    assert above.critical_horizon == pytest.approx(float(dj.propagation.first_zero(0.7)), rel=1e-6)


def test_no_network_below_the_threshold_shrinks_differences_by_more_than_theory_allows(runs):
    below, above = memory.summarise(runs)
    assert below.shrinkage >= 1 - 1e-9
    assert np.isnan(above.shrinkage)
    # states stay ordered, so learnt maps are monotone
    for learnt in runs.learnt.values[runs.memory.values == 0.47]:
        assert np.all(np.diff(learnt) > 0) or np.all(np.diff(learnt) < 0)
    assert np.nanmin(runs.slope.values[runs.memory.values == 0.47]) >= (1 - 1e-3) * below.decay


def test_the_error_is_that_of_the_network_as_a_module(runs, x64):
    """The stored network has the stored map and, at other nodes, the stored error; training on coarse steps saw the same."""
    lane = int(np.argmin(runs.mse.values))
    model = memory.network(runs, lane)
    nodes, weights = parts.gauss_legendre(40)
    points = np.concatenate([nodes, runs.x.values])
    values = np.asarray(jax.vmap(model)(jnp.asarray(points)[:, None])[:, 0])
    np.testing.assert_allclose(values[40:], runs.learnt.values[lane], atol=1e-8)
    assert weights @ (values[:40] - nodes**2) ** 2 == pytest.approx(float(runs.mse.values[lane]), rel=1e-6)
    np.testing.assert_allclose(runs.mse, runs.best_mse, rtol=0.05)
    assert float(dj.networks.lipschitz_bound(model.field, "sup")) <= 0.7 * (1 + 1e-12)


def test_the_stored_networks_get_the_verdict_of_the_theory(runs, x64):
    square = memory.TARGETS["square"].function
    kinds = [dj.propagation.memory_capacity(memory.network(runs, lane), square).kind for lane in (0, 2)]
    assert kinds == ["injective", "embeddable"]


def test_every_lane_is_read_at_its_own_horizon(x64):
    """The field -K v shrinks the input by exactly w(T), so that states are known in closed form."""
    config = memory.Config(horizons=(2.0, 1.5, 3.0), memories=(0.45,), num_nodes=8)
    program = memory.program(config)

    @jax.jit
    def states(horizon):
        field = parts.empty_field(config, 0.45, horizon, jax.random.key(1))
        still = parts.with_weights(field, jnp.zeros(parts.num_weights(config)))
        steepest = still.weights[-1].at[:, :, -1].set(-1)
        field = eqx.tree_at(lambda f: f.weights[-1], still, steepest)
        return program._states(field, horizon, program.nodes, parts.diffrax.Bosh3(), 8)

    horizons = jnp.asarray(config.horizons)
    shrunk = dj.propagation.critical_solution(0.45, horizons)
    np.testing.assert_allclose(jax.vmap(states)(horizons), shrunk[:, None] * program.nodes, rtol=1e-12)


def test_the_readout_is_weighted_least_squares_and_does_not_amplify_rounding(x64):
    nodes, weights = (jnp.asarray(part) for part in parts.gauss_legendre(16))
    states, values = jnp.sinh(nodes) + 0.3, nodes**2 + nodes
    found = parts.fit_readout(states, values, weights)
    slope, offset = np.polyfit(states, values, 1, w=np.sqrt(weights))
    np.testing.assert_allclose([found.gain, found.offset], [slope, offset], rtol=1e-12)
    np.testing.assert_allclose(found.mse, weights @ (slope * states + offset - values) ** 2, rtol=1e-10)
    assert float(jnp.sum(weights)) == pytest.approx(1, rel=1e-14)
    # states that agree up to a few roundings carry nothing
    noise = 1 + 4 * np.finfo(float).eps * np.round(np.asarray(nodes**2) * 10)
    assert float(parts.fit_readout(jnp.asarray(noise), nodes**2, weights).mse) == pytest.approx(4 / 45, rel=1e-6)


def test_a_lane_that_is_not_finite_stands_still_and_leaves_its_neighbours_alone(runs, x64):
    from dynjax.sweep._program import init_block, segment_block

    program = memory.program(CONFIG)
    state = init_block(program, {name: jnp.asarray(lane) for name, lane in memory.lanes(CONFIG).items()})
    poison = lambda leaf: leaf.at[1].set(jnp.nan)
    bad = state._replace(field=jax.tree_util.tree_map(poison, state.field))
    after, records, status = segment_block(program, bad)
    assert status.tolist() == [int(dj.Status.RUNNING), int(dj.Status.NONFINITE), *[int(dj.Status.RUNNING)] * 2]
    assert np.all(np.isnan(records["loss"][1]))
    assert np.isinf(after.best_mse[1])
    first = slice(0, records["loss"].shape[1])
    np.testing.assert_array_equal(np.delete(records["loss"], 1, 0), np.delete(runs.loss.values[:, first], 1, 0))


def test_verdicts_follow_the_errors():
    """The words for what may happen on both sides of the threshold."""
    from dynjax.experiments.memory_capacity._summary import _verdict

    word = lambda values, injective, bound=BOUND: _verdict(np.array(values), injective, bound, 2e-3)
    assert word([0.07, 0.09], True) == "respects the bound"
    assert word([0.07, 0.05], True) == "violates the bound"
    assert word([0.07, 1e-3], False) == "learnt"
    assert word([0.07, 0.01], False) == "beyond the bound"
    assert word([0.07, 0.09], False) == "not learnt"
    assert word([], True) == "unfinished"
    # x^3 is monotone: nothing is forbidden on either side
    assert word([1e-3], True, 0.0) == "learnt"
    assert word([1e-2], True, 0.0) == "not learnt"


def test_bounds_are_those_of_the_integral():
    """sin pi x: the best monotone map is flat beyond +-a, at the means of the flat parts."""
    from dynjax.experiments.memory_capacity._summary import error_bound

    assert error_bound("square") == pytest.approx(BOUND, abs=1e-8)
    assert error_bound("cube") == pytest.approx(0, abs=1e-12)
    low, high = 0.01, 0.49
    for _ in range(60):
        a = (low + high) / 2
        steeper = (1 + np.cos(np.pi * a)) / (np.pi * (1 - a)) > np.sin(np.pi * a)
        low, high = (a, high) if steeper else (low, a)
    nodes, weights = parts.gauss_legendre(40)
    x = (1 + a) / 2 + (1 - a) / 2 * nodes
    flat = (1 - a) * weights @ (np.sin(np.pi * x) - np.sin(np.pi * a)) ** 2
    assert error_bound("sine") == pytest.approx(flat, abs=1e-7)


def test_report_table_and_figures_say_what_was_found(runs, tmp_path):
    page = tmp_path / "page.html"
    memory.write_report(runs, page)
    text = page.read_text()
    for words in ("Kuehn and Kuntz", "respects the bound", "learnt", "0.05625", "0.48199", "Figure 3", "derived here"):
        assert words in text, words
    assert 'src="http' not in text
    assert "respects the bound" in memory.table(runs)


def test_a_store_that_is_not_finished_is_shown_as_such(runs, tmp_path):
    part = runs.copy(deep=True)
    part.mse.values[part.memory.values == 0.7] = np.nan
    assert [cell.verdict for cell in memory.summarise(part)] == ["respects the bound", "unfinished"]
    memory.write_report(part, tmp_path / "page.html")
    with pytest.raises(ValueError, match="finished lane"):
        memory.network(part, 2)
    part.mse.values[:] = np.nan
    memory.write_report(part, tmp_path / "page.html")
    assert memory.maps_figure(part) is None


def test_the_command_runs_resumes_and_reports(runs, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    command = ["memory", "--horizons", "3", "--memories", "0.47", "0.7", "--num-seeds", "2", "--num-steps", "300",
               "--out", str(out), "--report", "--workers", "0", "--block", "4"]  # fmt: skip
    assert main([*command, "--time-budget", "1e-6"]) == 75
    assert main(command) == 0
    assert "critical K tau" in capsys.readouterr().out
    assert out.with_suffix(".html").exists()
    np.testing.assert_array_equal(dj.sweep.open(out).mse, runs.mse)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--horizons", "-1"], "positive"),
        (["--horizons", "0.3"], "multiples"),
        (["--memories", "0.5", "0.5"], "twice"),
        (["--memories", "inf"], "finite"),
        (["--num-seeds", "0"], "num_seeds"),
        (["--num-nodes", "4"], "num_nodes"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--target", "circle"], "target"),
        (["--seed", "-3"], "seed"),
        (["--steps-per-delay", "1"], "steps_per_delay"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, refuse):
    refuse("memory", arguments, words)


@pytest.mark.slow
def test_the_memory_transition_is_reproduced(tmp_path):
    """T = 3 tau: at least 9/160 for K tau <= .47 with every seed, at most 2e-3 for K tau >= .55 with the best of five.

    One minute of CPU time, spread over the cores.
    """
    config = memory.Config(horizons=(3.0,), memories=(0.3, 0.4, 0.47, 0.55, 0.7, 1.0), num_seeds=5, num_steps=1_000)
    runs = memory.run(config, tmp_path / "run.zarr")
    below, above = runs.memory.values < 0.48, runs.memory.values > 0.5
    assert below.sum() == above.sum() == 15
    assert np.all(runs.mse.values[below] >= BOUND)
    best = [errors(runs, value).min() for value in (0.55, 0.7, 1.0)]
    assert max(best) <= 2e-3
    cells = memory.summarise(runs)
    assert min(cell.shrinkage for cell in cells if cell.injective) >= 1 - 1e-9
    assert {cell.verdict for cell in cells} == {"respects the bound", "learnt"}
