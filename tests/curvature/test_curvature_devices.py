"""Data spread over several devices gives the numbers of one device."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dynjax import curvature as dc

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 8
rng = np.random.default_rng(0)
w, x, y = (jnp.asarray(rng.normal(size=s)) for s in ((4, 3), (16, 4), (16, 3)))
predict = lambda w, x: jnp.tanh(x @ w)
loss = lambda w, x, y: jnp.mean((predict(w, x) - y) ** 2)
mesh = jax.make_mesh((8,), ("samples",), axis_types=(AxisType.Auto,))
spread = NamedSharding(mesh, PartitionSpec("samples"))
xs, ys = jax.device_put(x, spread), jax.device_put(y, spread)
for make in (lambda x, y: dc.hessian(loss, w, x, y), lambda x, y: dc.gauss_newton(predict, "mse", w, x, y)):
    one, many = make(x, y).mv(w), make(xs, ys).mv(w)
    assert len(make(xs, ys).mv(w).sharding.device_set) == 8
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-12 * np.abs(one).max())
print("agree")
"""


@pytest.mark.multidevice
def test_products_over_eight_devices_agree_with_one():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "agree", done.stderr
