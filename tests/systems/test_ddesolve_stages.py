"""Fixed steps on a mesh that repeats with the delay: full order, both modes, several delays."""

import math

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems.delay_problems import PROBLEMS, SLOPE_5_5, constant, hutchinson, pure_delay

from dynjax import Status
from dynjax.systems import ddesolve

pytestmark = pytest.mark.usefixtures("x64")


def _march(field, end, y0, delays, steps, solver, **options):
    return ddesolve(
        field, 0.0, end, y0, history=constant(y0), delays=delays, engine="stages", steps_per_delay=steps, solver=solver,
        **options,
    )  # fmt: skip


def test_dopri8_is_exact_to_twelve_digits_with_eight_steps():
    solution = _march(pure_delay, 10.0, 1.0, 1.0, 8, diffrax.Dopri8())
    assert solution.status == Status.OK
    assert abs(float(solution.final) - 10493 / 518400) < 1e-12
    assert solution.num_steps == 80


@pytest.mark.parametrize(
    ("solver", "least", "steps"),
    [
        (diffrax.Heun(), 1.9, (4, 32)),
        (diffrax.Bosh3(), 2.8, (4, 32)),
        (diffrax.Dopri5(), 4.8, (4, 32)),
        (diffrax.Tsit5(), 4.8, (4, 32)),
        (diffrax.Dopri8(), 7.5, (2, 16)),
    ],
    ids=["Heun", "Bosh3", "Dopri5", "Tsit5", "Dopri8"],
)
def test_the_classical_order_is_kept(solver, least, steps):
    ts = np.arange(1.0, 9.0)
    march = lambda n, solver: np.asarray(_march(hutchinson, 8.0, 0.5, 1.0, n, solver, ts=ts).ys)
    exact = march(32, diffrax.Dopri8())
    coarse, fine = (np.abs(march(n, solver) - exact).max() for n in steps)
    assert math.log2(coarse / fine) / math.log2(steps[1] / steps[0]) > least


@pytest.mark.parametrize("name", ["P2", "P8"])
def test_several_commensurate_delays(name):
    p = PROBLEMS[name]
    solution = ddesolve(
        p.field, 0.0, p.end, p.initial, history=p.history, delays=p.delays, engine="stages", steps_per_delay=12,
        solver=diffrax.Dopri8(),
    )  # fmt: skip
    np.testing.assert_allclose(solution.final, p.final, rtol=1e-8)


def test_an_end_between_two_periods_and_dense_output():
    solution = _march(pure_delay, 5.5, 1.0, 1.0, 16, diffrax.Tsit5(), ts=[0.25, 1.0, 5.5])
    np.testing.assert_allclose(solution.ys, [0.75, 0.0, 0.0435112847222222222], atol=1e-8)
    np.testing.assert_allclose(solution.evaluate(1.5), 1 - 1.5 + 0.25 / 2, atol=1e-8)
    assert np.isnan(solution.evaluate(5.6))


@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd], ids=["reverse", "forward"])
def test_derivative_by_the_delay_in_both_modes(transform):
    final = lambda tau: _march(pure_delay, 5.5, 1.0, tau, 8, diffrax.Dopri8(), max_segments=6).final
    assert abs(float(transform(final)(1.0)) - SLOPE_5_5) < 1e-8


def test_second_derivatives():
    # y(2.5) of y' = -a y(t - 1), y = 1: 1 - a 2.5 + a^2 1.5^2 / 2 - a^3 0.5^3 / 6.
    final = lambda a: _march(lambda t, y, d, args: -a * d[0], 2.5, 1.0, 1.0, 8, diffrax.Dopri8()).final
    a = 0.8
    assert abs(float(jax.hessian(final)(a)) - (1.5**2 - a * 0.5**3)) < 1e-10


def test_a_batch_over_delays_equals_a_loop():
    final = lambda tau: _march(hutchinson, 3.0, 0.5, tau, 8, diffrax.Tsit5(), max_segments=4).final
    taus = jnp.linspace(0.76, 0.99, 16)
    np.testing.assert_allclose(jax.vmap(final)(taus), [jax.jit(final)(tau) for tau in taus], atol=1e-13)


def test_a_traced_delay_outside_its_room_is_a_status():
    solve = jax.jit(lambda tau: _march(pure_delay, 3.0, 1.0, tau, 4, None, max_segments=4))
    assert solve(0.8).status == Status.OK
    for tau in (0.5, 2.0, -1.0):
        solution = solve(tau)
        assert solution.status != Status.OK
        assert np.isnan(solution.final)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps_per_delay": None}, ValueError, "Argument `steps_per_delay`"),
        ({"steps_per_delay": 0}, ValueError, "Argument `steps_per_delay`"),
        ({"delays": (1.0, math.sqrt(2))}, ValueError, "must be multiples of one number"),
        ({"neutral": True}, ValueError, "Argument `neutral`"),
        ({"solver": diffrax.Kvaerno3()}, TypeError, "Argument `solver` must be an explicit"),
    ],
)
def test_bad_input_is_one_sentence(change, error, message):
    options = {"delays": 1.0, "steps_per_delay": 4, "history": constant(1.0)} | change
    with pytest.raises(error, match=message):
        ddesolve(pure_delay, 0.0, 3.0, 1.0, engine="stages", **options)
