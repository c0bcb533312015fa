"""Masks whose colours say what their numbers should: palettes that an image editor has put in another order."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from amn_dist.errors import ShardError
from amn_dist.records import IGNORE
from amn_dist.shards.format import BROKEN
from amn_dist.shards.palette import palette

VOID = ((224, 224, 192), (255, 255, 255))
"""Colours that void has: VOC's, and white."""


def check_colours(mask: bytes, held: np.ndarray, tags: np.ndarray) -> None:
    """Raise ShardError where the colours of a palette mask are VOC's of the tagged classes, and its ids are others.

    mask: a PNG. held: the ids in it. tags: uint8[C-1] of its image. Where its ids are those of the tagged classes, too,
    colours may be somebody's own; then it counts that background has another id's colour, and another id background's.
    """
    tagged = (np.flatnonzero(tags) + 1).tolist()
    coloured = ids_by_colour(mask, held)
    if coloured is None or sorted(set(coloured) - {0, IGNORE}) != tagged:
        return
    agree = [number for number in held.tolist() if number not in (0, IGNORE)] == tagged
    if not agree or (held[0] == 0 and coloured[0] != 0 and 0 in coloured):
        moved = ", ".join(f"{number} in the colour of id {there}" for number, there in zip(held, coloured, strict=True))
        raise ShardError(
            f"holds ids out of order: {moved}; its palette was sorted anew: save it with VOC's, or as gray ids"
        )


def ids_by_colour(mask: bytes, held: np.ndarray) -> list[int] | None:
    """The ids whose colours in VOC's map the ids of a palette PNG have; None where a colour is of none, or all fit."""
    try:
        with Image.open(io.BytesIO(mask), formats=["PNG"]) as image:
            colours = np.array(image.getpalette("RGB") if image.mode == "P" else []).reshape(-1, 3).tolist()
    except BROKEN:
        return None
    id_of = {tuple(colour): number for number, colour in enumerate(palette().tolist())} | dict.fromkeys(VOID, IGNORE)
    there = [id_of.get(tuple(colours[number])) if number < len(colours) else None for number in held.tolist()]
    return None if None in there or there == held.tolist() else [number for number in there if number is not None]
