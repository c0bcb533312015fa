"""Scoring: confusion counts of maps, seeds, masks and predictions against the truth, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from amn_dist.ops.metrics import confusion, iou, mean_iou, scores
from amn_dist.ops.resize import upsample
from amn_dist.ops.threshold_analysis import GRID, add_image, defined, image_figures, no_sums, object_figures
from amn_dist.ops.thresholds import threshold_confusions
from amn_dist.records import IGNORE, Sample


@dataclass(frozen=True)
class ScoreTally:
    """Counts, over a shard, how the artefacts of a run agree with the truth.

    artefacts: names under which they are joined. Sums are named `<artefact>/<part>`. Labels have the parts `all`, a
    confusion int64[C, C], and `kept`, that of the pixels that are not 255; an activation has those of
    threshold_analysis.no_sums.
    """

    num_classes: int
    artefacts: tuple[str, ...]
    name: str = "score"

    def open(self) -> None:
        return None

    def count(self, opened: Any, samples: Iterator[Sample]) -> dict[str, np.ndarray]:
        """Summed int64 counts by artefact and part, and `images`, the number of images with a truth."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        images = np.zeros(1, np.int64)
        for sample in samples:
            images += 1
            for name in self.artefacts:
                found = sample.joined[name]
                if name not in parts:
                    parts[name] = no_sums(self.num_classes) if found.ndim == 3 else no_counts(self.num_classes)
                self._add(parts[name], found, sample)
        sums = {f"{name}/{part}": value for name, of_name in parts.items() for part, value in of_name.items()}
        return {"images": images, **sums}

    def _add(self, sums: dict[str, np.ndarray], found: np.ndarray, sample: Sample) -> None:
        truth = sample.joined["truth"]
        if found.ndim == 3:
            classes = np.flatnonzero(sample.tags).astype(np.uint8) + 1
            return add_image(sums, upsample(found, truth.shape), classes, truth)
        sums["all"] += confusion(found, truth, self.num_classes)
        kept = np.where(found == IGNORE, IGNORE, truth).astype(np.uint8)
        sums["kept"] += confusion(found, kept, self.num_classes)


def no_counts(num_classes: int) -> dict[str, np.ndarray]:
    """The sums of labels over no image."""
    return {part: np.zeros((num_classes, num_classes), np.int64) for part in ("all", "kept")}


def artefact_scores(sums: Mapping[str, np.ndarray], name: str, *, threshold: float) -> dict[str, Any]:
    """The scores of an artefact from the sums of a set. threshold: the default, for activations."""
    parts = {key.partition("/")[2]: value for key, value in sums.items() if key.startswith(f"{name}/")}
    if "histogram" not in parts:
        return label_scores(parts["all"], parts["kept"])
    curve = activation_scores(parts["histogram"], threshold=threshold)
    at = {place: GRID.index(curve[f"{place}_threshold"]) for place in ("best", "default")}
    return {**curve, "images": image_figures(parts, **at), "objects": object_figures(parts)}


def activation_scores(histogram: np.ndarray, *, threshold: float) -> dict[str, Any]:
    """The threshold curve of an activation: mIoU at every threshold, at the best, at `threshold`; the plateau's width.

    iou: of every class (inner) at every threshold (outer). mean_miou: over the thresholds. width_1, width_2: how far
    the threshold can move, as a length on [0, 1], with the mIoU within one and two points of the best.
    """
    by_class = [iou(matrix) for matrix in threshold_confusions(histogram)]
    curve = [mean_iou(values) for values in by_class]
    best = int(np.argmax(curve))
    default = GRID.index(round(threshold, 2))
    widths = {points: round(0.01 * sum(value >= curve[best] - points / 100 for value in curve), 2) for points in (1, 2)}
    return {
        "thresholds": GRID,
        "miou": nullable(curve),
        "best_threshold": GRID[best],
        "best_miou": defined(curve[best]),
        "default_threshold": GRID[default],
        "default_miou": defined(curve[default]),
        "mean_miou": defined(float(np.mean(curve))),
        "width_1": widths[1],
        "width_2": widths[2],
        "iou": [nullable(values) for values in by_class],
    }


def label_scores(matrix: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """Scores of labels in the VOC protocol (255 counts as background), and of their decided pixels alone.

    miou_decided: in ICD's protocol, which leaves undecided pixels out and counts classes that do not occur as 0.
    """
    return {
        "miou": defined(mean_iou(iou(matrix))),
        "miou_decided": mean_iou(scores(kept, "icd")),
        "iou": nullable(iou(matrix)),
        "decided": float(kept.sum() / max(matrix.sum(), 1)),
        "accuracy_decided": float(np.trace(kept) / max(kept.sum(), 1)),
        "confusion": matrix.tolist(),
    }


def nullable(values: Iterable[float]) -> list[float | None]:
    """Figures as JSON knows them: the IoU of a class that neither occurs nor is predicted is null."""
    return [defined(float(value)) for value in values]
