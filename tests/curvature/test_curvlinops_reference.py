"""Hessian and Gauss-Newton products against numbers stored from curvlinops (see make_reference.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import curvature as dc

CLASSES = 3


@pytest.fixture(scope="module")
def stored():
    with np.load(pathlib.Path(__file__).with_name("reference_curvlinops.npz")) as file:
        return dict(file)


def leaves_of(stored, prefix):
    return [stored[f"{prefix}_{i}"] for i in range(sum(name.startswith(prefix + "_") for name in stored))]


def mlp(params, x):
    w1, b1, w2, b2, w3, b3 = params
    return jnp.tanh(jnp.tanh(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3


def cnn(params, x):
    k1, b1, k2, b2, w, b = params
    conv = lambda x, kernel, bias, padding: (
        jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NCHW", "OIHW", "NCHW"))
        + bias[:, None, None]
    )
    x = jnp.tanh(conv(jnp.tanh(conv(x, k1, b1, "VALID")), k2, b2, "SAME"))
    return x.reshape((x.shape[0], -1)) @ w.T + b


NETWORKS = {"mlp": mlp, "cnn": cnn}
LOSSES = {"mse": "mse", "ce": "softmax_cross_entropy"}


def products(stored, network, name, kind, dtype):
    """The two stored products of one kind by dynjax, in torch's convention."""
    predict, loss = NETWORKS[network], LOSSES[name]
    cast = lambda a: jnp.asarray(a, dtype if np.issubdtype(a.dtype, np.floating) else None)
    params = [cast(a) for a in leaves_of(stored, f"{network}_parameters")]
    vectors = [cast(a) for a in leaves_of(stored, f"{network}_vectors")]
    inputs, targets = cast(stored[f"{network}_inputs"]), cast(stored[f"{name}_targets"])
    if kind == "hessian":
        value = dc.mean_loss(loss)
        operator = dc.hessian(lambda p, x, y: value(predict(p, x), y), params, inputs, targets, chunk_size=4)
    else:
        operator = dc.gauss_newton(predict, loss, params, inputs, targets, chunk_size=4)
    factor = 2 / CLASSES if name == "mse" else 1
    return [factor * leaf for leaf in jax.vmap(operator.mv)(vectors)]


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
@pytest.mark.parametrize("name", ["mse", "ce"])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_products_agree_with_curvlinops(x64, stored, relative, network, name, kind):
    expected = leaves_of(stored, f"{network}_{name}_{kind}")
    assert relative(products(stored, network, name, kind, jnp.float64), expected) < 1e-12


@pytest.mark.parametrize(("network", "kind"), [("mlp", "hessian"), ("cnn", "ggn")])
def test_products_agree_with_curvlinops_in_single_precision(stored, relative, network, kind):
    expected = leaves_of(stored, f"{network}_ce_{kind}")
    found = [np.asarray(leaf, np.float64) for leaf in products(stored, network, "ce", kind, jnp.float32)]
    error = np.concatenate([(a - b).ravel() for a, b in zip(found, expected, strict=True)])
    assert np.linalg.norm(error) < 1e-5 * np.linalg.norm(np.concatenate([b.ravel() for b in expected]))
