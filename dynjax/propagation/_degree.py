"""The topological degree of a gradient field on the boundary of a box, in one, two and three dimensions."""

import math
from collections.abc import Callable

import numpy as np

_Field = Callable[[np.ndarray], np.ndarray]

_SIDE_POINTS = 64
_MAX_POINTS = 200_000
_MAX_ANGLE = math.pi / 4
_GRIDS = (8, 16, 32, 64, 128)


def boundary_degree(field: _Field, lower: np.ndarray, upper: np.ndarray) -> int | None:
    """The degree of `field` over the box with respect to 0, from its values on the boundary.

    In one dimension from the signs at both ends; in two as the winding number, with the boundary refined until the angle
    between neighbours is below pi/4; in three as the solid angle (Kronecker's integral) of a triangulated surface, refined
    until neighbours are within one radian. The angles are tested at the points alone, so this is a check and no proof.

    Returns:
        The degree, or None in more than three dimensions and where the field (nearly) vanishes on the boundary.
    """
    dim = lower.shape[0]
    if dim == 1:
        return _ends(field, lower, upper)
    if dim == 2:
        return _winding(field, lower, upper)
    return _solid_angle(field, lower, upper) if dim == 3 else None


def _ends(field: _Field, lower: np.ndarray, upper: np.ndarray) -> int | None:
    first, last = np.sign(field(np.stack([lower, upper]))[:, 0])
    if not (first and last) or np.isnan(first + last):
        return None
    return round((last - first) / 2)


def _winding(field: _Field, lower: np.ndarray, upper: np.ndarray) -> int | None:
    size = upper - lower
    corners = lower + size * np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], size.dtype)

    def boundary(s: np.ndarray) -> np.ndarray:
        side = np.minimum(s.astype(int), 3)
        return (corners[side] + (s - side)[:, None] * (corners[side + 1] - corners[side])).astype(lower.dtype)

    s = np.linspace(0, 4, 4 * _SIDE_POINTS + 1)
    values = field(boundary(s)).astype(np.float64)
    while s.size < _MAX_POINTS:
        if not _directions(values):
            return None
        angles = _angles(values[:-1], values[1:])
        wide = np.abs(angles) > _MAX_ANGLE
        if not wide.any():
            turns = angles.sum() / (2 * math.pi)
            return round(turns)
        middle = 0.5 * (s[:-1] + s[1:])[wide]
        if np.any(middle == s[:-1][wide]) or (s[1:] - s[:-1])[wide].min() < 1e-12:
            return None
        place = np.nonzero(wide)[0] + 1
        s = np.insert(s, place, middle)
        values = np.insert(values, place, field(boundary(middle)), axis=0)
    return None


def _directions(values: np.ndarray) -> bool:
    """Whether every value has a direction."""
    return bool(np.all(np.isfinite(values)) and np.all(np.any(values != 0, axis=1)))


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Signed angles from a to b in the plane."""
    return np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], np.sum(a * b, axis=1))


def _solid_angle(field: _Field, lower: np.ndarray, upper: np.ndarray) -> int | None:
    for count in _GRIDS:
        points, triangles = _surface(lower, upper, count)
        values = field(points).astype(np.float64)
        if not _directions(values):
            return None
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        a, b, c = (values[triangles[:, k]] for k in range(3))
        cosines = np.stack([np.sum(u * v, axis=1) for u, v in ((a, b), (b, c), (c, a))])
        if cosines.min() < math.cos(1.0):
            continue
        volume = np.einsum("ni,ni->n", a, np.cross(b, c))
        turns = np.sum(2 * np.arctan2(volume, 1 + cosines.sum(axis=0))) / (4 * math.pi)
        return round(turns)
    return None


def _surface(lower: np.ndarray, upper: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the six faces, and triangles whose normals point outwards."""
    steps = np.linspace(0, 1, count + 1)
    u, v = (w.ravel() for w in np.meshgrid(steps, steps, indexing="ij"))
    corner = (np.arange(count)[:, None] * (count + 1) + np.arange(count)).ravel()
    right, up, both = corner + count + 1, corner + 1, corner + count + 2
    square = np.concatenate([np.stack([corner, right, both], 1), np.stack([corner, both, up], 1)])
    points: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        for end in (0.0, 1.0):
            face = np.zeros((u.size, 3))
            face[:, axis], face[:, first], face[:, second] = end, u, v
            triangles.append((square if end else square[:, ::-1]) + len(points) * u.size)
            points.append(face)
    stacked = np.concatenate(points)
    return (lower + stacked * (upper - lower)).astype(lower.dtype), np.concatenate(triangles)
