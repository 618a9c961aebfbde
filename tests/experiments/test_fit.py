"""The training loop of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax as dj
from dynjax.experiments import fit


def quadratic(params, target):
    return jnp.sum((params["w"] - target) ** 2)


def test_gradient_descent_takes_its_exact_steps(x64):
    target, start = jnp.array([1.0, -2.0]), {"w": jnp.zeros(2), "name": "kept", "count": jnp.array(3)}
    done = fit(quadratic, start, target, num_steps=5, optimizer=optax.sgd(0.1))
    np.testing.assert_allclose(done.model["w"], (1 - 0.8**5) * target, rtol=1e-12)
    np.testing.assert_allclose(done.losses, 5 * 0.64 ** np.arange(5), rtol=1e-12)
    assert done.model["name"] == "kept"
    assert int(done.model["count"]) == 3
    assert str(done) == "Fit(5 steps, loss 5 to 0.839)"


def test_a_neural_ode_learns_with_the_default(x64):
    x = jnp.linspace(-1, 1, 16)[:, None]
    model = dj.NeuralODE((1, 2, 1), hidden=(8,), num_steps=4, key=jax.random.key(0))
    done = fit(lambda m, x, y: jnp.mean((m.batch(x) - y) ** 2), model, x, x**2, num_steps=300, learning_rate=0.03)
    assert float(done.losses[-1]) < 1e-2 < float(done.losses[0])
    assert float(done.model.horizon) == 1.0


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="Argument `num_steps`"):
        fit(quadratic, {"w": jnp.zeros(2)}, 1.0, num_steps=0)
    with pytest.raises(TypeError, match="Argument `optimizer` must be an optax transformation"):
        fit(quadratic, {"w": jnp.zeros(2)}, 1.0, optimizer=3)
    with pytest.raises(TypeError, match="Argument `loss`"):
        fit(lambda p, t: p["w"], {"w": jnp.zeros(2)}, 1.0)
