"""One entry for each critical point: repeated finds are merged, continua of degenerate ones are thinned out."""

import numpy as np

from ._morse_search import Judgement, Landscape

MAX_REPRESENTATIVES = 16
_SEPARATION = 1 / 64  # of the diagonal of the box, between degenerate points that are told apart


def merge(landscape: Landscape, found: Judgement) -> Judgement:
    """Drop repetitions.

    Two finds are the same point if they lie within the uniqueness radius of Kantorovich's theorem of one of them (at most
    eps^(1/4) of the box). Degenerate ones have no such radius: those closer than 1/64 of the diagonal are one, and at most
    16, spread as widely as possible, stand for a curve or surface of them.
    """
    eps = float(np.finfo(landscape.dtype).eps)
    diagonal = float(np.linalg.norm(landscape.size))
    order = np.argsort(found.gradient_norm, kind="stable")
    found = found.take(order)
    degenerate = found.take(found.degenerate)
    kept = degenerate.take(_spread(degenerate.x, _SEPARATION * diagonal))
    rest = found.take(~found.degenerate)
    # Finds that Newton's method left on their way to a degenerate point, or beside a nondegenerate one.
    near = _near(rest.x, degenerate.x, _SEPARATION * diagonal) & rest.unresolved
    rest = rest.take(~near)
    radius = np.clip(rest.radius, 64 * eps * diagonal, eps**0.25 * diagonal)
    chosen: list[int] = []
    for i in np.argsort(rest.unresolved, kind="stable"):
        distances = np.linalg.norm(rest.x[chosen] - rest.x[i], axis=1)
        reach = np.maximum(radius[chosen], radius[i] if not rest.unresolved[i] else eps**0.25 * diagonal)
        if not np.any(distances <= reach):
            chosen.append(int(i))
    rest = rest.take(np.asarray(chosen, int))
    return Judgement(*(np.concatenate([a, b]) for a, b in zip(rest, kept, strict=True)))


def _near(x: np.ndarray, others: np.ndarray, radius: float) -> np.ndarray:
    if not others.shape[0]:
        return np.zeros(x.shape[0], bool)
    return np.min(np.linalg.norm(x[:, None] - others[None], axis=2), axis=1) <= radius


def _spread(x: np.ndarray, separation: float) -> np.ndarray:
    """Indices of points that are at least `separation` apart, each the farthest from those before."""
    if not x.shape[0]:
        return np.zeros(0, int)
    chosen = [0]
    distance = np.linalg.norm(x - x[0], axis=1)
    while len(chosen) < MAX_REPRESENTATIVES and distance.max() > separation:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(x - x[chosen[-1]], axis=1))
    # Of the finds that one point stands for, the one with the smallest gradient, which comes first.
    return np.asarray(sorted(_first_near(x, k, separation / 2) for k in chosen), int)


def _first_near(x: np.ndarray, k: int, radius: float) -> int:
    return int(np.argmax(np.linalg.norm(x - x[k], axis=1) <= radius))
