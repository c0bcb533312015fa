"""How much the quality of an activation hangs on its threshold: sums over images, and the figures they give.

Sums are int64 and add up over shards in any order; their size does not depend on the number of images. Formulas are in
docs/thresholds.md. C classes with background.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from amn_dist.ops.metrics.counts import mean_iou, scores
from amn_dist.ops.metrics.imbalance import MEASURES, UNIT, Bins, object_activations, quartile_indices
from amn_dist.ops.metrics.thresholds import STEPS, THRESHOLDS, sweep

if TYPE_CHECKING:
    from amn_dist.config import Protocol

NEAR = 5
"""Steps of 0.01 within which an image's own best threshold counts as near the best of the set."""

Sums = dict[str, np.ndarray]
GRID = [round(float(value), 2) for value in THRESHOLDS]


def no_sums(num_classes: int) -> Sums:
    """Sums over no image.

    histogram [C + 1, C, 100]: pixels, as in sweep. own [100]: images by their own best threshold, last those without
    one. oracle [C + 1, C]: confusion at every image's own threshold, last truth 255. miou [100]: an image's mean IoU at
    every threshold and at its own, in millionths. objects [C]: objects by class. spread [C, 3]: their figures in
    millionths; cv, gini, gap [C, bins]: objects by figure.
    """
    shapes: dict[str, tuple[int, ...]] = {"histogram": (num_classes + 1, num_classes, STEPS), "own": (STEPS,)}
    shapes |= {"oracle": (num_classes + 1, num_classes), "miou": (STEPS,), "objects": (num_classes,)}
    shapes |= {"spread": (num_classes, len(MEASURES))}
    shapes |= {name: (num_classes, bins.count) for name, bins in MEASURES.items()}
    return {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}


def add_image(sums: Sums, maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> None:
    """Add an image in place. maps: f32[K, H, W]. classes: [K] 1-based. truth: uint8[H, W], 255 counted apart."""
    image_sweep = sweep(maps, classes, truth, len(sums["objects"]))
    image_sweep.add_to(sums["histogram"])
    if not len(image_sweep.truths):
        return image_sweep.add_confusion_to(sums["oracle"], 0)
    curve = image_sweep.miou()
    own = int(curve.argmax())
    image_sweep.add_confusion_to(sums["oracle"], own)
    sums["own"][own if np.ptp(curve) > 0 else -1] += 1
    sums["miou"] += np.rint(np.append(curve, curve[own]) * UNIT).astype(np.int64)
    _add_objects(sums, maps, classes, truth)


def _add_objects(sums: Sums, maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> None:
    for activation in object_activations(maps, classes, truth):
        sums["objects"][activation.label] += 1
        for column, (name, bins) in enumerate(MEASURES.items()):
            value = getattr(activation, name)
            if value is not None:
                sums[name][activation.label, bins.index(value)] += 1
                sums["spread"][activation.label, column] += round(value * UNIT)


def image_figures(
    sums: Mapping[str, np.ndarray], *, best: int, default: int, protocol: Protocol = "voc"
) -> dict[str, Any]:
    """Images against the set. best, default: positions of the set's thresholds in THRESHOLDS.

    own: images by own best threshold. own_mean, own_quartiles: of these thresholds. near: share of images within 0.05
    of the set's best. indifferent: images whose IoU does not depend on the threshold; they count in no other figure but
    the mIoU. oracle_miou: of the set by the protocol, every image at its own threshold. miou_*: mean over images of
    their own mIoU.
    """
    own, images = sums["own"][:-1], int(sums["own"].sum())
    chosen, at = int(own.sum()), np.arange(len(own))
    by_image = {"own": sums["miou"][-1], "best": sums["miou"][best], "default": sums["miou"][default]}
    return {
        "count": images,
        "indifferent": int(sums["own"][-1]),
        "own": own.tolist(),
        "own_mean": float(np.dot(own, GRID) / chosen) if chosen else None,
        "own_quartiles": [GRID[index] for index in quartile_indices(own)] if chosen else None,
        "near": float(own[abs(at - best) <= NEAR].sum() / chosen) if chosen else None,
        "oracle_miou": defined(mean_iou(activation_iou(sums["oracle"], protocol))),
        **{f"miou_{name}": float(total / UNIT / images) if images else None for name, total in by_image.items()},
    }


def activation_iou(counts: np.ndarray, protocol: Protocol) -> np.ndarray:
    """As metrics.scores, of an activation at one threshold: int64[C + 1, C], the last row truth 255."""
    return scores(counts[:-1], protocol, void=counts[-1])


def object_figures(sums: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Unevenness and contrast over all objects, and by class (None for a class without objects).

    silent: objects without any activation, which have no cv and gini.
    """
    every = {
        name: value.sum(0, keepdims=True) for name, value in sums.items() if name in ("objects", "spread", *MEASURES)
    }
    return {
        **_figures(every, 0),
        "classes": [_figures(sums, label) if sums["objects"][label] else None for label in range(len(sums["objects"]))],
    }


def _figures(sums: Mapping[str, np.ndarray], row: int) -> dict[str, Any]:
    objects = int(sums["objects"][row])
    figures: dict[str, Any] = {"count": objects, "silent": objects - int(sums["cv"][row].sum())}
    for column, (name, bins) in enumerate(MEASURES.items()):
        figures[name] = _summary(sums[name][row], int(sums["spread"][row, column]), bins)
    return figures


def _summary(histogram: np.ndarray, total: int, bins: Bins) -> dict[str, Any] | None:
    count = int(histogram.sum())
    return {"mean": total / UNIT / count, "quartiles": bins.quartiles(histogram)} if count else None


def defined(value: float) -> float | None:
    """A figure as JSON knows it: what is not a number is null."""
    return None if np.isnan(value) else value
