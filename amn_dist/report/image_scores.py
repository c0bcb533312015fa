"""How well every stage did on single images, and which of them are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from statistics import fmean

import numpy as np

from amn_dist.errors import ShardError
from amn_dist.ops.metrics.counts import confusion, iou
from amn_dist.ops.resize import upsample
from amn_dist.report.columns import Column
from amn_dist.shards.shardset import ShardSet


@dataclass(frozen=True)
class ImageScores:
    """How well every column did on an image; None without truth. miou: mean of the last labels of the runs. change: the
    largest mean IoU of a column minus the smallest; without truth the share of pixels that the last labels name
    otherwise than the first."""

    ordinal: int
    mious: tuple[float | None, ...]
    miou: float | None
    change: float | None


def score_image(images: ShardSet, columns: Sequence[Column], ordinal: int) -> ImageScores:
    """Compare what every stage made of an image with its truth, or the last labels with the first."""
    predictions = [labels_of(images, column, ordinal) for column in columns]
    if not images.has_truth:
        pairs = zip(predictions, columns, strict=True)
        labels = [prediction for prediction, column in pairs if column.output.artefact.is_labels]
        change = float((labels[0] != labels[-1]).mean()) if len(labels) > 1 else None
        return ImageScores(ordinal, (None,) * len(columns), None, change)
    truth = images.load(ordinal, "gt.png")
    if any(labels.shape != truth.shape for labels in predictions):
        raise ShardError(f"{images.url}: {images.entry(ordinal).key}: its truth has another size; pack the set again")
    mious = tuple(image_miou(labels, truth, len(images.classes)) for labels in predictions)
    defined = [miou for miou in mious if miou is not None]
    final = [miou for miou, column in zip(mious, columns, strict=True) if column.final and miou is not None] or defined
    change = max(defined) - min(defined) if defined else None
    return ImageScores(ordinal, mious, fmean(final) if final else None, change)


def labels_of(images: ShardSet, column: Column, ordinal: int) -> np.ndarray:
    """Labels uint8[H, W] of a stage; of an activation those at its default threshold."""
    values = column.output.load(images, ordinal)
    if values.ndim == 2:
        return values
    entry = images.entry(ordinal)
    maps = upsample(values, (entry.height, entry.width))
    if not len(maps):
        return np.zeros((entry.height, entry.width), np.uint8)
    classes = np.flatnonzero(images.load(ordinal, "tags")).astype(np.uint8) + 1
    return np.where(maps.max(0) > np.float32(column.threshold), classes[maps.argmax(0)], 0).astype(np.uint8)


def image_miou(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> float | None:
    """Mean IoU over the classes of an image's truth, background among them; None where the truth is void."""
    counts = confusion(labels, truth, num_classes)
    true = counts.sum(1) > 0
    return float(iou(counts)[true].mean()) if true.any() else None


def select_images(scores: Sequence[ImageScores], count: int) -> list[ImageScores]:
    """At most `count` images: of the worst, the best and the most changed equally many."""
    if len(scores) <= count:
        return list(scores)
    by_miou = sorted(scores, key=worst_first)
    by_change = sorted(scores, key=lambda image: -(image.change or 0))
    turns = chain.from_iterable(zip_longest(by_miou, reversed(by_miou), by_change))
    return list({image.ordinal: image for image in turns if image is not None}.values())[:count]


def worst_first(image: ImageScores) -> float:
    """A key that sorts by mean IoU, images without one last."""
    return float("inf") if image.miou is None else image.miou
