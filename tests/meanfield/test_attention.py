import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dynjax as dj
from dynjax._core import Status
from dynjax.meanfield._graphs.graph_operator import AllToAll, Dense
from dynjax.meanfield._networks.attention import AttentionField, attention_energy, attention_flow, sphere_tokens
from dynjax.meanfield._networks.attention_circle import (
    angles_to_tokens,
    attention_limit,
    circle_attention,
    tokens_to_angles,
)
from dynjax.meanfield._networks.attention_modes import cluster_prediction, mode_growth_rate, noise_threshold
from dynjax.meanfield._networks.clusters import count_clusters
from dynjax.meanfield._networks.metastability import circle_moments, metastability_report
from dynjax.meanfield._networks.pair_stream import Causal
from dynjax.systems import evolve, trajectory

ROW_20 = [
    ("sa", 1.0, 1.0, 0.362586879849),
    ("sa", 4.0, 5.0, 0.616837375840),
    ("usa", 1.0, 1.0, 0.600585065136),
    ("usa", 0.0, 1.0, 0.444021904912),
]


def dense_field(x, beta, kind, Q=None, K=None, V=None, a=None):
    """The definition, token by token, in NumPy."""
    n, d = x.shape
    Q, K, V = (np.eye(d) if m is None else m for m in (Q, K, V))
    a = np.ones((n, n)) if a is None else a
    out = np.zeros_like(x)
    for i in range(n):
        w = a[i] * np.exp(beta * (K @ x.T).T @ (Q @ x[i]))
        pull = w @ (V @ x.T).T / (w.sum() if kind == "sa" else n)
        out[i] = pull - (x[i] @ pull) * x[i]
    return out


@pytest.mark.parametrize(("kind", "beta", "time", "cosine"), ROW_20)
def test_orthogonal_tokens_stay_equiangular(x64, kind, beta, time, cosine):
    flow = attention_flow(beta, dt=0.02, kind=kind)
    x = evolve(flow, jnp.eye(8), num_steps=round(time / 0.02))
    gram = np.asarray(x @ x.T)
    assert np.max(np.abs(gram[np.triu_indices(8, 1)] - cosine)) < 1e-8
    assert np.max(np.abs(np.diag(gram) - 1)) < 1e-14


@pytest.mark.parametrize("kind", ["sa", "usa"])
@pytest.mark.parametrize("block", [None, 3])
def test_the_field_is_its_definition(x64, kind, block):
    rng = np.random.default_rng(1)
    x = np.asarray(sphere_tokens(7, 4, key=jax.random.key(3)))
    Q, K, V = rng.normal(size=(3, 4, 4))
    a = rng.uniform(size=(7, 7)) * (rng.uniform(size=(7, 7)) < 0.6) + np.eye(7)
    flow = attention_flow(2.0, dt=0.1, kind=kind, query=Q, key_matrix=K, value=V, mask=Dense(a), block=block)
    np.testing.assert_allclose(flow.field(0.0, jnp.asarray(x)), dense_field(x, 2.0, kind, Q, K, V, a), atol=1e-12)
    causal = attention_flow(2.0, dt=0.1, kind=kind, mask="causal", num_tokens=7, block=block)
    expected = dense_field(x, 2.0, kind, a=np.tril(np.ones((7, 7))))
    np.testing.assert_allclose(causal.field(0.0, jnp.asarray(x)), expected, atol=1e-13)
    free = attention_flow(2.0, dt=0.1, kind=kind, mask=AllToAll(7), block=block)
    np.testing.assert_allclose(free.field(0.0, jnp.asarray(x)), dense_field(x, 2.0, kind), atol=1e-13)


@pytest.mark.parametrize("kind", ["sa", "usa"])
@pytest.mark.parametrize("causal", [False, True])
def test_tiles_change_nothing(x64, kind, causal, monkeypatch):
    """Several tiles in both directions, the last ones partly empty, with scores far above the range of exp."""
    from dynjax.meanfield._networks import attention

    beta = 2000.0 if kind == "sa" else 3.0
    x = sphere_tokens(50, 3, key=jax.random.key(5))
    mask = Causal(50) if causal else None
    whole = attention_flow(beta, dt=0.1, kind=kind, mask=mask).field
    plain, tangent = jax.jvp(lambda y: whole(0.0, y), (x,), (jnp.cos(x),))
    pulled = jax.grad(lambda y: jnp.sum(jnp.sin(whole(0.0, y))))(x)
    monkeypatch.setattr(attention, "_TILE_COLUMNS", 12)
    tiled = attention_flow(beta, dt=0.1, kind=kind, mask=mask, block=7).field
    again, tangent_again = jax.jvp(lambda y: tiled(0.0, y), (x,), (jnp.cos(x),))
    pulled_again = jax.grad(lambda y: jnp.sum(jnp.sin(tiled(0.0, y))))(x)
    assert np.all(np.isfinite(plain))
    np.testing.assert_allclose(again, plain, atol=1e-11)
    np.testing.assert_allclose(tangent_again, tangent, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(pulled_again, pulled, rtol=1e-9, atol=1e-10)


def test_memory_is_flat_in_both_directions():
    """No array of n x n numbers in the compiled program, for the field and for its gradient."""
    n, d = 8192, 4
    field = attention_flow(2.0, dt=0.1).field
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)
    for function in (lambda y: field(0.0, y), jax.grad(lambda y: jnp.sum(field(0.0, y) ** 2))):
        memory = jax.jit(function).lower(x).compile().memory_analysis()
        assert memory.temp_size_in_bytes < n * n * 4 / 8


@pytest.mark.parametrize("kind", ["sa", "usa"])
def test_equivariance(x64, kind):
    rng = np.random.default_rng(0)
    x = sphere_tokens(20, 4, key=jax.random.key(7))
    rotation = jnp.asarray(np.linalg.qr(rng.normal(size=(4, 4)))[0])
    order = rng.permutation(20)
    flow = attention_flow(3.0, dt=0.1, kind=kind)
    final = evolve(flow, x, num_steps=20)
    assert np.max(np.abs(evolve(flow, x @ rotation, num_steps=20) - final @ rotation)) < 1e-12
    assert np.max(np.abs(evolve(flow, x[order], num_steps=20) - final[order])) < 1e-12


@pytest.mark.parametrize("kind", ["sa", "usa"])
def test_the_energy_does_not_decrease(x64, kind):
    flow = attention_flow(2.0, dt=0.05, kind=kind)
    x = sphere_tokens(32, 3, key=jax.random.key(1))
    path = trajectory(flow, x, num_steps=400).ys
    energy = np.asarray(jax.vmap(lambda y: attention_energy(y, 2.0, block=10))(path))
    assert np.all(np.diff(energy) >= -1e-13)
    assert energy[-1] > 0.9 * np.exp(2.0) / 4
    gram = np.asarray(x @ x.T)
    np.testing.assert_allclose(attention_energy(x, 2.0), np.mean(np.exp(2 * gram)) / 4, rtol=1e-14)


def test_unnormalised_attention_is_gradient_ascent(x64):
    x = sphere_tokens(9, 3, key=jax.random.key(2))
    slope = jax.grad(lambda y: attention_energy(y, 1.5))(x)
    slope = 9 * (slope - jnp.sum(slope * x, axis=1, keepdims=True) * x)
    np.testing.assert_allclose(attention_flow(1.5, dt=0.1, kind="usa").field(0.0, x), slope, atol=1e-14)


@pytest.mark.parametrize(("kind", "rate"), [("sa", -2.0), ("usa", -2 * np.exp(1.0))])
def test_late_rate_of_consensus(x64, kind, rate):
    flow = attention_flow(1.0, dt=0.01, kind=kind)
    x = jnp.asarray([[1.0, 0.0, 0.0], [np.cos(1e-3), np.sin(1e-3), 0.0]])
    y = evolve(flow, x, num_steps=100)
    gap = lambda z: np.sum((np.asarray(z)[0] - np.asarray(z)[1]) ** 2) / 2
    assert np.log(gap(y) / gap(x)) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(("kind", "rate"), [("sa", 1.0), ("usa", np.exp(0.5))])
def test_exponents_of_a_cluster_are_the_late_rates(x64, kind, rate):
    """n (d - 1) tangents: the cluster turns freely, all distances inside it decay at one rate."""
    flow = attention_flow(0.5, dt=0.05, kind=kind)
    x = jnp.broadcast_to(jnp.asarray([0.6, 0.0, 0.8]), (4, 3))
    result = dj.lyapunov_spectrum(flow, x, num_steps=1000, k=8, qr_every=5, burn_in=500, progress=False)
    np.testing.assert_allclose(result.exponents, [0, 0] + [-rate] * 6, atol=2e-6)


def test_system_contract(x64):
    flow = attention_flow(2.0, dt=0.1, noise=0.3, key=jax.random.key(0))
    x = sphere_tokens(5, 3, key=jax.random.key(4))
    v = jax.random.normal(jax.random.key(5), (2, 5, 3))
    image, pushed = flow.tangent_step(3, x, v)
    np.testing.assert_allclose(image, flow.step(3, x), atol=1e-15)
    h = 1e-6
    for k in range(2):
        central = (flow.step(3, x + h * v[k]) - flow.step(3, x - h * v[k])) / (2 * h)
        np.testing.assert_allclose(pushed[k], central, atol=1e-8)
    np.testing.assert_array_equal(flow.step(3, x), flow.step(3, x))
    assert np.any(np.asarray(flow.step(3, x)) != np.asarray(flow.step(4, x)))
    batched = jax.vmap(lambda beta: attention_flow(beta, dt=0.1).step(0, x))(jnp.asarray([0.5, 2.0]))
    np.testing.assert_allclose(batched[1], attention_flow(2.0, dt=0.1).step(0, x), atol=1e-15)
    slope = jax.grad(lambda beta: attention_energy(attention_flow(beta, dt=0.1).step(0, x), 1.0))(2.0)
    value = lambda beta: float(attention_energy(attention_flow(beta, dt=0.1).step(0, x), 1.0))
    assert float(slope) == pytest.approx((value(2 + h) - value(2 - h)) / (2 * h), rel=1e-6)


def test_single_precision_stays_single():
    x = sphere_tokens(5, 3, key=jax.random.key(4), dtype=jnp.float32)
    y = attention_flow(2.0, dt=0.1, noise=0.1, key=jax.random.key(0)).step(0, x)
    assert y.dtype == jnp.float32
    assert circle_attention(2.0, dt=0.1).step(0, tokens_to_angles(x[:, :2])).dtype == jnp.float32


def test_brownian_motion_of_the_sphere(x64):
    """Without attention the mean of <x(0), x(t)> decays like exp(-(d-1) D t)."""
    n, d, D, dt, steps = 40, 3, 0.5, 0.02, 20
    x = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), (n, d))

    def run(key):
        flow = attention_flow(0.0, dt=dt, kind="usa", value=np.zeros((d, d)), noise=D, key=key)
        return evolve(flow, x, num_steps=steps)[:, 2]

    cosine = np.asarray(jax.vmap(run)(jax.random.split(jax.random.key(9), 500)))
    error = cosine.std() / np.sqrt(cosine.size)
    # The bias of one step of the projected kick is of second order in dt: here 4 (D dt)^2 per step at most.
    bias = steps * 4 * (D * dt) ** 2
    assert abs(cosine.mean() - np.exp(-(d - 1) * D * dt * steps)) < 3 * error + bias
    assert bias < 0.01


def test_a_mask_is_heard_in_its_direction(x64):
    """Token 0 hears nobody else under the causal mask and rests; the last one hears it."""
    x = sphere_tokens(6, 3, key=jax.random.key(8))
    velocity = attention_flow(1.0, dt=0.1, mask=Causal(6)).field(0.0, x)
    assert np.max(np.abs(velocity[0])) < 1e-15
    assert np.max(np.abs(velocity[-1])) > 1e-2
    reverse = attention_flow(1.0, dt=0.1, mask=Causal(6).transpose()).field(0.0, x)
    assert np.max(np.abs(reverse[-1])) < 1e-15
    silent = attention_flow(1.0, dt=0.1, mask=Dense(np.zeros((6, 6)))).field(0.0, x)
    np.testing.assert_array_equal(silent, 0)


# --- modes of the uniform state -------------------------------------------------------------------------------------


def test_growth_rates_against_bessel_functions(x64):
    for beta in (0.1, 5.0, 50.0):
        for k in (1, 3, 8):
            expected = k**2 * special.iv(k, beta) / beta
            assert float(mode_growth_rate(k, beta)) == pytest.approx(expected, rel=1e-13)
            softmax = mode_growth_rate(k, beta, kind="sa", noise=0.1)
            assert float(softmax) == pytest.approx(expected / special.iv(0, beta) - 0.1 * k**2, rel=1e-11)
    assert float(mode_growth_rate(3, 5.0)) == pytest.approx(18.596070304472, rel=1e-13)
    assert float(mode_growth_rate(1, 0.0)) == pytest.approx(0.5, rel=1e-15)
    slope = jax.grad(lambda b: mode_growth_rate(3, b))(5.0)
    expected = 9 * (special.ivp(3, 5.0) / 5 - special.iv(3, 5.0) / 25)
    assert float(slope) == pytest.approx(expected, rel=1e-12)


def test_predicted_clusters(x64):
    betas = [1, 2, 3, 5, 7, 9, 16, 25, 50]
    expected = [1, 2, 2, 3, 4, 4, 6, 7, 10]
    assert [int(cluster_prediction(float(b))) for b in betas] == expected
    assert jax.vmap(cluster_prediction)(jnp.asarray(betas, float)).tolist() == expected
    assert float(noise_threshold(5.0)) == pytest.approx(4.867128428490, rel=1e-12)
    assert int(cluster_prediction(5.0, noise=4.8)) == 1
    assert int(cluster_prediction(5.0, noise=4.9)) == 0
    assert int(cluster_prediction(5.0, noise=0.17, kind="sa")) == 1
    assert float(noise_threshold(5.0, kind="sa")) == pytest.approx(special.iv(1, 5) / 5 / special.iv(0, 5), rel=1e-12)


@pytest.mark.parametrize("kind", ["sa", "usa"])
def test_the_circle_in_harmonics_is_the_circle_in_tokens(x64, kind):
    angles = 7 * jax.random.uniform(jax.random.key(0), (101,))
    tokens = angles_to_tokens(angles)
    for beta in (0.0, 0.3, 5.0, 30.0):
        velocity = attention_flow(beta, dt=0.1, kind=kind).field(0.0, tokens)
        angular = -tokens[:, 1] * velocity[:, 0] + tokens[:, 0] * velocity[:, 1]
        fast = circle_attention(beta, dt=0.1, kind=kind).vector_field(0.0, angles, None)
        np.testing.assert_allclose(fast, angular, atol=1e-13 * np.exp(beta if kind == "usa" else 2))


def perturbed_uniform(n, size, key):
    return 2 * jnp.pi * jnp.arange(n) / n + size * jax.random.normal(key, (n,))


@pytest.mark.parametrize("kind", ["sa", "usa"])
def test_mode_three_dominates_at_beta_five(x64, kind, key):
    angles = perturbed_uniform(600, 1e-10, key)
    rates = np.asarray([mode_growth_rate(k, 5.0, kind=kind) for k in range(1, 7)])
    time = 20.0 / rates[2]
    flow = circle_attention(5.0, dt=time / 400, kind=kind)
    path = trajectory(flow, angles, num_steps=400).ys
    moments = np.abs(jax.vmap(lambda a: circle_moments(angles_to_tokens(a), 6))(path))
    late = slice(200, 350)
    fitted = np.polyfit(time / 400 * np.arange(moments.shape[0])[late], np.log(moments[late, 2]), 1)[0]
    assert abs(fitted / rates[2] - 1) < 0.02, (fitted, rates)
    assert np.argmax(moments[-1]) == 2
    assert moments[-1, 2] > 2 * np.sort(moments[-1])[-2]
    if kind == "usa":
        assert rates[2] == pytest.approx(18.596, abs=1e-3)


def test_metastable_three_clusters(x64, key):
    """Three clusters live far longer than they took to form, on a plateau of the energy, and then merge."""
    angles = perturbed_uniform(300, 1e-3, key)
    flow = circle_attention(5.0, dt=0.05, kind="sa")
    report = metastability_report(flow, angles, 5.0, num_records=200, record_every=10)
    counts = np.asarray(report.num_clusters)
    assert int(report.status) == Status.OK
    assert np.all(np.diff(np.asarray(report.energy)) > -1e-12)
    formed, lifetime = float(report.first_seen[3]), float(report.lifetimes[3])
    assert lifetime > 3 * formed
    assert report.energy[-1] <= np.exp(5.0) / 10 * (1 + 1e-12)
    assert np.all(np.diff(counts[np.argmax(counts == 3) :]) <= 0)
    assert report.moments.shape == (201, 8)


def test_the_limit_is_followed_by_its_particles(x64):
    """The density 1 + a cos(3 th), carried by characteristics: equal weights at quantiles sum smooth functions spectrally."""
    n, points, amplitude, dt, steps = 512, 256, 0.1, 0.001, 80
    grid = 2 * jnp.pi * jnp.arange(points) / points
    density = (1 + amplitude * jnp.cos(3 * grid)) / (2 * jnp.pi)
    labels = 2 * jnp.pi * (jnp.arange(n) + 0.5) / n
    angles = labels
    for _ in range(60):
        angles = angles - (angles + amplitude / 3 * jnp.sin(3 * angles) - labels) / (
            1 + amplitude * jnp.cos(3 * angles)
        )
    for kind in ("sa", "usa"):
        limit = evolve(attention_limit(5.0, dt=dt, kind=kind), density, num_steps=steps)
        final = evolve(circle_attention(5.0, dt=dt, kind=kind), angles, num_steps=steps)
        moments = np.asarray(circle_moments(angles_to_tokens(final), 12))
        expected = np.conj(np.fft.rfft(np.asarray(limit)))[1:13] * 2 * np.pi / points
        np.testing.assert_allclose(moments, expected, atol=1e-9)
        assert abs(float(jnp.sum(limit)) * 2 * np.pi / points - 1) < 1e-13
        assert abs(expected[2]) > 1.01 * amplitude / 2


def test_noise_threshold_in_the_limit(x64):
    points = 96
    grid = 2 * jnp.pi * jnp.arange(points) / points
    density = (1 + 1e-6 * jnp.cos(grid)) / (2 * jnp.pi)
    amplitude = lambda rho: 2 * np.abs(np.fft.rfft(np.asarray(rho)))[1] * 2 * np.pi / points
    for factor in (0.9, 1.1):
        noise = factor * float(noise_threshold(2.0))
        rate = float(mode_growth_rate(1, 2.0, noise=noise))
        flow = attention_limit(2.0, dt=0.002, noise=noise)
        grown = amplitude(evolve(flow, density, num_steps=500)) / amplitude(density)
        assert np.log(grown) == pytest.approx(rate, rel=1e-6)
        assert (rate > 0) == (factor < 1)


# --- clusters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_clusters_are_counted_in_any_order(x64, count):
    rng = np.random.default_rng(count)
    centers = np.eye(8)[:count]
    labels = rng.integers(0, count, 200)
    labels[:count] = np.arange(count)
    tokens = centers[labels] + 0.02 * rng.normal(size=(200, 8))
    found = count_clusters(jnp.asarray(tokens), angle=0.5)
    assert int(found.count) == count
    assert int(found.status) == Status.OK
    same = np.asarray(found.labels)[:, None] == np.asarray(found.labels)[None, :]
    np.testing.assert_array_equal(same, labels[:, None] == labels[None, :])
    assert np.asarray(found.sizes).sum() == 200
    stray = jnp.concatenate([-tokens[:1], jnp.asarray(tokens)])
    assert int(count_clusters(stray, angle=0.5).count) == count
    assert int(count_clusters(stray, angle=0.5, least_share=0.0).count) == count + 1
    if count > 2:
        assert int(count_clusters(jnp.asarray(tokens), angle=0.5, max_clusters=2).status) == Status.MAX_STEPS


def test_bad_arguments():
    with pytest.raises(ValueError, match="kind"):
        attention_flow(1.0, dt=0.1, kind="softmax")
    with pytest.raises(ValueError, match="dt"):
        attention_flow(1.0, dt=-0.1)
    with pytest.raises(ValueError, match="key"):
        attention_flow(1.0, dt=0.1, noise=0.1)
    with pytest.raises(ValueError, match="num_tokens"):
        attention_flow(1.0, dt=0.1, mask="causal")
    with pytest.raises(ValueError, match="tokens"):
        attention_flow(1.0, dt=0.1).step(0, jnp.ones(3))
    with pytest.raises(ValueError, match="mask"):
        attention_flow(1.0, dt=0.1, mask=Causal(4)).step(0, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="query"):
        attention_flow(1.0, dt=0.1, query=np.ones((2, 3)))
    with pytest.raises(ValueError, match="beta"):
        mode_growth_rate(1, -1.0)
    with pytest.raises(ValueError, match="angle"):
        count_clusters(jnp.ones((3, 2)), angle=4.0)
    assert isinstance(attention_flow(1.0, dt=0.1).field, AttentionField)
