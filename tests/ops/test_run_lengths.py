"""Run lengths: COCO's own text, and one form for every mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rasteriser

from amn_dist.errors import ShardError
from amn_dist.ops.run_lengths import joined_lengths, lengths_of, unpack_lengths


def dense(lengths: list[int]) -> list[int]:
    return [number % 2 for number, length in enumerate(lengths) for _ in range(length)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_lengths_of_a_mask_are_those_of_its_text(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    text = rasteriser.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    lengths = lengths_of(mask)
    assert lengths.dtype == np.int32 and dense(lengths.tolist()) == mask.T.ravel().tolist()
    assert unpack_lengths(text).tolist() == lengths.tolist() == joined_lengths(lengths).tolist()


@given(st.lists(st.integers(0, 3), max_size=30))
def test_joining_leaves_the_mask_and_no_empty_run(lengths: list[int]) -> None:
    joined = joined_lengths(np.array(lengths, np.int64)).tolist()
    assert dense(joined) == dense(lengths)
    assert all(joined[1:])


def test_long_runs_in_a_text() -> None:
    mask = np.zeros((4000, 3000), np.uint8, order="F")
    mask[:, 1000:2000] = 1
    text = rasteriser.encode(mask)["counts"].decode()
    assert unpack_lengths(text).tolist() == [4_000_000] * 3


@pytest.mark.parametrize(
    ("text", "told"),
    [("ooo", "end inside a number"), ("~~", "not COCO's text"), ("o" * 50, "not COCO's text"), ("né", "not COCO's"),
     ("\x00", "not COCO's text"), (" ", "not COCO's text")],
)  # fmt: skip
def test_other_texts_are_refused(text: str, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        unpack_lengths(text)


def test_an_empty_text_has_no_runs() -> None:
    assert unpack_lengths("").tolist() == []
