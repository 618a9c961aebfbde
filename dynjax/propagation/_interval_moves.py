"""Primitives that move entries without arithmetic: reshapes, slices, paddings, gathers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._interval_rules import Operands, Run, Unsupported, rule
from ._intervals import Interval, add, contract, either, point


@rule("reshape")
def _reshape(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    a, sizes = x[0], tuple(params["new_sizes"])
    return [a.map(lambda v: v.reshape((v.shape[0], *sizes) if a.batched else sizes))]


@rule("transpose")
def _transpose(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    a, order = x[0], tuple(int(i) for i in params["permutation"])
    return [a.map(lambda v: v.transpose((0, *(i + 1 for i in order)) if a.batched else order))]


@rule("broadcast_in_dim")
def _broadcast(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    a, shape = x[0], tuple(params["shape"])
    places = [int(i) for i in params["broadcast_dimensions"]]

    def spread(v: np.ndarray) -> np.ndarray:
        inner = v.shape[1:] if a.batched else v.shape
        aligned = [1] * len(shape)
        for place, size in zip(places, inner, strict=True):
            aligned[place] = size
        lead = v.shape[:1] if a.batched else ()
        return np.broadcast_to(v.reshape((*lead, *aligned)), (*lead, *shape))

    return [a.map(spread)]


@rule("concatenate")
def _concatenate(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return [_together(run, x, np.concatenate, params["dimension"])]


@rule("stack")
def _stack(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    return [_together(run, x, np.stack, params["axis"])]


def _together(run: Run, x: Operands, join: Any, axis: int) -> Interval:
    batched = either(*x)
    parts = [a.per_cell(run.num_cells) if batched else a for a in x]
    low = join([a.lo for a in parts], axis=axis + batched)
    thin = all(a.thin for a in parts)
    return Interval(low, low if thin else join([a.hi for a in parts], axis=axis + batched), batched)


@rule("pad")
def _pad(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    """Write the operand into an array of the padding value, then cut what a negative padding takes away."""
    value, filler = x
    if filler.batched:
        raise Unsupported("a padding value that depends on the point")
    config = [tuple(int(i) for i in entry) for entry in params["padding_config"]]
    inner = value.lo.shape[1:] if value.batched else value.lo.shape
    spans = [size + max(size - 1, 0) * gap for size, (_, _, gap) in zip(inner, config, strict=True)]
    shape = [max(low, 0) + n + max(high, 0) for n, (low, high, _) in zip(spans, config, strict=True)]
    where = tuple(slice(max(low, 0), max(low, 0) + n, g + 1) for n, (low, _, g) in zip(spans, config, strict=True))
    cut = tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high, _) in zip(shape, config, strict=True))
    cells = (slice(None),) if value.batched else ()
    lead = value.lo.shape[:1] if value.batched else ()

    def write(v: np.ndarray, fill: np.ndarray) -> np.ndarray:
        out = np.full((*lead, *shape), fill, dtype=v.dtype)
        out[(*cells, *where)] = v
        return out[(*cells, *cut)]

    low = write(value.lo, filler.lo)
    return [Interval(low, low if value.thin and filler.thin else write(value.hi, filler.hi), value.batched)]


def rearrange(run: Run, primitive: Any, x: Operands, params: dict[str, Any]) -> list[Interval]:
    """Any primitive that only moves entries of its first operand: run it once on their positions."""
    value, *indices = x
    if any(i.batched or not i.thin or not i.exact for i in indices):
        raise Unsupported(f"`{primitive.name}` at a place that depends on the point")
    inner = value.lo.shape[1:] if value.batched else value.lo.shape
    size = int(np.prod(inner, initial=1))
    with jax.ensure_compile_time_eval():
        positions = jnp.arange(size, dtype=jnp.int32).reshape(inner)
        moved = primitive.bind(positions, *(jnp.asarray(i.lo) for i in indices), **params)
    moved = moved if primitive.multiple_results else [moved]
    results = []
    for place in (np.asarray(m) for m in moved):
        if place.size and (place.min() < 0 or place.max() >= size):
            raise Unsupported(f"`{primitive.name}` outside the array")
        lead = value.lo.shape[:1] if value.batched else ()
        take = lambda v, place=place, lead=lead: v.reshape((*lead, size))[..., place]
        results.append(value.map(take))
    return results


REARRANGEMENTS = frozenset(
    {"slice", "dynamic_slice", "gather", "rev", "squeeze", "expand_dims", "split", "unstack", "tile", "copy"}
)


@rule("dynamic_update_slice")
def _update(run: Run, x: Operands, params: dict[str, Any]) -> list[Interval]:
    value, update, *starts = x
    if any(s.batched or not s.thin for s in starts):
        raise Unsupported("`dynamic_update_slice` at a place that depends on the point")
    batched = either(value, update)
    value, update = (a.per_cell(run.num_cells) if batched else a for a in (value, update))
    sizes = update.lo.shape[batched:]
    corner = [min(max(int(s.lo), 0), n - k) for s, n, k in zip(starts, value.lo.shape[batched:], sizes, strict=True)]
    where = (slice(None),) * batched + tuple(slice(c, c + k) for c, k in zip(corner, sizes, strict=True))

    def write(v: np.ndarray, u: np.ndarray) -> np.ndarray:
        out = np.array(v)
        out[where] = u
        return out

    low = write(value.lo, update.lo)
    return [Interval(low, low if value.thin and update.thin else write(value.hi, update.hi), batched)]


def overwrite(run: Run, primitive: Any, x: Operands, params: dict[str, Any]) -> list[Interval]:
    """`scatter` without arithmetic: run it once on positions, those of the updates behind those of the operand."""
    value, indices, updates = x
    if indices.batched or not indices.thin:
        raise Unsupported(f"`{primitive.name}` at a place that depends on the point")
    batched = either(value, updates)
    parts = [a.per_cell(run.num_cells) if batched else a for a in (value, updates)]
    inner, sizes = (a.lo.shape[batched:] for a in parts)
    size, count = int(np.prod(inner, initial=1)), int(np.prod(sizes, initial=1))
    params = {**params, "update_jaxpr": None, "update_consts": ()}
    with jax.ensure_compile_time_eval():
        old = jnp.arange(size, dtype=jnp.int32).reshape(inner)
        new = jnp.arange(size, size + count, dtype=jnp.int32).reshape(sizes)
        place = np.asarray(primitive.bind(old, jnp.asarray(indices.lo), new, **params))
    flat = lambda v: v.reshape((*v.shape[:batched], -1))
    merge = lambda v, u: np.concatenate([flat(v), flat(u)], axis=-1)[..., place]
    low = merge(parts[0].lo, parts[1].lo)
    thin = all(a.thin for a in parts)
    return [Interval(low, low if thin else merge(parts[0].hi, parts[1].hi), batched)]


def add_into(run: Run, primitive: Any, x: Operands, params: dict[str, Any]) -> list[Interval]:
    """`scatter-add`, the transpose of a gather: a matrix of zeros and ones, which the primitive itself reveals."""
    value, indices, updates = x
    if indices.batched or not indices.thin:
        raise Unsupported(f"`{primitive.name}` at a place that depends on the point")
    inner = value.lo.shape[value.batched :]
    sizes = updates.lo.shape[updates.batched :]
    count = int(np.prod(sizes, initial=1))
    addition = params.get("update_jaxpr")
    dtype = jnp.int32 if addition is None else addition.invars[0].aval.dtype
    with jax.ensure_compile_time_eval():
        place, zero = jnp.asarray(indices.lo), jnp.zeros(inner, dtype)
        units = jnp.eye(count, dtype=dtype).reshape(count, *sizes)
        columns = jax.vmap(lambda unit: primitive.bind(zero, place, unit, **params))(units)
    matrix = np.asarray(columns).reshape(count, -1)
    flat = updates.map(lambda v: v.reshape((*v.shape[: updates.batched], count)))
    moved = contract("jk,aj->ak" if updates.batched else "jk,j->k", point(matrix.astype(np.float64)), flat)
    return [add(value, moved.map(lambda v: v.reshape((*v.shape[: updates.batched], *inner))))]
