"""Named dropout on a CUDA device: one launch a name, draws and zeros in one pass (twin in ops/dropout.py)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from amn_dist.ops.kernels.launching import blocks, launch

BLOCK = 1024
"""Values of a program."""


def drop(x: Tensor, seeds: tuple[int, int], lowest: int, scale: float, out: Tensor) -> None:
    """Values of a share, contiguous, times `scale` where their draw is `lowest` or more; 0 elsewhere."""
    number = x.numel()
    launch(_drop_kernel, (blocks(number, BLOCK),), x, out, *seeds, number, lowest, scale, BLOCK=BLOCK)


@triton.jit(do_not_specialize=["first", "second", "number", "lowest"])
def _drop_kernel(  # type: ignore[no-untyped-def]
    x, out, first: tl.int64, second: tl.int64, number: tl.int64, lowest: tl.int64, scale, BLOCK: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    draw = _mixed(_mixed(place.to(tl.uint32) ^ first.to(tl.uint32)) ^ second.to(tl.uint32))
    inside = place < number
    value = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    tl.store(out + place, tl.where(draw.to(tl.int64) >= lowest, value * scale, 0.0), mask=inside)


@triton.jit
def _mixed(value):  # type: ignore[no-untyped-def]
    """The finaliser of ops/dropout.py."""
    value = (value ^ (value >> 16)) * 0x7FEB352D
    value = (value ^ (value >> 15)) * 0x846CA68B
    return value ^ (value >> 16)
