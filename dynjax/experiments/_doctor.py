"""What this installation will use, and one product checked against a dense matrix."""

import importlib.metadata
import platform
import shutil
import time
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from .. import curvature
from ..networks import MLP
from ..sweep import memory_limit, usable_cores

_PACKAGES = ("dynjax", "jax", "jaxlib", "equinox", "diffrax", "optax", "lineax", "numpy", "zarr", "xarray", "tyro")


def diagnose() -> tuple[str, bool]:
    """A report on versions, devices, precision, cache and disk, and whether a Hessian product is right.

    Returns:
        (text, healthy): the report, and whether the product agrees with the dense Hessian (reverse over reverse) to
        the accuracy of single precision.
    """
    error, seconds = _check_product()
    healthy = bool(error < 1e-4)
    limit = memory_limit()
    rows = [("python", platform.python_version()), *((name, _version(name)) for name in _PACKAGES)]
    rows += [
        ("devices", ", ".join(f"{d.platform}:{d.device_kind}" for d in jax.devices())),
        ("cores", str(len(usable_cores()))),
        ("memory", "unknown" if limit is None else f"{limit / 2**30:.1f} GiB may be used on the device"),
        ("a sweep", _sweeps()),
        (
            "precision",
            "float64 enabled" if jax.config.values["jax_enable_x64"] else "float32 (experiments set their own)",
        ),
        ("matrix products", _products()),
        ("compile cache", str(jax.config.values["jax_compilation_cache_dir"] or "none")),
        ("free disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB"),
        (
            "Hessian product",
            f"relative error {error:.1e} against the dense Hessian, {seconds:.1f} s with compilation: "
            + ("good" if healthy else "WRONG, do not trust this installation"),
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows), healthy


def _sweeps() -> str:
    """How a sweep spreads over this machine."""
    if jax.default_backend() == "cpu":
        return f"{len(usable_cores())} worker processes of one thread each, blocks of 4 lanes or what an experiment prefers"
    devices = len(jax.local_devices())
    more = f"; for all {devices} devices start one process each, with --shard k/{devices}" if devices > 1 else ""
    return f"one process on one device, blocks of 32 lanes or what an experiment prefers{more}"


def _products() -> str:
    """What single precision means in products of matrices."""
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if chosen is not None:
        return f"{chosen}, as you have set it"
    if jax.default_backend() == "cpu":
        return "full precision"
    return (
        "full precision in experiments and in dynjax's own products; in your functions what JAX chooses (often 10 bits)"
    )


def _check_product() -> tuple[float, float]:
    """Relative error of a Hessian product against the dense Hessian that JAX builds column by column."""
    start = time.perf_counter()
    key = jax.random.key(0)
    model = MLP((4, 8, 2), key=key)
    x = jax.random.normal(jax.random.fold_in(key, 1), (16, 4))
    y = jax.random.normal(jax.random.fold_in(key, 2), (16, 2))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return 0.5 * jnp.mean(jnp.sum((jax.vmap(params)(x) - y) ** 2, -1))

    flat, unravel = jax.flatten_util.ravel_pytree(model)
    dense = np.asarray(jax.jacrev(jax.grad(lambda f: loss(unravel(f), x, y)))(flat))
    v = jax.random.normal(jax.random.fold_in(key, 3), flat.shape)
    product, _ = jax.flatten_util.ravel_pytree(curvature.hessian(loss, model, x, y).mv(unravel(v)))
    expected = dense @ np.asarray(v)
    error = np.linalg.norm(np.asarray(product) - expected) / np.linalg.norm(expected)
    return float(error), time.perf_counter() - start


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
