"""The threshold that few images speak for, against loops over resampled sets, classes and pixels in float64."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from amn_dist.config import Protocol
from amn_dist.ops.metrics.counts import confusion, mean_iou, scores, void_predictions
from amn_dist.ops.metrics.threshold_choice import (
    CONFIDENCE,
    ThresholdCounts,
    choose,
    image_counts,
    images_for,
    miou_curves,
    resampled,
    together,
)
from amn_dist.ops.metrics.thresholds import THRESHOLDS, sweep
from amn_dist.stages.score import activation_scores

CLASSES = 5
Image = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn_images(count: int, seed: int, *, void: bool = True) -> list[Image]:
    """Maps that follow the truth more or less; class 4 occurs nowhere, image 3 has no tags."""
    random, images = np.random.default_rng(seed), []
    for number in range(count):
        classes = np.array([[1], [2], [1, 3], []][number % 4], np.uint8)
        truth = random.choice([0, *classes, *([255] if void else [])], (11, 14)).astype(np.uint8)
        maps = random.random((len(classes), 11, 14)) * 0.5 + (truth == classes[:, None, None]) * random.random()
        images.append(((maps / 1.6).astype(np.float32), classes, truth))
    return images


def counted(images: list[Image]) -> ThresholdCounts:
    return together([image_counts(sweep(*image, CLASSES), CLASSES) for image in images])


def labels_at(image: Image, threshold: np.float32) -> np.ndarray:
    maps, classes, truth = image
    if not len(classes):
        return np.zeros_like(truth)
    return np.where(maps.max(0) > threshold, classes[maps.argmax(0)], 0).astype(np.uint8)


def naive_curve(images: list[Image], weights: np.ndarray, protocol: Protocol) -> list[float]:
    """mIoU at every threshold of a set in which images stand several times, a pixel at a time."""
    curve = []
    for threshold in THRESHOLDS:
        matrix, void = np.zeros((CLASSES, CLASSES), np.int64), np.zeros(CLASSES, np.int64)
        for image, times in zip(images, weights, strict=True):
            labels = labels_at(image, threshold)
            matrix += times * confusion(labels, image[2], CLASSES)
            void += times * void_predictions(labels, image[2], CLASSES)
        curve.append(mean_iou(scores(matrix, protocol, void=void)))
    return curve


@pytest.mark.parametrize("protocol", get_args(Protocol))
@pytest.mark.parametrize("void", [True, False])
def test_curves_of_weighted_sets(protocol: Protocol, void: bool) -> None:
    images = drawn_images(6, 1, void=void)
    weights = resampled(6, resamples=2, seed=2)
    curves = miou_curves(counted(images), weights, protocol)
    for row, curve in zip(weights, curves, strict=True):
        np.testing.assert_allclose(curve, naive_curve(images, row, protocol), rtol=1e-12)


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_the_curve_of_a_set_is_the_one_that_is_scored(protocol: Protocol) -> None:
    images = drawn_images(9, 3)
    histogram = np.zeros((CLASSES + 1, CLASSES, 100), np.int64)
    for image in images:
        sweep(*image, CLASSES).add_to(histogram)
    choice = choose(counted(images), protocol, resamples=50)
    scored = activation_scores(histogram, threshold=0.25, protocol=protocol)
    assert choice is not None
    np.testing.assert_allclose(choice.curve, scored["miou"], rtol=1e-12)


def test_large_sets_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, weights = counted(drawn_images(8, 4)), resampled(8, resamples=40)
    whole = miou_curves(counts, weights)
    monkeypatch.setattr("amn_dist.ops.metrics.threshold_choice.BLOCK", 2000)
    np.testing.assert_array_equal(miou_curves(counts, weights), whole)


def separable(number: int, cut: float, size: int = 40) -> Image:
    """A map whose best threshold is `cut`: objects lie above it and background does not, but for a tenth of both, which
    lie anywhere further off than 0.1."""
    random = np.random.default_rng(number)
    truth = (random.random((size, size)) < 0.4).astype(np.uint8)
    wrong = random.random(truth.shape) < 0.1
    above = np.where(wrong, random.uniform(cut + 0.1, 1, truth.shape), random.uniform(cut + 0.001, 1, truth.shape))
    below = np.where(wrong, random.uniform(0, cut - 0.1, truth.shape), random.uniform(0, cut - 0.001, truth.shape))
    maps = np.where(truth.astype(bool) ^ wrong, above, below)
    return maps[None].astype(np.float32), np.array([1], np.uint8), truth


def test_a_known_optimum_is_found_and_held_by_the_interval() -> None:
    choice = choose(counted([separable(number, 0.62) for number in range(10)]), resamples=300)
    assert choice is not None
    low, high = choice.interval
    assert low <= 0.62 <= high and choice.threshold == 0.62 and choice.regret < 0.001
    assert choice.width == pytest.approx(high - low) and choice.regrets[choice.best] == choice.regrets.min()


def test_images_that_disagree_widen_the_interval_and_the_regret() -> None:
    alike = choose(counted([separable(number, 0.5) for number in range(8)]), resamples=300)
    apart = choose(counted([separable(n, 0.3 if n % 2 else 0.7) for n in range(8)]), resamples=300)
    assert alike is not None and apart is not None
    assert apart.width > alike.width and apart.regret > alike.regret and apart.spread > alike.spread


def test_resamples_repeat_by_their_seed() -> None:
    counts = counted(drawn_images(7, 5))
    one, same, other = (choose(counts, resamples=200, seed=seed) for seed in (1, 1, 2))
    assert one is not None and same is not None and other is not None
    assert (one.best, one.low, one.high, one.regret) == (same.best, same.low, same.high, same.regret)
    assert one.regret != other.regret
    assert resampled(7, resamples=9, seed=3).sum(1).tolist() == [7] * 9


def test_expected_regret_is_that_of_every_resampled_set() -> None:
    images = drawn_images(5, 6)
    weights = resampled(5, resamples=6, seed=8)
    curves = np.array([naive_curve(images, row, "voc") for row in weights])
    choice = choose(counted(images), resamples=6, seed=8)
    assert choice is not None
    np.testing.assert_allclose(choice.regrets, (curves.max(1, keepdims=True) - curves).mean(0), rtol=1e-9)
    bests = np.sort(curves.argmax(1))
    inside = ((bests >= choice.low) & (bests <= choice.high)).mean()
    assert inside >= CONFIDENCE and choice.spread == pytest.approx(bests.std() / 100)


def test_masks_of_background_alone_choose_nothing() -> None:
    maps, classes, truth = drawn_images(1, 7)[0]
    assert choose(counted([(maps, classes, np.zeros_like(truth))] * 6), resamples=20) is None


def test_sets_without_an_object_do_not_count() -> None:
    maps, classes, truth = separable(1, 0.4)
    images = [(maps, classes, truth), *[(maps, classes, np.zeros_like(truth))] * 5]
    choice = choose(counted(images), resamples=200)
    assert choice is not None and np.isfinite(choice.regrets).all()


def test_how_many_images_an_interval_takes_falls_with_their_root() -> None:
    choice = choose(counted([separable(n, 0.3 if n % 2 else 0.7) for n in range(8)]), resamples=300)
    assert choice is not None
    assert images_for(choice, 8, choice.width) == 8 and images_for(choice, 8, choice.width / 2) == 32
