"""Kernels that build the permutohedral lattice of many images; what lies where stands in ops/crf/kernel_lattice.py."""

# Triton's tuples grow by addition alone.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count", "base", "k0", "k1", "k2", "k3", "k4"])
def embed_kernel(  # type: ignore[no-untyped-def]
    image, keys, weights, count, padded, width, position, colour, base: tl.int64,
    s0, s1, s2, s3, s4, k0: tl.int64, k1: tl.int64, k2: tl.int64, k3: tl.int64, k4: tl.int64,
    COLOURED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Keys i64 and weights f32 [padded, vertices] around the pixels of one image uint8[count, 3].

    Every operation rounds to float32 in the order of `permutohedral.embed`. Pixels from `count` on have zero features
    and weigh nothing. s0 to s4: feature scales. k0 to k4: strides of a key, which begins at `base`.
    """
    VERTICES: tl.constexpr = 6 if COLOURED else 3
    down: tl.constexpr = 1.0 / VERTICES
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = p < count
    scales, strides = (s0, s1, s2, s3, s4), (k0, k1, k2, k3, k4)
    features = (tl.div_rn((p % width).to(tl.float32), position), tl.div_rn((p // width).to(tl.float32), position))
    if COLOURED:
        for channel in tl.static_range(3):
            value = tl.load(image + p * 3 + channel, mask=real, other=0).to(tl.float32)
            features = features + (tl.div_rn(value, colour),)
    above, elevated = tl.zeros((BLOCK,), tl.float32), ()
    for axis in tl.static_range(VERTICES - 1, 0, -1):
        scaled = tl.where(real, features[axis - 1], 0.0) * scales[axis - 1]
        elevated = (above - scaled * axis,) + elevated
        above += scaled
    elevated = (above,) + elevated
    # The nearest vertex of remainder zero, up to a shift.
    total, remainders, rests = tl.zeros((BLOCK,), tl.float32), (), ()
    for axis in tl.static_range(VERTICES):
        rounded = _nearest(elevated[axis] * down)
        total += rounded
        remainders = remainders + (rounded * VERTICES,)
        rests = rests + (elevated[axis] - rounded * VERTICES,)
    # Ranks of the offsets, the largest first; they tell the simplex, and too large or small ones the shift.
    ranks, offsets = (), ()
    key = tl.zeros((BLOCK,), tl.int64) + base
    for axis in tl.static_range(VERTICES):
        rank = total.to(tl.int32)
        for other in tl.static_range(VERTICES):
            if other < axis:
                rank += (rests[other] >= rests[axis]).to(tl.int32)
            elif other > axis:
                rank += (rests[other] > rests[axis]).to(tl.int32)
        shift = VERTICES * ((rank < 0).to(tl.int32) - (rank >= VERTICES).to(tl.int32))
        remainder = remainders[axis] + shift.to(tl.float32)
        ranks = ranks + (rank + shift,)
        offsets = offsets + ((elevated[axis] - remainder) * down,)
        if axis < VERTICES - 1:
            key += remainder.to(tl.int64) * strides[axis]
    # Weights are differences of ranked offsets; keys go from vertex to vertex.
    here, inside = p * VERTICES, p < padded
    step = tl.zeros((BLOCK,), tl.int64)
    for axis in tl.static_range(VERTICES - 1):
        step += strides[axis]
    before = _ranked(offsets, ranks, VERTICES - 1, VERTICES)
    weight = before + (1.0 - _ranked(offsets, ranks, 0, VERTICES))
    tl.store(keys + here, key, mask=inside)
    tl.store(weights + here, tl.where(real, weight, 0.0), mask=inside)
    for vertex in tl.static_range(1, VERTICES):
        for axis in tl.static_range(VERTICES - 1):
            key -= tl.where(ranks[axis] == VERTICES - vertex, strides[axis] * VERTICES, 0)
        key += step
        after = _ranked(offsets, ranks, VERTICES - 1 - vertex, VERTICES)
        tl.store(keys + here + vertex, key, mask=inside)
        tl.store(weights + here + vertex, tl.where(real, after - before, 0.0), mask=inside)
        before = after


@triton.jit
def _nearest(value):  # type: ignore[no-untyped-def]
    """The nearest integer, of two the even one."""
    low = tl.floor(value)
    rest = value - low
    odd = low - 2.0 * tl.floor(low * 0.5)
    return low + tl.where((rest > 0.5) | ((rest == 0.5) & (odd > 0.5)), 1.0, 0.0)


@triton.jit
def _ranked(offsets, ranks, rank: tl.constexpr, VERTICES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The offset of a rank."""
    chosen = offsets[0]
    for axis in tl.static_range(1, VERTICES):
        chosen = tl.where(ranks[axis] == rank, offsets[axis], chosen)
    return chosen


@triton.jit
def number_kernel(  # type: ignore[no-untyped-def]
    sorted_keys, order, numbers, weights, points, begins, offsets, pixels, spread, entries,
    VERTICES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From keys in ascending order and their points' numbers, which count from one: points, where their entries begin,
    the point of every vertex, and pixel and weight of every entry."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = e < entries
    number = tl.load(numbers + e, mask=inside, other=0)
    fresh = inside & (number != tl.load(numbers + e - 1, mask=inside & (e > 0), other=0))
    entry = tl.load(order + e, mask=inside, other=0)
    tl.store(offsets + entry, number - 1, mask=inside)
    tl.store(pixels + e, (entry // VERTICES).to(tl.int32), mask=inside)
    tl.store(spread + e, tl.load(weights + entry, mask=inside, other=0.0), mask=inside)
    tl.store(points + number - 1, tl.load(sorted_keys + e, mask=inside, other=0), mask=fresh)
    tl.store(begins + number - 1, e, mask=fresh)
    tl.store(begins + number, e + 1, mask=e == entries - 1)


@triton.jit
def chunk_kernel(numbers, begins, opens, entries, CHUNK: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether an entry opens a chunk of its point: every CHUNK-th does."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = e < entries
    begin = tl.load(begins + tl.load(numbers + e, mask=inside, other=1) - 1, mask=inside, other=0)
    tl.store(opens + e, ((e - begin) % CHUNK == 0).to(tl.int32), mask=inside)


@triton.jit
def cut_kernel(numbers, begins, chunks, chunk_begins, firsts, entries, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where chunks begin, and the first chunk of every point; `chunks` numbers the chunk of every entry from one."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = e < entries
    chunk, number = tl.load(chunks + e, mask=inside, other=0), tl.load(numbers + e, mask=inside, other=1)
    opens = inside & (chunk != tl.load(chunks + e - 1, mask=inside & (e > 0), other=0))
    fresh = inside & (e == tl.load(begins + number - 1, mask=inside, other=-1))
    tl.store(chunk_begins + chunk - 1, e, mask=opens)
    tl.store(firsts + number - 1, chunk - 1, mask=fresh)
    last = e == entries - 1
    tl.store(chunk_begins + chunk, e + 1, mask=last)
    tl.store(firsts + number, chunk, mask=last)


@triton.jit(do_not_specialize=["k0", "k1", "k2", "k3", "k4"])
def neighbour_kernel(  # type: ignore[no-untyped-def]
    points, counts, neighbours, capacity, k0: tl.int64, k1: tl.int64, k2: tl.int64, k3: tl.int64, k4: tl.int64,
    VERTICES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Follower and predecessor of every point along every axis, i32[vertices, 2, capacity]; -1 where there is none."""
    axis, side = tl.program_id(1) // 2, tl.program_id(1) % 2
    number = tl.load(counts)
    strides, jump, total = (k0, k1, k2, k3, k4), tl.zeros((1,), tl.int64), tl.zeros((1,), tl.int64)
    for other in tl.static_range(VERTICES - 1):
        total += strides[other]
        jump += tl.where(axis == other, strides[other] * VERTICES, 0)
    jump = tl.where(side == 0, total - jump, jump - total)
    for start in range(tl.program_id(0) * BLOCK, number, tl.num_programs(0) * BLOCK):
        p = start + tl.arange(0, BLOCK)
        inside = p < number
        wanted = tl.load(points + p, mask=inside, other=0) + jump
        low, high = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32) + number
        width = number
        while width > 0:
            middle = (low + high) // 2
            below = tl.load(points + middle, mask=inside & (low < high), other=0) < wanted
            low, high = tl.where(below & (low < high), middle + 1, low), tl.where(below, high, middle)
            width = width // 2
        hit = inside & (low < number)
        hit = hit & (tl.load(points + low, mask=hit, other=0) == wanted)
        at = (tl.program_id(1).to(tl.int64)) * capacity + p
        tl.store(neighbours + at, tl.where(hit, low, -1), mask=inside)
