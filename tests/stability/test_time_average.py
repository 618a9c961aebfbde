import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.stability import time_average


def autoregressive(rng, a, shape, num_runs):
    """AR(1) with unit innovations: variance 1/(1 - a^2), integrated autocorrelation time (1 + a)/(1 - a)."""
    noise = rng.standard_normal((shape, num_runs))
    x = np.empty_like(noise)
    x[0] = noise[0] / np.sqrt(1 - a**2)
    for i in range(1, shape):
        x[i] = a * x[i - 1] + noise[i]
    return x.T


def test_standard_error_is_that_of_the_formula(x64):
    x = np.random.default_rng(0).standard_normal(30)
    result = time_average(jnp.asarray(x))
    waves = np.exp(-2j * np.pi * np.outer(np.arange(1, 11), np.arange(30)) / 30)
    expected = np.sqrt(np.mean(np.abs(waves @ x) ** 2) / 30**2)
    np.testing.assert_allclose(result.standard_error, expected, rtol=1e-12)
    np.testing.assert_allclose(result.mean, x.mean(), rtol=1e-14)
    assert result.degrees_of_freedom == 20


def test_few_bins_count_as_independent(x64):
    x = np.random.default_rng(0).standard_normal(2)
    result = time_average(jnp.asarray(x))
    np.testing.assert_allclose(result.standard_error, np.std(x, ddof=1) / np.sqrt(2), rtol=1e-12)


def test_changes_of_a_bounded_function_do_not_inflate_the_error(x64):
    """x_n = e_n + g_{n+1} - g_n with independent g: the mean of n of them has variance 1 / n + 2 var(g) / n^2."""
    rng = np.random.default_rng(5)
    num, inside, num_runs = 1024, 4, 300
    g = 3 * rng.standard_normal((num_runs, num * inside + 1))
    x = rng.standard_normal((num_runs, num * inside)) + np.diff(g)
    bins = jnp.asarray(x.reshape(num_runs, num, inside).mean(axis=-1))
    result = jax.vmap(lambda b: time_average(b, samples_per_bin=inside))(bins)
    exact = 1 / np.sqrt(num * inside)
    assert abs(float(jnp.sqrt(jnp.mean(result.standard_error**2))) / exact - 1) < 0.04
    lower, upper = result.interval()
    assert 0.91 < float(jnp.mean((lower < 0) & (upper > 0))) < 0.98


@pytest.mark.parametrize("a", [0.0, 0.8, 0.97])
def test_error_bars_cover_and_times_agree_for_autoregressive_series(x64, a):
    num_bins, inside, num_runs = 400, 32, 400
    x = autoregressive(np.random.default_rng(1), a, num_bins * inside, num_runs)
    bins = jnp.asarray(x.reshape(num_runs, num_bins, inside).mean(axis=-1))
    result = jax.vmap(lambda b, v: time_average(b, samples_per_bin=inside, sample_variance=v))(
        bins, jnp.asarray(x.var(axis=1))
    )
    lower, upper = result.interval(0.95)
    cover = float(jnp.mean((lower < 0) & (upper > 0)))
    assert abs(cover - 0.95) < 3 * np.sqrt(0.05 * 0.95 / num_runs)
    time = (1 + a) / (1 - a)
    spread = float(jnp.std(result.autocorrelation_time)) / np.sqrt(num_runs)
    # The density is read at frequencies up to 10 / m, where it has fallen by (2 pi 10 time / 2 m)^2 / 3.
    assert (
        abs(float(jnp.mean(result.autocorrelation_time)) - time)
        < 3 * spread + time * (10 * np.pi * time / (num_bins * inside)) ** 2 / 3
    )
    np.testing.assert_allclose(
        result.effective_sample_size * result.autocorrelation_time, num_bins * inside, rtol=1e-12
    )


def test_drift_is_a_standard_normal_for_a_settled_series_and_large_for_a_trend(x64):
    x = jnp.asarray(np.random.default_rng(2).standard_normal((512, 300)))
    drift = time_average(x).drift
    assert 0.85 < float(jnp.std(drift)) < 1.25
    assert abs(float(jnp.mean(drift))) < 3 / np.sqrt(300) * 1.1
    assert float(time_average(x[:, 0] + jnp.linspace(0, 3, 512)).drift) > 2.5  # a pure trend counts as noise too


def test_required_samples_scale_with_the_square_of_the_error(x64):
    result = time_average(jnp.asarray(np.random.default_rng(3).standard_normal(256)), samples_per_bin=4)
    wanted = float(result.standard_error) / 3
    np.testing.assert_allclose(result.required_samples(wanted), 9 * 1024, rtol=1e-12)


def test_minus_infinity_is_a_mean_and_nan_spoils_everything(x64):
    x = jnp.asarray(np.random.default_rng(4).standard_normal((64, 3))).at[5, 1].set(-jnp.inf).at[7, 2].set(jnp.nan)
    result = time_average(x)
    assert np.isfinite(result.mean[0])
    assert result.mean[1] == -jnp.inf
    assert result.standard_error[1] == 0
    assert np.isnan(result.mean[2])
    assert np.isnan(result.standard_error[2])


def test_one_entry_has_an_infinite_error(x64):
    result = time_average(jnp.ones((1,)))
    assert float(result.mean) == 1
    assert float(result.standard_error) == np.inf


def test_constants_have_no_error(x64):
    result = time_average(jnp.full((100,), 0.1))
    assert float(result.standard_error) < 1e-15
    assert float(result.autocorrelation_time) == 1 or float(result.standard_error) > 0


def test_empty_series_are_refused():
    with pytest.raises(ValueError, match="Argument `series` must hold at least one bin"):
        time_average(jnp.zeros((0, 2)))
