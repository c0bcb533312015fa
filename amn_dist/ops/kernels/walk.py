"""Kernels of the batched random walk; what lies where, and why, stands in ops/walk/gpu.py (amn 3.4)."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def affinity_kernel(edge, links, table, directions, cells, begins, total, beta, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = table + tl.program_id(0) * 6
    first, offset = tl.load(row), tl.load(row + 2)
    pitch, height, width = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    d = tl.program_id(1)
    dy, dx = tl.load(directions + 2 * d), tl.load(directions + 2 * d + 1)
    local = offset + tl.arange(0, BLOCK)
    y, x = local // pitch, local % pitch
    linked = (x < width) & (x + dx >= 0) & (x + dx < width) & (y + dy < height)
    here = edge + first + tl.arange(0, BLOCK)
    strongest = tl.zeros((BLOCK,), tl.float32)
    for c in range(tl.load(begins + d), tl.load(begins + d + 1)):
        away = tl.load(cells + 2 * c) * pitch + tl.load(cells + 2 * c + 1)
        strongest = tl.maximum(strongest, tl.load(here + away, mask=linked, other=0))
    open_ = 1 - strongest
    affinity = tl.where(open_ > 0, tl.exp2(beta * tl.log2(tl.maximum(open_, 1e-30))), 0.0)
    tl.store(links + d * total + first + tl.arange(0, BLOCK), affinity, mask=linked)


@triton.jit
def degree_kernel(links, root, table, directions, total, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = table + tl.program_id(0) * 6
    first, offset = tl.load(row), tl.load(row + 2)
    pitch, height, width = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    cell = first + tl.arange(0, BLOCK)
    degree = tl.full((BLOCK,), 1.0, tl.float64)
    for d in range(count):
        away = tl.load(directions + 2 * d) * pitch + tl.load(directions + 2 * d + 1)
        ahead, behind = tl.load(links + d * total + cell), tl.load(links + d * total + cell - away)
        degree += ahead.to(tl.float64) + behind.to(tl.float64)
    local = offset + tl.arange(0, BLOCK)
    inside = (local % pitch < width) & (local // pitch < height)
    tl.store(root + cell, tl.sqrt(degree), mask=inside)


@triton.jit
def normalise_kernel(links, root, table, directions, total, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = table + tl.program_id(0) * 6
    first, pitch = tl.load(row), tl.load(row + 3)
    d = tl.program_id(1)
    away = tl.load(directions + 2 * d) * pitch + tl.load(directions + 2 * d + 1)
    cell = first + tl.arange(0, BLOCK)
    link = links + d * total + cell
    scaled = tl.load(link).to(tl.float64) / (tl.load(root + cell) * tl.load(root + cell + away))
    tl.store(link, scaled.to(tl.float32))


@triton.jit
def product_kernel(  # type: ignore[no-untyped-def]
    now, before, sums, links, root, table, directions, total, count, coefficient, twice,
    BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """before <- twice S now - before, sums += coefficient before, for the cells of one program."""
    row = table + tl.program_id(0) * 6
    source, target, offset = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    pitch, height, width = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    lane = tl.arange(0, BLOCK)
    cell = source + lane
    value = (target + lane)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    degree = tl.load(root + cell)
    product = tl.load(now + value) / (degree * degree)[:, None]
    for d in range(count):
        away = tl.load(directions + 2 * d) * pitch + tl.load(directions + 2 * d + 1)
        ahead = tl.load(links + d * total + cell).to(tl.float64)
        behind = tl.load(links + d * total + cell - away).to(tl.float64)
        product += ahead[:, None] * tl.load(now + value + away * GROUP)
        product += behind[:, None] * tl.load(now + value - away * GROUP)
    local = offset + lane
    inside = ((local % pitch < width) & (local // pitch < height))[:, None]
    after = twice * product - tl.load(before + value)
    tl.store(before + value, after, mask=inside)
    tl.store(sums + value, tl.load(sums + value) + coefficient * after, mask=inside)
