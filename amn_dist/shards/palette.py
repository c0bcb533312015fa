"""The colours that ids have in masks meant for people: VOC's."""

from __future__ import annotations

import numpy as np

from amn_dist.records import IGNORE

IGNORE_COLOUR = (224, 224, 192)
"""VOC's own colour for undecided pixels."""


def palette(entries: int = 256) -> np.ndarray:
    """The VOC colour map, uint8[entries, 3]: the bits of the id spread over red, green and blue."""
    ids = np.arange(entries)
    colours = np.zeros((entries, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> channel) & 1) << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    colours[IGNORE % entries] = IGNORE_COLOUR
    return colours
