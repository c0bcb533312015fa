"""Deflated float16 maps: exact there and back, small when smooth, lies refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amn_dist.errors import ShardError
from amn_dist.shards.float16 import HEADER, MAGIC
from amn_dist.shards.format import decode, encode

FIELD = "activation.f16"


@given(arrays(np.uint16, st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7))))
def test_every_bit_pattern_returns(bits: np.ndarray) -> None:
    decoded = decode(FIELD, encode(FIELD, bits.view(np.float16)))
    assert decoded.dtype == np.float16 and decoded.flags.writeable
    assert np.array_equal(decoded.view(np.uint16), bits)


def test_a_smooth_map_takes_a_third() -> None:
    y, x = np.mgrid[:120, :160] / 40
    maps = np.stack([np.exp(-((y - k) ** 2) - (x - 1.5) ** 2) for k in range(3)]).astype(np.float16)
    assert len(encode(FIELD, maps)) < maps.nbytes / 3


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float16), np.zeros((1, 2, 3), np.float32)])
def test_only_stacks_of_half_maps_are_stored(array: np.ndarray) -> None:
    with pytest.raises(ShardError, match=r"activation.f16: found float.*expected float16\[K, h, w\]"):
        encode(FIELD, array)


SOUND = encode(FIELD, np.ones((2, 5, 6), np.float16))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an .f16"),
        (b"\x93NUMPY" + SOUND, "not an .f16"),
        (SOUND[:-4], "does not hold"),
        (SOUND + b"x", "does not hold"),
        (SOUND[:16] + b"\0" * 9, "damaged"),
        (HEADER.pack(MAGIC, 2, 5, 5) + SOUND[16:], "does not hold"),
        (HEADER.pack(MAGIC, 2, 5, 7) + SOUND[16:], "does not hold"),
        (struct.pack("<4s3I", MAGIC, 2**31, 2**31, 2**31) + SOUND[16:], "declares"),
        (HEADER.pack(MAGIC, 0, 2**32 - 1, 2**32 - 1) + zlib.compress(b""), "declares .* at most 16384 a side"),
        (HEADER.pack(MAGIC, 1, 1, 1) + zlib.compress(b"\0" * 10**7), "does not hold"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        decode(FIELD, data)
