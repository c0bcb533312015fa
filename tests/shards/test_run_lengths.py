"""Masks as a field: once around without loss, and nothing else is taken for one."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.errors import ShardError
from amn_dist.shards import run_lengths
from amn_dist.shards.run_lengths import HEADER, MAGIC, count_masks, decode_lengths, encode_lengths


def field(height: int, width: int, *masks: list[int]) -> np.ndarray:
    return np.array([height, width, *(length for mask in masks for length in mask)], np.int32)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_masks_once_around(height: int, width: int, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        cuts = np.unique(random.integers(0, height * width + 1, random.integers(0, 9)))
        masks.append([number for i, number in enumerate(np.diff([0, *cuts, height * width])) if number or not i])
    array = field(height, width, *masks)
    again = decode_lengths(encode_lengths(array))
    assert again.dtype == np.int32 and again.tolist() == array.tolist() and again.flags.writeable
    assert count_masks(again) == count


def test_the_largest_image_and_a_mask_of_all_of_it() -> None:
    array = field(8192, 8192, [0, 2**26], [2**26], [1, 2**26 - 1])
    assert decode_lengths(encode_lengths(array)).tolist() == array.tolist()


def test_masks_with_outlines_take_little() -> None:
    rows = np.arange(500)
    masks = [
        [n for row in rows for n in (100 + (row * (k + 1)) % 7, 375 - 100 - (row * (k + 1)) % 7)] for k in range(50)
    ]
    array = field(375, 500, *masks)
    assert len(encode_lengths(array)) < 0.1 * array.nbytes


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (field(2, 3, [6]).astype(np.int64), r"int64\[3\], expected int32"),
        (field(2, 3, [6])[None], "expected int32"),
        (field(2, 3)[:1], "found 1 numbers"),
        (field(0, 3), "over 67108864 pixels"),
        (field(-2, -3, [6]), "negative height"),
        (field(20_000, 20_000), "over 67108864 pixels"),
        (field(2, 3, [5]), "do not end with an image"),
        (field(2, 3, [4, 4, 4]), "do not end with an image"),
        (field(2, 3, [7, 5]), "longer than its image"),
        (field(2, 3, [3, 0, 3]), "empty, negative"),
        (field(2, 3, [6, 0]), "empty, negative"),
        (field(2, 3, [0, 0, 6]), "empty, negative"),
        (field(2, 3, [-1, 7]), "empty, negative"),
        (field(1, 1, *([1],) * 4097), "4097 masks, expected at most 4096"),
    ],
)
def test_what_is_no_masks_is_not_written(array: np.ndarray, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        encode_lengths(array)


def packed(height: int, width: int, count: int, content: bytes) -> bytes:
    return HEADER.pack(MAGIC, height, width, count) + content


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not an .rle field"),
        (b"f16\x01" + bytes(20), "not an .rle field"),
        (packed(2, 3, 1, b"no deflate"), "damaged"),
        (packed(2, 3, 2, zlib.compress(bytes(4))), "does not hold that"),
        (packed(2, 3, 1, zlib.compress(bytes(4)) + b"more"), "does not hold that"),
        (packed(2, 3, 1, zlib.compress(bytes(9))), "does not hold that"),
        (packed(2, 3, 1, zlib.compress(b"\xff" * 4)), "empty, negative"),
        (packed(2, 3, 3, zlib.compress(b"\xfe" * 12)), "longer than its image"),
        (packed(2, 3, 2**24, zlib.compress(bytes(64))), "but holds"),
        (packed(2, 3, 2**25, b""), "declares 33554432 runs"),
        (packed(2**31, 2**31, 0, zlib.compress(b"")), "expected at most"),
        (packed(0, 3, 0, zlib.compress(b"")), "expected at most"),
    ],
)
def test_bytes_of_anything_else_are_refused(data: bytes, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        decode_lengths(data)


def test_every_cut_is_noticed() -> None:
    whole = encode_lengths(field(30, 40, [100, 200, 900], [0, 1200]))
    for stop in range(len(whole)):
        with pytest.raises(ShardError):
            decode_lengths(whole[:stop])


def test_runs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lengths, "MOST_RUNS", 4)
    with pytest.raises(ShardError, match="at most 4 runs"):
        encode_lengths(field(1, 2, [1, 1], [1, 1], [2]))
