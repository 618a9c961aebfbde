"""A hundred plain layers in the ordered phase train after flossing, and do not without."""

import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.experiments.depth import Arm, flossing_experiment

# Forty layers; all quick tests share this one program.
QUICK = {
    "learning_rates": (3e-4, 1e-3),
    "depth": 40,
    "width": 16,
    "weight_scale": 0.6,
    "bias_scale": 0.3,
    "num_steps": 150,
    "floss_steps": 60,
    "floss_rate": 5e-3,
}


@pytest.fixture(scope="module")
def found():
    return flossing_experiment(2, **QUICK)


def test_flossing_lifts_the_exponents_to_zero(found):
    assert found.plain.exponents.shape == found.flossed.exponents.shape == (2, 8)
    assert np.all(found.plain.exponents < -0.4)
    assert np.all(np.abs(found.flossed.exponents) < 0.05)
    assert found.penalties.shape == (2, 60)
    # The penalty at the first step is that of the exponents of the other arm, up to the spread over the probes.
    np.testing.assert_allclose(found.penalties[:, 0], jnp.sum(found.plain.exponents**2, 1), rtol=0.05)
    assert np.all(found.penalties[:, -1] < 1e-2 * found.penalties[:, 0])


def test_forty_layers_train_after_flossing_only(found):
    assert np.all(found.flossed.accuracies > 0.95)
    assert np.all(found.flossed.losses < 0.2)
    np.testing.assert_allclose(found.plain.losses, np.log(2), atol=1e-3)
    assert np.all(found.plain.accuracies < 0.6)


def test_both_arms_have_the_same_budget(found):
    assert found.plain.curves.shape == (2, 2, 210)
    assert found.flossed.curves.shape == (2, 2, 150)
    # Loss goes on where the curve ends, and all rates start from one network.
    np.testing.assert_allclose(found.flossed.curves[..., -1], found.flossed.losses, rtol=0.2)
    np.testing.assert_array_equal(found.flossed.curves[:, 0, 0], found.flossed.curves[:, 1, 0])
    assert np.all(found.flossed.curves[:, 0, 0] != found.plain.curves[:, 0, 0])
    assert "2 seeds at rate 0.001" in str(found)


def test_the_best_rate_is_that_of_smallest_mean_loss():
    losses = jnp.array([[0.5, 0.1, jnp.nan, 0.3], [0.5, 0.7, 0.0, 0.3]])
    arm = Arm(jnp.arange(1.0, 5.0), losses, 1 - losses, losses[..., None], jnp.zeros((2, 1)))
    assert int(arm.best) == 3
    np.testing.assert_allclose(arm.best_losses, [0.3, 0.3])
    np.testing.assert_allclose(arm.best_accuracies, [0.7, 0.7])


def test_the_penalty_stays_in_the_loss_if_asked_for(x64):
    """It changes where the second arm goes, and nothing else: not the first arm, the flossing, or what a curve shows."""
    options = {"learning_rates": (1e-3,), "depth": 6, "width": 4, "num_points": 8, "num_steps": 3, "floss_steps": 2}
    without, alone = (flossing_experiment(1, penalty_weight=w, **options) for w in (0.0, 1e4))
    np.testing.assert_array_equal(without.plain.losses, alone.plain.losses)
    np.testing.assert_array_equal(without.penalties, alone.penalties)
    assert abs(alone.flossed.losses[0, 0] - without.flossed.losses[0, 0]) > 1e-6
    # A curve is that of the loss, without the penalty.
    np.testing.assert_allclose(alone.flossed.curves[0, 0, 0], without.flossed.curves[0, 0, 0], rtol=1e-12)


@pytest.mark.slow  # 45 seconds with DYNJAX_TEST_OPTIMIZED=1, close to three minutes without
def test_a_hundred_layers_train_after_flossing_only():
    """Five seeds at four learning rates: at the best one all above 95 per cent with flossing; without it none at any."""
    found = flossing_experiment()
    assert np.all(found.plain.exponents[:, 0] < -0.15)
    assert np.all(found.flossed.best_accuracies > 0.95), found.flossed.accuracies
    assert np.all(found.flossed.best_losses < 0.1)
    assert np.all(found.plain.accuracies < 0.7), found.plain.accuracies
    np.testing.assert_allclose(found.plain.losses, np.log(2), atol=1e-3)


def test_bad_arguments():
    for name, value, must in (
        ("learning_rates", 1e-3, "be a vector"),
        ("learning_rates", (1e-3, 0.0), "be positive"),
        ("depth", 0, "be an integer of at least 1"),
        ("width", 2.5, "be an integer of at least 1"),
        ("num_points", 1, "be an integer of at least 2"),
        ("floss_steps", 0, "be an integer of at least 1"),
        ("seed", -1, "be an integer of at least 0"),
        ("k", 33, "be at most 32, the width"),
        ("num_probes", 65, "be at most 64"),
        ("weight_scale", -1.0, "be positive"),
        ("floss_rate", np.inf, "be positive and finite"),
        ("bias_scale", -0.1, "be 0 or more"),
        ("penalty_weight", np.nan, "be 0 or more"),
    ):
        with pytest.raises(ValueError, match=f"Argument `{name}` must {must}"):
            flossing_experiment(**{name: value})
    with pytest.raises(ValueError, match="Argument `num_seeds` must"):
        flossing_experiment(0)
