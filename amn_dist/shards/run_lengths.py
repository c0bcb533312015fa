"""Masks over one image as run lengths: field *.rle.

As an array: int32[2 + M], H and W, then the run lengths of one mask behind those of another. Each mask's are down the
columns, background first, and sum to H W, so that where it ends follows from them; only its first may be 0. Stored is
each number less the one two before, sign in the lowest bit; the lowest bytes of all, then the next, deflated. Header:
MAGIC, then H, W, M as u32, little-endian.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from amn_dist.errors import ShardError
from amn_dist.shards.deflated import inflated

MAGIC = b"rle\x01"
HEADER = struct.Struct("<4s3I")
MOST_MASKS, MOST_RUNS = 4096, 2**24
"""Of one image: a foundation model proposes a hundred or a thousand, of a few hundred runs each."""
MOST_PIXELS = 2**26
"""Of the image, as of pictures (shards/format.py)."""
LEVEL = 6
"""Of deflate."""


def encode_lengths(array: np.ndarray) -> bytes:
    """Bytes of masks int32[2 + M]. Raises ShardError where they are not whole, canonical masks within bounds."""
    if array.dtype != np.int32 or array.ndim != 1:
        raise ShardError(f"found {array.dtype}{list(array.shape)}, expected int32[2 + M]")
    if fault := _fault(array):
        raise ShardError(fault)
    height, width = int(array[0]), int(array[1])
    lengths = np.ascontiguousarray(array[2:]).astype(np.int64)
    change = lengths.copy()
    change[2:] -= lengths[:-2]
    folded = ((change << 1) ^ (change >> 63)).astype("<u4")
    planes = folded.view(np.uint8).reshape(-1, 4).T
    return HEADER.pack(MAGIC, height, width, len(lengths)) + zlib.compress(planes.tobytes(), LEVEL)


def decode_lengths(data: bytes) -> np.ndarray:
    """Masks int32[2 + M] of encode_lengths, writable. Raises ShardError when the bytes are anything else."""
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise ShardError(f"is not an .rle field (starts with {data[:8]!r})")
    _, height, width, count = HEADER.unpack_from(data)
    declared = f"is an .rle field that declares {count} runs over {width}x{height} pixels"
    if count > MOST_RUNS or not 0 < height * width <= MOST_PIXELS:
        raise ShardError(f"{declared}; expected at most {MOST_RUNS} over {MOST_PIXELS}")
    content = inflated(data[HEADER.size :], 4 * count, field=".rle", declared=declared, advice="make it again")
    planes = np.frombuffer(content, np.uint8).reshape(4, -1)
    folded = np.ascontiguousarray(planes.T).view("<u4")[:, 0].astype(np.int64)
    lengths = (folded >> 1) ^ -(folded & 1)
    for parity in (0, 1):
        lengths[parity::2] = lengths[parity::2].cumsum()
    array = np.concatenate([[height, width], lengths.clip(-1, MOST_PIXELS + 1)]).astype(np.int32)
    if fault := _fault(array):
        raise ShardError(f"{declared}: {fault}; make it again")
    return array


def count_masks(array: np.ndarray) -> int:
    """Masks of int32[2 + M]."""
    return int(array[2:].sum(dtype=np.int64)) // (int(array[0]) * int(array[1]))


def _fault(array: np.ndarray) -> str:
    """What is wrong with masks int32[2 + M], in words; empty where they are sound."""
    if len(array) < 2 or len(array) - 2 > MOST_RUNS or not 0 < int(array[0]) * int(array[1]) <= MOST_PIXELS:
        return f"found {len(array)} numbers, expected H, W and at most {MOST_RUNS} runs over {MOST_PIXELS} pixels"
    if array[0] < 0:
        return "found a negative height and width"
    lengths, pixels = array[2:], int(array[0]) * int(array[1])
    ends = lengths.cumsum(dtype=np.int64)
    whole = ends % pixels == 0
    first = np.concatenate([[True], whole[:-1]])[: len(lengths)]
    empty = lengths == 0
    misplaced = (empty & ~first).any() or (empty[1:] & empty[:-1]).any() or empty[-1:].any()
    if misplaced or (lengths < 0).any() or (lengths > pixels).any():
        return "found a run that is empty, negative or longer than its image"
    count = int((whole & ~empty).sum())
    if len(lengths) and (not whole[-1] or count != ends[-1] // pixels):
        return f"found runs that do not end with an image of {pixels} pixels"
    return f"found {count} masks, expected at most {MOST_MASKS}" if count > MOST_MASKS else ""
