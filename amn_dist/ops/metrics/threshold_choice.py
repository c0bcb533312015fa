"""Which threshold a few images speak for, and how sure they are of it.

Counts of images add up, so a set in which images stand more than once is a weighted sum of counts: a thousand resampled
sets are one matrix product over what was counted once. n images, C classes with background, T = 99 THRESHOLDS, B
resampled sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amn_dist.ops.metrics.thresholds import STEPS, THRESHOLDS, Sweep, threshold_confusions

if TYPE_CHECKING:
    from amn_dist.config import Protocol

RESAMPLES = 1000
CONFIDENCE = 0.9
"""Share of the resampled sets whose best threshold lies inside the interval."""
BLOCK = 2**23
"""Values of a block of resampled sets that are held at once."""


@dataclass(frozen=True)
class ThresholdCounts:
    """Pixels of images at every threshold: all that any protocol asks for.

    hit: int[n, C, T], predicted as a class that is truly there. predicted: int[n, C, T], where the truth is known.
    void: int[n, C, T], where it is 255. true: int[n, C + 1], 255 last.
    """

    hit: np.ndarray
    predicted: np.ndarray
    void: np.ndarray
    true: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    def take(self, images: Sequence[int] | np.ndarray) -> ThresholdCounts:
        """Those of some of the images, by position."""
        at = np.asarray(images, np.int64)
        return ThresholdCounts(self.hit[at], self.predicted[at], self.void[at], self.true[at])


@dataclass(frozen=True)
class Choice:
    """What images say of a threshold. All mIoU as shares of 1, by one protocol, pooled over images.

    best: position in THRESHOLDS. low, high: positions that hold the best threshold of CONFIDENCE of the resampled sets.
    curve: f64[T], mIoU of the images at every threshold. regrets: f64[T], what a threshold is expected to lose against
    the best one of the set the images were drawn from. spread: standard deviation of the best thresholds of the
    resampled sets, on [0, 1].
    """

    best: int
    low: int
    high: int
    curve: np.ndarray
    regrets: np.ndarray
    spread: float

    @property
    def threshold(self) -> float:
        return round(float(THRESHOLDS[self.best]), 2)

    @property
    def regret(self) -> float:
        """What the chosen threshold is expected to lose."""
        return float(self.regrets[self.best])

    @property
    def interval(self) -> tuple[float, float]:
        return round(float(THRESHOLDS[self.low]), 2), round(float(THRESHOLDS[self.high]), 2)

    @property
    def width(self) -> float:
        """Length of the interval."""
        return (self.high - self.low) / STEPS


def image_counts(sweep: Sweep, num_classes: int) -> ThresholdCounts:
    """The counts of one image, n = 1."""
    histogram = np.zeros((num_classes + 1, num_classes, STEPS), np.int64)
    sweep.add_to(histogram)
    confusions = threshold_confusions(histogram)
    known = confusions[:, :-1]
    hit = np.diagonal(known, axis1=1, axis2=2).T
    by_threshold = [hit, known.sum(1).T, confusions[:, -1].T]
    hit, predicted, void = (np.ascontiguousarray(counts, np.int32)[None] for counts in by_threshold)
    return ThresholdCounts(hit, predicted, void, histogram.sum((1, 2))[None])


def together(images: Sequence[ThresholdCounts]) -> ThresholdCounts:
    """The counts of several images."""
    parts = ("hit", "predicted", "void", "true")
    return ThresholdCounts(*(np.concatenate([getattr(image, part) for image in images]) for part in parts))


def miou_curves(counts: ThresholdCounts, weights: np.ndarray, protocol: Protocol = "voc") -> np.ndarray:
    """mIoU f64[B, T] of sets in which image i stands weights[b, i] times, as metrics.scores has it of pooled counts.

    weights: [B, n]. NaN for a set without any pixel of a class.
    """
    seen: np.ndarray = np.asarray(counts.true[:, :-1].any(0) | counts.predicted.any((0, 2)) | counts.void.any((0, 2)))
    hit, predicted, void = (part[:, seen].astype(np.float64) for part in (counts.hit, counts.predicted, counts.void))
    true = counts.true.astype(np.float64)
    size = max(BLOCK // max(hit[0].size, 1), 1)
    blocks = [weights[start : start + size].astype(np.float64) for start in range(0, len(weights), size)]
    curves = [
        _curves(_pooled(block, hit), _pooled(block, predicted), _pooled(block, void), block @ true, seen, protocol)
        for block in blocks
    ]
    return np.concatenate(curves)


def _pooled(weights: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Counts f64[B, C, T] of the weighted sets."""
    return (weights @ part.reshape(len(part), -1)).reshape(len(weights), *part.shape[1:])


def _curves(
    hit: np.ndarray, predicted: np.ndarray, void: np.ndarray, true: np.ndarray, seen: np.ndarray, protocol: Protocol
) -> np.ndarray:
    """mIoU f64[B, T] of counts f64[B, seen, T] and true f64[B, C + 1]."""
    present = true[:, :-1][:, seen, None]
    union = present + predicted - hit + (void if protocol == "coco" else 0)
    counted = union > 0 if protocol != "deeplab" else np.broadcast_to(present > 0, union.shape)
    total = np.divide(hit, union, out=np.zeros_like(hit), where=union > 0).sum(1)
    number = counted.sum(1).astype(np.float64)
    if protocol == "coco":
        number += true[:, -1:] > 0  # one more class, which nothing matches
    if protocol == "icd":
        number[:] = len(seen)
    curves = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    curves[~true[:, 1:-1].any(1)] = np.nan
    return curves


def resampled(images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often every image stands in sets drawn from the images with replacement, as many as they are: int[B, n]."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def choose(
    counts: ThresholdCounts, protocol: Protocol = "voc", *, resamples: int = RESAMPLES, seed: int = 0
) -> Choice | None:
    """The threshold that images speak for; None where no pixel of theirs is of a class.

    The best is that of the highest mean curve over resampled sets, which is the one that loses least against the best
    of each; the lowest of equals.
    """
    curve = miou_curves(counts, np.ones((1, len(counts))), protocol)[0]
    if np.isnan(curve).any():
        return None
    curves = miou_curves(counts, resampled(len(counts), resamples=resamples, seed=seed), protocol)
    curves = curves[np.isfinite(curves).all(1)]
    bests = curves.argmax(1)
    regrets = (curves.max(1, keepdims=True) - curves).mean(0)
    best = int(regrets.argmin())
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(bests, [outside, 1 - outside], method="inverted_cdf").astype(int)
    low, high = min(low, best), max(high, best)
    return Choice(best, int(low), int(high), curve, regrets, float(bests.std() / STEPS))


def images_for(choice: Choice, images: int, width: float) -> int:
    """How many images an interval of this width takes, an estimate: its length falls with the root of their number."""
    return int(np.ceil(images * (choice.width / width) ** 2))
