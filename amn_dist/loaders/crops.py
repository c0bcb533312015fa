"""How a training crop is cut: drawn from (seed, epoch, ordinal), so it depends on no rank, worker or decoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amn_dist.errors import ConfigError
from amn_dist.records import IGNORE, CropRule

_CROPS = 3
"""Keeps these numbers apart from those of the sample order."""


@dataclass(frozen=True, slots=True)
class Crop:
    """One crop; every pair is (y, x), in pixels.

    size: upright image. resized: after resizing. flip: mirrored left to right after that. source: where the visible
    box begins in the resized, flipped image. target: where it lies on the canvas. extent: its height and width.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    flip: bool
    source: tuple[int, int]
    target: tuple[int, int]
    extent: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the photograph on the canvas."""
        return (*self.target, *self.extent)


def draw_crop(rule: CropRule, height: int, width: int, *, seed: int, epoch: int, ordinal: int) -> Crop:
    """Draw the crop of one sample in one epoch; height, width: of the upright image (amn 5.3)."""
    key = np.random.SeedSequence((seed, epoch, ordinal, _CROPS))
    random = np.random.Generator(np.random.Philox(key))
    resized = _draw_size(rule, height, width, random)
    flip = bool(random.random() < 0.5)
    spans = [_draw_span(side, rule, random) for side in resized]
    source, target, extent = zip(*spans, strict=True)
    return Crop((height, width), resized, flip, source, target, extent)


def cut_image(image: np.ndarray, crop: Crop, side: int) -> np.ndarray:
    """Flip and cut a resized image [h, w, 3] (normalised: f32) onto a canvas [side, side, 3] of zeros of its type."""
    canvas = np.zeros((side, side, 3), image.dtype)
    seen = image[:, ::-1] if crop.flip else image
    canvas[_box(crop.target, crop.extent)] = seen[_box(crop.source, crop.extent)]
    return canvas


def cut_label(label: np.ndarray, crop: Crop, side: int) -> np.ndarray:
    """Resize ids uint8[H, W] to the nearest at cell centres, flip and cut: uint8[side, side], 255 outside (amn 5.3)."""
    rows, columns = (_cells(old, new) for old, new in zip(crop.size, crop.resized, strict=True))
    return _cut_ids(label, crop, rows, columns, np.full((side, side), IGNORE, np.uint8))


def cut_regions(regions: np.ndarray, crop: Crop, side: int) -> np.ndarray:
    """Resize ids [H, W] to those at the cells' first corners, flip and cut: int32[side, side], -1 outside (icd 1.3)."""
    rows, columns = (np.arange(new) * old // new for old, new in zip(crop.size, crop.resized, strict=True))
    return _cut_ids(regions, crop, rows, columns, np.full((side, side), -1, np.int32))


def _cut_ids(ids: np.ndarray, crop: Crop, rows: np.ndarray, columns: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    columns = columns[::-1] if crop.flip else columns
    box_y, box_x = _box(crop.source, crop.extent)
    canvas[_box(crop.target, crop.extent)] = ids[np.ix_(rows[box_y], columns[box_x])]
    return canvas


def canvas_corner(crop: Crop, side: int) -> tuple[int, int]:
    """Top left of the canvas in the resized image before its flip; negative where the canvas juts out."""
    y, x = (source - target for source, target in zip(crop.source, crop.target, strict=True))
    return y, crop.resized[1] - side - x if crop.flip else x


def _draw_size(rule: CropRule, height: int, width: int, random: np.random.Generator) -> tuple[int, int]:
    if sum(choice is not None for choice in (rule.long_side, rule.rescale, rule.scales)) != 1:
        raise ConfigError(f"crop rule {rule}: expected exactly one of long_side, rescale and scales")
    if rule.long_side is not None:
        low, high = rule.long_side
        long_side = int(random.integers(low, high + 1))
        sizes = [round(side * long_side / max(height, width)) for side in (height, width)]
    elif rule.rescale is not None:
        factor = random.uniform(*rule.rescale)
        sizes = [round(side * factor) for side in (height, width)]
    else:
        assert rule.scales is not None
        factor = rule.scales[random.integers(len(rule.scales))]
        up = 0.5 if rule.rounding == "half_up" else 0.0
        sizes = [int(side * factor + up) for side in (height, width)]
    return max(sizes[0], 1), max(sizes[1], 1)


def _draw_span(side: int, rule: CropRule, random: np.random.Generator) -> tuple[int, int, int]:
    """Where the visible part begins in the image and on the canvas, and how long it is, along one axis."""
    slack = side - rule.size
    offset = int(random.integers(abs(slack) + 1))
    if slack >= 0:
        return offset, 0, rule.size
    return 0, 0 if rule.place == "corner" else offset, side


def _cells(length: int, cells: int) -> np.ndarray:
    """Index of the pixel under the centre of every cell: floor((i + 0.5) * length / cells), without rounding errors."""
    return (2 * np.arange(cells) + 1) * length // (2 * cells)


def _box(corner: tuple[int, int], extent: tuple[int, int]) -> tuple[slice, slice]:
    return slice(corner[0], corner[0] + extent[0]), slice(corner[1], corner[1] + extent[1])
