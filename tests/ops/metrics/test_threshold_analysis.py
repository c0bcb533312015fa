"""Threshold analysis against loops over images, classes and pixels in float64."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from amn_dist.ops.metrics.counts import confusion, iou, mean_iou
from amn_dist.ops.metrics.imbalance import MEASURES, Bins, coefficient_of_variation, gini, object_activations
from amn_dist.ops.metrics.threshold_analysis import GRID, Sums, add_image, image_figures, no_sums, object_figures
from amn_dist.ops.metrics.thresholds import THRESHOLDS

CLASSES = 4
Image = tuple[np.ndarray, np.ndarray, np.ndarray]


def images(count: int = 12) -> list[Image]:
    """Maps that follow the truth more or less, over images of different classes."""
    random, examples = np.random.default_rng(0), []
    for number in range(count):
        classes = np.array([[1], [2], [1, 3], [1, 2, 3]][number % 4], np.uint8)
        truth = random.choice([0, *classes, 255], (13, 17)).astype(np.uint8)
        maps = random.random((len(classes), 13, 17)) * 0.5 + (truth == classes[:, None, None]) * random.random()
        examples.append(((maps / 1.6).astype(np.float32), classes, truth))
    return examples


def total(examples: list[Image]) -> Sums:
    sums = no_sums(CLASSES)
    for image in examples:
        add_image(sums, *image)
    return sums


def prediction(maps: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(maps.max(0) > threshold, classes[maps.argmax(0)], 0)


def own_curve(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> list[float]:
    curve = []
    for threshold in THRESHOLDS:
        labels, ious = prediction(maps, classes, threshold), []
        for label in set(truth.ravel().tolist()) - {255}:
            valid = truth != 255
            both = ((labels == label) & (truth == label)).sum()
            either = (((labels == label) | (truth == label)) & valid).sum()
            ious.append(both / either)
        curve.append(sum(ious) / len(ious))
    return curve


def test_every_images_own_best_threshold() -> None:
    examples = images()
    curves = [own_curve(*image) for image in examples]
    own = [int(np.argmax(curve)) for curve in curves]
    oracle = sum(
        confusion(prediction(m, c, THRESHOLDS[at]), t, CLASSES) for (m, c, t), at in zip(examples, own, strict=True)
    )
    figures = image_figures(total(examples), best=30, default=24)
    assert figures["own"] == np.bincount(own, minlength=99).tolist() and figures["indifferent"] == 0
    assert figures["own_mean"] == pytest.approx(np.mean([GRID[at] for at in own]))
    assert figures["own_quartiles"] == [
        GRID[int(np.quantile(own, q, method="inverted_cdf"))] for q in (0.25, 0.5, 0.75)
    ]
    assert figures["near"] == np.mean([abs(at - 30) <= 5 for at in own])
    assert figures["oracle_miou"] == mean_iou(iou(np.asarray(oracle)))
    assert figures["miou_own"] == pytest.approx(np.mean([max(curve) for curve in curves]), abs=1e-6)
    assert figures["miou_best"] == pytest.approx(np.mean([curve[30] for curve in curves]), abs=1e-6)
    assert figures["miou_default"] == pytest.approx(np.mean([curve[24] for curve in curves]), abs=1e-6)


def by_hand(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> dict[int, tuple[float, float, float]]:
    figures = {}
    for plane, label in zip(maps.astype(np.float64), classes, strict=True):
        inside, outside = [], []
        for y, x in product(*map(range, truth.shape)):
            if truth[y, x] == label:
                inside.append(plane[y, x])
            elif truth[y, x] == 0:
                outside.append(plane[y, x])
        mean = sum(inside) / len(inside)
        deviation = (sum((value - mean) ** 2 for value in inside) / len(inside)) ** 0.5
        difference = sum(abs(a - b) for a, b in product(inside, inside)) / len(inside) ** 2
        figures[int(label)] = (deviation / mean, difference / (2 * mean), mean - sum(outside) / len(outside))
    return figures


def test_objects_one_by_one() -> None:
    for image in images(4):
        figures = {o.label: (o.cv, o.gini, o.gap) for o in object_activations(*image)}
        expected = by_hand(*image)
        assert figures.keys() == expected.keys()
        for label, values in figures.items():
            assert values == pytest.approx(expected[label], rel=1e-6, abs=1e-7)


def test_objects_over_the_set_and_by_class() -> None:
    examples = images()
    objects = [(label, values) for image in examples for label, values in by_hand(*image).items()]
    figures = object_figures(total(examples))
    assert figures["count"] == len(objects) and figures["silent"] == 0 and figures["classes"][0] is None
    for column, name in enumerate(MEASURES):
        every = [values[column] for _, values in objects]
        assert figures[name]["mean"] == pytest.approx(np.mean(every), abs=1e-6)
        for found_quartile, q in zip(figures[name]["quartiles"], (0.25, 0.5, 0.75), strict=True):
            assert found_quartile == pytest.approx(np.quantile(every, q, method="inverted_cdf"), abs=0.0051)
        third = [values[column] for label, values in objects if label == 3]
        assert figures["classes"][3]["count"] == len(third)
        assert figures["classes"][3][name]["mean"] == pytest.approx(np.mean(third), abs=1e-6)


def test_what_is_undefined_is_left_out_and_counted() -> None:
    truth = np.array([[0, 1], [1, 2]], np.uint8)
    silent = (np.zeros((2, 2, 2), np.float32), np.array([1, 2], np.uint8), truth)
    untagged = (np.zeros((0, 2, 2), np.float32), np.zeros(0, np.uint8), truth)
    void = (np.ones((1, 2, 2), np.float32), np.array([1], np.uint8), np.full((2, 2), 255, np.uint8))
    full = (np.ones((1, 2, 2), np.float32), np.array([1], np.uint8), np.ones((2, 2), np.uint8))
    sums = total([silent, untagged, void, full])
    images, objects = image_figures(sums, best=0, default=24), object_figures(sums)
    assert images["count"] == 3 and images["indifferent"] == 3 and images["own_quartiles"] is None
    assert objects["count"] == 3 and objects["silent"] == 2 and objects["gap"]["mean"] == 0
    assert objects["cv"] == {"mean": 0, "quartiles": pytest.approx([0.005] * 3)}
    json.dumps([images, objects], allow_nan=False)
    json.dumps([image_figures(no_sums(2), best=0, default=24), object_figures(no_sums(2))], allow_nan=False)


def test_sums_of_shards_add_up() -> None:
    examples = images()
    whole, parts = total(examples), [total(examples[:5]), total(examples[5:])]
    for name, value in whole.items():
        assert value.dtype == np.int64 and np.array_equal(value, parts[0][name] + parts[1][name]), name


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 1, width=32)))
def test_evenness_lies_in_its_range_and_knows_no_unit(values: np.ndarray) -> None:
    if values.max() < 1e-3:
        return
    assert -1e-9 < gini(values) < 1 and coefficient_of_variation(values) >= 0
    assert gini(values * 4) == pytest.approx(gini(values), abs=1e-9)
    assert coefficient_of_variation(values * 4) == pytest.approx(coefficient_of_variation(values), abs=1e-9)


def test_bins_take_what_lies_beyond() -> None:
    bins = Bins(-1, 1, 200)
    assert [bins.index(v) for v in (-3, -1, -0.999, 0, 0.999, 1, 7)] == [0, 0, 0, 100, 199, 199, 199]
