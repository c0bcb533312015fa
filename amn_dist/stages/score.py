"""Scoring: confusion counts of maps, seeds, masks and predictions against the truth, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from amn_dist.config import Protocol
from amn_dist.errors import ShardError
from amn_dist.ops.metrics.boundary import boundary_counts, boundary_iou, truth_band
from amn_dist.ops.metrics.counts import label_counts, mean_iou, protocol_iou
from amn_dist.ops.metrics.threshold_analysis import (
    GRID,
    activation_iou,
    add_image,
    defined,
    image_figures,
    no_sums,
    object_figures,
)
from amn_dist.ops.metrics.thresholds import threshold_confusions
from amn_dist.ops.resize import upsample
from amn_dist.records import Sample

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True)
class ScoreTally:
    """Counts, over a shard, how the artefacts of a run agree with the truth.

    artefacts: names under which they are joined. Sums are named `<artefact>/<part>`. Labels have the parts `counts` of
    label_counts, which hold what every protocol asks for, and `boundary` of boundary_counts; an activation has those of
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
            has_labels = any(sample.joined[name].ndim == 2 for name in self.artefacts)
            band = truth_band(sample.joined["truth"]) if has_labels else None
            for name in self.artefacts:
                artefact = sample.joined[name]
                if name not in parts:
                    parts[name] = no_sums(self.num_classes) if artefact.ndim == 3 else no_counts(self.num_classes)
                self._add(parts[name], name, artefact, sample, band)
        sums = {f"{name}/{part}": value for name, of_name in parts.items() for part, value in of_name.items()}
        return {"images": images, **sums}

    def _add(
        self, sums: dict[str, np.ndarray], name: str, artefact: np.ndarray, sample: Sample, band: np.ndarray | None
    ) -> None:
        truth = sample.joined["truth"]
        if artefact.ndim == 3:
            classes = np.flatnonzero(sample.tags).astype(np.uint8) + 1
            if len(artefact) != len(classes):
                of = f"found {len(artefact)} maps of {name}, expected {len(classes)} for its tags"
                raise ShardError(f"{sample.key}: {of}; --redo {name}")
            return add_image(sums, upsample(artefact, truth.shape), classes, truth)
        sums["counts"] += label_counts(artefact, truth, self.num_classes)
        sums["boundary"] += boundary_counts(artefact, truth, self.num_classes, true_band=band)


def no_counts(num_classes: int) -> dict[str, np.ndarray]:
    """The sums of labels over no image."""
    return {
        "counts": np.zeros((num_classes + 1, num_classes + 1), np.int64),
        "boundary": np.zeros((2, num_classes), np.int64),
    }


def artefact_scores(
    sums: Mapping[str, np.ndarray], name: str, *, threshold: float, protocol: Protocol = "voc"
) -> dict[str, Any]:
    """The scores of an artefact from the sums of a set. threshold: the default, for activations."""
    parts = {key.partition("/")[2]: value for key, value in sums.items() if key.startswith(f"{name}/")}
    if "histogram" not in parts:
        labels, boundary = label_scores(parts["counts"], protocol=protocol), boundary_scores(parts["boundary"])
        return {**labels, **(boundary if has_objects(parts["counts"]) else boundary | {"boundary_miou": None})}
    row = activation_scores(parts["histogram"], threshold=threshold, protocol=protocol)
    at = {place: GRID.index(row[f"{place}_threshold"]) for place in ("best", "default")}
    images = image_figures(parts, protocol=protocol, **at)
    if not has_objects(parts["histogram"]):
        images |= dict.fromkeys((figure for figure in images if "miou" in figure), None)
    return {**row, "images": images, "objects": object_figures(parts)}


def has_objects(counts: np.ndarray) -> bool:
    """Whether any pixel is truly of a class. counts: int64[C + 1, ...] by truth, background first, 255 last.

    Over truth without any the mean IoU would be that of background alone, and there is none.
    """
    return bool(counts[1:-1].any())


def activation_scores(histogram: np.ndarray, *, threshold: float, protocol: Protocol = "voc") -> dict[str, Any]:
    """The threshold curve of an activation: mIoU at every threshold, at the best, at `threshold`; the plateau's width.

    iou: of every class (inner) at every threshold (outer). mean_miou: over the thresholds. width_1, width_2: how far
    the threshold can move, as a length on [0, 1], with the mIoU within one and two points of the best. All by the
    protocol; protocols: the figures at the default and at its best threshold by each.
    """
    confusions = threshold_confusions(histogram)
    default = GRID.index(round(threshold, 2))
    curves = {name: [activation_iou(matrix, name) for matrix in confusions] for name in PROTOCOLS}
    objects = has_objects(histogram)
    means = {name: [mean_of(ious, objects) for ious in curve] for name, curve in curves.items()}
    by_protocol = {name: curve_figures(mean, default) for name, mean in means.items()}
    curve = means[protocol]
    best = int(np.argmax(curve))
    widths = {points: round(0.01 * sum(value >= curve[best] - points / 100 for value in curve), 2) for points in (1, 2)}
    return {
        "protocol": protocol,
        "thresholds": GRID,
        "miou": nullable(curve),
        "default_threshold": GRID[default],
        **by_protocol[protocol],
        "mean_miou": defined(float(np.mean(curve))),
        "width_1": widths[1],
        "width_2": widths[2],
        "iou": [nullable(values[: histogram.shape[1]]) for values in curves[protocol]],
        "protocols": by_protocol,
    }


def mean_of(ious: np.ndarray, objects: bool) -> float:
    """The mean IoU; NaN over truth without objects."""
    return mean_iou(ious) if objects else float("nan")


def curve_figures(curve: list[float], default: int) -> dict[str, Any]:
    """What tables tell of a threshold curve. default: position of the default threshold."""
    best = int(np.argmax(curve))
    return {
        "best_threshold": GRID[best],
        "best_miou": defined(curve[best]),
        "default_miou": defined(curve[default]),
    }


def label_scores(counts: np.ndarray, *, protocol: Protocol = "voc") -> dict[str, Any]:
    """Scores of labels by the protocol, their mIoU by each, and how many of their pixels are decided.

    counts: int64[C + 1, C + 1] of label_counts. miou_decided: by ICD's protocol, over decided pixels alone. confusion:
    int64[C, C] as voc has it, undecided pixels as background.
    """
    by_class = {name: protocol_iou(counts, name) for name in PROTOCOLS}
    objects = has_objects(counts)
    mious = {name: defined(mean_of(ious, objects)) for name, ious in by_class.items()}
    true, decided = counts[:-1], counts[:-1, :-1]
    confusion = decided.copy()
    confusion[:, 0] += true[:, -1]
    return {
        "protocol": protocol,
        "miou": mious[protocol],
        "miou_decided": mious["icd"],
        "iou": nullable(by_class[protocol][: len(decided)]),
        "protocols": mious,
        "decided": float(decided.sum() / max(true.sum(), 1)),
        "accuracy_decided": float(np.trace(decided) / max(decided.sum(), 1)),
        "confusion": confusion.tolist(),
    }


def boundary_scores(counts: np.ndarray) -> dict[str, Any]:
    """How well labels follow contours: boundary IoU by class and its mean, from sums of boundary_counts."""
    by_class = boundary_iou(counts)
    return {"boundary_miou": defined(mean_iou(by_class)), "boundary_iou": nullable(by_class)}


def nullable(values: Iterable[float]) -> list[float | None]:
    """Figures as JSON knows them: the IoU of a class that neither occurs nor is predicted is null."""
    return [defined(float(value)) for value in values]
