"""The last section of every report: the configuration, and where the numbers come from."""

import json
from collections.abc import Mapping
from typing import Any

_HIDDEN = ("config", "identity", "coordinates")


def add_provenance(page: Any, dataset: Any, more: Mapping[str, Any] | None = None) -> None:
    """Add the section to a page.

    Args:
        page: a `dynjax.report.Page`.
        dataset: what `dynjax.sweep.open` returns.
        more: further facts, shown between the configuration and the versions.
    """
    provenance = {name: value for name, value in dataset.attrs.items() if name not in _HIDDEN}
    page.section("Configuration and versions")
    page.facts(
        {"Configuration": json.loads(dataset.attrs["config"]), **(more or {}), "Versions and machine": provenance}
    )
