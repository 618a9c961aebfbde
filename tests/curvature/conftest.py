"""A small classification problem, and every operator of the room on it."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from dynjax import curvature as dc


def initialise(rng, widths, dtype):
    return [
        {
            "weight": jnp.asarray(rng.normal(size=(fan_in, fan_out)) / fan_in**0.5, dtype),
            "bias": jnp.asarray(0.1 * rng.normal(size=fan_out), dtype),
        }
        for fan_in, fan_out in itertools.pairwise(widths)
    ]


def predict(params, x):
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["weight"] + layer["bias"])
    return x @ params[-1]["weight"] + params[-1]["bias"]


def cross_entropy(params, x, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(predict(params, x)), labels[:, None], 1))


def squared_error(params, x, y):
    return 0.5 * jnp.mean(jnp.sum((predict(params, x) - y) ** 2, axis=-1))


def make_problem(seed=0, dtype=None, widths=(4, 5, 3), samples=11):
    # NumPy draws: JAX would compile a sampler for every shape.
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float) if dtype is None else dtype
    params = initialise(rng, widths, dtype)
    flat, unravel = ravel_pytree(params)
    return types.SimpleNamespace(
        params=params,
        x=jnp.asarray(rng.normal(size=(samples, widths[0])), dtype),
        y=jnp.asarray(rng.normal(size=(samples, widths[-1])), dtype),
        labels=jnp.asarray(rng.integers(0, widths[-1], size=samples)),
        direction=unravel(jnp.asarray(rng.normal(size=flat.size), dtype)),
        flat=flat,
        unravel=unravel,
        predict=predict,
        cross_entropy=cross_entropy,
        squared_error=squared_error,
    )


@pytest.fixture
def problem(x64):
    return make_problem()


def relative(a, b):
    """max |a - b| / max |b| over all leaves together."""
    a, b = ([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)] for tree in (a, b))
    a, b = np.concatenate(a), np.concatenate(b)
    return np.max(np.abs(a - b)) / np.max(np.abs(b))


@pytest.fixture(name="relative")
def relative_error():
    return relative


@pytest.fixture(name="make_problem")
def problem_factory():
    return make_problem


def _positive(params):
    return jax.tree.map(lambda leaf: 0.5 + leaf**2, params)


def cosh_loss(outputs, targets):
    """A convex loss that has no closed form in the package."""
    return jnp.mean(jnp.sum(jnp.cosh(outputs - targets), axis=-1))


FACTORIES = {
    "hessian": lambda p, **o: dc.hessian(p.cross_entropy, p.params, p.x, p.labels, **o),
    "gauss_newton": lambda p, **o: dc.gauss_newton(p.predict, "softmax_cross_entropy", p.params, p.x, p.labels, **o),
    "gauss_newton_callable": lambda p, **o: dc.gauss_newton(p.predict, cosh_loss, p.params, p.x, p.y, **o),
    "empirical_fisher": lambda p, **o: dc.fisher(p.predict, "mse", p.params, p.x, p.y, kind="empirical", **o),
    "gradient_covariance": lambda p, **o: dc.gradient_covariance(p.cross_entropy, p.params, p.x, p.labels, **o),
    "tangent_kernel": lambda p, **o: dc.tangent_kernel(p.predict, p.params, p.x, **o),
    "preconditioned": lambda p, **o: dc.preconditioned(
        dc.hessian(p.squared_error, p.params, p.x, p.y, **o), _positive(p.params)
    ),
}


@pytest.fixture(params=sorted(FACTORIES))
def factory(request):
    """make(problem, **options) for one operator after another."""
    return FACTORIES[request.param]


@pytest.fixture(params=["gauss_newton", "gradient_covariance", "hessian", "tangent_kernel"])
def main_factory(request):
    """The same for the operators that differ in how they are computed."""
    return FACTORIES[request.param]


@pytest.fixture(params=["gauss_newton", "hessian", "tangent_kernel"])
def storing_factory(request):
    """The same for operators that can store their linearisation."""
    return FACTORIES[request.param]
