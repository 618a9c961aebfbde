"""Checks of configurations, which are stored as JSON and so hold plain Python values."""

from typing import Any

from .._core import check_that


def check_plain_integer(name: str, value: Any, least: int) -> None:
    """Raise unless `value` is a Python `int` (not one of NumPy, which JSON does not know) of at least `least`."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    check_that(good, name, f"be an integer of at least {least}", f"found {value!r}")
