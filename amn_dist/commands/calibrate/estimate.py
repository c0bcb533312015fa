"""Thresholds without any mask: where labels agree best with what the photographs show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amn_dist.commands.calibrate.maps import CutMaps, photographs
from amn_dist.commands.calibrate.next_images import sampled
from amn_dist.ops.metrics.label_free import contour_contrast, crf_agreement
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.runs.pipeline import Pipeline

POSITIONS = range(4, 95, 5)
"""Thresholds 0.05, 0.10 ... 0.95, at which labels are refined."""
CRITERIA = ("contours", "crf")
TAKEN = "contours"
"""The criterion whose threshold is told: docs/calibrate.md has how far off each was."""


@dataclass(frozen=True)
class Estimate:
    """Maps, and the threshold that each criterion guesses for them from images that were looked at."""

    maps: CutMaps
    by_criterion: Mapping[str, float]
    images: int

    @property
    def threshold(self) -> float:
        return self.by_criterion[TAKEN]


def estimates(
    pipeline: Pipeline, maps: Sequence[CutMaps], *, count: int, seed: int, criteria: Sequence[str] = (TAKEN,)
) -> list[Estimate]:
    """A guess for each of the run's maps, from at most `count` images drawn by chance."""
    ordinals = sampled(len(pipeline.sets["train"]), count, seed)
    rows = []
    for one in maps:
        pairs = zip(photographs(pipeline, ordinals), one.full_size(ordinals), strict=True)
        rows.append(Estimate(one, dict(guesses(pairs, criteria)), len(ordinals)))
    return rows


def guesses(images: Iterable[tuple[np.ndarray, np.ndarray]], criteria: Sequence[str]) -> Iterator[tuple[str, float]]:
    """A threshold by each criterion. images: photographs uint8[H, W, 3] with their maps f32[K, H, W]."""
    outlines, agreed = np.zeros((2, len(GRID))), np.zeros((len(POSITIONS), 2, 2))
    for picture, fine in images:
        if len(fine) and "contours" in criteria:
            outlines += contour_contrast(picture, fine)
        if len(fine) and "crf" in criteria:
            agreed += crf_agreement(picture, fine, POSITIONS)
    if "contours" in criteria:
        yield "contours", GRID[int((outlines[0] - outlines[1]).argmax())]
    if "crf" in criteria:
        hit = np.diagonal(agreed, axis1=1, axis2=2)
        share = hit / np.maximum(agreed.sum(1) + agreed.sum(2) - hit, 1)
        yield "crf", GRID[POSITIONS[int(share.mean(1).argmax())]]
