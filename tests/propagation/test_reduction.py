import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax.propagation as dp
from dynjax._core import Status
from dynjax.networks import NeuralDDE
from dynjax.reference import delay_roots
from dynjax.systems import ddesolve, trajectory

A = np.array([[-0.3, 0.2], [0.1, -0.1]])
B = np.array([[0.1, -0.25], [0.2, 0.15]])


def scalar_field(t, y, delayed):
    """The equation of the theory note: K tau e = .734 for tau = .6 and K = .45."""
    return 0.1 * jnp.sin(2 * y) - 0.25 * jnp.tanh(delayed[0]) - 0.02


@pytest.fixture(scope="module")
def reduced():
    with jax.enable_x64(True):
        return dp.reduce_to_ode(scalar_field, delay=0.6, lipschitz=0.45, lower=-2.0, upper=2.0)


def test_linear_reduction_has_the_reference_matrix(x64):
    result = dp.linear_reduction(A, B, 0.5)
    matrix = [[-0.154513561419946, -0.041292078374634], [0.293180392675830, 0.050284558062835]]
    np.testing.assert_allclose(result.matrix, matrix, rtol=0, atol=1e-12)
    roots = [-0.05211450167855582 + 0.04025494151474487j, -0.05211450167855582 - 0.04025494151474487j]
    np.testing.assert_allclose(result.roots, roots, rtol=0, atol=1e-12)
    assert abs(float(result.condition) - 0.48269013) < 1e-8
    assert float(result.residual) < 1e-15
    assert int(result.status) == Status.OK
    assert "condition 0.4827" in str(result)


def test_linear_reduction_of_a_number_is_the_rightmost_root(x64):
    for growth, feedback, delay in ((0.1, -0.4, 0.5), (-0.2, 0.15, 1.0), (0.0, -0.3, 1.0)):
        root = delay_roots(growth, feedback, delay, 1)[0].real
        np.testing.assert_allclose(dp.linear_reduction(growth, feedback, delay).matrix[0, 0], root, rtol=1e-13)


def test_linear_reduction_is_differentiable_in_both_modes(x64):
    entry = lambda delay: dp.linear_reduction(A, B, delay).matrix[0, 1]
    h = 1e-5
    slope = (entry(0.5 + h) - entry(0.5 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(entry)(0.5), slope, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(entry)(0.5), slope, rtol=1e-8)


def test_linear_reduction_refuses_large_delays(x64):
    with pytest.raises(ValueError, match=r"Argument `feedback` must be so small that .* but it is 1.44807"):
        dp.linear_reduction(A, 3 * B, 0.5)
    traced = jax.vmap(lambda b: dp.linear_reduction(A, b * B, 0.5))(jnp.array([1.0, 3.0]))
    assert traced.status.tolist() == [Status.OK, Status.ERROR]
    assert bool(jnp.all(jnp.isnan(traced.matrix[1])))
    with pytest.raises(ValueError, match="Argument `feedback` must have the shape"):
        dp.linear_reduction(A, np.eye(3), 0.5)


def test_reduced_field_of_a_linear_equation_is_its_matrix(x64):
    delay = 0.35  # K tau e = .81
    field = lambda t, y, delayed: jnp.asarray(A) @ y + jnp.asarray(B) @ delayed[0]
    reduced = dp.reduce_to_ode(field, delay=delay, lipschitz=0.85, size=2)
    matrix, c = dp.linear_reduction(A, B, delay).matrix, jnp.array([0.3, -0.7])
    np.testing.assert_allclose(reduced(c), matrix @ c, rtol=0, atol=1e-14)
    ts = jnp.linspace(-10 * delay, 0, 33)
    exact = jax.vmap(lambda t: jax.scipy.linalg.expm(t * matrix) @ c)(ts)
    np.testing.assert_allclose(reduced.special_solution(c, ts), exact, rtol=0, atol=1e-12)
    assert bool(jnp.all(jnp.isnan(reduced.special_solution(c, jnp.array([0.1, -100.0])))))


def test_interpolated_field_is_as_accurate_as_it_says(reduced, x64):
    assert int(reduced.status) == Status.OK
    assert float(reduced.error) < 1e-12
    assert abs(float(reduced.contraction) - 0.45 * 0.6 * np.e) < 1e-14
    coarse = dp.reduce_to_ode(scalar_field, delay=0.6, lipschitz=0.45, lower=-2.0, upper=2.0, num_nodes=15)
    points = jnp.linspace(-1.99, 1.99, 37)[:, None]
    exact = jax.vmap(lambda c: reduced.pointwise(0.0, c))(points)
    assert float(jnp.max(jnp.abs(jax.vmap(reduced)(points) - exact))) < 1e-12
    off = float(jnp.max(jnp.abs(jax.vmap(coarse)(points) - exact)))
    assert 1e-8 < off < 2 * float(coarse.error)
    assert "on a box" in str(reduced)


def test_special_solutions_solve_the_delay_equation(reduced, x64):
    c, delay = jnp.array([1.3]), 0.6
    ts = jnp.linspace(-2.4, -0.01, 23)  # further back they leave the box
    solution = lambda t: reduced.special_solution(c, t[None])[0]
    slopes = jax.vmap(jax.jacfwd(solution))(ts)
    field = jax.vmap(lambda t: scalar_field(t, solution(t), (solution(t - delay),)))(ts)
    np.testing.assert_allclose(slopes, field, atol=1e-11)
    # They are solutions of the reduced equation, too.
    np.testing.assert_allclose(jax.vmap(lambda t: reduced(solution(t)))(ts), field, atol=1e-11)


def test_first_terms_for_small_delays(x64):
    c = jnp.array([0.7])
    f, slope = scalar_field(0.0, c, (c,)), -0.25 / jnp.cosh(c) ** 2

    def rest(delay):
        reduced = dp.reduce_to_ode(scalar_field, delay=delay, lipschitz=0.45)
        return float((reduced(c) - (f - delay * slope * f))[0])

    assert abs(rest(0.05) / rest(0.025) - 4) < 0.1


def test_solutions_approach_special_ones_by_a_factor_e_per_delay_at_least(reduced, x64):
    delay, periods = 0.6, 7
    times = delay * jnp.arange(1, periods + 1)

    def distances(start):
        solution = ddesolve(
            lambda t, y, delayed, args: scalar_field(t, y, delayed), 0.0, delay * 12, start,
            history=lambda t: start, delays=delay, rtol=1e-11, atol=1e-13, max_segments=12,
        )  # fmt: skip
        special = reduced.special_solution(solution.final, times - delay * 12)
        return jnp.abs(jax.vmap(solution.evaluate)(times) - special)[:, 0], solution.status

    sizes, status = jax.jit(jax.vmap(distances))(jnp.array([[-1.5], [0.4], [1.8]]))
    assert status.tolist() == [Status.OK] * 3
    rates = sizes[:, 1:] / sizes[:, :-1]
    visible = sizes[:, 1:] > 1e-9
    assert bool(jnp.all(jnp.sum(visible, 1) >= 1))
    assert float(jnp.max(jnp.where(visible, rates, 0))) < 0.1  # far below exp(-1) = .37; .02 to .05 is typical


def test_the_reduced_flow_follows_the_delay_equation(reduced, x64):
    orbit = trajectory(reduced.flow(0.05), jnp.array([1.3]), num_steps=40)
    past = lambda t: reduced.special_solution(jnp.array([1.3]), t[None])[0]
    solution = ddesolve(
        lambda t, y, delayed, args: scalar_field(t, y, delayed), 0.0, 2.0, jnp.array([1.3]),
        history=past, delays=0.6, rtol=1e-10, atol=1e-10,
    )  # fmt: skip
    np.testing.assert_allclose(jax.tree_util.tree_leaves(orbit.ys)[0][-1], solution.final, atol=1e-9)


def test_networks_of_small_memory_reduce_in_two_dimensions(x64):
    model = NeuralDDE((2, 2, 1), delay=0.5, horizon=4.0, lipschitz=0.3, hidden=(4,), key=jax.random.key(0))
    reduced = dp.reduce_to_ode(model, lower=-1.0, upper=1.0, num_nodes=9)
    assert abs(float(reduced.contraction) - 0.15 * np.e) < 1e-14
    points = jax.random.uniform(jax.random.key(1), (8, 2), minval=-1, maxval=1)
    exact = jax.vmap(lambda c: reduced.pointwise(0.0, c))(points)
    assert float(jnp.max(jnp.abs(jax.vmap(reduced)(points) - exact))) <= 2 * float(reduced.error)
    assert float(reduced.error) < 1e-4
    assert reduced.field.coefficients.shape == (9, 9, 2)
    assert bool(jnp.all(jnp.isfinite(jax.jacrev(reduced)(jnp.array([1.0, -1.0])))))


def test_reduction_refuses_what_it_cannot_do(x64):
    with pytest.raises(ValueError, match=r"Argument `lipschitz` must give K tau e below 1.* but K tau e = 1.22"):
        dp.reduce_to_ode(scalar_field, delay=1.0, lipschitz=0.45)
    with pytest.raises(ValueError, match="Argument `lipschitz` must be given where no bound"):
        dp.reduce_to_ode(scalar_field, delay=0.1)
    with pytest.raises(ValueError, match="Argument `delay` must be given for a plain field"):
        dp.reduce_to_ode(scalar_field, lipschitz=0.1)
    with pytest.raises(TypeError, match="Argument `dde` must be a NeuralDDE or a field"):
        dp.reduce_to_ode(3.0)
    key = jax.random.key(0)
    several = NeuralDDE((1, 1, 1), delay=(0.1, 0.2), lipschitz=0.1, key=key)
    with pytest.raises(ValueError, match="Argument `dde` must have one delay, but it has 2"):
        dp.reduce_to_ode(several)
    timed = NeuralDDE((1, 1, 1), delay=0.1, lipschitz=0.1, time_pieces=2, key=key)
    with pytest.raises(ValueError, match="Argument `dde` must not depend on time"):
        dp.reduce_to_ode(timed)
    with pytest.raises(ValueError, match="Argument `lower` must be None above 3 dimensions"):
        dp.reduce_to_ode(lambda t, y, delayed: 0.1 * delayed[0], delay=0.1, lipschitz=0.1, lower=[-1.0] * 4, upper=1.0)


def test_an_inaccurate_interpolant_says_so(x64):
    rough = lambda t, y, delayed: 0.01 * jnp.abs(y - 0.3) - 0.01 * delayed[0]
    reduced = dp.reduce_to_ode(rough, delay=0.1, lipschitz=0.02, lower=-1.0, upper=1.0)
    assert int(reduced.status) == Status.INACCURATE
    assert "INACCURATE" in str(reduced)
    nan = dp.reduce_to_ode(lambda t, y, delayed: y * jnp.nan, delay=0.1, lipschitz=0.02)
    assert int(nan.status) == Status.NONFINITE


def test_single_precision_is_followed():
    reduced = dp.reduce_to_ode(scalar_field, delay=0.6, lipschitz=0.45, lower=-2.0, upper=2.0, num_nodes=17)
    assert reduced(jnp.array([0.5])).dtype == jnp.float32
    assert float(reduced.error) < 1e-4
    assert eqx.tree_equal(
        jax.tree_util.tree_structure(reduced), jax.tree_util.tree_structure(jax.jit(lambda r: r)(reduced))
    )
