"""A configuration as canonical JSON: its hash decides whether a store belongs to it, its differences are printed."""

import dataclasses
import enum
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(value: Any, where: str = "config") -> Any:
    """Reduce `value` to JSON types; two equal configurations give equal results.

    Dataclasses and mappings become objects, sequences and arrays become lists, enumerations their name, paths their
    text, and numbers that JSON lacks (NaN, infinities) their name as text.

    Raises:
        TypeError: for a value with no JSON form, naming the field.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json(part, f"{where}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, np.generic) or (hasattr(value, "__array__") and hasattr(value, "tolist")):
        return to_json(np.asarray(value).tolist(), where)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    raise TypeError(
        f"Argument `{where}` must be made of numbers, text, lists, mappings and dataclasses, "
        f"but found a {type(value).__name__}."
    )


def canonical(value: Any) -> str:
    """Compact JSON with sorted names: the text that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes of an array (of its texts, for text)."""
    if array.dtype.kind in "UOT":
        return digest([str(text) for text in array.ravel()])
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def differences(stored: Any, asked: Any, where: str = "") -> list[str]:
    """One line for each leaf in which two JSON values differ: "name: 1 in the store, 2 asked for"."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        names = [*stored, *(name for name in asked if name not in stored)]
        pairs = [(f"{where}.{name}" if where else name, stored.get(name), asked.get(name)) for name in names]
        return [line for name, old, new in pairs for line in differences(old, new, name)]
    if isinstance(stored, list) and isinstance(asked, list) and len(stored) == len(asked):
        return [
            line
            for i, (old, new) in enumerate(zip(stored, asked, strict=True))
            for line in differences(old, new, f"{where}[{i}]")
        ]
    if canonical(stored) == canonical(asked):
        return []
    return [f"{where}: {_short(stored)} in the store, {_short(asked)} asked for"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
