"""Enclosures: exact values lie inside, in rational arithmetic and at sampled points."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.networks import MLP, NeuralODE
from dynjax.propagation._interval_program import IntervalProgram
from dynjax.propagation._interval_rules import Unsupported
from dynjax.propagation._intervals import (
    add,
    contract,
    divide,
    multiply,
    outward,
    point,
    power,
    square,
    subtract,
    total,
)


@pytest.mark.parametrize(
    ("operation", "exact"),
    [
        (add, lambda a, b: a + b),
        (subtract, lambda a, b: a - b),
        (multiply, lambda a, b: a * b),
        (divide, lambda a, b: a / b),
    ],
)
def test_the_exact_result_lies_strictly_inside(operation, exact):
    a, b = np.random.default_rng(0).normal(size=(2, 400)) * 10.0 ** np.random.default_rng(1).integers(-9, 9, (2, 400))
    result = operation(point(a), point(b))
    for x, y, lo, hi in zip(a, b, result.lo, result.hi, strict=True):
        value = exact(Fraction(x), Fraction(y))
        assert Fraction(lo) < value < Fraction(hi)
        assert hi - lo <= 2e-15 * abs(float(value)) + 1e-300


def test_sums_and_products_of_matrices_hold_the_exact_ones():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 40)), rng.normal(size=(40, 2))
    product = contract("ij,jk->ik", point(a), point(b))
    for i in range(3):
        for k in range(2):
            value = sum(Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, k], strict=True))
            assert Fraction(product.lo[i, k]) < value < Fraction(product.hi[i, k])
    summed = total(point(a), (1,))
    for i in range(3):
        assert Fraction(summed.lo[i]) < sum(map(Fraction, a[i])) < Fraction(summed.hi[i])


def test_intervals_keep_every_combination_of_their_ends():
    rng = np.random.default_rng(3)
    ends = np.sort(rng.normal(size=(4, 2, 100)), axis=1)
    a, b = outward(*ends[0], False), outward(*ends[1], False)
    for operation, exact in ((add, np.add), (subtract, np.subtract), (multiply, np.multiply)):
        result = operation(a, b)
        for x in ends[0]:
            for y in ends[1]:
                assert np.all((result.lo <= exact(x, y)) & (exact(x, y) <= result.hi))


def test_a_divisor_around_zero_gives_the_whole_line():
    result = divide(point(1.0), outward(np.array(-1.0), np.array(2.0), False))
    assert (result.lo, result.hi) == (-np.inf, np.inf)


def test_squares_and_even_powers_are_not_negative():
    a = outward(np.array(-1.0), np.array(2.0), False)
    assert square(a).lo == power(a, 4).lo == 0
    assert 4 <= square(a).hi < 4 + 1e-14
    assert -1 - 1e-14 < power(a, 3).lo <= -1


A = np.random.default_rng(4).normal(size=(3, 3))
MAPS = {
    "softplus": lambda x: jnp.sum(jax.nn.softplus(A @ x)),
    "sigmoid": lambda x: jnp.sum(jax.nn.sigmoid(A @ x) ** 3),
    "gelu": lambda x: jnp.sum(jax.nn.gelu(A @ x)),
    "exact gelu": lambda x: jnp.sum(jax.nn.gelu(x, approximate=False)),
    "silu": lambda x: jnp.sum(jax.nn.silu(x) * x[::-1]),
    "elu": lambda x: jnp.sum(jax.nn.elu(x)),
    "relu": lambda x: jnp.sum(jax.nn.relu(A @ x) ** 2),
    "sine": lambda x: jnp.prod(jnp.sin(4 * x)) + jnp.cos(x[0] * x[1]),
    "arctan": lambda x: jnp.arctan(x[0]) / (5 + x[1]) + jnp.arctan2(x[2], 4 + x[0]),
    "roots": lambda x: jnp.sqrt(x[0] ** 2 + 1) + jnp.power(x[1] + 4, 1.5) + jnp.log(x[2] + 5) + jnp.cbrt(x[0] + 9),
    "norms": lambda x: jnp.linalg.norm(x + 5) + jax.nn.logsumexp(x) + jnp.var(x),
    "softmax": lambda x: jax.nn.softmax(x)[0] * jnp.mean(x**4),
    "gather": lambda x: jnp.sum(x[jnp.array([1, 0])] ** 2),
    "running sums": lambda x: jnp.cumsum(x)[1] ** 2 * x[2],
    "forms": lambda x: jnp.einsum("i,ij,j->", x, A, x) * jnp.outer(x, x)[0, 1],
    "hyperbolic": lambda x: jnp.cosh(x[0]) * jnp.sinh(x[1]) + jnp.arcsinh(x[2]) + jax.scipy.special.erf(x[1]),
    "branch": lambda x: jax.lax.cond(x[0] > 0, lambda y: y[0] ** 2, lambda y: y[1] ** 3, x),
    "where": lambda x: jnp.where(x[0] > 0, x[0] ** 2, -(x[0] ** 2)) + jnp.abs(x[1]) * x[1],
    "loop": lambda x: jnp.sum(jax.lax.fori_loop(0, 6, lambda i, h: h + 0.1 * jnp.tanh(A @ h), x)),
    "indexed loop": lambda x: jax.lax.fori_loop(
        0, 4, lambda i, h: h.at[i % 3].set(jnp.sin(h[i % 3]) * h[(i + 1) % 3]), x
    ).sum(),
    "scan": lambda x: jax.lax.scan(lambda h, a: (jnp.tanh(a @ h), h[0]), x, jnp.stack([A, A.T]))[1].sum(),
}


def _boxes(seed, dim):
    rng = np.random.default_rng(seed)
    centres, half = rng.uniform(-2, 2, (60, dim)), 10.0 ** rng.uniform(-9, 0, (60, 1))
    return centres - half, centres + half, rng


@pytest.mark.parametrize("name", MAPS)
def test_gradients_and_hessians_at_points_of_a_box_lie_in_their_enclosures(x64, name):
    gradient = jax.grad(MAPS[name])
    both = lambda x: (gradient(x), jax.jacfwd(gradient)(x))
    lo, hi, rng = _boxes(5, 3)
    (g, h), rough = IntervalProgram(both, jax.ShapeDtypeStruct((3,), jnp.float64))(lo, hi)
    # Compiled as a whole, the reverse running sum of "running sums" comes out wrong on CPUs (JAX 0.10.2).
    at = jax.vmap(both) if name == "running sums" else jax.jit(jax.vmap(both))
    for _ in range(10):
        values, matrices = (np.asarray(v) for v in at(lo + (hi - lo) * rng.uniform(0, 1, lo.shape)))
        assert np.all((g.lo <= values) & (values <= g.hi))
        smooth = ~rough
        assert np.all((h.lo <= matrices)[smooth] & (matrices <= h.hi)[smooth])
    narrow = (np.max(hi - lo, axis=1) < 1e-7) & ~rough
    assert narrow.sum() > 5
    assert np.max(np.abs(g.hi - g.lo)[narrow]) < 1e-3


@pytest.mark.parametrize(
    "make", [lambda k: MLP((2, 6, 5, 1), key=k), lambda k: NeuralODE((2, 3, 1), num_steps=3, key=k)]
)
def test_enclosures_of_networks(x64, key, make):
    model = make(key)
    gradient = jax.grad(lambda x: model(x)[0])
    lo, hi, rng = _boxes(6, 2)
    (g,), rough = IntervalProgram(gradient, jax.ShapeDtypeStruct((2,), jnp.float64))(lo, hi)
    assert not rough.any()
    for _ in range(10):
        values = np.asarray(jax.vmap(gradient)(lo + (hi - lo) * rng.uniform(0, 1, lo.shape)))
        assert np.all((g.lo <= values) & (values <= g.hi))


def test_only_cells_across_a_jump_are_rough(x64):
    gradient = jax.grad(lambda x: jax.nn.relu(x[0]) * x[1])
    program = IntervalProgram(gradient, jax.ShapeDtypeStruct((2,), jnp.float64))
    _, rough = program(np.array([[-2.0, 0], [-1, 0], [0.5, 0]]), np.array([[-1.5, 1], [1, 1], [1, 1]]))
    assert rough.tolist() == [False, True, False]


def test_widths_shrink_in_proportion_to_the_cell(x64):
    model = MLP((2, 8, 1), key=jax.random.key(0))
    program = IntervalProgram(jax.grad(lambda x: model(x)[0]), jax.ShapeDtypeStruct((2,), jnp.float64))
    half = 2.0 ** -np.arange(4, 30)[:, None]
    (g,), _ = program(0.3 - half * np.ones(2), 0.3 + half * np.ones(2))
    ratio = (g.hi - g.lo) / half
    assert np.all(ratio < 2 * ratio[-8])


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (lambda x: jax.lax.while_loop(lambda c: jnp.abs(c[0]) > 1e-3, lambda c: c / 2, x), "loop whose end depends"),
        (lambda x: jnp.sort(x), "primitive `sort`"),
        (lambda x: jnp.linalg.cholesky(jnp.eye(2) + jnp.outer(x, x)), "primitive"),
        (lambda x: x[x[0].astype(int)], "depends on the point"),
    ],
)
def test_what_has_no_enclosure_says_so(x64, fn, reason):
    program = IntervalProgram(fn, jax.ShapeDtypeStruct((2,), jnp.float64))
    with pytest.raises(Unsupported, match=reason):
        program(np.full((1, 2), 0.5), np.full((1, 2), 1.0))
