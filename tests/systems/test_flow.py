"""Flows: orders of convergence, the adaptive solver, and what is refused."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dynjax._core import Status
from dynjax.systems import Flow, evolve, trajectory
from dynjax.systems._tableau import TABLEAUX


def driven(t, y, args):
    """Exact solution y = 1 / (1 + t^2), z = y + sin t, for any value of the argument."""
    slope = -2 * t * y["y"] ** 2
    return {"y": slope, "z": slope[0] + jnp.cos(t) + args * (y["y"][0] + jnp.sin(t) - y["z"])}


def swing(t, y, args):
    return jnp.stack([y[1], -jnp.sin(y[0]) - 0.1 * y[1] + 0.3 * jnp.cos(t)])


@pytest.mark.parametrize("method", list(TABLEAUX))
def test_the_global_error_has_the_order_of_the_method_under_jit(x64, method):
    start = {"y": jnp.asarray([1.0]), "z": jnp.asarray(1.0)}
    errors = []
    for num_steps in (16, 32, 64):
        flow = Flow(driven, 1.6 / num_steps, method=method, args=jnp.asarray(0.7))
        orbit = trajectory(flow, start, num_steps=num_steps)
        exact = 1 / (1 + orbit.ts**2)
        errors.append(
            float(
                jnp.maximum(
                    jnp.max(jnp.abs(orbit.ys["y"][:, 0] - exact)),
                    jnp.max(jnp.abs(orbit.ys["z"] - exact - jnp.sin(orbit.ts))),
                )
            )
        )
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert abs(slopes[-1] - TABLEAUX[method].order) < 0.35, (errors, slopes)
    assert errors[-1] < {1: 0.1, 2: 2e-3, 4: 1e-6, 5: 1e-7}[TABLEAUX[method].order]


@pytest.mark.parametrize("method", list(TABLEAUX))
def test_the_tableau_is_consistent(method):
    tableau = TABLEAUX[method]
    for c, row in zip(tableau.c, tableau.a, strict=True):
        assert abs(sum(row) - c) < 1e-14
    b, c = np.asarray(tableau.b), np.asarray(tableau.c)
    for power in range(tableau.order):
        assert abs(b @ c**power - 1 / (power + 1)) < 1e-14


@pytest.mark.parametrize(
    ("method", "solver"),
    [
        ("euler", diffrax.Euler()),
        ("midpoint", diffrax.Midpoint()),
        ("heun", diffrax.Heun()),
        ("dopri5", diffrax.Dopri5()),
        ("tsit5", diffrax.Tsit5()),
    ],
)
def test_a_step_agrees_with_diffrax(x64, method, solver):
    y, t, dt = jnp.asarray([0.4, -0.3]), 0.6, 0.2
    term = diffrax.ODETerm(swing)
    state = solver.init(term, t, t + dt, y, None)
    expected = solver.step(term, t, t + dt, y, None, state, False)[0]
    flow = Flow(swing, dt, method=method)
    np.testing.assert_allclose(eqx.filter_jit(flow.step)(3, y), expected, rtol=1e-14)


def test_the_tangent_is_that_of_the_numerical_step(x64):
    flow = Flow(swing, 0.3, method="rk4")
    y = jnp.asarray([0.4, -0.3])
    _, pushed = flow.tangent_step(2, y, jnp.eye(2))
    np.testing.assert_allclose(pushed.T, jax.jacfwd(lambda y: flow.step(2, y))(y), rtol=1e-13)


def test_time_does_not_drift_in_single_precision():
    # A clock that added dt would be wrong by about 1e-3 after 1e5 steps.
    flow = Flow(lambda t, y, args: t - y, 0.01, method="euler", t0=5.0)
    np.testing.assert_allclose(flow.time(jnp.asarray(100_000)), 1005.0, rtol=1e-6)
    state = flow.step(100_000, jnp.asarray(1000.0))
    np.testing.assert_allclose(state, 1000.05, rtol=1e-6)


def test_leaves_without_tangents_stay_and_dtypes_are_kept(x64):
    def field(t, y, args):
        return {"u": -y["u"] * args["rate"], "w": 1j * y["w"], "count": None, "name": None}

    flow = Flow(field, 0.1, args={"rate": jnp.asarray(2.0), "kind": "decay"})
    start = {
        "u": jnp.asarray([1.0, 2.0], jnp.float32),
        "w": jnp.asarray(1.0 + 0j),
        "count": jnp.asarray(3),
        "name": "x",
    }
    end = evolve(flow, start, num_steps=10)
    assert (end["u"].dtype, int(end["count"]), end["name"]) == (jnp.float32, 3, "x")
    np.testing.assert_allclose(end["u"], np.exp(-2.0) * np.asarray([1.0, 2.0]), rtol=1e-4)
    np.testing.assert_allclose(end["w"], np.exp(1j), rtol=1e-6)
    real = Flow(lambda t, y, args: {"u": -y["u"], "name": None}, 0.1)
    solution = real.solve({"u": start["u"], "name": "x"}, jnp.asarray([0.0, 1.0]))
    assert (solution.ys["u"].shape, solution.ys["u"].dtype, solution.final["name"]) == ((2, 2), jnp.float32, "x")
    np.testing.assert_allclose(solution.final["u"], np.exp(-1.0) * np.asarray([1.0, 2.0]), rtol=1e-3)


def test_one_may_sweep_and_differentiate_the_step_size_and_the_arguments(x64):
    def end(rate, dt):
        return evolve(Flow(lambda t, y, args: -args * y, dt, args=rate), jnp.asarray(1.0), num_steps=20)

    rates, dts = jnp.asarray([0.5, 1.0, 2.0]), jnp.asarray([0.05, 0.04, 0.01])
    np.testing.assert_allclose(jax.vmap(end)(rates, dts), np.exp(-20 * rates * dts), rtol=1e-6)
    slope = jax.grad(end)(1.0, 0.05)
    np.testing.assert_allclose(slope, -np.exp(-1.0), rtol=1e-6)


def test_a_flow_can_be_built_inside_a_compiled_function_from_known_numbers(x64):
    dt, ts = jnp.asarray(0.1), jnp.asarray([0.0, 1.0])
    field = lambda t, y, args: -y

    @jax.jit
    def both(y):
        return Flow(field, dt).step(0, y), Flow(field, dt).solve(y, ts, rtol=1e-8).final

    one, whole = both(jnp.asarray(1.0))
    np.testing.assert_allclose([one, whole], np.exp([-0.1, -1.0]), rtol=1e-6)


def test_a_backward_step_undoes_a_forward_step(x64):
    field = lambda t, y, args: jnp.stack([y[1], -jnp.sin(y[0])])
    start = jnp.asarray([1.0, 0.2])
    end = evolve(Flow(field, 0.05), start, num_steps=40)
    np.testing.assert_allclose(evolve(Flow(field, -0.05), end, num_steps=40), start, rtol=1e-6)


def test_solve_agrees_with_scipy(x64):
    ts = np.linspace(0.0, 5.0, 6)
    start = jnp.asarray([1.0, 0.2])
    expected = solve_ivp(swing, (0, 5), [1.0, 0.2], t_eval=ts, args=(None,), rtol=1e-12, atol=1e-12, method="DOP853")
    solution = Flow(swing, 0.1).solve(start, ts)
    np.testing.assert_allclose(solution.ys.T, expected.y, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(solution.final, expected.y[:, -1], rtol=1e-6)
    assert int(solution.status) == Status.OK
    assert "6 times" in str(solution)
    implicit = Flow(swing, 0.1).solve(start, ts, solver=diffrax.Kvaerno5(), rtol=1e-8)
    np.testing.assert_allclose(implicit.ys.T, expected.y, rtol=1e-5, atol=1e-6)


def test_solve_can_be_differentiated_and_stopped_by_an_event(x64):
    flow = Flow(lambda t, y, args: -args * y, 0.1, args=jnp.asarray(1.5))
    end = lambda y: flow.solve(y, jnp.asarray([0.0, 1.0]), max_steps=64).final
    np.testing.assert_allclose(jax.jit(jax.grad(end))(2.0), np.exp(-1.5), rtol=1e-7)
    forward = lambda y: flow.solve(y, jnp.asarray([0.0, 1.0]), adjoint=diffrax.ForwardMode()).final
    np.testing.assert_allclose(jax.jvp(forward, (2.0,), (1.0,))[1], np.exp(-1.5), rtol=1e-6)
    event = diffrax.Event(lambda t, y, args, **kwargs: y < 0.5)
    stopped = flow.solve(jnp.asarray(2.0), jnp.asarray([0.0, 10.0]), event=event)
    assert int(stopped.status) == Status.OK
    assert 0.2 < float(stopped.final) < 0.5


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (lambda t, y, args: y**2, Status.MAX_STEPS),
        (lambda t, y, args: jnp.log(0.5 - y), Status.NONFINITE),
    ],
)
def test_a_solution_that_fails_says_so(x64, field, status):
    solution = Flow(field, 0.1).solve(jnp.asarray(1.0), jnp.asarray([0.0, 2.0]), max_steps=400)
    assert int(solution.status) == status


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: Flow(3, 0.1), TypeError, "`vector_field` must be a function"),
        (lambda: Flow(swing, 0.0), ValueError, "`dt` must be finite and not zero"),
        (lambda: Flow(swing, jnp.nan), ValueError, "`dt` must be finite and not zero"),
        (lambda: Flow(swing, jnp.ones(2)), ValueError, "`dt` must be a real scalar"),
        (lambda: Flow(swing, 0.1, method="rk5"), ValueError, "`method` must be one of euler"),
        (lambda: Flow(lambda t, y, a: (y, y), 0.1).step(0, jnp.ones(2)), ValueError, "pytree structure of `y`"),
        (lambda: Flow(lambda t, y, a: y[:1], 0.1).step(0, jnp.ones(2)), ValueError, "the shapes of `y`"),
        (lambda: Flow(lambda t, y, a: 1j * y, 0.1).step(0, jnp.ones(2)), ValueError, "real where `y` is real"),
        (lambda: Flow(swing, 0.1).solve(jnp.ones(2), jnp.asarray([0.0, 0.0])), ValueError, "strictly monotone"),
        (lambda: Flow(swing, 0.1).solve(jnp.ones(2), jnp.asarray(1.0)), ValueError, "at least two times"),
    ],
)
def test_bad_input_is_refused(build, error, sentence):
    with pytest.raises(error, match=sentence):
        build()


def test_a_blown_up_flow_is_marked():
    orbit = trajectory(Flow(lambda t, y, args: y**2, 0.5), jnp.asarray(5.0), num_steps=50)
    assert int(orbit.status) == Status.NONFINITE


@pytest.mark.parametrize("method", ["euler", "rk4", "tsit5"])
def test_components_one_by_one_give_the_same_step(x64, method):
    """Stages by components change the order of nothing but the loops."""
    field = lambda t, y, args: jnp.stack([y[1] + t, -jnp.sin(y[0]) * args, y[0] * y[1]])
    x, v = jnp.array([0.3, -1.2, 2.0]), jax.random.normal(jax.random.key(0), (2, 3))
    results = []
    for componentwise in (False, True):
        flow = Flow(field, 0.05, method=method, args=jnp.asarray(1.5), componentwise=componentwise)
        results.append(jax.vmap(flow.tangent_step, (None, 0, None))(3, jnp.stack([x, 2 * x]), v))
    for a, b in zip(*results, strict=True):
        assert jnp.allclose(a, b, rtol=1e-14, atol=1e-15)
    in_a_dict = Flow(lambda t, y, args: {"a": field(t, y["a"], args)}, 0.05, args=1.5, componentwise=True)
    x1, v1 = in_a_dict.tangent_step(0, {"a": x}, {"a": v})
    assert x1["a"].shape == (3,)
    assert v1["a"].shape == (2, 3)


def test_components_need_a_single_vector():
    """The option says where it does not apply."""
    flow = Flow(lambda t, y, args: y, 0.1, componentwise=True)
    with pytest.raises(ValueError, match="`componentwise` must be False unless the state is a single vector"):
        flow.tangent_step(0, jnp.ones((2, 2)), jnp.ones((1, 2, 2)))
