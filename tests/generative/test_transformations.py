"""All tools under jit, vmap and derivatives, and in single precision."""

import jax
import jax.numpy as jnp
import numpy as np

from dynjax.generative import (
    GaussianMixture,
    VariancePreserving,
    VelocityField,
    commitment_times,
    flow_matching_loss,
    lipschitz_profile,
    log_likelihood,
    loss_floor,
    sample,
    sampling_exponents,
    score_matching_loss,
    speciation_time,
    stiffness,
)


def tools(distance, last, x):
    """What every tool says of two modes at a distance and of a diffusion with the rate `last` at its horizon."""
    law = GaussianMixture(jnp.stack([-distance, distance])[:, None] * jnp.array([1.0, 0.2], x.dtype), 0.25)
    field, noisy = law.flow_matching_field(), law.score_field(VariancePreserving(0.1, last))
    key, two = jax.random.key(1), jnp.array([0.0, 1.0], x.dtype)
    stiff = stiffness(field, x, 0.6)
    return {
        "sample": sample(noisy, x, num_steps=16).points,
        "log-likelihood": log_likelihood(field, x, num_steps=8).value,
        "exponents": sampling_exponents(field, x, two / 2, num_steps=8).exponents,
        "speciation": speciation_time(noisy),
        "commitment": commitment_times(field, x, num_times=9, num_steps=2).times,
        "stiffness": jnp.stack([stiff.abscissa, stiff.least_real, stiff.radius, stiff.norm, stiff.growth]),
        "lipschitz": lipschitz_profile(noisy, two[::-1]).log_expansion,
        "floor": loss_floor(law, key=key, num_samples=64).value,
        "flow-matching loss": flow_matching_loss(field, x, key),
        "score loss": score_matching_loss(noisy, x, key),
    }


X = np.array([[1.5, 0.3], [-0.8, 1.0], [0.7, -2.0]])


def test_lanes_and_derivatives(x64):
    """A lane of a vmap is the run with its parameters, and derivatives are differences."""
    compiled = jax.jit(tools)
    lanes, slopes = jax.jit(
        jax.vmap(lambda distance, last: jax.jvp(lambda d, b: tools(d, b, X), (distance, last), (1.0, 2.0)))
    )(jnp.array([1.0, 2.0]), jnp.array([20.0, 12.0]))
    alone = compiled(2.0, 12.0, X)
    step = 1e-5
    ahead, behind = (compiled(2.0 + sign * step, 12.0 + 2 * sign * step, X) for sign in (1, -1))
    for name, value in alone.items():
        np.testing.assert_allclose(lanes[name][1], value, rtol=1e-10, atol=1e-12, err_msg=name)
        difference = (ahead[name] - behind[name]) / (2 * step)
        np.testing.assert_allclose(slopes[name][1], difference, rtol=1e-6, atol=1e-7, err_msg=name)
        assert np.any(np.abs(difference) > 1e-3), name


def test_single_precision():
    x = jnp.asarray(X, jnp.float32)
    found = jax.jit(tools)(jnp.float32(2.0), jnp.float32(12.0), x)
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(found, jnp.float32)
    with jax.enable_x64(True):
        exact = jax.jit(tools)(2.0, 12.0, X)
    for name in ("sample", "log-likelihood", "exponents", "speciation", "stiffness", "lipschitz"):
        np.testing.assert_allclose(found[name], exact[name], rtol=2e-4, atol=2e-4, err_msg=name)


def test_gradients_with_respect_to_networks(x64, key):
    """Reverse mode through the loss of a network, against differences along one direction."""
    field = VelocityField(2, hidden=(8,), key=key, dtype=jnp.float64)
    direction = VelocityField(2, hidden=(8,), key=jax.random.key(2), dtype=jnp.float64)
    loss = jax.jit(lambda field: flow_matching_loss(field, X, key))
    slope = jax.tree_util.tree_map(lambda a, b: jnp.sum(a * b), jax.grad(loss)(field), direction)
    slope = sum(jax.tree_util.tree_leaves(slope))
    step = 1e-6
    ahead, behind = (
        loss(jax.tree_util.tree_map(lambda a, b, s=sign: a + s * step * b, field, direction)) for sign in (1, -1)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6)
