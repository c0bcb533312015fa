"""Kernels that filter on the permutohedral lattice of many images, and the marginals they feed (ops/crf).

Where only the device knows how many points or chunks there are, programs go through them in strides: a launch has as
many as its device keeps busy, and reads the number itself. Sums follow an order that no other image and no run moves.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def splat_kernel(  # type: ignore[no-untyped-def]
    q, pixels, spread, chunk_begins, counts, sums, row, channels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    """Sums over chunks of weight times q, f32[chunks, CHANNELS], in the order of pixels. row: from pixel to pixel."""
    number, lane = tl.load(counts + 1), tl.arange(0, CHANNELS)
    for start in range(tl.program_id(0) * BLOCK, number, tl.num_programs(0) * BLOCK):
        c = start + tl.arange(0, BLOCK)
        begin = tl.load(chunk_begins + c, mask=c < number, other=0)
        end = tl.load(chunk_begins + c + 1, mask=c < number, other=0)
        total = tl.zeros((BLOCK, CHANNELS), tl.float32)
        for i in range(tl.max(end - begin)):
            there = begin + i < end
            pixel = tl.load(pixels + begin + i, mask=there, other=0).to(tl.int64)
            weight = tl.load(spread + begin + i, mask=there, other=0.0)
            wanted = there[:, None] & (lane < channels)[None, :]
            total += weight[:, None] * tl.load(q + (pixel * row)[:, None] + lane[None, :], mask=wanted, other=0.0)
        at = (c.to(tl.int64) * CHANNELS)[:, None] + lane[None, :]
        tl.store(sums + at, total, mask=(c < number)[:, None])


@triton.jit
def gather_kernel(sums, firsts, counts, values, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Values of points f32[points, CHANNELS], the sums of their chunks."""
    number, lane = tl.load(counts), tl.arange(0, CHANNELS)
    for start in range(tl.program_id(0) * BLOCK, number, tl.num_programs(0) * BLOCK):
        p = start + tl.arange(0, BLOCK)
        begin = tl.load(firsts + p, mask=p < number, other=0)
        end = tl.load(firsts + p + 1, mask=p < number, other=0)
        total = tl.zeros((BLOCK, CHANNELS), tl.float32)
        for i in range(tl.max(end - begin)):
            chunk = (begin + i).to(tl.int64) * CHANNELS
            there = (begin + i < end)[:, None] & (lane >= 0)[None, :]
            total += tl.load(sums + chunk[:, None] + lane[None, :], mask=there, other=0.0)
        at = (p.to(tl.int64) * CHANNELS)[:, None] + lane[None, :]
        tl.store(values + at, total, mask=(p < number)[:, None])


@triton.jit
def blur_kernel(values, ahead, behind, counts, blurred, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Values of points along one axis, f32[points, CHANNELS]: their own and half of both neighbours'."""
    number, lane = tl.load(counts), tl.arange(0, CHANNELS)
    for start in range(tl.program_id(0) * BLOCK, number, tl.num_programs(0) * BLOCK):
        p = start + tl.arange(0, BLOCK)
        inside = p < number
        at = (p.to(tl.int64) * CHANNELS)[:, None] + lane[None, :]
        both = _row(values, tl.load(ahead + p, mask=inside, other=-1), lane, CHANNELS)
        both += _row(values, tl.load(behind + p, mask=inside, other=-1), lane, CHANNELS)
        own = tl.load(values + at, mask=inside[:, None], other=0.0)
        tl.store(blurred + at, own + 0.5 * both, mask=inside[:, None])


@triton.jit
def _row(values, point, lane, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Values of points, zeros for -1."""
    at = (point.to(tl.int64) * CHANNELS)[:, None] + lane[None, :]
    return tl.load(values + at, mask=(point >= 0)[:, None], other=0.0)


@triton.jit
def slice_kernel(  # type: ignore[no-untyped-def]
    values, offsets, weights, message, pixels, row, channels, factor,
    VERTICES: tl.constexpr, CHANNELS: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Message of every pixel: factor times the weighted values around it, added to what is there where ADD is 1."""
    n, lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, CHANNELS)
    inside = n < pixels
    total = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for vertex in tl.static_range(VERTICES):
        point = tl.load(offsets + n.to(tl.int64) * VERTICES + vertex, mask=inside, other=-1)
        weight = tl.load(weights + n.to(tl.int64) * VERTICES + vertex, mask=inside, other=0.0)
        total += weight[:, None] * _row(values, point, lane, CHANNELS)
    at = message + (n.to(tl.int64) * row)[:, None] + lane[None, :]
    wanted = inside[:, None] & (lane < channels)[None, :]
    total = total * factor
    if ADD:
        total += tl.load(at, mask=wanted, other=0.0)
    tl.store(at, total, mask=wanted)


@triton.jit(do_not_specialize=["labels"])
def update_kernel(  # type: ignore[no-untyped-def]
    energy, message, implied, q, rows, groups, labels,
    MESSAGES: tl.constexpr, IMPLIED: tl.constexpr, WHOLE: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Marginals of every labelling of every pixel from energy f32[rows, labels] and message f32[rows, labels - 1].

    The last label's message is `implied` f32[pixels], what marginals of one would send, less the others'; none where
    IMPLIED is 0. MESSAGES: whether there are any yet. WHOLE: whether the last label's marginals are written, too.
    """
    r, lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, LANES)
    inside, row = (r < rows)[:, None], r.to(tl.int64)[:, None]
    sends, valid = inside & (lane < labels - 1)[None, :], inside & (lane < labels)[None, :]
    logits = -tl.load(energy + row * labels + lane[None, :], mask=valid, other=float("inf"))
    if MESSAGES:
        received = tl.load(message + row * (labels - 1) + lane[None, :], mask=sends, other=0.0)
        if IMPLIED:
            rest = tl.load(implied + r // groups, mask=r < rows, other=0.0) - tl.sum(received, 1)
            received = tl.where((lane < labels - 1)[None, :], received, rest[:, None])
        logits += received
    powers = tl.exp(logits - tl.where(r < rows, tl.max(logits, 1), 0.0)[:, None])
    sums = tl.where(r < rows, tl.sum(powers, 1), 1.0)[:, None]
    marginals = tl.div_rn(powers, tl.broadcast_to(sums, (BLOCK, LANES)))
    if WHOLE:
        tl.store(q + row * labels + lane[None, :], marginals, mask=valid)
    else:
        tl.store(q + row * (labels - 1) + lane[None, :], marginals, mask=sends)
