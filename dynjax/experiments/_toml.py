"""Configurations to and from TOML."""

import dataclasses
import json
import pathlib
import tomllib
from typing import Any, TypeVar

from .._core import check_that

ConfigT = TypeVar("ConfigT")


def config_from_toml(kind: type[ConfigT], path: str | pathlib.Path | None) -> ConfigT:
    """A configuration from a TOML file, with the defaults of `kind` for what it leaves out.

    Args:
        kind: a frozen dataclass of numbers, strings and tuples of them.
        path: the file; None gives the defaults.

    Returns:
        An instance of `kind`.

    Raises:
        ValueError: if there is no such file, it is no TOML, or it names a field that `kind` does not have.
    """
    if path is None:
        return kind()
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ValueError(f"Argument `config` must be a readable file, but {path} is not: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Argument `config` must be a TOML file, but {path} is not: {error}.") from error
    values = {name.replace("-", "_"): value for name, value in values.items()}
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    check_that(not unknown, "config", f"name only {', '.join(sorted(known))}", f"{path} names {', '.join(unknown)}")
    return kind(**{name: _as_field(kind, name, value, path) for name, value in values.items()})


def _as_field(kind: Any, name: str, value: Any, path: Any) -> Any:
    """A TOML value as the field holds it: lists become tuples, whole numbers become floats where the field has floats."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    annotation = "str" if isinstance(field.default, str) else str(field.type)
    if "tuple" in annotation:
        check_that(isinstance(value, list), name, "be a list", f"{path} gives {value!r}")
        element = float if "float" in annotation else int
        return tuple(_number(element, item, name, path) for item in value)
    if "float" in annotation:
        return _number(float, value, name, path)
    if "int" in annotation:
        return _number(int, value, name, path)
    check_that(isinstance(value, str), name, "be a string", f"{path} gives {value!r}")
    return value


def _number(kind: type, value: Any, name: str, path: Any) -> Any:
    right = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and (kind is float or isinstance(value, int))
    )
    check_that(right, name, f"be {'a number' if kind is float else 'an integer'}", f"{path} gives {value!r}")
    return kind(value)


def config_to_toml(config: Any) -> str:
    """The configuration as TOML that `config_from_toml` reads back; fields that are None are left out.

    Args:
        config: a frozen dataclass of numbers, strings and tuples of them.

    Returns:
        The text, one line for each field.
    """
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            lines.append(f"{field.name} = {_literal(value)}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
