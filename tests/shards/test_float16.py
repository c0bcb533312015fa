"""Deflated float16 maps: exact there and back, small when smooth, lies refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amn_dist.errors import ShardError
from amn_dist.records import CoarseMaps
from amn_dist.shards.float16 import COARSE, HEADER, MAGIC, SIZE
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


@given(
    arrays(
        np.float16,
        st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(0, 1, width=16),
    ),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_coarse_maps_are_read_as_what_lies_between(
    values: np.ndarray, times: tuple[int, int], more: tuple[int, int]
) -> None:
    size = values.shape[1] * times[0] + more[0], values.shape[2] * times[1] + more[1]
    decoded = decode(FIELD, encode(FIELD, CoarseMaps(values, size)))
    assert decoded.dtype == np.float16 and decoded.flags.writeable and decoded.shape == (len(values), *size)
    maps = torch.from_numpy(values.astype(np.float64))[None]
    if len(values):
        expected = torch.nn.functional.interpolate(maps, size=size, mode="bilinear")[0].numpy()
        np.testing.assert_allclose(decoded, expected, rtol=2**-11, atol=1e-6)


def test_coarse_maps_take_a_hundredth() -> None:
    values = np.random.default_rng(0).random((3, 30, 40)).astype(np.float16)
    assert len(encode(FIELD, CoarseMaps(values, (120, 160)))) < 7_500 < 3 * 480 * 640 * 2 / 200
    (plain,) = (encode(FIELD, decode(FIELD, encode(FIELD, CoarseMaps(values, (120, 160))))),)
    assert decode(FIELD, plain).shape == (3, 120, 160) and len(plain) > 30_000


SMALL = encode(FIELD, CoarseMaps(np.ones((2, 5, 6), np.float16), (20, 24)))
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
        (SMALL[:-4], "does not hold"),
        (SMALL[:20], r"declares \[2, 20, 24\] of \[2, 5, 0\]; make"),
        (HEADER.pack(COARSE, 2, 4, 24) + SMALL[16:], r"declares \[2, 4, 24\] of \[2, 5, 6\]; make"),
        (HEADER.pack(COARSE, 2, 20, 2**20) + SMALL[16:], "declares .* at most 16384 a side"),
        (HEADER.pack(COARSE, 16384, 16384, 16384) + SMALL[16:], "declares .*; make"),
        (HEADER.pack(COARSE, 0, 20, 24) + SIZE.pack(0, 6) + zlib.compress(b""), "declares"),
    ],
)
def test_damaged_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        decode(FIELD, data)
