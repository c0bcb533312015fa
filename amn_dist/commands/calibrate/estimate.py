"""Thresholds without any mask: where labels agree best with what the photographs show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amn_dist.commands.calibrate.maps import CutMaps, photographs
from amn_dist.commands.calibrate.next_images import sampled
from amn_dist.ops.metrics.label_free import agreement_of, area_stability, crf_agreement, passed_thresholds
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.ops.metrics.thresholds import STEPS
from amn_dist.runs.pipeline import Pipeline

POSITIONS = range(4, 95, 5)
"""Thresholds 0.05, 0.10 ... 0.95, at which labels are refined."""
AS_GOOD = 0.01
"""Agreement that is as good as the best."""
CRITERIA = ("crf", "stability")
TAKEN = "crf"
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
    agreed, passed = np.zeros((len(POSITIONS), 2, 2), np.int64), np.zeros(STEPS, np.int64)
    for picture, fine in images:
        if len(fine):
            passed += np.bincount(passed_thresholds(fine).ravel(), minlength=STEPS)
        if len(fine) and "crf" in criteria:
            agreed += crf_agreement(picture, fine, POSITIONS)
    if "crf" in criteria:
        yield "crf", middle_of_best(agreement_of(agreed))
    if "stability" in criteria:
        yield "stability", GRID[int(area_stability(passed).argmax())]


def middle_of_best(agreement: np.ndarray) -> float:
    """The mean of the thresholds whose agreement is as good as the best: where many agree alike, none of their ends."""
    good = np.array(POSITIONS)[agreement >= agreement.max() - AS_GOOD]
    return GRID[round(float(good.mean()))]
