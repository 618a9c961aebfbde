import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from dynjax.meanfield import Gaussian, Identical, Lorentzian, Uniform

LAWS = {
    "lorentzian": (lambda: Lorentzian(0.7, 0.3), stats.cauchy(0.3, 0.7)),
    "gaussian": (lambda: Gaussian(0.7, 0.3), stats.norm(0.3, 0.7)),
    "uniform": (lambda: Uniform(0.7, 0.3), stats.uniform(-0.4, 1.4)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("rate", [0.3 + 0.2j, 0.05 - 1.1j, 2.0 + 0j])
def test_mean_resolvent_is_the_integral(x64, name, rate):
    make, oracle = LAWS[name]
    ends = (-0.4, 1.0) if name == "uniform" else (-np.inf, np.inf)
    integrand = lambda w: oracle.pdf(w) / (rate - 1j * w)
    real = quad(lambda w: integrand(w).real, *ends, epsabs=1e-12, limit=500)[0]
    imag = quad(lambda w: integrand(w).imag, *ends, epsabs=1e-12, limit=500)[0]
    np.testing.assert_allclose(make().mean_resolvent(rate), real + 1j * imag, atol=1e-11)


@pytest.mark.parametrize("name", LAWS)
def test_mean_resolvent_continues_analytically(x64, name):
    law = LAWS[name][0]()
    # Cauchy's formula on a circle that crosses the imaginary axis, inside the band of the uniform law.
    centre, radius = -0.05 + 0.3j, 0.3
    around = np.exp(2j * np.pi * np.arange(128) / 128)
    values = np.asarray(law.mean_resolvent(jnp.asarray(centre + radius * around)))
    np.testing.assert_allclose(law.mean_resolvent(centre), values.mean(), rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_densities_quantiles_and_samples(x64, name, key):
    make, oracle = LAWS[name]
    law = make()
    levels = np.linspace(0.01, 0.99, 25)
    np.testing.assert_allclose(law.quantile(jnp.asarray(levels)), oracle.ppf(levels), rtol=1e-9, atol=1e-12)
    points = np.linspace(-1, 2, 26)
    np.testing.assert_allclose(law.density(jnp.asarray(points)), oracle.pdf(points), rtol=1e-12)
    np.testing.assert_allclose(law.midpoints(4), oracle.ppf([0.125, 0.375, 0.625, 0.875]), rtol=1e-9)
    draws = np.asarray(law.sample(4000, key))
    assert stats.kstest(draws, oracle.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(draws, law.sample(4000, key))


def test_identical_frequencies(x64):
    law = Identical(0.5)
    np.testing.assert_allclose(law.mean_resolvent(0.2 + 0.1j), 1 / (0.2 - 0.4j), rtol=1e-14)
    np.testing.assert_array_equal(law.midpoints(3), 0.5)


def test_derivatives_in_width_and_rate(x64):
    h = 1e-6
    for make in (Lorentzian, Gaussian, Uniform):
        value = lambda width, make=make: jnp.abs(make(width).mean_resolvent(0.3 + 0.2j))
        np.testing.assert_allclose(jax.grad(value)(0.8), (value(0.8 + h) - value(0.8 - h)) / (2 * h), rtol=1e-7)


def test_laws_are_mapped_over(x64):
    widths = jnp.asarray([0.5, 1.0, 2.0])
    found = jax.vmap(lambda width: Gaussian(width).inverse_resolvent(jnp.asarray(0.1)))(widths)
    np.testing.assert_allclose(found, [Gaussian(w).inverse_resolvent(jnp.asarray(0.1)) for w in widths], rtol=1e-14)


def test_single_precision_stays(x64):
    law = Gaussian(np.float32(1))
    assert law.scale.dtype == law.midpoints(3).dtype == law.inverse_resolvent(jnp.float32(0.3)).dtype == jnp.float32
    assert law.sample(3, jax.random.key(0)).dtype == jnp.float32


def test_errors():
    with pytest.raises(ValueError, match="Argument `width` must be positive"):
        Lorentzian(-1.0)
    with pytest.raises(ValueError, match="Argument `scale` must be positive"):
        Gaussian(np.nan)
    with pytest.raises(ValueError, match="Argument `halfwidth` must be a scalar"):
        Uniform(np.ones(3))
    with pytest.raises(ValueError, match="Argument `center` must be finite"):
        Identical(np.inf)
    with pytest.raises(ValueError, match="Argument `num_nodes` must be an integer"):
        Gaussian(1.0).midpoints(0)
