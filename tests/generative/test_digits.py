"""Flow matching on handwritten digits, against the best that a Gaussian can do."""

import jax
import jax.numpy as jnp

from dynjax.data import digits
from dynjax.generative import GaussianMixture, VelocityField, fit_flow, flow_matching_loss, loss_floor, sample


def test_a_flow_of_digits_beats_the_exact_flow_of_their_gaussian():
    """On images held out: the exact field of a Gaussian of their mean and covariance has the loss (pi/2) tr C^{1/2} / d there."""
    key = jax.random.key(0)
    images = jnp.asarray(digits(standardise=False)[0], jnp.float32) / 8 - 1
    images = images[jax.random.permutation(key, len(images))]
    train, held_out = images[:1400], images[1400:]
    covariance = jnp.cov(train.T) + 1e-3 * jnp.eye(64)
    gaussian = GaussianMixture(jnp.mean(train, 0)[None], covariance[None])
    field = VelocityField(64, hidden=(256, 256), key=key, dtype=jnp.float32)
    fitted = fit_flow(field, train, key=jax.random.key(1), num_steps=3000, learning_rate=3e-3)

    def terms(field):
        keys = jax.random.split(jax.random.key(2), 8)
        return jax.vmap(lambda key: flow_matching_loss(field, held_out, key, per_sample=True))(keys).ravel()

    plain = terms(gaussian.flow_matching_field())
    floor = loss_floor(gaussian).value
    assert abs(jnp.mean(plain) - floor) < 4 * jnp.std(plain) / plain.size**0.5
    gain = plain - terms(fitted.field)
    assert jnp.mean(gain) > 10 * jnp.std(gain) / gain.size**0.5
    made = sample(fitted.field, jax.random.normal(jax.random.key(3), (256, 64), jnp.float32), num_steps=64).points
    # Ink lies where it lies in digits.
    assert jnp.corrcoef(jnp.mean(made, 0), jnp.mean(train, 0))[0, 1] > 0.98
