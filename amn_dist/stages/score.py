"""Scoring: confusion counts of maps, seeds, masks and predictions against the truth, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amn_dist.ops.metrics import (
    THRESHOLDS,
    confusion,
    iou,
    mean_iou,
    scores,
    threshold_confusions,
    threshold_histogram,
)
from amn_dist.ops.resize import upsample
from amn_dist.records import IGNORE, Sample


@dataclass(frozen=True)
class ScoreTally:
    """Counts, over a shard, how the artefacts of a run agree with the truth.

    artefacts: names under which they are joined. An activation counts into a histogram int64[C, C, bins] from which
    the confusion at every threshold follows; labels count into a confusion int64[C, C] and `<name>/kept`, the
    confusion of the pixels that are not 255.
    """

    num_classes: int
    artefacts: tuple[str, ...]
    name: str = "score"

    def open(self) -> None:
        return None

    def count(self, opened: Any, samples: Iterator[Sample]) -> dict[str, np.ndarray]:
        """Summed int64 counts by artefact, and `images`, the number of images with a truth."""
        sums: dict[str, np.ndarray] = {"images": np.zeros(1, np.int64)}
        for sample in samples:
            sums["images"] += 1
            for name, counts in self._sample(sample):
                sums[name] = sums[name] + counts if name in sums else counts
        return sums

    def _sample(self, sample: Sample) -> Iterator[tuple[str, np.ndarray]]:
        truth = sample.joined["truth"]
        for name in self.artefacts:
            found = sample.joined[name]
            if found.ndim == 3:
                classes = np.flatnonzero(sample.tags).astype(np.uint8) + 1
                yield name, threshold_histogram(upsample(found, truth.shape), classes, truth, self.num_classes)
                continue
            yield name, confusion(found, truth, self.num_classes)
            kept = np.where(found == IGNORE, IGNORE, truth).astype(np.uint8)
            yield f"{name}/kept", confusion(found, kept, self.num_classes)


def activation_scores(histogram: np.ndarray, *, threshold: float) -> dict[str, Any]:
    """The threshold curve of an activation: mIoU at every threshold, at the best, at `threshold`; the plateau's width.

    iou: of every class (inner) at every threshold (outer). width_2: how far the threshold can move, as a length on
    [0, 1], with the mIoU within two points of the best.
    """
    thresholds = [round(float(value), 2) for value in THRESHOLDS]
    confusions = threshold_confusions(histogram)
    by_class = [iou(matrix) for matrix in confusions]
    curve = [mean_iou(values) for values in by_class]
    best = int(np.argmax(curve))
    default = thresholds.index(round(threshold, 2))
    return {
        "thresholds": thresholds,
        "miou": curve,
        "best_threshold": thresholds[best],
        "best_miou": curve[best],
        "default_threshold": thresholds[default],
        "default_miou": curve[default],
        "width_2": round(0.01 * sum(value >= curve[best] - 0.02 for value in curve), 2),
        "iou": [nullable(values) for values in by_class],
    }


def label_scores(matrix: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """Scores of labels in the VOC protocol (255 counts as background), and of their decided pixels alone.

    miou_decided: in ICD's protocol, which leaves undecided pixels out and counts classes that do not occur as 0.
    """
    return {
        "miou": mean_iou(iou(matrix)),
        "miou_decided": mean_iou(scores(kept, "icd")),
        "iou": nullable(iou(matrix)),
        "decided": float(kept.sum() / max(matrix.sum(), 1)),
        "accuracy_decided": float(np.trace(kept) / max(kept.sum(), 1)),
        "confusion": matrix.tolist(),
    }


def nullable(values: np.ndarray) -> list[float | None]:
    """Per-class IoU as JSON knows it: a class that neither occurs nor is predicted is null."""
    return [None if np.isnan(value) else float(value) for value in values]
