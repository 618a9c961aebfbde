from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax.propagation as dp
from dynjax.networks import Affine, LipschitzField, NeuralDDE, NeuralODE
from dynjax.propagation._sampled_lipschitz import sampled_lipschitz
from dynjax.reference import delay_roots

TABLE = {
    0.5: 2.0,
    1: 1.0,
    2: 2 - 2**0.5,
    3: 0.48198707159518,
    4: 0.43898266676001,
    5: 0.41671600904407,
    8: 0.38945610874664,
    12: 0.3782658580636,
    20: 0.37189487511726,
    50: 0.3685691612981517,
}


def exact_solution(memory, t):
    """w(t) by its closed form, in rational numbers."""
    memory, t = Fraction(memory), Fraction(t)
    total, factorial = Fraction(0), 1
    for j in range(int(t // 1) + 2):
        factorial *= max(j, 1)
        total += (-memory) ** j * (t - j + 1) ** j / factorial
    return total


@pytest.mark.parametrize("ratio", TABLE)
def test_threshold_is_bracketed_by_exact_rationals_to_1e_12(ratio, x64):
    value = float(dp.memory_threshold(float(ratio)))
    assert abs(value - TABLE[ratio]) < 1e-12
    assert exact_solution(Fraction(value) - Fraction(1, 10**12), Fraction(ratio)) > 0
    assert exact_solution(Fraction(value) + Fraction(1, 10**12), Fraction(ratio)) < 0


def test_threshold_of_an_infinite_horizon_is_one_over_e(x64):
    assert abs(float(dp.memory_threshold(jnp.inf)) - np.exp(-1)) < 1e-15


@pytest.mark.parametrize(
    ("memory", "zero"),
    [
        (2.0, 0.5),
        (0.75, 1.3905242917513),
        (0.6, 1.9213106741667),
        (0.5, 2.7400789501051),
        (0.42, 4.8119893038151),
        (0.38, 11.026574905608),
    ],
)
def test_first_zero_agrees_with_table_and_rationals(memory, zero, x64):
    value = float(dp.first_zero(memory))
    assert abs(value - zero) < 5e-13
    assert exact_solution(memory, Fraction(value) - Fraction(1, 10**11)) > 0
    assert exact_solution(memory, Fraction(value) + Fraction(1, 10**11)) < 0


def test_late_zeros_from_characteristic_roots_are_zeros_of_the_exact_series(x64):
    for memory in (0.3719, 0.3700, 0.3686):  # zeros at 20.0, 27.8 and 49.0
        value = Fraction(float(dp.first_zero(memory)))
        assert value > 19
        assert exact_solution(memory, value - Fraction(1, 10**9)) > 0
        assert exact_solution(memory, value + Fraction(1, 10**9)) < 0


def test_there_is_no_zero_up_to_one_over_e(x64):
    np.testing.assert_array_equal(dp.first_zero(jnp.array([0.0, 0.1, 0.3, 0.367879])), jnp.inf)
    assert np.isfinite(dp.first_zero(0.36788))


def test_threshold_and_first_zero_are_inverse(x64):
    ratios = jnp.concatenate([jnp.geomspace(0.1, 19.9, 40), jnp.geomspace(20.1, 300, 10)])
    np.testing.assert_allclose(dp.first_zero(dp.memory_threshold(ratios)), ratios, rtol=2e-11)


def test_critical_solution_keeps_relative_accuracy_where_the_series_is_noise(x64):
    for memory in (0.1, 0.36, 0.5, 1.7):
        for t in (0.3, 1.0, 4.25, 12.5, 20.0, 50.5):
            exact = float(exact_solution(memory, t))
            assert abs(float(dp.critical_solution(memory, t)) - exact) <= 1e-12 * abs(exact), (memory, t)


def test_critical_solution_is_one_on_the_past_and_exponential_for_small_delay(x64):
    np.testing.assert_array_equal(dp.critical_solution(0.4, jnp.array([-3.0, -1.0, -0.2, 0.0])), 1.0)
    assert abs(float(dp.critical_solution(1e-4, 1e4)) - np.exp(-1)) < 1e-4


def test_critical_solution_decays_with_the_characteristic_root(x64):
    root = delay_roots(0.0, -0.3, 1.0, 1)[0].real
    w = dp.critical_solution(0.3, jnp.array([40.0, 41.0]))
    assert abs(float(jnp.log(w[1] / w[0]) - root)) < 1e-12


@pytest.mark.parametrize(
    ("function", "points"),
    [
        (dp.memory_threshold, (0.7, 1.5, 3.0, 19.0, 23.0)),
        (dp.first_zero, (2.0, 0.75, 0.5, 0.42)),
        (lambda m: dp.critical_solution(m, 3.7), (0.2, 0.45, 1.5)),
        (lambda t: dp.critical_solution(0.45, t), (0.4, 3.7, 9.2)),
    ],
)
def test_derivatives_agree_with_differences_in_both_modes(function, points, x64):
    points, h = jnp.array(points), 1e-5
    slopes = (function(points + h) - function(points - h)) / (2 * h)
    reverse = jax.vmap(jax.grad(function))(points)
    np.testing.assert_allclose(reverse, slopes, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.jacfwd(function))(points), reverse, rtol=1e-13)


def test_functions_map_over_arrays_and_compile(x64):
    ratios = jnp.array([0.5, 3.0, 25.0, jnp.inf])
    one_by_one = jnp.stack([dp.memory_threshold(r) for r in ratios])
    np.testing.assert_allclose(jax.jit(jax.vmap(dp.memory_threshold))(ratios), one_by_one, rtol=1e-14)
    np.testing.assert_allclose(dp.memory_threshold(ratios), one_by_one, rtol=1e-14)
    memories, times = jnp.array([[0.3], [0.6]]), jnp.array([0.5, 7.0, 30.0])
    assert dp.critical_solution(memories, times).shape == (2, 3)


def test_single_precision_is_followed():
    value = dp.memory_threshold(jnp.array([0.5, 3.0, 30.0], jnp.float32))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [2.0, 0.48198707, 0.3697341], rtol=3e-6)
    assert abs(float(dp.first_zero(jnp.float32(0.5))) - 2.74007895) < 1e-5


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="Argument `horizon_over_delay` must be positive, but found -1"):
        dp.memory_threshold(-1.0)
    with pytest.raises(ValueError, match="Argument `memory` must be finite and not negative"):
        dp.first_zero(-0.1)
    with pytest.raises(ValueError, match="Argument `memory`"):
        dp.critical_solution(np.nan, 1.0)


HORIZON = 3.0


def random_distances(key, norm):
    """|y_1 - y_2| / |c_1 - c_2| at T for one random field of random strength, and the strength."""
    field_key, strength_key, weight_key, state_key = jax.random.split(key, 4)
    strength = jax.random.uniform(strength_key, (), minval=0.02, maxval=0.48)
    identity = Affine(jnp.eye(2))
    field = LipschitzField(
        strength, norm, size=2, num_delays=1, hidden=(6,), time_pieces=3, horizon=HORIZON, key=field_key
    )
    # Large weights make the bound tight, since rows are then divided by their norms; each piece of time gets its own.
    leaves, treedef = jax.tree_util.tree_flatten((field.weights, field.biases))
    keys = jax.random.split(weight_key, len(leaves))
    leaves = [leaf + 3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    field = eqx.tree_at(lambda f: (f.weights, f.biases), field, jax.tree_util.tree_unflatten(treedef, leaves))
    model = NeuralDDE(
        (2, 2, 2), delay=1.0, horizon=HORIZON, field=field, lift=identity, readout=identity, steps_per_delay=8, key=key
    )
    starts = 2 * jax.random.normal(state_key, (2, 2))
    ends = jax.vmap(model)(starts)
    size = (lambda x: jnp.max(jnp.abs(x))) if norm == "sup" else jnp.linalg.norm
    return size(ends[0] - ends[1]), size(starts[0] - starts[1]), strength


# Half a minute for the second norm, most of it to compile.
@pytest.mark.parametrize("norm", ["sup", pytest.param("euclidean", marks=pytest.mark.slow)])
def test_no_random_field_shrinks_distances_below_the_critical_solution(norm, key, x64):
    distances, starts, strengths = jax.jit(jax.vmap(lambda k: random_distances(k, norm)))(jax.random.split(key, 10_000))
    floor = dp.critical_solution(strengths, HORIZON) * starts
    assert bool(jnp.all(distances >= floor - 1e-9))
    assert float(jnp.min(distances / starts)) < 0.7  # fields do shrink distances


class Forget(eqx.Module):
    strength: jax.Array

    def __call__(self, t, y, delayed):
        return -self.strength * delayed[0]


def forgetting(strength, delay=1.0, horizon=3.0, size=1):
    identity = Affine(jnp.eye(size))
    field = Forget(jnp.asarray(strength))
    return NeuralDDE(
        (size, size, size),
        delay=delay,
        horizon=horizon,
        field=field,
        lift=identity,
        readout=identity,
        key=jax.random.key(0),
    )


def test_the_bound_is_attained_by_forgetting(x64):
    model = forgetting(0.45)
    difference = model(jnp.array([1.0])) - model(jnp.array([-0.5]))
    np.testing.assert_allclose(difference[0], 1.5 * dp.critical_solution(0.45, 3.0), rtol=1e-8)


def square(x):
    return x**2


def model_of(widths=(1, 1, 1), **options):
    return NeuralDDE(widths, delay=1.0, horizon=3.0, key=jax.random.key(0), **options)


def test_capacity_below_the_threshold_bounds_the_error(x64):
    capacity = dp.memory_capacity(model_of(lipschitz=0.4), square)
    assert capacity.kind == "injective"
    assert capacity.hard
    assert not capacity.augmented
    assert abs(float(capacity.memory) - 0.4) < 1e-15
    assert abs(float(capacity.critical_memory) - TABLE[3]) < 1e-12
    assert float(capacity.lipschitz_lower) <= float(capacity.lipschitz_upper)
    assert abs(float(capacity.mean_square_bound) - 9 / 160) < 1e-9
    assert abs(float(capacity.error_bound) - 0.5) < 1e-8
    assert str(capacity) == (
        "K tau = 0.4 (hard bound), critical 0.481987 at T / tau = 3: injective, no local extremum possible; "
        "error at least 0.5, mean square at least 0.05625"
    )


def test_capacity_above_the_threshold_gives_the_gain_of_the_embedding(x64):
    capacity = dp.memory_capacity(model_of(lipschitz=0.6), square)
    assert capacity.kind == "embeddable"
    assert float(capacity.error_bound) == 0
    embedding = dp.DelayEmbedding(square, in_size=1, out_size=1, lipschitz=0.6, horizon=3.0)
    np.testing.assert_allclose(capacity.gain, embedding.gain, rtol=1e-10)
    per_unit = dp.memory_capacity(model_of(lipschitz=0.6))
    np.testing.assert_allclose(2 * per_unit.gain, capacity.gain, rtol=1e-10)
    assert "times the Lipschitz constant of the map" in str(per_unit)


def test_capacity_takes_the_gap_of_an_extremum_in_several_dimensions(x64):
    capacity = dp.memory_capacity(model_of((2, 2, 1), lipschitz=0.4), 3.0)
    assert capacity.kind == "injective"
    assert float(capacity.error_bound) == 1.5
    with pytest.raises(ValueError, match="Argument `target` must be the gap of a local extremum"):
        dp.memory_capacity(model_of((2, 2, 1), lipschitz=0.4), lambda x: x[0] ** 2)


def test_capacity_is_open_where_the_threshold_lies_between_the_bounds(x64):
    capacity = dp.memory_capacity(model_of())
    assert float(capacity.memory_lower) < float(capacity.critical_memory) < float(capacity.memory)
    assert capacity.kind == "undecided"


def test_capacity_of_known_fields_is_decided_by_the_sampled_bound(x64):
    capacity = dp.memory_capacity(forgetting(0.7))
    assert abs(float(capacity.lipschitz_lower) - 0.7) < 1e-15
    assert not np.isfinite(capacity.memory)
    assert capacity.kind == "embeddable"
    assert dp.memory_capacity(forgetting(0.3)).kind == "undecided"  # no upper bound is known for it


def test_capacity_depends_on_widths_and_ranks(x64):
    assert dp.memory_capacity(model_of((1, 8, 1), lipschitz=0.6)).kind == "embeddable"
    shear = dp.memory_capacity(model_of((1, 2, 1), lipschitz=0.1), square)
    assert shear.kind == "embeddable"
    assert shear.augmented
    np.testing.assert_allclose(shear.gain, 2 / (0.1 * 3.0), rtol=1e-12)
    assert dp.memory_capacity(model_of((2, 3, 2), lipschitz=0.4)).kind == "undecided"
    assert dp.memory_capacity(model_of((2, 3, 2), lipschitz=0.6)).kind == "embeddable"
    assert dp.memory_capacity(model_of((2, 1, 1), lipschitz=0.6)).kind == "narrow"
    assert dp.memory_capacity(model_of((2, 1, 1), lipschitz=0.4)).kind == "injective"
    flat = model_of((2, 2, 1), lipschitz=0.4)
    flat = eqx.tree_at(lambda m: m.lift.weight, flat, jnp.ones((2, 2)))
    assert dp.memory_capacity(flat).kind == "degenerate"


def test_neural_odes_have_no_memory(x64):
    capacity = dp.memory_capacity(NeuralODE((1, 1, 1), key=jax.random.key(0)), square)
    assert float(capacity.memory) == 0
    assert capacity.kind == "injective"
    assert abs(float(capacity.mean_square_bound) - 9 / 160) < 1e-9
    assert dp.memory_capacity(NeuralODE((1, 2, 1), key=jax.random.key(0))).kind == "embeddable"


def test_capacity_of_the_exact_embedding_is_the_one_it_was_built_for(x64):
    model = dp.DelayEmbedding(square, in_size=1, out_size=1, lipschitz=0.5, horizon=3.24)
    capacity = dp.memory_capacity(model, square)
    assert abs(float(capacity.memory) - 0.5) < 1e-15
    assert capacity.kind == "embeddable"
    np.testing.assert_allclose(capacity.gain, model.gain, rtol=1e-10)


def test_sampled_bound_is_exact_for_linear_fields(key, x64):
    a, b = jax.random.normal(key, (2, 3, 3))
    field = lambda t, y, delayed: a @ y + b @ delayed[0]
    bound = lambda norm: float(sampled_lipschitz(field, 3, 1, 1.0, jnp.ones(()), norm, 4, key))
    assert abs(bound("sup") - float(jnp.max(jnp.sum(jnp.abs(a) + jnp.abs(b), 1)))) < 1e-12
    # In the Euclidean norm by brute force over the direction of the slope.
    directions = jax.random.normal(key, (200_000, 3))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    brute = float(jnp.max(jnp.linalg.norm(directions @ a, axis=1) + jnp.linalg.norm(directions @ b, axis=1)))
    assert brute - 1e-12 <= bound("euclidean") <= brute * (1 + 1e-3)


def test_capacity_refuses_what_is_not_a_model():
    with pytest.raises(TypeError, match="Argument `model` must have the attribute `lift`"):
        dp.memory_capacity(lambda x: x)
    with pytest.raises(ValueError, match="Argument `norm`"):
        dp.memory_capacity(model_of(lipschitz=0.4), norm="max")
