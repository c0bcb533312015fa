"""Published layouts of activation maps to the stride-4 grid."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from amn_dist.errors import ShardError
from amn_dist.records import grid_size
from data_shards.mapfile import read_maps

SIZE = (45, 70)
GRID = grid_size(*SIZE)
TAGS = np.array([0, 1, 0, 0, 1, 1], np.uint8)
COARSE = np.random.default_rng(0).random((3, *GRID)).astype(np.float16).astype(np.float32)
FINE = np.random.default_rng(1).random((3, *SIZE)).astype(np.float32)


def read(content: Any, *, tags: np.ndarray = TAGS, **how: Any) -> np.ndarray:
    stream = io.BytesIO()
    np.save(stream, np.array(content, dtype=object), allow_pickle=True)
    return read_maps(stream.getvalue(), tags, SIZE, **how)


def cell_means(maps: np.ndarray) -> np.ndarray:
    """Each 4x4 block's mean, pixel by pixel; what lies outside repeats the last row and column."""
    means = np.zeros((len(maps), *GRID))
    for k, row, column in np.ndindex(means.shape):
        rows = [min(4 * row + i, SIZE[0] - 1) for i in range(4)]
        columns = [min(4 * column + i, SIZE[1] - 1) for i in range(4)]
        means[k, row, column] = maps[k][np.ix_(rows, columns)].astype(np.float64).mean()
    return means


def test_maps_on_the_grid_are_kept_bit_by_bit() -> None:
    maps = read({"keys": torch.tensor([1, 4, 5]), "cam": torch.from_numpy(COARSE), "high_res": FINE})
    assert maps.dtype == np.float16 and np.array_equal(maps, COARSE.astype(np.float16))


def test_maps_of_another_grid_give_way_to_full_size_ones() -> None:
    maps = read({"keys": np.array([1, 4, 5]), "cam": np.zeros((3, 4, 6), np.float32), "high_res": FINE})
    assert np.abs(maps - cell_means(FINE)).max() < 5e-4


def test_classes_come_in_their_order_whatever_the_order_of_keys() -> None:
    maps = read({"keys": np.array([5, 1, 4]), "cam": COARSE[[2, 0, 1]]})
    assert np.array_equal(maps, COARSE.astype(np.float16))


def test_a_background_map_before_the_others_is_left_out() -> None:
    with_background = np.concatenate([np.ones((1, *GRID), np.float32), COARSE])
    assert np.array_equal(read({"keys": np.array([1, 4, 5]), "cam": with_background}), COARSE.astype(np.float16))


def test_maps_by_class_number() -> None:
    maps = read({5: FINE[2], np.int64(1): FINE[0], 4: FINE[1]})
    assert np.abs(maps - cell_means(FINE)).max() < 5e-4


@pytest.mark.parametrize("content", [{"keys": torch.zeros(0, dtype=torch.int64)}, {}])
def test_an_image_without_classes_has_no_maps(content: dict[str, Any]) -> None:
    assert read(content, tags=np.zeros(6, np.uint8)).shape == (0, *GRID)


def test_peaks_are_brought_to_one() -> None:
    maps = read({"keys": np.array([1, 4, 5]), "cam": 8 * COARSE - 2}, scale="peak")
    positive = np.maximum(8 * COARSE.astype(np.float64) - 2, 0)
    assert np.abs(maps - positive / (positive.max((1, 2), keepdims=True) + 1e-5)).max() < 1e-3
    assert maps.min() == 0 and maps.max() <= 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"keys": np.array([1, 4, 5]), "cam": COARSE * 3}, r"expected 0 to 1; --scale peak"),
        ({"keys": np.array([1, 4, 5]), "cam": np.where(COARSE > 0.5, np.nan, COARSE)}, "not finite"),
        ({"keys": np.array([1, 4]), "cam": COARSE[:2]}, r"classes \[1, 4\], its image is tagged \[1, 4, 5\]"),
        ({"keys": np.array([1, 4, 9]), "cam": COARSE}, r"classes \[1, 4, 9\]"),
        ({"keys": np.array([1, 4, 5]), "cam": COARSE[:2]}, "holds 2 maps for 3 keys"),
        ({"keys": np.array([1, 4, 4]), "cam": COARSE}, "holds 3 maps for 3 keys"),
        ({"keys": np.array([1, 4, 5]), "cam": COARSE[:, 1:]}, r"cam \[3, 11, 18\]; expected cam \[K, 12, 18\]"),
        ({"keys": np.array([1, 4, 5])}, "holds neither cam nor high_res"),
        ({"keys": COARSE, "cam": COARSE}, "has keys float32"),
        ({"keys": "cat", "cam": COARSE}, "has keys"),
        ({1: FINE[0], 4: FINE[1], 5: FINE[2, 1:]}, "has a map of 44, 70; expected 12, 18 or 45, 70"),
        ({1: FINE[0], 4: FINE[1], "5": FINE[2]}, "has the entry '5'"),
        ({1: FINE[0], 4: FINE[1], 5: 3}, "has the entry '5'"),
        ([1, 2], "expected"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(content: Any, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        read(content)


@pytest.mark.parametrize(
    "keys",
    [
        [1, 4, 5],
        [np.int64(1), np.int64(4), np.int64(5)],
        (np.uint8(1), 4, np.int32(5)),
        [torch.tensor(1), torch.tensor(4), torch.tensor(5)],
    ],
    ids=["python", "numpy", "mixed", "torch"],
)
def test_keys_may_be_lists_of_numbers(keys: Any) -> None:
    assert np.array_equal(read({"keys": keys, "cam": COARSE}), COARSE.astype(np.float16))


def test_clip_es_calls_its_maps_otherwise() -> None:
    fine = FINE.astype(np.float16)
    maps = read({"keys": np.array([1, 4, 5]), "attn_highres": fine})
    assert np.abs(maps - cell_means(fine)).max() < 1e-3


@pytest.mark.parametrize("keys", [["1", "4"], [1, None], [1, [4]], [True, False], [1.0, 4.0], [2**80]])
def test_lists_of_other_things_are_no_keys(keys: Any) -> None:
    with pytest.raises(ShardError, match=r"keys|dictionary"):
        read({"keys": keys, "cam": COARSE})
