"""Smooth float16 maps in a third of their bytes, without loss: field *.f16.

Neighbours of a smooth map have neighbouring bit patterns. Stored are the 16-bit patterns minus the plane through the
three neighbours above and to the left, modulo 2^16, sign in the lowest bit; all low bytes, then all high bytes,
deflated. Header: MAGIC, then K, h, w as u32, little-endian.
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np

from amn_dist.errors import ShardError, printable

MAGIC = b"f16\x01"
HEADER = struct.Struct("<4s3I")
MAX_SIDE = 16384
"""Of any side, as of pictures (shards/format.py): a field without values could declare what no array can be."""
LEVEL = 1
"""Of deflate; higher ones gain 2 to 6 %."""


def encode_float16(maps: np.ndarray) -> bytes:
    """Bytes of float16 maps [K, h, w]; any bit pattern survives."""
    if maps.dtype != np.float16 or maps.ndim != 3:
        raise ShardError(f"found {maps.dtype}{list(maps.shape)}, expected float16[K, h, w]")
    bits = np.ascontiguousarray(maps).view(np.uint16)
    residual = np.diff(np.diff(bits, axis=2, prepend=np.uint16(0)), axis=1, prepend=np.uint16(0)).view(np.int16)
    folded = ((residual << 1) ^ (residual >> 15)).astype("<u2")
    planes = folded.reshape(-1).view(np.uint8).reshape(-1, 2).T
    return HEADER.pack(MAGIC, *maps.shape) + zlib.compress(planes.tobytes(), LEVEL)


def decode_float16(data: bytes) -> np.ndarray:
    """Float16 maps [K, h, w] of encode_float16, writable. Raises ShardError when the bytes are anything else."""
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise ShardError(f"is not an .f16 field (starts with {data[:8]!r})")
    shape = HEADER.unpack_from(data)[1:]
    if max(shape) > MAX_SIDE:
        raise ShardError(f"is an .f16 field that declares {list(shape)}; expected at most {MAX_SIDE} a side")
    low, high = np.frombuffer(_inflated(data[HEADER.size :], 2 * prod(shape), shape), np.uint8).reshape(2, -1)
    folded = (high.astype(np.uint16) << 8 | low).reshape(shape)
    residual = (folded >> 1) ^ (-(folded & 1).astype(np.int16)).view(np.uint16)
    bits = residual.cumsum(axis=1, dtype=np.uint16).cumsum(axis=2, dtype=np.uint16)
    return bits.view(np.float16)


def _inflated(data: bytes, size: int, shape: tuple[int, ...]) -> bytes:
    """Exactly `size` bytes. Deflate shrinks at most 1032 times, so that a lie about the size allocates nothing."""
    if size > 1032 * len(data):
        raise ShardError(f"is an .f16 field that declares {list(shape)} but holds {len(data)} bytes")
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise ShardError(f"is a damaged .f16 field ({printable(error)})") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise ShardError(f"is an .f16 field that declares {list(shape)} but does not hold that; make the stage again")
    return content
