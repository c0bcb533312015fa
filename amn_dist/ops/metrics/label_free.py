"""How well labels at a threshold agree with the photograph, without any truth: criteria at every threshold at once.

Each is a guess about what good labels look like, not a measure of how good they are; docs/calibrate.md has how far from
the best threshold their choices lay. Maps are f32[K, H, W], T = 99 THRESHOLDS; a pixel is of an object where its
strongest map exceeds the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amn_dist.ops.crf.dense import Backend
from amn_dist.ops.metrics.counts import label_counts
from amn_dist.ops.metrics.thresholds import THRESHOLDS
from amn_dist.ops.seeds import refined_labels, threshold_labels

REACH = 3
"""Thresholds to either side over which an area is watched."""


def passed_thresholds(maps: np.ndarray) -> np.ndarray:
    """How many of THRESHOLDS the strongest map of every pixel exceeds, int64[H, W]."""
    return np.searchsorted(THRESHOLDS, maps.max(0), side="left")


def crf_agreement(
    image: np.ndarray, maps: np.ndarray, positions: Sequence[int], *, backend: Backend = "auto"
) -> np.ndarray:
    """Counts int64[positions, 2, 2] of object and background in labels (rows) and in the same after the seeds' CRF.

    positions: of the thresholds, in THRESHOLDS. All labellings of the image are filtered together.
    """
    labels = np.stack([threshold_labels(maps, float(THRESHOLDS[at])) for at in positions])
    refined = refined_labels(image, labels, len(maps) + 1, backend)
    pairs = zip(labels, np.asarray(refined), strict=True)
    return np.stack([label_counts((b > 0).astype(np.uint8), (a > 0).astype(np.uint8), 2)[:-1, :-1] for a, b in pairs])


def agreement_of(counts: np.ndarray) -> np.ndarray:
    """Mean IoU f64[positions] of object and background before and after the CRF, from sums of crf_agreement."""
    hit = np.diagonal(counts, axis1=1, axis2=2)
    union = counts.sum(1) + counts.sum(2) - hit
    return np.divide(hit, union, out=np.zeros(hit.shape), where=union > 0).mean(1)


def area_stability(passed: np.ndarray) -> np.ndarray:
    """How little the area of objects changes around every threshold: f64[T], minus the share of it that comes or goes
    within REACH thresholds; minus infinity near the ends. passed: pixels by the number of thresholds they exceed."""
    area = passed[::-1].cumsum()[::-1][1:].astype(np.float64)
    stability = np.full(len(area), -np.inf)
    changed = area[: -2 * REACH] - area[2 * REACH :]
    stability[REACH:-REACH] = -changed / np.maximum(area[REACH:-REACH], 1)
    return stability
