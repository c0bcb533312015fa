"""Labels whose deflate looks for runs alone: the same ids back, in a PNG that readers take."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from amn_dist.shards.format import decode, encode, png_mode
from benchmarks.device.free_device import drawn_labels


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 300)), elements=st.sampled_from([0, 1, 7, 255])))
def test_every_label_returns(ids: np.ndarray) -> None:
    assert np.array_equal(decode("seed.png", encode("seed.png", ids, quick=True)), ids)


def test_it_is_a_plain_gray_png_and_the_same_for_the_same_labels() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (31, 47), dtype=np.uint8)
    content = encode("seed.png", ids, quick=True)
    assert content == encode("seed.png", ids.copy(order="F"), quick=True) != encode("seed.png", ids)
    assert png_mode(content) == ("8-bit gray", 8)
    with Image.open(io.BytesIO(content)) as image:
        image.verify()  # every chunk's checksum
    assert len(zlib.decompress(content[41:-16])) == 31 * 48


def test_areas_with_uneven_borders_take_no_more_bytes() -> None:
    ids = [drawn_labels((240, 320), draw).numpy() for draw in range(4)]
    quick, searched = (sum(len(encode("seed.png", one, quick=quick)) for one in ids) for quick in (True, False))
    assert quick < 1.05 * searched < 4 * 320 * 240 * 0.1


@pytest.mark.parametrize("field", ["activation.f16", "superpixel.u16.png", "x.npy", "tags"])
def test_what_is_no_label_has_one_form(field: str) -> None:
    array = {
        "activation.f16": np.ones((1, 2, 3), np.float16),
        "superpixel.u16.png": np.full((4, 5), 700, np.uint16),
        "tags": np.ones(3, np.uint8),
    }.get(field, np.arange(3))
    assert encode(field, array, quick=True) == encode(field, array)
