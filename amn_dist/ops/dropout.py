"""Dropout whose draws follow from a name and the place of a value alone: the same on every device, in every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

WORD = 0xFFFFFFFF
"""Draws are 32 bits wide."""
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B
"""Multipliers of a 32-bit finaliser with little bias (Wellons, hash prospector)."""


def named_dropout(x: Tensor, names: Sequence[str], rate: float) -> Tensor:
    """Zero a share `rate` of f32[B, F, h, w] and scale the rest up; every name draws for an equal share of the batch.

    The value at place i of a share (images, then rows, columns and features) is dropped when hash(name, i) is low.
    """
    scale, lowest = 1 / (1 - rate), round(rate * 2**32)
    shares = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).unflatten(0, (len(names), -1))
    result = torch.empty_like(shares, memory_format=torch.contiguous_format)
    for share, out, name in zip(shares, result, names, strict=True):
        seeds = seeds_of(name)
        if x.device.type == "cpu":
            first, second, low = (np.uint32(word) for word in (*seeds, lowest))
            _drop(share.numpy().reshape(-1), first, second, low, np.float32(scale), out.view(-1).numpy())
        elif x.is_cuda:
            from amn_dist.ops.kernels.dropout import drop

            drop(share, seeds, lowest, scale, out)
        else:
            _drop_in_torch(share, seeds, lowest, scale, out)
    return result.flatten(0, 1).permute(0, 3, 1, 2)


def _drop_in_torch(x: Tensor, seeds: tuple[int, int], lowest: int, scale: float, out: Tensor) -> None:
    kept = draws(seeds, x.numel(), x.device).view_as(x) >= lowest
    torch.mul(x, kept * scale, out=out)


def draws(seeds: tuple[int, int], number: int, device: torch.device | str) -> Tensor:
    """Evenly distributed i64[number] in 0..2^32 - 1, hashes of the places 0, 1, 2, ..."""
    values = torch.arange(number, device=device) & WORD
    for seed in seeds:
        values = values ^ seed
        values = ((values ^ (values >> 16)) * FIRST_FACTOR) & WORD
        values = ((values ^ (values >> 15)) * SECOND_FACTOR) & WORD
        values = values ^ (values >> 16)
    return values


def seeds_of(name: str) -> tuple[int, int]:
    """Two words that a name draws with."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


@njit(cache=True, nogil=True, error_model="numpy")
def _mixed(x):  # type: ignore[no-untyped-def]
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(FIRST_FACTOR))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(SECOND_FACTOR))
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(cache=True, nogil=True, error_model="numpy")
def _drop(x, first_seed, second_seed, lowest, scale, out):  # type: ignore[no-untyped-def]
    """named_dropout of one share, f32[n], as draws() would have it."""
    for i in range(len(x)):
        draw = _mixed(np.uint32(_mixed(np.uint32(np.uint32(i) ^ first_seed)) ^ second_seed))
        out[i] = x[i] * scale if draw >= lowest else np.float32(0)
