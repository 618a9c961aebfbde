"""The table of the theory, entry by entry, and what random networks do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.networks import MLP, Affine, DenseResNet, MLPField, NeuralDDE, NeuralODE, ResNet
from dynjax.propagation import classify, critical_solution, memory_threshold, width_audit

C1, C12, C13, ALL = {"C1"}, {"C1", "C2"}, {"C1", "C3"}, {"C1", "C2", "C3"}


def holds(report, part):
    return next(h.holds for h in report.hypotheses if part in h.name)


@pytest.mark.parametrize(
    ("widths", "classes", "architecture"),
    [
        ((3, 1), C1, "non-augmented"),
        ((3, 3, 2, 1), C1, "non-augmented"),
        ((1, 1, 1), C1, "non-augmented"),
        ((2, 3, 1), C12, "augmented"),
        ((2, 2, 5, 5, 3, 1), C12, "augmented"),
        ((2, 4, 1, 4, 1), ALL, "bottleneck"),
        ((2, 2, 3, 2, 3, 1), ALL, "bottleneck"),
        ((1, 3, 1, 3, 1), ALL, "bottleneck"),
        ((2, 1, 4, 1), ALL, "bottleneck"),
        ((3, 2, 5, 1), ALL, "bottleneck"),
    ],
)
def test_perceptrons_by_width_profile(widths, classes, architecture, key):
    report = classify(MLP(widths, key=key))
    assert report.classes == classes
    assert report.architecture == architecture
    assert report.normal_form == widths
    assert all(h.holds for h in report.hypotheses)
    assert not report.conditional


@pytest.mark.parametrize(
    ("widths", "classes", "architecture"),
    [((2, 2, 1), C1, "non-augmented"), ((3, 1, 1), C1, "non-augmented"), ((2, 3, 1), C12, "augmented")],
)
def test_neural_odes_by_width(widths, classes, architecture, key):
    report = classify(NeuralODE(widths, num_steps=10, key=key))
    assert report.classes == classes
    assert report.architecture == architecture
    assert (report.certificate is not None) == (classes == C1)


def test_a_lift_without_full_rank_is_degenerate(key):
    for m in (2, 3):
        lift = Affine(jnp.outer(jnp.arange(1.0, m + 1), jnp.array([1.0, -2.0])))
        report = classify(NeuralODE((2, m, 1), lift=lift, num_steps=4, key=key))
        assert report.classes == C13
        assert report.architecture == "degenerate"
        assert holds(report, "lift has full rank") is False


def test_a_zero_readout_makes_the_map_constant(key):
    model = NeuralODE((2, 3, 1), readout=Affine(jnp.zeros((1, 3))), num_steps=4, key=key)
    assert classify(model).classes == {"C3"}
    perceptron = MLP((2, 4, 1), key=key)
    zero = eqx.tree_at(lambda m: m.weights[1], perceptron, jnp.zeros((1, 4)))
    assert classify(zero).classes == {"C3"}


def test_a_first_matrix_without_full_rank_leaves_only_degenerate_points(key):
    model = MLP((2, 8, 1), key=key)
    first = model.weights[0].at[:, 1].set(-2 * model.weights[0][:, 0])
    report = classify(eqx.tree_at(lambda m: m.weights[0], model, first))
    assert report.classes == C13
    assert report.normal_form == (2, 1, 8, 1)
    assert holds(report, "W_1 has full rank") is False


def test_a_later_matrix_without_full_rank_is_a_bottleneck(key):
    model = MLP((2, 6, 6, 1), key=key)
    middle = jnp.outer(model.weights[1][:, 0], model.weights[1][0])
    report = classify(eqx.tree_at(lambda m: m.weights[1], model, middle))
    assert report.classes == ALL
    assert report.normal_form == (2, 6, 1, 6, 1)


def test_neurons_that_nobody_sees_do_not_count(key):
    """Two of eight hidden neurons reach the output: the map is that of a non-augmented perceptron."""
    model = MLP((3, 8, 1), key=key)
    last = model.weights[1].at[:, 2:].set(0)
    report = classify(eqx.tree_at(lambda m: m.weights[1], model, last))
    assert report.classes == C1
    assert report.normal_form == (3, 2, 1)


@pytest.mark.parametrize(
    ("activation", "monotone", "smooth"),
    [(jax.nn.relu, False, False), (jnp.sin, False, True), (jax.nn.elu, True, False), (jax.nn.softplus, True, True)],
)
def test_activations_are_checked(activation, monotone, smooth, key):
    report = classify(MLP((2, 4, 1), activation=activation, key=key))
    assert holds(report, "never vanishes") is monotone
    assert holds(report, "is C^2") is smooth
    assert report.classes == (C12 if monotone and smooth else ALL)


def test_an_activation_in_no_table_is_inspected(key):
    good = classify(MLP((2, 4, 1), activation=lambda z: z + 0.3 * jnp.sin(z), key=key))
    assert good.classes == C12
    bad = classify(MLP((2, 4, 1), activation=lambda z: z + 2 * jnp.sin(z), key=key))
    assert holds(bad, "never vanishes") is False
    assert bad.classes == ALL


def test_a_field_that_is_not_smooth_decides_nothing(key):
    report = classify(NeuralODE((2, 2, 1), activation=jax.nn.relu, num_steps=4, key=key))
    assert report.classes == ALL
    own = classify(NeuralODE((2, 2, 1), field=lambda t, h: jnp.sin(h), num_steps=4, key=key))
    assert own.classes == C1
    assert own.conditional
    assert own.certificate is None
    assert classify(
        NeuralODE((2, 2, 1), field=lambda t, h: jnp.sin(h), num_steps=4, key=key), lipschitz=1.0
    ).certificate


def test_residual_networks_need_layers_that_cannot_merge_states(key):
    weak = classify(ResNet((2, 2, 1), depth=5, step=0.05, key=key))
    assert weak.classes == C1
    assert classify(ResNet((2, 3, 1), depth=5, step=0.05, key=key)).classes == C12
    assert classify(ResNet((2, 2, 1), depth=5, step=20.0, key=key)).classes == ALL
    assert classify(DenseResNet((2, 2, 1), depth=5, memory=2, step=0.02, key=key)).classes == C1


def test_delay_equations_are_decided_by_the_memory_threshold(key):
    horizon = 3.0
    critical = float(memory_threshold(horizon))
    below = classify(NeuralDDE((2, 2, 1), lipschitz=0.9 * critical, norm="euclidean", horizon=horizon, key=key))
    assert below.classes == C1
    assert below.certificate.value > 0
    assert float(critical_solution(below.certificate.lipschitz, horizon)) > 0
    augmented = NeuralDDE((2, 3, 1), lipschitz=0.9 * critical, norm="euclidean", horizon=horizon, key=key)
    assert classify(augmented).classes == C12
    above = classify(NeuralDDE((2, 2, 1), key=key, horizon=horizon), lipschitz=1.1 * critical)
    assert above.classes == ALL
    assert above.conditional


def test_the_bound_of_a_linear_flow_is_the_closed_form(x64, key):
    """h' = -K h has |grad| = |W^T V| exp(-K T), which the certificate attains for W = I."""
    field = MLPField(2, hidden=(), key=key)
    rate = 0.7
    mlp = eqx.tree_at(lambda m: (m.weights[0], m.biases[0]), field.mlp, (-rate * jnp.eye(2), jnp.zeros(2)))
    field = eqx.tree_at(lambda f: f.mlp, field, mlp)
    model = NeuralODE((2, 2, 1), field=field, lift=Affine(jnp.eye(2)), horizon=2.0, num_steps=20, key=key)
    bound = classify(model).certificate
    size = float(jnp.linalg.norm(model.readout.weight))
    np.testing.assert_allclose(bound.exact_flow, size * np.exp(-2 * rate), rtol=1e-12)
    steepness = float(jnp.linalg.norm(jax.grad(lambda x: model(x)[0])(jnp.ones(2))))
    assert bound.value <= steepness
    assert steepness < 1.2 * bound.value


def test_a_report_with_a_box_holds_both_sides(x64, key):
    report = classify(MLP((2, 2, 1), key=key), box=([-1, -1], [1, 1]))
    assert report.empirical.morse_class == "C1"
    assert report.empirical.complete
    assert report.consistent
    points = jax.random.uniform(key, (10_000, 2), minval=-1.0)
    model = MLP((2, 2, 1), key=key)
    slopes = jnp.linalg.norm(jax.vmap(jax.grad(lambda x: model(x)[0]))(points), axis=1)
    assert 0 < report.certificate.value <= float(jnp.min(slopes))
    assert "GradientBound" in str(report)


@pytest.mark.parametrize(
    ("widths", "least", "universal", "missing"),
    [((2, 3, 2), 1, False, 1), ((2, 4, 2), 0, True, 0), ((1, 1, 1), 1, False, 1), ((3, 2, 1), 1, False, 2)],
)
def test_width_audit_by_widths(widths, least, universal, missing):
    audit = width_audit(widths)
    assert audit.minimal_state == widths[0] + widths[2]
    assert (audit.rank_lower_bound, audit.universal, audit.missing) == (least, universal, missing)


def test_the_audited_rank_is_kept_by_random_networks(x64, key):
    for seed in range(5):
        model = NeuralODE((2, 3, 2), num_steps=4, key=jax.random.key(seed))
        audit = width_audit(model)
        assert audit.rank_lower_bound == 1
        jacobians = jax.vmap(jax.jacfwd(model))(jax.random.normal(key, (50, 2)))
        assert int(jnp.min(jnp.linalg.matrix_rank(jacobians))) >= 1
    thin = NeuralODE((2, 3, 2), lift=Affine(jnp.ones((3, 2))), num_steps=4, key=key)
    assert width_audit(thin).rank_lower_bound == 0


def test_bad_input_is_named(key):
    with pytest.raises(TypeError, match="must be one of `MLP`"):
        classify(jnp.tanh)
    with pytest.raises(ValueError, match="one output"):
        classify(MLP((2, 3, 2), key=key))
    with pytest.raises(ValueError, match="pair"):
        classify(MLP((2, 3, 1), key=key), box=1.0)
    with pytest.raises(ValueError, match="below `upper`"):
        classify(MLP((1, 3, 1), key=key), box=(1.0, 0.0))
    with pytest.raises(ValueError, match="positive"):
        classify(MLP((1, 3, 1), key=key), lipschitz=-1.0)
    with pytest.raises(TypeError, match="the widths"):
        width_audit(MLP((2, 3, 2), key=key))
    with pytest.raises(ValueError, match="three positive integers"):
        width_audit((2, 3))
    with pytest.raises(TypeError, match="known weights"):
        jax.jit(lambda m: classify(m).normal_form)(MLP((2, 3, 1), key=key))
