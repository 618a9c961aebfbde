"""Identities of the SGD cocycle on shared noise, and the three notions of stability told apart by simulation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgd_problems import at_zero, factors, random_jacobian, tanh_network

import dynjax as dj
from dynjax import reference
from dynjax.stability import lyapunov_spectrum
from dynjax.stability._frame import FrameSpace
from dynjax.training._cocycle_plan import start_frame
from dynjax.training._normal_space import normal_space
from dynjax.training._sgd_cocycle import chunk_batches
from dynjax.training._sgd_exponent import _NOISE, _plan, exponent_along_path
from dynjax.training._sgd_stability import sgd_stability


def stability(problem, rates, batch_size=1, *, num_steps=20_000, seed=0, **options):
    return sgd_stability(
        *problem,
        learning_rates=jnp.asarray(rates),
        batch_size=batch_size,
        num_steps=num_steps,
        key=jax.random.key(seed),
        **options,
    )


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_sum_rule_holds_within_the_error_of_independent_steps(x64, batch_size):
    """A spectrum by QR and the first exponent averaged over the next sample; the error of the sum is known exactly."""
    problem, rates = tanh_network((3, 40, 1), num_samples=16), [0.05, 0.3]
    whole = stability(problem, rates, batch_size, k=16, num_steps=6000)
    first = stability(problem, rates, batch_size, num_steps=6000, seed=1)
    rows = np.asarray(normal_space(*problem).factor)
    for lane, eta in enumerate(rates):
        logs = np.linalg.slogdet(factors(rows, eta, batch_size))[1]
        error = logs.std() / math.sqrt(whole.num_steps)
        total = float(jnp.sum(whole.exponents[lane]))
        assert abs(total - logs.mean()) < 4 * error
        np.testing.assert_allclose(whole.sum_rule_residual[lane], total - logs.mean(), atol=1e-10)
        gap, own = first.exponent[lane] - whole.exponents[lane, 0], whole.standard_errors[lane, 0]
        assert abs(gap) < 4 * math.hypot(first.standard_error[lane], own)
        # with the averaged one in place of the first of the spectrum
        assert abs(total + gap - logs.mean()) < 4 * (error + math.hypot(first.standard_error[lane], own))
    if batch_size == 1:
        assert jnp.all(first.standard_error < whole.standard_errors[:, 0])


def test_projected_products_in_parameter_space_agree_in_single_precision(x64):
    """Four samples, 200 parameters, 1e5 steps in float32, projected to the row space of J every 10 steps."""
    jacobian, eta, steps = random_jacobian(4, 200, seed=2), 0.5, 100_000
    exact = stability(at_zero(jacobian), [eta], num_steps=steps)
    basis = jnp.asarray(np.linalg.qr(jacobian.T)[0], jnp.float32)
    rows = jnp.asarray(jacobian, jnp.float32)

    def step(v, i):
        v = v - eta * rows[i] * jnp.dot(rows[i], v, precision="highest")
        return v, None

    def block(v, numbers):
        v, _ = jax.lax.scan(step, v, numbers)
        v = jnp.matmul(basis, jnp.matmul(v, basis, precision="highest"), precision="highest")
        norm = jnp.linalg.norm(v)
        return v / norm, jnp.log(norm)

    numbers = jax.random.randint(jax.random.key(1), (steps // 10, 10), 0, 4)
    logs = np.asarray(jax.jit(lambda n: jax.lax.scan(block, rows.sum(0), n)[1])(numbers), float)[100:] / 10
    bins = logs.reshape(100, -1).mean(axis=1)
    error = math.hypot(bins.std(ddof=1) / 10, exact.standard_error[0])
    assert abs(bins.mean() - exact.exponent[0]) < 3 * error
    assert error < 2e-3 < -exact.exponent[0] / 20


def chosen_factors(jacobian, eta, steps, seed=0):
    matrices = factors(np.asarray(normal_space(*at_zero(jacobian)).factor), eta, 1)
    return matrices, np.random.default_rng(seed).integers(len(matrices), size=steps)


def test_a_product_tree_has_the_growth_of_the_loop(x64):
    """`associative_scan` over pairs (normalised matrix, log scale), and the engine on the same factors."""
    matrices, chosen = chosen_factors(random_jacobian(4, 7, scale=1.5), 0.7, 256)
    path = jnp.asarray(matrices[chosen])

    def joined(earlier, later):
        product = jnp.matmul(later[0], earlier[0], precision="highest")
        size = jnp.linalg.norm(product, axis=(-2, -1), keepdims=True)
        return product / size, earlier[1] + later[1] + jnp.log(size[..., 0, 0])

    tree, scales = jax.jit(lambda pairs: jax.lax.associative_scan(joined, pairs))((path, jnp.zeros(len(chosen))))
    key = jax.random.key(3)
    v = FrameSpace(jnp.zeros(4)).random(key, 1)[0]
    expected = (jnp.log(jnp.linalg.norm(tree[-1] @ v)) + scales[-1]) / len(chosen)
    system = dj.RandomMap(lambda x, a: a @ x, lambda n: path[n])
    result = lyapunov_spectrum(system, jnp.zeros(4), num_steps=len(chosen), k=1, burn_in=0, key=key)
    np.testing.assert_allclose(result.exponents[0], expected, rtol=0, atol=1e-10)


def two_sided(path, slopes, v):
    """d log |A_n ... A_1 v| as the sum of u (dA) v / (u A v), v pushed forward from the start, u pulled back from the end."""
    forward = [v / np.linalg.norm(v)]
    for a in path:
        forward.append(a @ forward[-1])
        forward[-1] /= np.linalg.norm(forward[-1])
    u, total = forward[-1], 0.0
    for a, slope, v in zip(path[::-1], slopes[::-1], forward[-2::-1], strict=True):
        total += u @ slope @ v / (u @ a @ v)
        u = a.T @ u
        u /= np.linalg.norm(u)
    return total


def test_the_derivative_is_the_two_sided_formula_on_the_same_path(x64):
    jacobian, eta, key = random_jacobian(4, 7, scale=1.5), 0.5, jax.random.key(5)
    factor = normal_space(*at_zero(jacobian)).factor
    plan = _plan(4, 1, 1, 2000, 200, "iid")
    slope = jax.grad(exponent_along_path, argnums=1)(factor, jnp.asarray(eta), key, plan)
    start_key, path_key = jax.random.split(key)
    v = np.asarray(start_frame(4, 1, 1, start_key, factor.dtype, _NOISE))[:, 0, 0]
    numbers = [
        np.asarray(chunk_batches(path_key, jnp.asarray(n), 4, plan)).ravel() for n in range(plan.burn_in + plan.chunks)
    ]
    burnt, counted = np.concatenate(numbers[: plan.burn_in]), plan.chunks * plan.steps
    every = np.concatenate(numbers)
    matrices = factors(np.asarray(factor), eta, 1)
    slopes = (matrices - np.eye(4)) / eta
    parts = [two_sided(matrices[run], slopes[run], v) for run in (every, burnt)]
    np.testing.assert_allclose(slope, (parts[0] - parts[1]) / counted, rtol=1e-6)


def test_the_derivative_of_the_engine_is_the_two_sided_formula_too(x64):
    jacobian, eta, key = random_jacobian(4, 7, scale=1.5), 0.5, jax.random.key(6)
    rows = normal_space(*at_zero(jacobian)).factor[:, 0]
    matrices, chosen = chosen_factors(jacobian, eta, 1000)
    v = np.asarray(FrameSpace(jnp.zeros(4)).random(key, 1)[0])

    def exponent(eta):
        path = lambda n: rows[jnp.asarray(chosen)[n]]
        system = dj.RandomMap(lambda w, g: w - eta * g * (g @ w), path)
        return lyapunov_spectrum(system, jnp.zeros(4), num_steps=1000, k=1, burn_in=0, key=key).exponents[0]

    expected = two_sided(matrices[chosen], ((matrices - np.eye(4)) / eta)[chosen], v) / 1000
    np.testing.assert_allclose(jax.grad(exponent)(eta), expected, rtol=1e-6)


def test_the_threshold_of_gaussian_inputs_is_found_by_simulation(x64):
    """Shared noise over the rates gives a smooth curve, whose zero is 2.42125 within one per cent."""

    def exponent(eta):
        system = dj.RandomMap(lambda w, x: (1 - eta * x * x) * w, dj.WhiteNoise((), key=jax.random.key(0)))
        return lyapunov_spectrum(system, jnp.zeros(()), num_steps=400_000, burn_in=0).exponents[0]

    rates = jnp.linspace(2.2, 2.7, 6)
    slope, offset = np.polyfit(rates, jax.vmap(exponent)(rates), 1)
    exact = float(reference.gaussian_sgd_critical_learning_rate())
    np.testing.assert_allclose(exact, 2.4212495210, rtol=1e-10)
    np.testing.assert_allclose(-offset / slope, exact, rtol=0.01)


@pytest.mark.parametrize(
    ("s", "almost_sure", "gd", "mean_square"),
    [(0.7, True, True, True), (0.9, True, True, False), (1.15, True, False, False), (1.45, False, False, False)],
)
def test_three_notions_of_stability_are_told_apart_by_simulation(s, almost_sure, gd, mean_square):
    """f = a b x, x^2 in {1, 3}: real SGD from close to the minimum (1, 1), whose thresholds are s = 4/3, 1 and 4/5."""
    runs, steps, eta = 200_000, 6, s / 2
    rng = np.random.default_rng(0)
    a = np.full(runs, np.sqrt(1 + 1e-6))
    b, mean_a = a.copy(), a[:1].copy()
    mean_b = mean_a.copy()
    start = a[0] * b[0] - 1
    for _ in range(steps):
        pull = eta * rng.choice([1.0, 3.0], runs) * (a * b - 1)
        a, b = a - pull * b, b - pull * a
        pull = eta * 2 * (mean_a * mean_b - 1)
        mean_a, mean_b = mean_a - pull * mean_b, mean_b - pull * mean_a
    growth = np.abs((a * b - 1) / start)
    logs = np.log(growth) / steps
    exponent = np.mean(np.log(np.abs(1 - s * np.array([1, 3]))))
    assert abs(logs.mean() - exponent) < 5 * logs.std() / math.sqrt(runs) + 1e-3
    moment = np.log(np.mean(growth**2)) / (2 * steps)
    np.testing.assert_allclose(moment, np.log(np.mean((1 - s * np.array([1, 3])) ** 2)) / 2, atol=0.02)
    full = np.log(np.abs((mean_a * mean_b - 1)[0] / start)) / steps
    np.testing.assert_allclose(full, np.log(abs(1 - 2 * s)), atol=1e-3)
    assert (logs.mean() < 0, full < 0, moment < 0) == (almost_sure, gd, mean_square)
