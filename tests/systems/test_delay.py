"""Delay flows: exact solutions, orders of convergence under jit, exponents, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import lambertw
from systems.contract import random_tangents
from systems.exponents import exponents

from dynjax._core import Status
from dynjax.systems import DelayFlow, evolve, linear_delay, mackey_glass, trajectory


def at(flow, past, time, **kwargs):
    """The solution at `time`."""
    return evolve(flow, flow.init(past, **kwargs), num_steps=round(time / float(flow.dt))).y


def hutchinson(dt):
    return DelayFlow(lambda t, y, delayed, args: 1.5 * y * (1 - delayed), 1.0, dt)


def infection(dt):
    """Hairer, Norsett and Wanner, section II.17: two delays, three components, corners at every multiple of 1 and 10."""

    def field(t, y, delayed, args):
        new, old = y[0] * delayed["contact"][1], delayed["immunity"][1]
        return jnp.stack([old - new, new - y[1], y[1] - old])

    return DelayFlow(field, {"contact": 1.0, "immunity": 10.0}, dt)


def observed_orders(errors):
    return -np.diff(np.log(np.abs(errors))) / np.log(2)


# (system, past, time, reference, step sizes): the references are exact, or agree to the digits shown between two methods.
REFERENCES = {
    "y' = -y(t - 1)": (lambda dt: linear_delay(dt), 1.0, 10.0, 10493 / 518400, [0.25, 0.125, 0.0625]),
    "Hutchinson": (hutchinson, 0.5, 20.0, 0.794988745209076, [0.1, 0.05, 0.025]),
    "Wright": (
        lambda dt: DelayFlow(lambda t, y, d, args: -1.4 * d * (1 + y), 1.0, dt),
        0.1,
        10.0,
        -0.0447196597785372,
        [0.1, 0.05, 0.025],
    ),
    "Mackey-Glass 17": (lambda dt: mackey_glass(dt), 1.2, 100.0, 1.01372401652411, [0.2, 0.1, 0.05]),
    "Mackey-Glass 14": (lambda dt: mackey_glass(dt, tau=14.0), 0.5, 100.0, 0.82818774781058, [0.2, 0.1, 0.05]),
}


@pytest.mark.parametrize("name", list(REFERENCES))
def test_the_order_is_four_under_jit_although_the_past_makes_corners(x64, name):
    build, past, time, reference, steps = REFERENCES[name]
    errors = [float(at(build(dt), past, time)) - reference for dt in steps]
    assert np.all(np.abs(observed_orders(errors) - 4) < 0.4), (errors, observed_orders(errors))
    assert abs(errors[-1]) < 1e-7


def test_two_delays_and_three_components_agree_with_the_literature(x64):
    past = jnp.asarray([5.0, 0.1, 1.0])
    reference = np.asarray([0.09124912056635, 0.02029950033507, 5.9884513790986])
    ends = [np.asarray(at(infection(dt), past, 40.0)) for dt in (0.1, 0.05)]
    errors = [np.abs(end - reference).max() for end in ends]
    assert abs(observed_orders(errors)[0] - 4) < 0.4
    np.testing.assert_allclose(ends[-1], reference, rtol=1e-4)
    np.testing.assert_allclose(ends[-1].sum(), 6.1, rtol=1e-13)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.8, 0.999])
def test_the_order_is_four_for_delays_between_grid_points(x64, fraction):
    # y' = -y(t - 1) with the past Re exp(lambda t), which the solution continues without any corner.
    rate = lambertw(-1.0).item()
    exact = lambda t: jnp.exp(rate * t).real
    errors = []
    for cells in (16, 32, 64):
        dt = 1 / (cells + fraction)
        flow = linear_delay(dt)
        orbit = trajectory(flow, flow.init(exact), num_steps=5 * cells, observe=lambda n, x: x.y)
        errors.append(float(jnp.max(jnp.abs(orbit.ys - exact(orbit.ts)))))
    assert np.all(observed_orders(errors) > 3.6), (errors, observed_orders(errors))
    assert errors[-1] < 1e-8


def test_a_vector_field_that_depends_on_time_meets_its_exact_solution(x64):
    # y = sin t for y' = cos t + (y(t - 2) - sin(t - 2)), started at t0 = 1.
    field = lambda t, y, delayed, args: jnp.cos(t) + args * (delayed - jnp.sin(t - 2.0))
    errors = []
    for dt in (0.1, 0.05):
        flow = DelayFlow(field, 2.0, dt, args=jnp.asarray(0.7), t0=1.0)
        errors.append(float(at(flow, jnp.sin, 8.0)) - np.sin(9.0))
    assert abs(observed_orders(errors)[0] - 4) < 0.4
    assert abs(errors[-1]) < 1e-6


def test_a_past_that_jumps_costs_two_orders(x64):
    # u' = -u(t - 1/3) - u(t - 1/5), u = 0 before 0 and 1 there: eleven polynomial pieces.
    errors = []
    for n in (30, 60, 120):
        flow = DelayFlow(lambda t, y, d, args: -d[0] - d[1], (1 / 3, 1 / 5), 1 / n)
        errors.append(float(at(flow, 0.0, 1.0, y0=1.0)) + 8407 / 243000)
    assert np.all(observed_orders(errors) > 1.9), (errors, observed_orders(errors))
    assert abs(errors[-1]) < 1e-4


@pytest.mark.parametrize("delay", [0.1, 0.13])
def test_a_delay_of_about_one_step_works(x64, delay):
    rate = lambertw(-delay).item().real / delay
    flow = linear_delay(0.1, tau=delay)
    np.testing.assert_allclose(at(flow, lambda t: jnp.exp(rate * t), 2.0), np.exp(2 * rate), rtol=2e-6)


def test_known_and_traced_delays_give_the_same_numbers(x64):
    delays = jnp.asarray([14.0, 17.0, 17.03, 19.96])

    def end(tau):
        flow = mackey_glass(tau=tau, num_history=200)
        return evolve(flow, flow.init(1.2), num_steps=1000).y

    together = jax.jit(jax.vmap(end))(delays)
    alone = [float(at(mackey_glass(tau=float(tau)), 1.2, 100.0)) for tau in delays]
    np.testing.assert_allclose(together, alone, rtol=1e-10)
    derivative = jax.jvp(end, (17.03,), (1.0,))[1]
    np.testing.assert_allclose(derivative, (end(17.03 + 1e-5) - end(17.03 - 1e-5)) / 2e-5, rtol=1e-6)


def test_delays_that_are_multiples_of_the_step_are_exact_whatever_the_rounding(x64):
    for dt, tau in ((0.1, 17.0), (0.1, 0.3), (0.07, 0.49), (1 / 3, 5.0)):
        for kind in (jnp.float64, jnp.float32):
            flow = linear_delay(jnp.asarray(dt, kind), tau=jnp.asarray(tau, kind))
            assert (int(flow.cells[0]), flow.size) == (-round(tau / dt), round(tau / dt) + 2)
            # At the start of the step only the value at one grid point counts.
            np.testing.assert_array_equal(flow.weights[0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0])


def test_a_history_does_not_know_the_clock(x64):
    flow = mackey_glass()
    x = evolve(flow, flow.init(1.2), num_steps=437)
    a = evolve(flow, x, num_steps=500, start=437)
    b = evolve(flow, x, num_steps=500)
    np.testing.assert_array_equal(a.y, b.y)


def test_a_long_run_wraps_its_counter(x64):
    flow = linear_delay(0.25, tau=1.0)
    rate = lambertw(-1.0).item()
    exact = lambda t: jnp.exp(rate * t).real
    x = evolve(flow, flow.init(exact), num_steps=400)
    assert int(x.steps) < 2 * flow.size
    # The root of the numerical step differs from the exact one by O(dt^4).
    np.testing.assert_allclose(jnp.log(jnp.abs(x.y / exact(100.0))) / 100, 0.0, atol=1e-3)


def test_states_may_be_pytrees_in_single_precision():
    field = lambda t, y, d, args: {"a": -d["a"], "b": y["a"] - d["b"]}
    flow = DelayFlow(field, 0.5, 0.1)
    x = evolve(flow, flow.init({"a": jnp.ones(2), "b": jnp.zeros(2)}), num_steps=20)
    assert x.y["a"].dtype == jnp.float32
    assert x.y["b"].shape == (2,)
    double = DelayFlow(lambda t, y, d, args: -d, 0.5, 0.1)
    np.testing.assert_allclose(x.y["a"][0], at(double, 1.0, 2.0), rtol=1e-6)


def test_the_tangent_agrees_with_the_difference_of_two_runs(x64):
    flow = mackey_glass()
    x = flow.init(1.2)
    push = lambda v: jax.lax.fori_loop(0, 400, lambda n, c: flow.tangent_step(n, *c), (x, v))[1]
    tangent = random_tangents(jax.random.key(2), x, 1)
    ahead, behind = (
        evolve(flow, eqx.apply_updates(x, jax.tree_util.tree_map(lambda v, h=h: h * v[0], tangent)), num_steps=400)
        for h in (1e-5, -1e-5)
    )
    pushed = jax.jit(push)(tangent)
    np.testing.assert_allclose(pushed.ys[0], (ahead.ys - behind.ys) / 2e-5, rtol=1e-6, atol=1e-7)


def test_exponents_of_a_linear_delay_equation_are_those_of_lambert_w(x64):
    flow = linear_delay(0.01, b=-0.5)
    found = exponents(flow, flow.init(1.0), 6, blocks=2_000, every=10, burn_in=200).reshape(3, 2)
    roots = [lambertw(-0.5, k).real for k in (0, 1, 2)]
    np.testing.assert_allclose(roots, [-0.794023632344689, -2.772069015153082, -3.353351598811111], rtol=1e-12)
    # The pairs turn in their planes, which the means over each pair do not see.
    np.testing.assert_allclose(found.mean(axis=1), roots, atol=1e-4)
    np.testing.assert_allclose(found, np.stack([roots, roots], axis=1), atol=2e-2)


def test_the_exponent_of_mackey_glass_is_the_published_one(x64):
    flow = mackey_glass()
    blocks, every = 20_000, 100
    logs = exponents(flow, flow.init(1.2), 1, blocks=blocks, every=every, burn_in=200, return_blocks=True)
    means = np.asarray(logs).reshape(40, -1).mean(axis=1)
    standard_error = means.std(ddof=1) / np.sqrt(len(means))
    assert standard_error < 2e-4
    assert abs(means.mean() - 0.00513) < 4 * standard_error


def test_delays_out_of_range_are_nan_where_they_are_traced(x64):
    def run(tau):
        flow = linear_delay(0.1, tau=tau, num_history=20)
        return trajectory(flow, flow.init(1.0), num_steps=3)

    orbits = jax.vmap(run)(jnp.asarray([0.05, 0.1, 2.0, 2.01]))
    assert orbits.status.tolist() == [Status.NONFINITE, Status.OK, Status.OK, Status.NONFINITE]


@pytest.mark.parametrize("tau", [1.0, 0.97])
def test_the_derivative_by_a_delay_does_not_vanish_where_it_is_a_multiple_of_the_step(tau, x64):
    def final(tau):
        flow = linear_delay(0.1, tau=tau, num_history=20)
        return evolve(flow, flow.init(jnp.cos), num_steps=30).y

    slope = (final(tau + 1e-6) - final(tau - 1e-6)) / 2e-6
    assert float(jax.grad(final)(tau)) == pytest.approx(float(slope), rel=1e-3)
    assert float(jax.jvp(final, (tau,), (1.0,))[1]) == pytest.approx(float(slope), rel=1e-3)


def _field(t, y, delayed, args):
    return -delayed


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: DelayFlow(1, 1.0, 0.1), TypeError, "`vector_field` must be a function"),
        (lambda: DelayFlow(_field, 0.05, 0.1), ValueError, "at least one step `dt`, but the shortest is 0.5 steps"),
        (lambda: DelayFlow(_field, (1.0, -1.0), 0.1), ValueError, "at least one step `dt`"),
        (lambda: DelayFlow(_field, jnp.nan, 0.1), ValueError, "`delays` must be finite"),
        (lambda: DelayFlow(_field, (), 0.1), ValueError, "at least one delay"),
        (lambda: DelayFlow(_field, jnp.ones(2), 0.1), ValueError, "`delays` must be a real scalar"),
        (lambda: DelayFlow(_field, 1.0, -0.1), ValueError, "`dt` must be finite and positive"),
        (lambda: DelayFlow(_field, 1.0, 0.1, num_history=9), ValueError, "the longest delay, 10 steps, but found 9"),
        (lambda: DelayFlow(_field, 1.0, 0.1, num_history=0), ValueError, "`num_history` must be a positive integer"),
        (lambda: jax.jit(lambda d: DelayFlow(_field, d, 0.1).dt)(1.0), ValueError, "be given where a delay"),
    ],
)
def test_bad_input_is_refused(build, error, sentence):
    with pytest.raises(error, match=sentence):
        build()
