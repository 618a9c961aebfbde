import dataclasses
import enum
import pathlib

import numpy as np
import pytest

from dynjax.sweep._config import array_digest, differences, digest, to_json


class Kind(enum.Enum):
    A = 1


@dataclasses.dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = Inner()
    kind: Kind = Kind.A
    path: pathlib.Path = pathlib.Path("a/b")
    bound: float = float("inf")
    count: object = dataclasses.field(default_factory=lambda: np.int64(3))
    table: object = dataclasses.field(default_factory=lambda: np.eye(2))


def test_a_dataclass_becomes_json():
    assert to_json(Config()) == {
        "inner": {"rates": [0.1, 0.2]},
        "kind": "A",
        "path": "a/b",
        "bound": "inf",
        "count": 3,
        "table": [[1.0, 0.0], [0.0, 1.0]],
    }


def test_the_hash_ignores_order_and_container_types_and_nothing_else():
    assert digest(to_json({"a": 1, "b": (1, 2)})) == digest(to_json({"b": [1, 2], "a": 1}))
    assert digest(to_json({"a": 1})) != digest(to_json({"a": 1.5}))
    assert array_digest(np.arange(3)) != array_digest(np.arange(3.0))
    assert array_digest(np.asarray(["a", "b"])) != array_digest(np.asarray(["ab", ""]))


def test_differences_name_every_field_that_differs():
    lines = differences({"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"b": 2, "c": [1, 3]}, "e": True})
    assert lines == [
        "a.b: 1 in the store, 2 asked for",
        "a.c[1]: 2 in the store, 3 asked for",
        "d: 1 in the store, nothing asked for",
        "e: nothing in the store, true asked for",
    ]


def test_a_value_without_json_form_is_named():
    with pytest.raises(TypeError, match=r"config\.inner\[1\]"):
        to_json({"inner": [1, object()]})
