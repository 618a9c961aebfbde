"""Adaptive delay solves against exact solutions; derivatives, batches, memory and bad input."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from systems.delay_problems import PROBLEMS, SLOPE_5_5, STEPS_5_5, characteristic, constant, hutchinson, pure_delay

from dynjax import Status
from dynjax.systems import ddesolve

pytestmark = pytest.mark.usefixtures("x64")
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
UNIT = {"history": constant(1.0), "delays": 1.0}


@pytest.mark.parametrize("name", PROBLEMS)
def test_known_solutions_are_met_to_eight_digits(name):
    p = PROBLEMS[name]
    solution = ddesolve(p.field, p.start, p.end, p.initial, history=p.history, delays=p.delays, **TIGHT)
    assert solution.status == Status.OK
    np.testing.assert_allclose(solution.final, p.final, rtol=1e-8)


def test_pure_delay_equation_at_many_times_between_and_on_breakpoints():
    ts = np.array([1.0, 2.0, 3.0, 5.0, 5.5, 10.0])
    solution = ddesolve(pure_delay, 0.0, 10.0, 1.0, ts=ts, **UNIT, **TIGHT)
    exact = [0.0, -1 / 2, -1 / 6, 19 / 120, STEPS_5_5, 10493 / 518400]
    np.testing.assert_allclose(solution.ys, exact, atol=1e-9)
    assert solution.num_segments == 10


def test_single_precision_is_exact_to_single_precision():
    with jax.enable_x64(False):
        one = jnp.float32(1)
        solution = ddesolve(pure_delay, 0.0, 10.0, one, history=lambda t: one, delays=1.0, rtol=1e-6, atol=1e-6)
        assert solution.final.dtype == jnp.float32
        assert abs(float(solution.final) - 10493 / 518400) < 5e-6


def test_a_smaller_tolerance_gives_a_smaller_error_for_dopri8_too():
    # Its embedded estimate is zero for this equation, at any step.
    def error(tolerance):
        solution = ddesolve(pure_delay, 0.0, 10.0, 1.0, solver=diffrax.Dopri8(), rtol=tolerance, atol=tolerance, **UNIT)
        return abs(float(solution.final) - 10493 / 518400)

    assert error(1e-6) < 1e-6
    assert error(1e-9) < 1e-9


_NEWTON = optx.Newton(rtol=1e-11, atol=1e-11, norm=optx.max_norm, cauchy_termination=True)


# Kvaerno5 has a stage beyond the end of its step, which looks beyond the end of a piece of the past.
@pytest.mark.parametrize(
    ("solver", "least", "steps"),
    [(diffrax.Tsit5(), 4.7, (4, 32)), (diffrax.Kvaerno5(root_finder=_NEWTON), 3.7, (8, 16))],
    ids=["Tsit5", "Kvaerno5"],
)
def test_order_of_segments_with_fixed_steps(solver, least, steps):
    ts = np.arange(1.0, 9.0)
    march = lambda n, **kw: np.asarray(
        ddesolve(hutchinson, 0.0, 8.0, 0.5, history=constant(0.5), delays=1.0, steps_per_delay=n, ts=ts, **kw).ys
    )
    exact = march(32, engine="stages", solver=diffrax.Dopri8())
    coarse, fine = (np.abs(march(n, solver=solver) - exact).max() for n in steps)
    assert math.log2(coarse / fine) / math.log2(steps[1] / steps[0]) > least


@pytest.mark.parametrize("adjoint", ["reverse", "forward"])
def test_derivative_by_the_delay_is_exact(adjoint):
    final = lambda tau: (
        ddesolve(
            pure_delay, 0.0, 5.5, 1.0, history=constant(1.0), delays=tau, max_segments=6, adjoint=adjoint, **TIGHT
        ).final
    )
    slope = (jax.grad if adjoint == "reverse" else jax.jacfwd)(final)(1.0)
    assert abs(float(slope) - SLOPE_5_5) < 1e-8


def test_derivatives_at_times_inside_use_them_as_ends_of_steps():
    at = lambda tau: ddesolve(
        pure_delay, 0.0, 8.0, 1.0, history=constant(1.0), delays=tau, ts=[3.3, 5.5], max_segments=8, **TIGHT
    ).ys[1]
    assert abs(float(jax.grad(at)(1.0)) - SLOPE_5_5) < 1e-8


@pytest.mark.parametrize("adjoint", ["reverse", "forward"])
def test_derivative_by_the_delay_with_a_jump_at_the_start(adjoint):
    # y' = -y(t - tau), y = 0 before 0, y(0) = 1: y(2.5) = 1 - (2.5 - tau) + (2.5 - 2 tau)^2 / 2.
    final = lambda tau: (
        ddesolve(
            pure_delay, 0.0, 2.5, 1.0, history=constant(0.0), delays=tau, max_segments=3, adjoint=adjoint, **TIGHT
        ).final
    )
    slope = (jax.grad if adjoint == "reverse" else jax.jacfwd)(final)(1.0)
    assert abs(float(slope) - (1 - 2 * 0.5)) < 1e-7


@pytest.mark.parametrize("adjoint", ["reverse", "forward"])
def test_derivatives_by_history_arguments_and_start(adjoint):
    # y' = -c y(t - 1), history p + q t, start s: y(1) = s - c (p - q / 2) and y(2) = y(1) - c (s - c (p / 2 - q / 3)).
    def final(theta):
        p, q, c, s = theta
        return ddesolve(
            lambda t, y, d, args: -args * d[0],
            0.0,
            2.0,
            s,
            history=lambda t: p + q * t,
            delays=1.0,
            args=c,
            adjoint=adjoint,
            **TIGHT,
        ).final

    def exact(theta):
        p, q, c, s = theta
        return s - c * (p - q / 2) - c * (s - c * (p / 2 - q / 3))

    theta = jnp.array([0.7, -0.4, 1.3, 0.9])
    assert abs(final(theta) - exact(theta)) < 1e-9
    slope = (jax.grad if adjoint == "reverse" else jax.jacfwd)(final)(theta)
    np.testing.assert_allclose(slope, jax.grad(exact)(theta), atol=1e-8)


def test_arrays_in_the_vector_field_are_differentiated():
    field = eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0))
    final = lambda w: (
        ddesolve(lambda t, y, d, args: w * d[0], 0.0, 2.0, 1.0, history=constant(1.0), delays=1.0, **TIGHT).final
    )
    exact = lambda w: 1 + w + w * (1 + w / 2)
    w = field.weight[0, 0].astype(float)
    assert abs(float(jax.grad(final)(w) - jax.grad(exact)(w))) < 1e-8


def test_derivatives_by_the_ends_of_the_interval():
    # y(t1) of y' = -y(t - 1), y = 1: 1 - t1 + t0 for t1 - t0 < 1, then + (t1 - t0 - 1)^2 / 2.
    final = lambda ends: ddesolve(pure_delay, ends[0], ends[1], 1.0, max_segments=2, **UNIT, **TIGHT).final
    slope = jax.grad(final)(jnp.array([0.25, 1.75]))
    np.testing.assert_allclose(slope, [0.5, -0.5], atol=1e-8)


def test_a_batch_over_delays_equals_a_loop_and_compiles_once():
    p = PROBLEMS["P2"]
    traces = []

    def final(delays):
        traces.append(None)
        solution = ddesolve(p.field, 0.0, 1.0, 1.0, history=p.history, delays=delays, max_segments=30, **TIGHT)
        return solution.final, solution.status

    pairs = jnp.stack([jnp.linspace(0.25, 0.4, 256), jnp.linspace(0.24, 0.15, 256)], axis=1)
    batch, status = jax.jit(jax.vmap(final))(pairs)
    assert len(traces) == 1
    assert np.all(np.asarray(status) == Status.OK)
    one = jax.jit(final)
    loop = np.array([one(pair)[0] for pair in pairs[::5]])
    assert len(traces) == 2
    np.testing.assert_allclose(batch[::5], loop, atol=1e-12)


def test_solutions_pass_through_jit_and_vmap_and_can_be_evaluated():
    solve = lambda y0: ddesolve(pure_delay, 0.0, 2.0, y0, history=constant(1.0), delays=1.0, **TIGHT)
    solutions = jax.jit(jax.vmap(solve))(jnp.array([1.0, 2.0]))
    values = jax.vmap(lambda s: jax.vmap(s.evaluate)(jnp.array([-0.5, 0.5, 1.0, 2.0, 2.5])))(solutions)
    np.testing.assert_allclose(values[0], [1.0, 0.5, 0.0, -0.5, np.nan], atol=1e-9)
    np.testing.assert_allclose(values[1], [1.0, 1.5, 1.0, -0.5, np.nan], atol=1e-9)


def test_inside_jit_the_segments_are_still_derived():
    run = jax.jit(lambda a: ddesolve(lambda t, y, d, args: -a * d[0], 0, 3, 1.0, history=constant(1.0), delays=1).final)
    np.testing.assert_allclose(run(1.0), -1 / 6, atol=1e-7)


def test_reverse_mode_equals_plain_differentiation_of_the_loop():
    def loss(theta, adjoint):
        field = lambda t, y, d, args: jnp.tanh(args[0] * d[0]) - args[1] * y
        delays = (theta[2], 1.0)
        solution = ddesolve(
            field, 0.0, 5.0, theta[3], history=lambda t: theta[3] * jnp.cos(t), delays=delays, args=theta, max_segments=40,
            ts=[2.2, 5.0], rtol=1e-6, atol=1e-6, adjoint=adjoint,
        )  # fmt: skip
        return jnp.sum(solution.ys**2)

    theta = jnp.array([-2.0, 0.3, 0.7, 0.5])
    reverse = jax.grad(loss)(theta, "reverse")
    np.testing.assert_allclose(reverse, jax.jacfwd(loss)(theta, "forward"), rtol=1e-12)


@pytest.mark.slow  # a minute: nothing is cached
def test_no_tracer_leaks():
    def final(tau, **engine):
        return ddesolve(
            lambda t, y, d, args: -args * d[0], 0.0, 3.0, tau, history=lambda t: tau * t, delays=tau, args=tau,
            max_segments=5, **engine,
        ).final  # fmt: skip

    stages = lambda c: ddesolve(
        lambda t, y, d, args: -args * d[0], 0.0, 3.0, c, history=constant(1.0), delays=1.0, args=c, engine="stages",
        steps_per_delay=2,
    ).final  # fmt: skip
    # The first trace of a Diffrax loop in a process trips the leak checker of JAX 0.10, with Diffrax alone too.
    final(1.3)
    with jax.checking_leaks():
        assert np.isfinite(jax.jit(jax.grad(final))(jnp.asarray(1.1)))
        assert np.all(np.isfinite(jax.jit(jax.vmap(final))(jnp.array([1.1, 1.2]))))
        assert np.isfinite(jax.jit(jax.grad(stages))(1.1))


def test_memory_of_reverse_mode_is_linear_in_the_number_of_segments():
    def memory(windows):
        final = lambda y0: (
            ddesolve(pure_delay, 0.0, float(windows), y0, history=constant(1.0), delays=1.0, max_steps=16).final
        )
        compiled = jax.jit(jax.grad(final)).lower(1.0).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(100) < 2.2 * memory(50)


def test_neutral_equations_keep_their_jumps():
    # y' = y'(t - 1) / 2 with y = t^2 before 0: y(n) = -(1 - 2^-n).
    solution = ddesolve(
        lambda t, y, d, args: 0.5 * d[0][1], 0.0, 6.0, 0.0, history=lambda t: t**2, delays=1.0, neutral=True,
        ts=np.arange(1.0, 7.0), **TIGHT,
    )  # fmt: skip
    np.testing.assert_allclose(solution.ys, -(1 - 0.5 ** np.arange(1, 7)), atol=1e-10)


@pytest.mark.parametrize(
    ("field", "history", "start"),
    [
        # Closed forms: log(t + 3) with a delayed value and slope, and sin t.
        (
            lambda t, y, d, args: d[0][1] * (t + 2.5) / (t + 3) + jnp.log((t + 2.5) / jnp.exp(d[0][0])),
            lambda t: jnp.log(t + 3),
            0.0,
        ),
        (lambda t, y, d, args: jnp.cos(0.5) * d[0][1] - jnp.sin(0.5) * d[0][0], jnp.sin, 0.0),
    ],
    ids=["log", "sin"],
)
def test_neutral_equations_with_smooth_solutions(field, history, start):
    solution = ddesolve(field, start, 2.0, history(start), history=history, delays=0.5, neutral=True, **TIGHT)
    assert abs(float(solution.final - history(2.0))) < 1e-8


def test_a_stiff_equation_with_an_implicit_solver():
    decay = math.exp(-3)
    field = lambda t, y, d, args: -1000 * y + 997 * decay * d[0] + 1000 - 997 * decay
    solution = ddesolve(
        field, 0.0, 3.0, 2.0, history=lambda t: 1 + jnp.exp(-3 * t), delays=1.0, solver=diffrax.Kvaerno5(), rtol=1e-8, atol=1e-8
    )  # fmt: skip
    assert abs(float(solution.final) - (1 + math.exp(-9))) < 1e-6
    assert solution.num_steps < 1000


def test_a_distributed_delay_as_a_further_state():
    # y' = -z with z' = y - y(t - 1), the integral of y over the last unit of time; exact: Re exp(lam t), lam^2 = exp(-lam) - 1.
    root = -1.25597589374643333 + 1.36963627214953217j
    wave = characteristic(root)
    integral = ((1 - np.exp(-root)) / root).real
    history = lambda t: jnp.stack([wave(t), 0 * t])
    field = lambda t, y, d, args: jnp.stack([-y[1], y[0] - d[0][0]])
    solution = ddesolve(
        field, 0.0, 5.0, jnp.array([1.0, integral]), history=history, delays=1.0, rtol=1e-11, atol=1e-12
    )
    assert abs(float(solution.final[0]) - 0.00158244746726138) < 1e-8


def test_saveat_and_pytrees():
    root = -0.318131505204764135 + 1.33723570143068941j
    history = lambda t: {"x": characteristic(root)(t), "n": jnp.zeros(2) + t}
    field = lambda t, y, d, args: {"x": -d[0]["x"], "n": jnp.ones(2)}
    saveat = diffrax.SaveAt(t0=True, ts=[0.5], t1=True, fn=lambda t, y, args: (y["x"] * args, y["n"]))
    solution = ddesolve(field, 0.0, 3.0, history(0.0), history=history, delays=1.0, args=2.0, saveat=saveat, **TIGHT)
    ts = np.array([0.0, 0.5, 3.0])
    np.testing.assert_allclose(solution.ts, ts)
    np.testing.assert_allclose(solution.ys[0], 2 * np.exp(root * ts).real, atol=1e-8)
    np.testing.assert_allclose(solution.ys[1][:, 1], ts, atol=1e-9)


def test_progress_is_told_after_every_segment(capfd):
    meter = diffrax.TextProgressMeter(minimum_increase=0.2)
    solution = ddesolve(pure_delay, 0.0, 4.0, 1.0, progress_meter=meter, **UNIT)
    jax.block_until_ready(solution)
    jax.effects_barrier()
    assert "100.00%" in capfd.readouterr().out


def test_failures_are_a_status_and_nan():
    few_steps = ddesolve(
        hutchinson, 0.0, 8.0, 0.5, history=constant(0.5), delays=1.0, max_steps=2, rtol=1e-12, ts=[0.5, 8.0]
    )
    assert few_steps.status == Status.MAX_STEPS
    assert np.isnan(few_steps.final)
    blow_up = ddesolve(lambda t, y, d, args: y**2 * d[0], 0.0, 5.0, 1.0, ts=[0.5, 5.0], **UNIT)
    assert blow_up.status in (Status.NONFINITE, Status.MAX_STEPS)
    assert np.isnan(blow_up.ys[1])
    missing = jax.jit(
        lambda tau: ddesolve(pure_delay, 0.0, 3.0, 1.0, history=constant(1.0), delays=tau, max_segments=4)
    )
    assert missing(0.5).status == Status.MAX_STEPS
    assert missing(-0.5).status == Status.ERROR
    assert np.isnan(missing(-0.5).final)
    assert missing(1.0).status == Status.OK


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"delays": 0.0}, ValueError, "Argument `delays` must be positive"),
        ({"delays": -1.0}, ValueError, "Argument `delays` must be positive"),
        ({"delays": ()}, ValueError, "Argument `delays` must be one number"),
        ({"delays": 1e-9}, ValueError, "Argument `delays` must allow to reach `t1`"),
        ({"t1": 0.0}, ValueError, "Argument `t1` must be finite and later"),
        ({"ts": [3.0, 2.0]}, ValueError, "Argument `ts` must increase"),
        ({"ts": [3.0, 12.0]}, ValueError, "stay within"),
        ({"ts": [1.0], "saveat": diffrax.SaveAt(t1=True)}, ValueError, "Argument `saveat`"),
        ({"saveat": diffrax.SaveAt(steps=True)}, ValueError, "Argument `saveat` must be"),
        ({"history": 3.0}, TypeError, "Argument `history` must be a function"),
        ({"history": lambda t: jnp.where(t < -0.5, jnp.nan, 1.0)}, ValueError, "Argument `history` must be finite"),
        ({"history": lambda t: jnp.ones(2)}, ValueError, "Argument `history` must return the shapes of `y0`"),
        ({"vector_field": lambda t, y, d, args: jnp.ones(2)}, ValueError, "Argument `vector_field` must return"),
        ({"max_segments": 3}, ValueError, "Argument `max_segments` must allow to reach"),
        ({"max_segments": 0}, ValueError, "Argument `max_segments` must be an integer"),
        ({"max_steps": 1}, ValueError, "Argument `max_steps` must be an integer"),
        ({"engine": "other"}, ValueError, "Argument `engine`"),
        ({"adjoint": "both"}, ValueError, "Argument `adjoint`"),
        ({"y0": "one"}, ValueError, "Argument `y0`"),
    ],
)
def test_bad_input_is_one_sentence(change, error, message):
    arguments = {"vector_field": pure_delay, "t0": 0.0, "t1": 10.0, "y0": 1.0, **UNIT} | change
    with pytest.raises(error, match=message):
        ddesolve(
            arguments.pop("vector_field"), arguments.pop("t0"), arguments.pop("t1"), arguments.pop("y0"), **arguments
        )


def test_a_traced_delay_needs_room_for_segments():
    with pytest.raises(ValueError, match="Argument `max_segments` must be given"):
        jax.jit(lambda tau: ddesolve(pure_delay, 0.0, 3.0, 1.0, history=constant(1.0), delays=tau).final)(1.0)
