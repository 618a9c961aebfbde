"""Delay solves with delays that depend on time and state, or vanish: exact solutions, located breakpoints, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from systems.delay_problems import constant, pure_delay

from dynjax import Status
from dynjax.systems import ddesolve

pytestmark = pytest.mark.usefixtures("x64")
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
UNIT = {"history": constant(1.0)}


def of_itself(t, y, args):
    """The delay of y(y(t))."""
    return t - y


def self_referring(level, **options):
    """y'(t) = y(y(t)) from y(2) = 1, with the constant past `level`."""
    field = lambda t, y, delayed, args: delayed[0]
    return ddesolve(field, 2.0, 5.5, 1.0, history=constant(level), delays=of_itself, max_segments=8, **TIGHT, **options)


def self_referring_exact(level, t):
    """Right near level = 1/2 to first order, where one exponential becomes a power: the solution in its third stretch."""
    first = 2 + 1 / level
    second = first + jnp.log(2.0) / level
    rate, s = 2 * level - 1, t - second
    return first - jnp.log(1 - rate * s - s * (1 - rate * s / 2)) / level


def test_breakpoints_of_a_state_dependent_delay_are_located_and_carry_derivatives():
    def run(level):
        solution = self_referring(level)
        return solution.final, (solution.breakpoints, solution.status)

    (value, (breakpoints, status)), slope = jax.jit(jax.value_and_grad(run, has_aux=True))(0.5)
    exact, exact_slope = jax.value_and_grad(self_referring_exact)(0.5, 5.5)
    assert status == Status.OK
    assert abs(exact - 4.241412295056518) < 1e-14
    assert abs(value - exact) < 1e-8
    assert abs(slope - exact_slope) < 1e-6
    np.testing.assert_allclose(breakpoints[:2], [4.0, 4 + 2 * np.log(2)], atol=1e-8)
    assert np.all(np.isnan(breakpoints[2:]))


@pytest.mark.slow  # 25 s
def test_breakpoints_move_with_the_history_in_forward_mode():
    run = lambda level: self_referring(level, adjoint="forward")
    solution = lambda level: (run(level).breakpoints[:2], run(level).final)
    places, final = jax.jit(jax.jacfwd(solution))(0.5)
    # first = 2 + 1 / level, second = first + ln 2 / level
    np.testing.assert_allclose(places, [-4.0, -4 - 4 * np.log(2)], rtol=1e-8)
    assert abs(final - jax.grad(self_referring_exact)(0.5, 5.5)) < 1e-6


def pantograph_series(rate, t, num_terms=60):
    """y' = -y + y(rate t) / 2 from 1, as a power series, and its derivative by the rate."""
    c, d, y, slope = 1.0, 0.0, 0.0, 0.0
    for n in range(num_terms):
        y, slope = y + c * t**n, slope + d * t**n
        factor = -1 + 0.5 * rate**n
        c, d = c * factor / (n + 1), (d * factor + c * 0.5 * n * rate ** (n - 1)) / (n + 1)
    return y, slope


def pantograph(rate, second=2.0, **options):
    """Beside it y' = -y(0), whose delay is the time itself: it always sees the beginning of its own segment."""
    field = lambda t, y, delayed, args: jnp.stack([-y[0] + 0.5 * delayed[0][0], -delayed[1][1]])
    delays = (lambda t, y, args: t - args * t, lambda t, y, args: t)
    bounds = {"history": constant([1.0, 1.0]), "max_segments": 24, **TIGHT}
    y0 = jnp.stack([jnp.ones(()), jnp.asarray(second)])
    return ddesolve(field, 0.0, 5.0, y0, delays=delays, args=rate, **bounds, **options)


def test_delays_that_vanish_at_the_start_are_solved_by_sweeps_and_differentiated():
    def run(rate, second):
        solution = pantograph(rate, second)
        return jnp.sum(solution.final), (solution.final, solution.num_sweeps, solution.status, solution.evaluate(1.0))

    both = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))
    (_, (final, sweeps, status, inside)), (by_rate, by_second) = both(0.5, 2.0)
    assert status == Status.OK
    assert 2 <= sweeps <= 8
    np.testing.assert_allclose(inside, [0.643502659281442972, 0.0], atol=1e-9)
    exact, exact_slope = pantograph_series(0.5, 5.0)
    assert abs(exact - 0.23789944481630026) < 1e-14
    np.testing.assert_allclose(final, [exact, -8.0], atol=1e-9)
    assert abs(by_rate - exact_slope) < 1e-8
    assert abs(by_second + 4) < 1e-12


@pytest.mark.slow  # 15 s
def test_forward_mode_through_sweeps_meets_the_series():
    run = lambda rate: pantograph(rate, adjoint="forward").final[0]
    assert abs(jax.jit(jax.jacfwd(run))(0.5) - pantograph_series(0.5, 5.0)[1]) < 1e-8


@pytest.mark.slow  # 10 s
def test_a_delay_that_vanishes_on_the_way_is_solved():
    field = lambda t, y, delayed, args: 1 - delayed[0]
    delay = lambda t, y, args: t - jnp.exp(1 - 1 / t)
    solution = ddesolve(field, 0.1, 10.0, np.log(0.1), history=jnp.log, delays=delay, max_segments=40, **TIGHT)
    assert solution.status == Status.OK
    assert solution.num_sweeps <= 8
    assert abs(solution.final - np.log(10)) < 1e-7
    assert abs(solution.evaluate(1.0)) < 1e-7


@pytest.mark.slow  # 10 s
def test_a_state_dependent_delay_that_vanishes_on_the_way_is_solved():
    def field(t, y, delayed, args):
        return jnp.stack([y[1], -delayed[0][1] * y[1] ** 2 * jnp.exp(1 - y[1])])

    history = lambda t: jnp.stack([jnp.log(t), 1 / t])
    delay = lambda t, y, args: t - jnp.exp(1 - y[1])
    solution = ddesolve(field, 0.1, 5.0, history(0.1), history=history, delays=delay, max_segments=40, **TIGHT)
    assert solution.status == Status.OK
    np.testing.assert_allclose(solution.final, [np.log(5), 0.2], rtol=1e-8)


def paul(kinks, tolerance, **options):
    """Paul's C1: the delay 1 + |y| has a kink wherever y changes sign."""
    field = lambda t, y, delayed, args: -2 * delayed[0] * (1 - y**2)
    delay = lambda t, y, args: 1 + jnp.abs(y)
    bounds = {"rtol": tolerance, "atol": tolerance, "max_segments": 80}
    return ddesolve(field, 0.0, 30.0, 0.5, history=constant(0.5), delays=delay, kinks=kinks, **bounds, **options)


def test_a_delay_with_kinks_is_solved_if_they_are_declared():
    solution = paul((lambda t, y, args: y,), 1e-10)
    assert solution.status == Status.OK
    assert abs(solution.final - 0.99553206380) < 1e-8
    times = jnp.array([5.0, 10.0, 20.0])
    expected = [0.96937558291736, -0.9963293799960, 0.524707678360]
    np.testing.assert_allclose(jax.vmap(solution.evaluate)(times), expected, atol=1e-8)
    # Each change of sign is the end of a segment.
    signs = jnp.sign(jax.vmap(solution.evaluate)(jnp.linspace(0, 30, 3001)))
    changes = int(jnp.sum(signs[1:] != signs[:-1]))
    places = solution.breakpoints[jnp.isfinite(solution.breakpoints)]
    assert changes == 8
    assert int(jnp.sum(jnp.abs(jax.vmap(solution.evaluate)(places)) < 1e-8)) == changes


@pytest.mark.slow  # 15 s
def test_kinks_that_are_not_declared_cost_steps_and_are_no_breakpoints():
    declared, silent = paul((lambda t, y, args: y,), 1e-6), paul((), 1e-6)
    # The error estimate notices a kink, so that the solution stays right: by steps that are tried in vain.
    assert abs(silent.final - 0.99553206380) < 1e-4
    assert abs(declared.final - 0.99553206380) < 1e-4
    assert jnp.sum(jnp.isfinite(silent.breakpoints)) < jnp.sum(jnp.isfinite(declared.breakpoints)) / 2


@pytest.mark.slow  # 15 s
def test_a_neutral_equation_with_a_constant_and_a_vanishing_delay():
    field = lambda t, y, delayed, args: 1 + y - 2 * delayed[1][0] ** 2 - delayed[0][1]
    delays = (np.pi, lambda t, y, args: t / 2)
    solution = ddesolve(field, 0.0, np.pi, 1.0, history=jnp.cos, delays=delays, neutral=True, max_segments=24, **TIGHT)
    assert solution.status == Status.OK
    assert abs(solution.final + 1) < 1e-7
    assert abs(solution.evaluate(1.0) - np.cos(1)) < 1e-7


def logarithmic(level, **options):
    """y'(t) = y(ln y(t)) y(t) / t from y(1) = 1, with the constant past `level`."""
    field = lambda t, y, delayed, args: delayed[0] * y / t
    delay = lambda t, y, args: t - jnp.log(y)
    return ddesolve(field, 1.0, 10.0, 1.0, history=constant(level), delays=delay, max_segments=8, **TIGHT, **options)


@pytest.mark.parametrize(
    "delay", [lambda t, y, args: y**2 / 4, lambda t, y, args: t - y + 2], ids=["t - y^2 / 4", "y - 2"]
)
def test_neutral_equations_with_a_state_dependent_delay(delay):
    # y'(t) = -y'(t - tau) after the past 1 - t: the slope jumps from -1 to 1, and y = t + 1.
    field = lambda t, y, d, args: -d[0][1]
    solution = ddesolve(
        field, 0.0, 1.0, 1.0, history=lambda t: 1 - t, delays=delay, neutral=True, max_segments=8, **TIGHT
    )
    assert solution.status == Status.OK
    assert abs(float(solution.final) - 2) < 1e-8


@pytest.mark.slow  # 15 s
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5])
def test_neutral_equations_whose_state_dependent_delay_vanishes_now_and_then(strength):
    # y = sin t; the delayed time is t y^2. What y' sees of itself comes back with a factor of up to `strength`.
    def field(t, y, delayed, c):
        value, slope = delayed[0]
        seen = t * jnp.sin(t) ** 2
        return jnp.cos(t) * (1 + value) + c * y * slope + (1 - c) * jnp.sin(t) * jnp.cos(seen) - jnp.sin(t + seen)

    solution = ddesolve(
        field, 0.0, 3.0, 0.0, history=jnp.sin, delays=lambda t, y, args: t - t * y**2, args=jnp.asarray(strength),
        neutral=True, ts=np.linspace(0.1, 3.0, 30), **TIGHT,
    )  # fmt: skip
    assert solution.status == Status.OK
    np.testing.assert_allclose(solution.ys, np.sin(solution.ts), atol=1e-9)
    np.testing.assert_allclose(solution.final, np.sin(3.0), rtol=1e-8)


@pytest.mark.slow  # 15 s
@pytest.mark.parametrize("strength", [0.2, 0.4, 0.6])
def test_a_neutral_delay_that_vanishes_once_in_a_period(strength):
    # y = log(t + 3). From period to period the delayed time sweeps over all that came before, and segments double.
    ago = lambda t: 0.5 * t * (1 - jnp.cos(2 * jnp.pi * t))
    field = lambda t, y, d, c: jnp.exp(-y) + c * (jnp.sin(d[0][1]) - jnp.sin(1 / (3 + ago(t))))
    solution = ddesolve(
        field, 0.0, 2.4, jnp.log(3.0), history=lambda t: jnp.log(t + 3), delays=lambda t, y, args: t - ago(t),
        args=jnp.asarray(strength), neutral=True, **TIGHT,
    )  # fmt: skip
    assert solution.status == Status.OK
    np.testing.assert_allclose(solution.final, np.log(5.4), rtol=1e-8)


@pytest.mark.slow  # 20 s
def test_a_doubly_nested_state_dependent_delay_and_its_derivative():
    # At level 1 the first stretch is y = t, which any step solves exactly: its derivative t ln t is not, and gets small
    # steps through `ts`.
    def run(level):
        solution = logarithmic(level, ts=np.linspace(1, 10, 32))
        return solution.final, solution.breakpoints

    (value, breakpoints), slope = jax.jit(jax.value_and_grad(run, has_aux=True))(1.0)
    exact = (np.e / (3 - np.log(10))) ** np.e
    assert abs(value - exact) < 1e-8 * exact
    np.testing.assert_allclose(breakpoints[:2], [np.e, np.e**2], atol=1e-8)
    # With u = ln y and x = ln t: du/dx = exp(U(ln u)) in the third stretch, U(x) = (1 + (1 - c)(x - 1/c))^(1/(1 - c)) in the
    # second. By implicit differentiation of x - x_2 = int du / G at c = 1, where dU/dc = U (1 + (x - 1)^2 / 2), the third
    # stretch begins at u = e^(1/c), and dx_2/dc = -5/2.
    last = np.log(exact)
    growth = lambda v: np.exp(v / np.e)
    weight = lambda v: v / np.e * (1 + (np.log(v) - 1) ** 2 / 2) / growth(v)
    moved = growth(last) * (2.5 - np.e / growth(np.e) + quad(weight, np.e, last, epsabs=1e-13)[0])
    assert abs(slope - exact * moved) < 1e-6 * abs(exact * moved)


def by_steps(depth, end):
    """y' = -y(t - 1 - depth sin t), y = cos before 0, by SciPy: one solve for each stretch between breakpoints."""
    pieces, marks = [], [0.0]
    lag = lambda t: 1 + depth * np.sin(t)

    def past(t):
        place = np.searchsorted(marks, t, side="right") - 1
        # Beyond the end of a stretch its smooth continuation, until the event ends the step.
        return np.cos(t) if place < 0 or not pieces else pieces[min(place, len(pieces) - 1)](t)[0]

    y = [1.0]
    while marks[-1] < end:
        event = lambda t, y, mark=marks[-1]: t - lag(t) - mark
        event.terminal = True
        bound = [marks[-1], end]
        solved = solve_ivp(
            lambda t, y: [-past(t - lag(t))], bound, y, "DOP853", rtol=1e-12, atol=1e-13, dense_output=True,
            events=event, max_step=0.02,
        )  # fmt: skip
        pieces.append(solved.sol)
        marks.append(solved.t[-1])
        y = solved.y[:, -1]
    return y[0]


@pytest.mark.slow  # 25 s
def test_a_delay_that_depends_on_time_and_its_derivative_against_scipy():
    delay = lambda t, y, args: 1 + args * jnp.sin(t)

    def run(depth):
        return ddesolve(
            pure_delay,
            0.0,
            8.0,
            1.0,
            history=jnp.cos,
            delays=delay,
            args=depth,
            max_segments=24,
            min_delay=0.4,
            **TIGHT,
        ).final

    value, slope = jax.jit(jax.value_and_grad(run))(0.5)
    h = 1e-3
    assert abs(value - by_steps(0.5, 8.0)) < 1e-8
    assert abs(slope - (by_steps(0.5 + h, 8.0) - by_steps(0.5 - h, 8.0)) / (2 * h)) < 1e-5


def shrinking(rate, end, **options):
    """The delay 1 - rate t, which becomes negative at 1 / rate."""
    delay = lambda t, y, args: 1 - args * t
    bounds = {"rtol": 1e-8, "atol": 1e-8, "max_segments": 12, "max_steps": 32}
    return ddesolve(pure_delay, 0.0, end, 1.0, delays=delay, args=rate, **UNIT, **bounds, **options)


def in_lanes(rate, end):
    solution = shrinking(rate, end)
    return solution.status, solution.final, solution.num_segments


LANES = np.array([0.5, 0.0, 0.01, 0.0]), np.array([5.0, 50.0, 5.0, 10.0])


def test_failures_are_a_status_of_their_lane():
    status, final, _ = jax.jit(jax.vmap(in_lanes))(*LANES)
    assert status.tolist() == [Status.ERROR, Status.MAX_STEPS, Status.OK, Status.OK]
    assert np.isnan(final).tolist() == [True, True, False, False]
    assert abs(final[3] - 10493 / 518400) < 1e-7  # the equation with delay 1


@pytest.mark.slow  # 15 s
def test_lanes_agree_with_single_solves():
    single = jax.jit(in_lanes)
    alone = [single(*lane) for lane in zip(*LANES, strict=True)]
    _, final, count = jax.jit(jax.vmap(in_lanes))(*LANES)
    assert count.tolist() == [int(lane[2]) for lane in alone]
    np.testing.assert_allclose(final, [lane[1] for lane in alone], rtol=1e-12, atol=1e-14)


def state_dependent_slope(num_segments, end):
    delay = lambda t, y, args: args / (1 + 0.1 * y**2)
    bounds = {"rtol": 1e-6, "atol": 1e-6, "max_segments": num_segments, "max_steps": 32}
    return jax.grad(lambda a: ddesolve(pure_delay, 0.0, end, 1.0, delays=delay, args=a, **UNIT, **bounds).final)


@pytest.mark.slow  # 20 s
def test_memory_of_the_reverse_pass_grows_with_the_number_of_segments_only():
    size = lambda n: (
        jax.jit(state_dependent_slope(n, 0.9 * n)).lower(1.0).compile().memory_analysis().temp_size_in_bytes
    )
    assert size(100) <= 2.2 * size(50)


def test_bad_delays_and_kinks_are_named():
    solve = lambda delays, **options: ddesolve(pure_delay, 0.0, 1.0, 1.0, delays=delays, **UNIT, **options)
    with pytest.raises(ValueError, match="Argument `delays` must not be negative at t0"):
        solve(lambda t, y, args: -1.0)
    with pytest.raises(ValueError, match="Argument `delays` must be positive"):
        solve((-1.0, lambda t, y, args: 1.0))
    with pytest.raises(ValueError, match="Argument `delays` must return one real number each"):
        solve(lambda t, y, args: jnp.ones(2))
    with pytest.raises(TypeError, match="Argument `kinks` must be functions"):
        solve(1.0, kinks=(1.0,))
    with pytest.raises(ValueError, match="Argument `min_delay` must be positive"):
        solve(lambda t, y, args: 1.0, min_delay=0.0)
    with pytest.raises(ValueError, match="Argument `engine` must be"):
        solve(lambda t, y, args: 1.0, engine="stages", steps_per_delay=4)
