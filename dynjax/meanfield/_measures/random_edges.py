"""Random graphs with independent edges, drawn on the host in time and memory proportional to the candidates."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..._core import check_that

# Candidates held at once: 8 bytes each in a few arrays.
_CHUNK = 1 << 22


def draw_positions(generator: np.random.Generator, size: int, probability: float) -> np.ndarray:
    """The successes among `size` independent trials, increasing, by geometric gaps: as much work as there are successes."""
    if probability <= 0 or size <= 0:
        return np.empty(0, np.int64)
    if probability >= 1:
        return np.arange(size, dtype=np.int64)
    pieces, last = [], -1
    while last < size:
        expected = (size - 1 - last) * probability
        gaps = generator.geometric(probability, int(expected + 5 * np.sqrt(expected) + 10))
        # A gap beyond the end is all the same; cut, or the sum may overflow for tiny probabilities.
        places = last + np.cumsum(np.minimum(gaps, size + 1), dtype=np.int64)
        pieces.append(places)
        last = int(places[-1])
    places = np.concatenate(pieces)
    return places[: np.searchsorted(places, size)]


def convolution_edges(
    generator: np.random.Generator, num_nodes: int, levels: Iterable[tuple[int, int, float]], directed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Edges whose probability depends on the distance on the cycle only.

    Args:
        generator: source of randomness.
        num_nodes: N.
        levels: (first, last, probability): distances first <= d <= last share a probability; between 1 and N // 2.
        directed: whether the two directions are drawn apart.

    Returns:
        Sources and targets; both directions of each edge if undirected.
    """
    sources, targets = [], []
    for first, last, probability in levels:
        for low, high, starts in _distances(first, last, num_nodes):
            steps = high - low + 1
            for sign in (1, -1) if directed else (1,):
                # At half the cycle, d and -d are the same: from all starts if directed, from half of them if not.
                if 2 * low == num_nodes and sign < 0:
                    continue
                count = num_nodes if directed else starts
                places = draw_positions(generator, count * steps, probability)
                start = places // steps
                sources.append(start)
                targets.append((start + sign * (low + places % steps)) % num_nodes)
    source, target = _joined(sources), _joined(targets)
    return (source, target) if directed else _both(source, target)


def _distances(first: int, last: int, num_nodes: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of distances with the number of starts that lists every pair once."""
    top = min(last, (num_nodes - 1) // 2)
    if first <= top:
        yield first, top, num_nodes
    if num_nodes % 2 == 0 and first <= num_nodes // 2 <= last:
        yield num_nodes // 2, num_nodes // 2, num_nodes // 2


def thinned_edges(
    generator: np.random.Generator,
    breaks: np.ndarray,
    bound: Callable[[int, int], float],
    probability: Callable[[np.ndarray, np.ndarray], np.ndarray],
    directed: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Edges by thinning: candidates of a constant probability in every pair of node ranges, kept in proportion.

    Args:
        generator: source of randomness.
        breaks: increasing, from 0 to N: the nodes of range r are breaks[r], ..., breaks[r + 1] - 1.
        bound: the largest probability of an edge into range r from range s.
        probability: of the edges (targets, sources).
        directed: whether the two directions are drawn apart.

    Returns:
        Sources and targets; both directions of each edge if undirected.
    """
    sources, targets = [], []
    for r in range(len(breaks) - 1):
        for s in range(0 if directed else r, len(breaks) - 1):
            chance = min(float(bound(r, s)), 1.0)
            wide = int(breaks[s + 1] - breaks[s])
            rows = max(1, int(_CHUNK / max(wide * chance, 1)))
            for top in range(int(breaks[r]), int(breaks[r + 1]), rows):
                end = min(top + rows, int(breaks[r + 1]))
                left = max(int(breaks[s]), top) if not directed else int(breaks[s])
                span = int(breaks[s + 1]) - left
                places = draw_positions(generator, (end - top) * span, chance)
                i, j = top + places // span, left + places % span
                keep = i != j if directed else i < j
                i, j = i[keep], j[keep]
                kept = generator.random(i.size) * chance < probability(i, j)
                targets.append(i[kept])
                sources.append(j[kept])
    source, target = _joined(sources), _joined(targets)
    return (source, target) if directed else _both(source, target)


def edge_probability(density: Any, scaling: float, clip: bool) -> Any:
    """min(1, scaling * density); above one only where clipping is asked for."""
    density = np.asarray(density, float)
    good = bool(np.all((density >= 0) & (clip | (scaling * density <= 1))))
    seen = f"it runs from {np.min(density):.4g} to {np.max(density):.4g}"
    check_that(good, "density", "give probabilities in [0, 1] where edges are drawn", seen)
    return np.minimum(scaling * density, 1.0)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(pieces).astype(np.int32) if pieces else np.empty(0, np.int32)


def _both(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([source, target]), np.concatenate([target, source])
