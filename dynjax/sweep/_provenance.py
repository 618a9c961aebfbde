"""What a result depends on besides its configuration: versions, device, flags, command, commit."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

PACKAGES = ("dynjax", "jax", "jaxlib", "equinox", "numpy", "zarr")


def provenance(argv: Sequence[str] | None) -> dict[str, Any]:
    """Versions, device kind, XLA flags, command line and git commit of this run."""
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": device.platform,
        "device_kind": device.device_kind,
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),  # type: ignore[attr-defined]
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "argv": list(sys.argv if argv is None else argv),
        "git_commit": _git_commit(),
    }


def changed(stored: Mapping[str, Any]) -> list[str]:
    """Sentences for those differences between a store and this process that end bit equality.

    Args:
        stored: the attributes of the store.
    """
    versions = json.loads(stored.get("versions", "{}"))
    pairs = [("device kind", stored.get("device_kind"), jax.devices()[0].device_kind)]
    pairs += [(name, versions.get(name), _version(name)) for name in ("jax", "jaxlib")]
    return [
        f"The {name} was {old} and is now {new}: bit equality does not hold across it."
        for name, old, new in pairs
        if old != new
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _git_commit() -> str:
    """The commit of the repository around the current directory, or an empty text."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
