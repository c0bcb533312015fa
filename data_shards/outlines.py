"""Outlines of COCO's annotations to pixels, by pycocotools' own rasteriser."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from pycocotools import mask as rasteriser

from amn_dist.documents import check_keys
from amn_dist.errors import ShardError, printable
from amn_dist.ops.run_lengths import unpack_lengths
from amn_dist.shards.format import MAX_PIXELS, check_size

TOLERANCE = 1.0
"""Pixels a corner may lie outside of its picture; COCO's corners reach its width and height themselves."""
MAX_OUTLINE = 2**20
"""Pixels around one polygon, of which the rasteriser holds every fifth, and of a corner from the origin."""

Size = tuple[int, int]
"""Height and width, pixels."""


class Runs(msgspec.Struct, frozen=True):
    """Run lengths down the columns, first of background. size: height, width. counts: numbers, or COCO's text."""

    counts: list[int] | str
    size: Size


Outline = list[list[float]] | Runs
"""Polygons as x, y, x, y, ... in pixels from the top left corner, or runs."""

_DECODER = msgspec.json.Decoder(Outline)


def read_outline(raw: bytes) -> Outline:
    """An annotation's segmentation from JSON. Raises ShardError saying what is wrong with it."""
    if not raw:
        raise ShardError("has no segmentation")
    try:
        if raw.lstrip()[:1] == b"{":
            check_keys(raw.decode())
        return _DECODER.decode(raw)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"segmentation: {printable(error)}; expected polygons or run lengths") from error


def paint(size: Size, labelled: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Class ids uint8[H, W] of masks bool[H, W] in their order, each over those before; background elsewhere."""
    check_size(size[1], size[0])
    ids = np.zeros(size, np.uint8, order="F")  # the rasteriser's order
    for label, mask in labelled:
        np.copyto(ids, np.uint8(label), where=mask)
    return ids


def draw(outline: Outline, size: Size, *, clip: bool = False) -> np.ndarray:
    """Pixels bool[H, W] of an outline, those of pycocotools' annToMask; an outline without area has none.

    clip: cut polygons that leave the picture. Raises ShardError for polygons that do without it, that have fewer than
    three corners or half of one, and for runs that do not cover the picture exactly.
    """
    check_size(size[1], size[0])
    if isinstance(outline, Runs):
        runs = rasteriser.frPyObjects({"size": list(size), "counts": _counts(outline, size)}, *size)
    else:
        if not outline:
            raise ShardError("has an empty segmentation")
        for polygon in outline:
            _check_polygon(polygon, size, clip=clip)
        runs = rasteriser.merge(rasteriser.frPyObjects(outline, *size))
    return np.asarray(rasteriser.decode(runs)).view(bool)


def _check_polygon(polygon: list[float], size: Size, *, clip: bool) -> None:
    if len(polygon) % 2:
        raise ShardError(f"has a polygon of {len(polygon)} numbers; expected pairs of x and y")
    if len(polygon) < 6:
        raise ShardError(f"has a polygon of {len(polygon) // 2} corners; expected at least 3")
    xs, ys = polygon[0::2], polygon[1::2]
    low, high = (min(xs), min(ys)), (max(xs), max(ys))
    reach = f"from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g})"
    if not clip and (min(low) < -TOLERANCE or high[0] > size[1] + TOLERANCE or high[1] > size[0] + TOLERANCE):
        raise ShardError(
            f"has a polygon {reach}, outside of its {size[1]}x{size[0]} picture; mend it, or cut it with --clip"
        )
    if not max(_around(polygon), -min(low), max(high)) <= MAX_OUTLINE:
        raise ShardError(f"has a polygon {reach} that is too long around; at most {MAX_OUTLINE} pixels are drawn")


def _around(polygon: list[float]) -> float:
    """Pixels a polygon is around, of its sides the longer of width and height; an upper bound where that is small."""
    xs, ys = polygon[0::2], polygon[1::2]
    bound = len(xs) * max(max(xs) - min(xs), max(ys) - min(ys))
    if bound <= MAX_OUTLINE:
        return bound
    corners = np.array(polygon).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(1).sum())


def _counts(runs: Runs, size: Size) -> list[int]:
    return checked_lengths(runs, size).tolist()


def checked_lengths(runs: Runs, size: Size) -> np.ndarray:
    """Run lengths int64[n] that cover a picture exactly. Raises ShardError where they do not."""
    # The rasteriser leaves what runs do not cover as it finds it in memory.
    if runs.size != size:
        raise ShardError(f"has run lengths for {runs.size[1]}x{runs.size[0]}, its image is {size[1]}x{size[0]}")
    lengths = unpack_lengths(runs.counts) if isinstance(runs.counts, str) else _numbers(runs.counts)
    if lengths.min(initial=0) < 0 or lengths.sum() != size[0] * size[1]:
        raise ShardError(f"has run lengths of {lengths.sum()} pixels; expected {size[0] * size[1]}, none negative")
    return lengths


def _numbers(counts: list[int]) -> np.ndarray:
    if counts and max(max(counts), -min(counts)) > MAX_PIXELS:  # so that no sum overflows
        raise ShardError(f"has a run of {max(counts, key=abs)} pixels; expected at most {MAX_PIXELS}")
    return np.array(counts, np.int64)
