import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rasteriser

from amn_dist.errors import ShardError
from data_shards.outlines import Runs, draw, paint, read_outline

SIZE = (20, 30)
SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]


def outline(tree: object):
    return read_outline(json.dumps(tree).encode())


def test_a_square_covers_its_pixels() -> None:
    expected = np.zeros(SIZE, bool)
    expected[3:9, 2:12] = True
    assert np.array_equal(draw(outline([SQUARE]), SIZE), expected)


def test_polygons_of_one_annotation_are_one_mask() -> None:
    other = [10, 5, 20, 5, 20, 15, 10, 15]
    both = draw(outline([SQUARE, other]), SIZE)
    assert np.array_equal(both, draw(outline([SQUARE]), SIZE) | draw(outline([other]), SIZE))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_runs_as_numbers_and_as_text_are_the_mask(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    text = rasteriser.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat = np.concatenate([[False], mask.T.reshape(-1), [False]])
    edges = np.flatnonzero(flat[1:-1] != flat[:-2])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    for runs in (text, counts):
        assert np.array_equal(draw(outline({"counts": runs, "size": [height, width]}), (height, width)), mask)


def test_long_runs_as_text() -> None:
    mask = np.zeros((700, 900), np.uint8, order="F")
    mask[10:600, 30:800] = 1
    mask[50:60, 100:120] = 0
    text = rasteriser.encode(mask)["counts"].decode()
    assert np.array_equal(draw(Runs(text, (700, 900)), (700, 900)), mask.astype(bool))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "empty segmentation"),
        ([[1, 1, 5, 5, 9]], "5 numbers; expected pairs"),
        ([SQUARE, [1, 1, 5, 5]], "2 corners; expected at least 3"),
        ([[-40, -30, 150, 10, 60, 200]], r"\(-40, -30\) to \(150, 200\), outside of its 30x20 picture.*--clip"),
        ([[0, 0, 31.5, 0, 5, 5]], "outside"),
        ({"counts": [300, 200], "size": [20, 30]}, "500 pixels; expected 600"),
        ({"counts": [300, 400], "size": [20, 30]}, "700 pixels; expected 600"),
        ({"counts": [700, -100], "size": [20, 30]}, "none negative"),
        ({"counts": [], "size": [20, 30]}, "0 pixels"),
        ({"counts": "ooo", "size": [20, 30]}, "end inside a number"),
        ({"counts": "0", "size": [20, 30]}, "0 pixels"),
        ({"counts": "~~", "size": [20, 30]}, "not COCO's text"),
        ({"counts": "o" * 50, "size": [20, 30]}, "not COCO's text"),
        ({"counts": [600], "size": [30, 20]}, "run lengths for 20x30, its image is 30x20"),
    ],
)
def test_outlines_that_cannot_be_drawn(tree: object, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        draw(outline(tree), SIZE)


@pytest.mark.parametrize(
    "text",
    ['[[1, 2, "x"]]', "null", "7", '{"counts": [1.5], "size": [1, 1]}', '{"size": [1, 1]}', "[[NaN, 1, 2, 3, 4, 5]]",
     "[[1e999, 1, 2, 3, 4, 5]]", "[[1, 2", "[" * 100_000,
     '{"size": [1, 1], "counts": [1], "counts": [1]}', '{"size": [true, 1], "counts": [1]}',
     '{"size": [1, 1], "counts": [1.0]}', "[[true, 1, 2, 3, 4, 5]]"],
)  # fmt: skip
def test_segmentations_that_are_something_else(text: str) -> None:
    with pytest.raises(ShardError, match="segmentation: "):
        read_outline(text.encode())
    with pytest.raises(ShardError, match="no segmentation"):
        read_outline(b"")


@pytest.mark.parametrize("flat", [[5, 5, 5, 5, 5, 5], [1, 1, 5, 1, 9, 1], [3, 3, 4, 4, 5, 5]])
def test_an_outline_without_area_has_no_pixels_of_its_own(flat: list[float]) -> None:
    mask = rasteriser.decode(rasteriser.merge(rasteriser.frPyObjects([[float(v) for v in flat]], *SIZE)))
    assert np.array_equal(draw(outline([flat]), SIZE), mask) and mask.sum() == 0


@pytest.mark.parametrize("corners", [[-40, -30, 150, 10, 60, 200], [25, 15, 400, 15, 400, 18, 25, 18]])
def test_clipping_draws_what_is_inside(corners: list[float]) -> None:
    clipped = draw(outline([corners]), SIZE, clip=True)
    shifted = [value + (300, 200)[n % 2] for n, value in enumerate(corners)]
    whole = draw(outline([shifted]), (600, 900))
    assert np.array_equal(clipped, whole[200:220, 300:330]) and clipped.any()


def test_work_and_memory_are_bounded() -> None:
    far = [[0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]]
    zigzag = [[float(value) for n in range(60_000) for value in (30 * (n % 2), 10)]]
    away = [[1e12 + value for value in SQUARE]]
    # Many corners close to each other are no long way.
    assert not draw(outline([[10.0, 10.0, 10.5, 10.0, 10.5, 10.2] * 60_000]), SIZE).any()
    for polygons in (far, zigzag, away, [[0, 0, 1e300, 0, -1e300, 5]]):
        with pytest.raises(ShardError, match="around"):
            draw(outline(polygons), SIZE, clip=True)
    with pytest.raises(ShardError, match="at most"):
        paint((2**31 - 1, 2**31 - 1), [])
    with pytest.raises(ShardError, match="at most"):
        draw(outline([SQUARE]), (20_000, 20_000))


def test_later_masks_lie_over_earlier_ones() -> None:
    first, second = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    first[:, :10] = second[:5, 5:15] = True
    ids = paint(SIZE, [(80, first), (1, second)])
    assert ids.dtype == np.uint8 and ids.shape == SIZE
    assert (ids[0, 0], ids[0, 7], ids[10, 7], ids[10, 20]) == (80, 1, 80, 0)
