"""Smooth float16 maps in a third of their bytes, without loss: field *.f16.

Neighbours of a smooth map have neighbouring bit patterns. Stored are the 16-bit patterns minus the plane through the
three neighbours above and to the left, modulo 2^16, sign in the lowest bit; all low bytes, then all high bytes,
deflated. Header: MAGIC, then K, h, w as u32, little-endian. Maps that are bilinear between the values of a coarser grid
are stored as these: COARSE, K, h, w, then h', w' of that grid.
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np

from amn_dist.errors import ShardError
from amn_dist.records import CoarseMaps
from amn_dist.shards.deflated import inflated

MAGIC, COARSE = b"f16\x01", b"f16\x02"
HEADER, SIZE = struct.Struct("<4s3I"), struct.Struct("<2I")
START = HEADER.size + SIZE.size
"""Of the values of coarse maps."""
MAX_VALUES = 2**30
"""Of coarse maps when they are read: few bytes could declare any number."""
MAX_SIDE = 16384
"""Of any side, as of pictures (shards/format.py): a field without values could declare what no array can be."""
LEVEL = 1
"""Of deflate; higher ones gain 2 to 6 %."""


def encode_float16(maps: np.ndarray | CoarseMaps) -> bytes:
    """Bytes of float16 maps [K, h, w]; any bit pattern survives."""
    values = maps.values if isinstance(maps, CoarseMaps) else maps
    if values.dtype != np.float16 or values.ndim != 3:
        raise ShardError(f"found {values.dtype}{list(values.shape)}, expected float16[K, h, w]")
    if isinstance(maps, CoarseMaps):
        header = HEADER.pack(COARSE, len(values), *maps.size) + SIZE.pack(*values.shape[1:])
    else:
        header = HEADER.pack(MAGIC, *values.shape)
    return header + _deflated(values)


def decode_float16(data: bytes) -> np.ndarray:
    """Float16 maps [K, h, w] of encode_float16, writable. Raises ShardError when the bytes are anything else."""
    if len(data) < HEADER.size or data[:4] not in (MAGIC, COARSE):
        raise ShardError(f"is not an .f16 field (starts with {data[:8]!r})")
    shape = HEADER.unpack_from(data)[1:]
    if max(shape) > MAX_SIDE:
        raise ShardError(f"is an .f16 field that declares {list(shape)}; expected at most {MAX_SIDE} a side")
    if data[:4] == MAGIC:
        return _values(data[HEADER.size :], shape)
    stored = (shape[0], *SIZE.unpack_from(data.ljust(START, b"\0"), HEADER.size))
    if not (
        prod(shape) <= MAX_VALUES and all(0 < few <= many for few, many in zip(stored[1:], shape[1:], strict=True))
    ):
        raise ShardError(f"is an .f16 field that declares {list(shape)} of {list(stored)}; make the stage again")
    return between(_values(data[START:], stored), shape[1:])


def between(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Maps [K, h', w'] resized bilinearly to [K, h, w], centres of cells on centres, in float32, as float16.

    Sums and products are rounded one by one, so that every machine reads the same bits.
    """
    maps = values.astype(np.float32)
    for axis, length in zip((1, 2), size, strict=True):
        cells = maps.shape[axis]
        place = np.maximum((np.arange(length, dtype=np.float32) + 0.5) * np.float32(cells / length) - 0.5, 0)
        first = np.minimum(place.astype(np.int64), cells - 1)
        share = (place - first.astype(np.float32)).reshape((-1, 1) if axis == 1 else -1)
        low, high = maps.take(first, axis), maps.take(np.minimum(first + 1, cells - 1), axis)
        maps = low * (1 - share) + high * share
    return maps.astype(np.float16)


def _deflated(maps: np.ndarray) -> bytes:
    bits = np.ascontiguousarray(maps).view(np.uint16)
    residual = np.diff(np.diff(bits, axis=2, prepend=np.uint16(0)), axis=1, prepend=np.uint16(0)).view(np.int16)
    folded = ((residual << 1) ^ (residual >> 15)).astype("<u2")
    planes = folded.reshape(-1).view(np.uint8).reshape(-1, 2).T
    return zlib.compress(planes.tobytes(), LEVEL)


def _values(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    declared = f"is an .f16 field that declares {list(shape)}"
    content = inflated(data, 2 * prod(shape), field=".f16", declared=declared, advice="make the stage again")
    low, high = np.frombuffer(content, np.uint8).reshape(2, -1)
    folded = (high.astype(np.uint16) << 8 | low).reshape(shape)
    residual = (folded >> 1) ^ (-(folded & 1).astype(np.int16)).view(np.uint16)
    bits = residual.cumsum(axis=1, dtype=np.uint16).cumsum(axis=2, dtype=np.uint16)
    return bits.view(np.float16)
