"""Networks with a given Jacobian, and SGD on them in plain NumPy."""

import itertools

import jax.numpy as jnp
import numpy as np


def linear(params, inputs):
    """Outputs (N,) or (N, C) whose Jacobian is `inputs` itself."""
    return inputs @ params


def random_jacobian(num_samples, dimension, *, seed=0, num_outputs=None, scale=1.0):
    shape = (num_samples, dimension) if num_outputs is None else (num_samples, num_outputs, dimension)
    return scale * np.random.default_rng(seed).standard_normal(shape) / np.sqrt(dimension)


def at_zero(jacobian, dtype=None):
    """(predict, params, inputs) with this Jacobian."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    return linear, jnp.zeros(jacobian.shape[-1], dtype), jnp.asarray(jacobian, dtype)


def product(params, x):
    """f(x) = a b x, whose normal space has dimension one."""
    return params["a"] * params["b"] * x


def tanh_network(widths=(3, 12, 1), num_samples=20, seed=0, dtype=None):
    """(predict, params, inputs) of a small network; its loss may be anything but counts as zero."""
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float) if dtype is None else dtype
    params = [jnp.asarray(rng.standard_normal(s) / np.sqrt(s[0]), dtype) for s in itertools.pairwise(widths)]

    def predict(params, x):
        for weight in params[:-1]:
            x = jnp.tanh(x @ weight)
        return (x @ params[-1])[:, 0] if widths[-1] == 1 else x @ params[-1]

    return predict, params, jnp.asarray(rng.standard_normal((num_samples, widths[0])), dtype)


def factors(jacobian, learning_rate, batch_size):
    """All matrices I - (eta/B) J_xi^T J_xi, one for each batch."""
    rows = jacobian.reshape(jacobian.shape[0], -1, jacobian.shape[-1])
    dimension = rows.shape[-1]
    batches = [rows[list(b)].reshape(-1, dimension) for b in itertools.combinations(range(len(rows)), batch_size)]
    return np.stack([np.eye(dimension) - learning_rate / batch_size * g.T @ g for g in batches])


def simulate(matrices, num_steps, *, chains=200, burn_in=200, seed=0, order=None):
    """Mean top exponent and standard error over independent chains of products of randomly chosen matrices."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((chains, matrices.shape[-1]))
    total = np.zeros(chains)
    for n in range(burn_in + num_steps):
        chosen = rng.integers(len(matrices), size=chains) if order is None else order(rng, n, chains)
        v = np.einsum("cij,cj->ci", matrices[chosen], v)
        norm = np.linalg.norm(v, axis=1)
        v /= norm[:, None]
        total += np.log(norm) if n >= burn_in else 0
    rates = total / num_steps
    return rates.mean(), rates.std(ddof=1) / np.sqrt(chains)


def reshuffled(num_samples):
    """An `order` for `simulate`: fresh permutations, batch size 1."""
    state = {}

    def order(rng, n, chains):
        if n % num_samples == 0:
            state["permutations"] = np.argsort(rng.random((chains, num_samples)), axis=1)
        return state["permutations"][:, n % num_samples]

    return order
