"""What every curvature operator promises, whatever it is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from dynjax import curvature as dc


def random_like(operator, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), operator.in_structure())


def test_matrix_is_symmetric_and_matches_products(problem, factory, relative):
    operator = factory(problem)
    matrix = operator.as_matrix()
    v = random_like(operator, 1)
    assert relative(matrix, matrix.T) < 1e-14
    assert relative(ravel_pytree(operator.mv(v))[0], matrix @ ravel_pytree(v)[0]) < 1e-13


def test_products_are_linear(problem, factory, relative):
    operator = factory(problem)
    v, w = random_like(operator, 1), random_like(operator, 2)
    mixed = jax.tree.map(lambda a, b: 2.5 * a - b, v, w)
    expected = jax.tree.map(lambda a, b: 2.5 * a - b, operator.mv(v), operator.mv(w))
    assert relative(operator.mv(mixed), expected) < 1e-13


def test_structure_is_kept(problem, factory):
    operator = factory(problem)
    v = random_like(operator, 1)
    out = operator.mv(v)
    assert jax.tree.structure(out) == jax.tree.structure(v)
    assert eqx.tree_equal(jax.eval_shape(lambda: out), operator.out_structure()) is True
    assert operator.transpose() is operator
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(operator))


def test_plain_jit_takes_and_returns_operators(problem, factory, relative):
    operator = factory(problem)
    v = random_like(operator, 1)
    through = jax.jit(lambda op: op)(operator)
    assert relative(jax.jit(lambda op, u: op.mv(u))(through, v), operator.mv(v)) < 1e-14


def test_building_inside_jit_agrees(problem, main_factory, relative):
    operator = main_factory(problem)
    v = random_like(operator, 1)

    def product(params):
        problem_inside = type(problem)(**{**vars(problem), "params": params})
        return main_factory(problem_inside).mv(v)

    assert relative(jax.jit(product)(problem.params), operator.mv(v)) < 1e-13


def test_vmap_over_operators_agrees_with_a_loop(make_problem, x64, main_factory, relative):
    first = make_problem(0)
    problems = [type(first)(**{**vars(first), "params": make_problem(seed).params}) for seed in range(3)]
    operators = [main_factory(p) for p in problems]
    v = random_like(operators[0], 1)
    out = jax.vmap(lambda operator: operator.mv(v))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *operators))
    for i, operator in enumerate(operators):
        assert relative(jax.tree.map(lambda leaf, i=i: leaf[i], out), operator.mv(v)) < 1e-13


def test_lineax_algebra(problem, factory, relative):
    operator = factory(problem)
    matrix = operator.as_matrix()
    v = random_like(operator, 1)
    flat = ravel_pytree(v)[0]
    combined = 2.0 * operator + operator @ operator - operator / 4.0
    expected = 2 * matrix + matrix @ matrix - matrix / 4
    assert relative(ravel_pytree(combined.mv(v))[0], expected @ flat) < 1e-12
    assert relative((operator + operator).as_matrix(), 2 * matrix) < 1e-12
    assert relative(ravel_pytree(lx.linearise(combined).mv(v))[0], expected @ flat) < 1e-12
    assert lx.is_symmetric(2.0 * operator)


def test_lineax_questions_are_answered(problem, factory, relative):
    operator = factory(problem)
    matrix = operator.as_matrix()
    assert lx.is_symmetric(operator)
    assert not lx.is_diagonal(operator)
    assert not lx.is_tridiagonal(operator)
    assert not lx.is_lower_triangular(operator)
    assert not lx.is_upper_triangular(operator)
    assert not lx.has_unit_diagonal(operator)
    assert not lx.is_negative_semidefinite(operator)
    assert lx.conj(operator) is operator
    assert relative(lx.diagonal(operator), jnp.diagonal(matrix)) < 1e-13
    main, lower, upper = lx.tridiagonal(operator)
    assert relative(main, jnp.diagonal(matrix)) < 1e-13
    assert relative(lower, jnp.diagonal(matrix, -1)) < 1e-13
    assert relative(upper, jnp.diagonal(matrix, 1)) < 1e-13
    assert relative(lx.materialise(operator).as_matrix(), matrix) < 1e-13


def test_semidefinite_only_where_it_is(problem, factory):
    operator = factory(problem)
    values = np.linalg.eigvalsh(operator.as_matrix())
    if lx.is_positive_semidefinite(operator):
        assert values[0] > -1e-12 * values[-1]
        assert lx.is_positive_semidefinite(lx.materialise(operator))


def test_linear_solves_of_lineax_run(problem, relative):
    G = dc.gauss_newton(problem.predict, "softmax_cross_entropy", problem.params, problem.x, problem.labels)
    damped = lx.TaggedLinearOperator(G + lx.IdentityLinearOperator(G.in_structure()), lx.positive_semidefinite_tag)
    solution = lx.linear_solve(damped, problem.direction, lx.CG(rtol=1e-13, atol=1e-13)).value
    assert relative(damped.mv(solution), problem.direction) < 1e-10


@pytest.mark.parametrize("chunk_size", [4, 50])
def test_result_does_not_depend_on_chunk_size(problem, factory, relative, chunk_size):
    v = random_like(factory(problem), 1)
    assert relative(factory(problem, chunk_size=chunk_size).mv(v), factory(problem).mv(v)) < 1e-12


def test_result_does_not_depend_on_the_order_of_samples(problem, main_factory, relative):
    order = np.random.default_rng(3).permutation(11)
    shuffled = type(problem)(
        **{**vars(problem), **{name: getattr(problem, name)[order] for name in ("x", "y", "labels")}}
    )
    v = random_like(main_factory(problem), 1)
    w = v[order] if isinstance(v, jax.Array) else v
    expected = main_factory(problem).mv(v)
    expected = expected[order] if isinstance(v, jax.Array) else expected
    assert relative(main_factory(shuffled, chunk_size=4).mv(w), expected) < 1e-12


def test_stored_linearisation_gives_the_same_products(problem, storing_factory, relative):
    reference = storing_factory(problem)
    v = random_like(reference, 1)
    stored = jax.jit(lx.linearise)(storing_factory(problem, mode="linearise", chunk_size=4))
    assert relative(stored.mv(v), reference.mv(v)) < 1e-12
    assert lx.is_positive_semidefinite(stored) == lx.is_positive_semidefinite(reference)


def test_chunks_without_a_rest(problem, relative):
    make = lambda **o: dc.hessian(problem.cross_entropy, problem.params, problem.x, problem.labels, **o)
    assert relative(make(chunk_size=1).mv(problem.direction), make().mv(problem.direction)) < 1e-12


def test_single_precision_follows_the_inputs(make_problem, main_factory, relative):
    p = make_problem(dtype=jnp.float32)
    operator = main_factory(p)
    v = random_like(operator, 1)
    out = operator.mv(v)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64), tree)
        exact = main_factory(type(p)(**{**vars(p), "params": double(p.params), "x": double(p.x), "y": double(p.y)}))
        assert relative(out, exact.mv(double(v))) < 1e-5


def test_one_trace_for_a_hundred_parameters(problem, main_factory):
    traces = []

    @jax.jit
    def product(operator, v):
        traces.append(1)
        return operator.mv(v)

    first = main_factory(problem)
    v = random_like(first, 1)
    arrays, treedef = jax.tree.flatten(first)
    for n in range(100):
        product(treedef.unflatten([a + 0.01 * n if jnp.issubdtype(a.dtype, jnp.floating) else a for a in arrays]), v)
    assert len(traces) == 1


def test_derivative_of_a_quadratic_form_agrees_with_a_central_difference(problem, main_factory):
    v = random_like(main_factory(problem), 1)

    def form(t):
        moved = jax.tree.map(lambda p, d: p + t * d, problem.params, problem.direction)
        operator = main_factory(type(problem)(**{**vars(problem), "params": moved}))
        return jnp.vdot(ravel_pytree(v)[0], ravel_pytree(operator.mv(v))[0])

    h = 1e-4
    difference = (8 * (form(h) - form(-h)) - (form(2 * h) - form(-2 * h))) / (12 * h)
    np.testing.assert_allclose(jax.grad(form)(0.0), difference, rtol=1e-8)
