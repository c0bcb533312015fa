"""How a kernel is started, so that its bits follow from its source and not from a version's defaults."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WARPS = 4
"""Warps of a program."""


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, fused: bool = False, **constants: int) -> None:
    """Run a kernel's programs on the device of its first argument, a tensor.

    fused: whether a product and the sum it enters may be rounded once; then digits are those of no twin.
    """
    subject: Tensor = arguments[0]
    with torch.cuda.device_of(subject):
        kernel[grid](*arguments, **constants, num_warps=WARPS, enable_fp_fusion=fused)


def blocks(count: int, block: int) -> int:
    """Programs that `count` values need."""
    return -(-count // block)
