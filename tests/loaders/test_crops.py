"""Crops: where they come from, what they cut."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from amn_dist.errors import ConfigError
from amn_dist.loaders.crops import Crop, canvas_corner, cut_image, cut_label, cut_regions, draw_crop
from amn_dist.records import CropRule

LONG = CropRule(size=64, long_side=(40, 90))
RESCALE = CropRule(size=64, rescale=(0.5, 1.5))
SCALES = CropRule(size=64, scales=(0.5, 0.75, 1.5), place="corner", interpolation="linear", colour="caffe")
RULES = {"long_side": LONG, "rescale": RESCALE, "scales": SCALES}
SHAPES = ((48, 80), (81, 33), (64, 64), (7, 200))


def draw(rule: CropRule, shape: tuple[int, int], ordinal: int, epoch: int = 0) -> Crop:
    return draw_crop(rule, *shape, seed=1, epoch=epoch, ordinal=ordinal)


def pillow_crop(label: np.ndarray, crop: Crop, side: int, *, fill: int) -> np.ndarray:
    """The crop of a label as Pillow makes it."""
    height, width = crop.resized
    image = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
    if crop.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas = Image.new("L", (side, side), fill)
    canvas.paste(image, (crop.target[1] - crop.source[1], crop.target[0] - crop.source[0]))
    return np.asarray(canvas)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_crop_shows_as_much_as_fits(rule: CropRule, shape: tuple[int, int]) -> None:
    for ordinal in range(100):
        crop = draw(rule, shape, ordinal)
        for side, start, target, length in zip(crop.resized, crop.source, crop.target, crop.extent, strict=True):
            assert length == min(side, rule.size)
            assert 0 <= start <= side - length
            assert 0 <= target <= rule.size - length
            assert rule.place == "random" or target == 0


def test_a_crop_is_drawn_from_seed_epoch_and_ordinal_alone() -> None:
    assert draw(LONG, (50, 70), 3) == draw(LONG, (50, 70), 3)
    others = [
        draw(LONG, (50, 70), 3),
        draw(LONG, (50, 70), 4),
        draw(LONG, (50, 70), 3, epoch=1),
        draw_crop(LONG, 50, 70, seed=2, epoch=0, ordinal=3),
    ]
    assert len(set(others)) == 4


def test_long_side_covers_its_range_ends_included() -> None:
    crops = [draw(LONG, (48, 80), ordinal) for ordinal in range(1000)]
    longs = [max(crop.resized) for crop in crops]
    assert set(longs) == set(range(40, 91))
    assert all(crop.resized[0] == round(48 * long / 80) for crop, long in zip(crops, longs, strict=True))


def test_rescale_covers_its_range() -> None:
    factors = np.array([draw(RESCALE, (1000, 1000), ordinal).resized[0] / 1000 for ordinal in range(500)])
    assert factors.min() < 0.52 and factors.max() > 1.48
    assert abs(factors.mean() - 1) < 0.05


def test_scales_are_drawn_from_the_list_and_sizes_truncated() -> None:
    sizes = {draw(SCALES, (49, 81), ordinal).resized for ordinal in range(100)}
    assert sizes == {(24, 40), (36, 60), (73, 121)}


def test_half_of_the_crops_are_flipped_and_all_places_occur() -> None:
    crops = [draw(CropRule(size=8, rescale=(1.0, 1.0)), (10, 6), ordinal) for ordinal in range(600)]
    assert 250 < sum(crop.flip for crop in crops) < 350
    assert {crop.source[0] for crop in crops} == {0, 1, 2}
    assert {crop.target[1] for crop in crops} == {0, 1, 2}


def test_a_rule_has_one_way_to_resize() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        draw(CropRule(size=8), (10, 10), 0)
    with pytest.raises(ConfigError, match="exactly one"):
        draw(CropRule(size=8, rescale=(1, 1), scales=(1.0,)), (10, 10), 0)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_labels_are_what_pillow_makes_of_them(rule: CropRule) -> None:
    """Where a cell's centre lies exactly between two pixels Pillow takes either, by its rounding errors."""
    random = np.random.default_rng(0)
    for ordinal in range(60):
        shape = (int(random.integers(20, 120)), int(random.integers(20, 120)))
        label = random.integers(0, 21, shape, dtype=np.uint8)
        crop = draw(rule, shape, ordinal)
        same = cut_label(label, crop, rule.size) == pillow_crop(label, crop, rule.size, fill=255)
        tied = [(2 * np.arange(new) + 1) * old % (2 * new) == 0 for old, new in zip(shape, crop.resized, strict=True)]
        either = (tied[0][:, None] | tied[1][None, :]).astype(np.uint8)
        unchanged = Crop(crop.resized, crop.resized, crop.flip, crop.source, crop.target, crop.extent)
        assert (same | (cut_label(either, unchanged, rule.size) == 1)).all()
        assert same.mean() > 0.4


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_image_and_label_are_cut_alike(rule: CropRule) -> None:
    random = np.random.default_rng(1)
    for ordinal in range(40):
        crop = draw(rule, (61, 47), ordinal)
        pixels = random.integers(1, 255, crop.resized, dtype=np.uint8)
        straight = Crop(crop.resized, crop.resized, crop.flip, crop.source, crop.target, crop.extent)
        image = cut_image(np.repeat(pixels[:, :, None], 3, axis=2).astype(np.float32), crop, rule.size)
        label = cut_label(pixels, straight, rule.size)
        assert (image[..., 0] == np.where(label == 255, 0, label)).all()


def test_the_canvas_corner_says_the_same_before_the_flip() -> None:
    for ordinal in range(40):
        crop = draw(RESCALE, (61, 47), ordinal)
        y, x = canvas_corner(crop, 64)
        padded = np.zeros((400, 400, 3), np.float32)
        pixels = np.random.default_rng(ordinal).random((*crop.resized, 3), np.float32)
        padded[128 : 128 + crop.resized[0], 128 : 128 + crop.resized[1]] = pixels
        window = padded[128 + y : 192 + y, 128 + x : 192 + x]
        assert (cut_image(pixels, crop, 64) == (window[:, ::-1] if crop.flip else window)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_regions_are_taken_at_the_first_corner_of_a_cell(shape: tuple[int, int]) -> None:
    rule = CropRule(size=64, scales=(0.5, 0.75, 1.5), place="corner", rounding="half_up", label="regions")
    ids = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint16)
    for ordinal in range(20):
        crop = draw(rule, shape, ordinal)
        regions = cut_regions(ids, crop, 64)
        assert regions.dtype == np.int32
        for y, x in np.ndindex(64, 64):
            row, column = y + crop.source[0], x + crop.source[1]
            column = crop.resized[1] - 1 - column if crop.flip else column
            if y >= crop.extent[0] or x >= crop.extent[1]:
                assert regions[y, x] == -1
                continue
            row, column = row * shape[0] // crop.resized[0], column * shape[1] // crop.resized[1]
            assert regions[y, x] == row * shape[1] + column


def test_sizes_are_cut_off_or_rounded() -> None:
    down, up = (
        {draw(CropRule(size=64, scales=(0.75,), rounding=rounding), (50, 70), 0).resized}
        for rounding in ("down", "half_up")
    )
    assert down == {(37, 52)} and up == {(38, 53)}
