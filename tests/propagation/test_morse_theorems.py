"""Random networks never contradict the theorems: test 10 of the theory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from dynjax.networks import MLP, Affine, NeuralODE
from dynjax.propagation import classify, critical_points

C13 = {"C1", "C3"}


def contradictions(make, box, count, prove_complete):
    """How many of `count` random networks are found outside their classes, and how many degrees do not agree.

    Where a degenerate point was found there is no degree to compare.
    """
    wrong, unequal = 0, 0
    for seed in range(count):
        model = make(jax.random.key(seed))
        report = classify(model, box=box, prove_complete=prove_complete)
        wrong += not report.consistent
        unequal += report.empirical.morse_class != "C3" and report.empirical.degree_matches is not True
    return wrong, unequal


def flat_lift(key):
    """A lift of rank one, and weights that make critical points common."""
    first, second, rest = jax.random.split(key, 3)
    weight = 2 * jnp.outer(jax.random.normal(first, (3,)), jax.random.normal(second, (2,)))
    return NeuralODE((2, 3, 1), lift=Affine(weight), horizon=4.0, num_steps=8, key=rest)


def narrow(key):
    return jax.tree_util.tree_map(lambda a: 2.5 * a, MLP((2, 1, 6, 1), key=key))


CLASSES = {
    "non-augmented perceptron, d = 1": (lambda k: MLP((1, 1, 1), key=k), ([-3], [3]), True),
    "non-augmented perceptron, d = 2": (lambda k: MLP((2, 2, 1), key=k), ([-3, -3], [3, 3]), True),
    "non-augmented perceptron, d = 3": (lambda k: MLP((3, 2, 1), key=k), ([-2] * 3, [2] * 3), True),
    "augmented perceptron": (lambda k: MLP((2, 8, 1), key=k), ([-4, -4], [4, 4]), True),
    "bottleneck perceptron": (narrow, ([-3, -3], [3, 3]), False),
    "non-augmented neural ODE": (lambda k: NeuralODE((2, 2, 1), num_steps=8, key=k), ([-2, -2], [2, 2]), False),
    "augmented neural ODE": (lambda k: NeuralODE((2, 3, 1), num_steps=8, key=k), ([-3, -3], [3, 3]), False),
    "degenerate neural ODE": (flat_lift, ([-2, -2], [2, 2]), False),
}


@pytest.mark.parametrize("name", CLASSES)
def test_ten_random_networks_of_each_class_agree_with_the_theorems(x64, name):
    make, box, proof = CLASSES[name]
    assert contradictions(make, box, 10, proof) == (0, 0)


@pytest.mark.slow  # two to three minutes in all on a quiet core
@pytest.mark.parametrize("name", CLASSES)
def test_a_hundred_random_networks_of_each_class_agree_with_the_theorems(x64, name):
    make, box, proof = CLASSES[name]
    assert contradictions(make, box, 100, proof) == (0, 0)


def test_degenerate_lifts_and_bottlenecks_are_found_degenerate(x64):
    """Not only allowed: among ten networks of each kind some have critical points, and all of these are degenerate."""
    for make in (flat_lift, narrow):
        found = [
            critical_points(make(jax.random.key(s)), [-3, -3], [3, 3], key=jax.random.key(0), prove_complete=False)
            for s in range(10)
        ]
        assert any(report.points.shape[0] for report in found)
        assert all(bool(jnp.all(report.degenerate)) for report in found)
        assert {report.morse_class for report in found} <= C13


def test_no_gradient_falls_below_its_certificate(x64):
    points = jax.random.uniform(jax.random.key(1), (10_000, 2), minval=-5.0, maxval=5.0)
    slopes = eqx.filter_jit(lambda m: jnp.linalg.norm(jax.vmap(jax.grad(lambda x: m(x)[0]))(points), axis=1))
    for seed in range(10):
        model = NeuralODE((2, 2, 1), num_steps=8, key=jax.random.key(seed))
        bound = classify(model).certificate
        least = float(jnp.min(slopes(model)))
        assert 0 < bound.value <= bound.exact_flow <= least
