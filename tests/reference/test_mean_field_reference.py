import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.integrate import solve_ivp

from dynjax import reference

PRINTED = {
    1: ["0.707106781187"],
    2: ["0.088388347648"],
    3: ["0.513331560047"],
    4: ["0.700718841633"],
    5: ["1.595769121606", "0.425362108941", "0.715173956683", "0.925181686139"],
    6: ["0.302630840712", "-0.517912715992"],
    7: [f"{4 / np.pi:.12f}", f"{np.pi / 4:.12f}", "0.898609989949"],
    8: ["0.589707987783", "0.724158717626", "0.831462024754", "0.930152496240"],
    9: ["2.282155540736"],
    10: ["-0.043247241637", "-0.075682672864", f"{-1 / (3 * np.pi):.12f}"],
    11: ["0.42", "0.441421356237", "4.530818393219"],
    12: ["1.125", f"{16 / 9:.12f}", "0.591860535098"],
    13: ["0.405284734569"],
    14: ["0.151365345728", "13.213063996776", "0.582534805965"],
    15: ["0.680922834260"],
    16: ["0.833783006304", "0.424035256080"],
    17: ["7.831109945342"],
    18: ["-0.281056418242", "0.951056516295"],
    19: ["0.729727656227", "0.6"],
    20: ["0.362586879849", "0.616837375840", "0.600585065136", "0.444021904912"],
    21: ["1", "2", "2", "3", "4", "4", "6", "7", "10", "18.596070304472"],
    22: ["1.851096089584", "2.237616424624"],
    23: ["1.850844625987"],
    24: [f"{np.pi / 4:.12f}", f"{np.pi / 2:.12f}"],
    25: ["0.2", "0.17", f"{1 / 6:.12f}"],
    26: ["0.456946581044"],
    27: ["0.733744722244"],
    28: ["-0.635181422731", "-0.288607832451", "-0.051660122001", "-0.005016666000"],
    29: ["1.760954639607", "0.570047881641"],
    30: ["0.313328534", "0.227"],
    31: ["0.5", "4.867128428490"],
}


@pytest.fixture(scope="module")
def table():
    with jax.enable_x64(True):
        return [(entry.row, float(entry.value)) for entry in reference.mean_field_table()]


@pytest.mark.parametrize("row", range(1, 32))
def test_every_row_agrees_with_the_printed_digits(table, row):
    found = [value for number, value in table if number == row]
    assert len(found) == len(PRINTED[row])
    for value, printed in zip(found, PRINTED[row], strict=True):
        digits = 9 if row == 30 else 12
        # The last digit may be cut and not rounded.
        assert abs(value - float(printed)) <= 10.0**-digits, (value, printed)


def test_the_table_works_in_single_precision():
    for entry in reference.mean_field_table():
        exact = float(PRINTED[entry.row][0]) if len(PRINTED[entry.row]) == 1 else None
        assert np.isfinite(float(entry.value))
        if exact is not None:
            np.testing.assert_allclose(float(entry.value), exact, rtol=2e-5)


def test_bessel_functions_agree_with_scipy(x64):
    x = np.array([0.0, 1e-6, 1e-2, 0.5, 3.0, 20.0, 500.0, 1e4, -4.0])
    order = np.arange(-3, 30)[:, None]
    expected = special.ive(order, x)
    found = np.asarray(reference.bessel_ie(order, x))
    large = np.abs(expected) > 1e-280
    np.testing.assert_allclose(found[large], expected[large], rtol=2e-13)
    np.testing.assert_allclose(reference.bessel_i(2, 3.0), special.iv(2, 3.0), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(reference.bessel_i, 1)(3, 2.0), special.ivp(3, 2.0), rtol=1e-13)
    second = jax.grad(jax.grad(reference.bessel_i, 1), 1)
    np.testing.assert_allclose(second(4, -2.0), special.ivp(4, -2.0, 2), rtol=1e-13)
    with pytest.raises(TypeError, match="Argument `order` must be an integer"):
        reference.bessel_i(1.5, 2.0)


def test_faddeeva_agrees_with_scipy(x64):
    rng = np.random.default_rng(0)
    near = rng.uniform(-8, 8, 2000) + 1j * rng.uniform(-3, 8, 2000)
    far = np.exp(rng.uniform(0, 10, 1000) + 1j * np.pi * rng.uniform(0, 1, 1000))
    for z in (near, far):
        expected = special.wofz(z)
        error = np.abs(np.asarray(reference.faddeeva(z)) - expected) / np.abs(expected)
        assert error.max() < 5e-14
    slope = jax.jvp(reference.faddeeva, (jnp.asarray(near),), (jnp.ones(2000) + 0j,))[1]
    expected = -2 * near * special.wofz(near) + 2j / np.sqrt(np.pi)
    assert np.max(np.abs(np.asarray(slope) - expected) / np.abs(expected)) < 5e-12
    np.testing.assert_allclose(
        reference.erfcx(jnp.asarray([-2.0, 0.3, 40.0])), special.erfcx([-2.0, 0.3, 40.0]), rtol=5e-14
    )


@pytest.mark.parametrize(("kind", "beta", "n", "t"), [("sa", 1.0, 8, 1.0), ("sa", 4.0, 5, 3.0), ("usa", 2.0, 4, 0.4)])
def test_equiangular_overlap_solves_the_tokens_equation(x64, kind, beta, n, t):
    def field(_, flat):
        x = flat.reshape(n, n)
        kernel = np.exp(beta * x @ x.T)
        pull = kernel @ x / (kernel.sum(1, keepdims=True) if kind == "sa" else n)
        return (pull - np.sum(pull * x, 1, keepdims=True) * x).ravel()

    end = solve_ivp(field, (0, t), np.eye(n).ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(n, n)
    overlaps = (end @ end.T)[~np.eye(n, dtype=bool)]
    np.testing.assert_allclose(overlaps, reference.equiangular_overlap(t, beta, n, kind=kind), atol=1e-9)


def test_equiangular_overlap_late_rates_and_derivative(x64):
    late = [1 - float(reference.equiangular_overlap(t, 1.0, 6)) for t in (6.0, 7.0)]
    np.testing.assert_allclose(np.log(late[0] / late[1]), 2, rtol=1e-4)
    slope = jax.grad(reference.equiangular_overlap)(0.7, 1.3, 5)
    c = float(reference.equiangular_overlap(0.7, 1.3, 5))
    rhs = 2 * np.exp(1.3 * c) * (1 - c) * (4 * c + 1) / (np.exp(1.3) + 4 * np.exp(1.3 * c))
    np.testing.assert_allclose(slope, rhs, rtol=1e-10)


def test_transport_is_the_end_of_the_flow_matching_equation(x64):
    normal = reference.LineMixture(np.ones(1), np.zeros(1), np.ones(1))
    target = reference.LineMixture(np.array([0.3, 0.7]), np.array([-1.0, 2.0]), np.array([0.5, 0.8]))

    def field(t, x):
        c = (1 - t) ** 2 + t**2 * target.scales**2
        density = target.weights * np.exp(-((x - t * target.means) ** 2) / (2 * c)) / np.sqrt(c)
        u = target.means + (t * target.scales**2 - (1 - t)) / c * (x - t * target.means)
        return [np.sum(density * u) / np.sum(density)]

    for x in (-2.5, 0.1, 1.7):
        end = solve_ivp(field, (0, 1), [x], method="DOP853", rtol=1e-12, atol=1e-13).y[0, -1]
        np.testing.assert_allclose(reference.monotone_transport(x, normal, target), end, atol=1e-9)
        np.testing.assert_allclose(
            reference.monotone_transport(reference.monotone_transport(x, normal, target), target, normal), x, atol=1e-11
        )
    with pytest.raises(ValueError, match=r"Argument `target.weights` must have the sum one"):
        reference.monotone_transport(0.0, normal, reference.LineMixture(np.ones(2), np.zeros(2), np.ones(2)))


def test_wendel_by_counting(x64):
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (20_000, 5)), axis=1)
    gaps = np.diff(np.concatenate([angles, angles[:, :1] + 2 * np.pi], axis=1), axis=1)
    share = np.mean(gaps.max(axis=1) > np.pi)
    p = float(reference.hemisphere_probability(5, 2))
    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / 20_000)


def test_attention_mode_growth_is_the_linearised_field(x64):
    beta, k = 3.0, 2
    u = 2 * np.pi * np.arange(512) / 512
    # rho = (1 + e cos(k u)) / (2 pi): d_t rho_k = -(V rho_0)', V(v) = int sin(u - v) exp(b cos(u - v)) rho(u) du.
    force = np.mean(np.sin(u) * np.exp(beta * np.cos(u)) * np.sin(k * u))
    np.testing.assert_allclose(reference.attention_mode_growth(k, beta), k * force, rtol=1e-12)
