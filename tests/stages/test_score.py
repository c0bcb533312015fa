"""Scores against counting by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from amn_dist.ops.metrics.counts import confusion, iou, mean_iou
from amn_dist.records import Sample
from amn_dist.stages.score import ScoreTally, artefact_scores, upsample


def samples(count: int = 3) -> list[Sample]:
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        truth = random.choice([0, 1, 2, 255], (21, 30)).astype(np.uint8)
        joined = {
            "truth": truth,
            "cam": random.random((2, 6, 8)).astype(np.float16),
            "walk": random.choice([0, 1, 2, 255], (21, 30)).astype(np.uint8),
        }
        found.append(Sample(f"k{number}", number, np.empty((21, 30, 0)), np.array([1, 1]), joined))
    return found


def test_the_sweep_equals_scoring_every_threshold_alone() -> None:
    found = ScoreTally(3, ("cam",)).count(None, iter(samples()))
    scores = artefact_scores(found, "cam", threshold=0.25)
    for threshold in (0.05, 0.25, 0.5, 0.99):
        matrix = np.zeros((3, 3), np.int64)
        for sample in samples():
            maps = upsample(sample.joined["cam"], (21, 30))
            planes = np.concatenate([np.full((1, 21, 30), threshold, np.float32), maps])
            matrix += confusion(planes.argmax(0).astype(np.uint8), sample.joined["truth"], 3)
        assert scores["miou"][scores["thresholds"].index(threshold)] == mean_iou(iou(matrix))
    assert scores["default_miou"] == scores["miou"][24] and scores["best_miou"] == max(scores["miou"])
    assert scores["mean_miou"] == np.mean(scores["miou"]) and scores["thresholds"][24] == scores["default_threshold"]
    within = [sum(value >= scores["best_miou"] - points for value in scores["miou"]) for points in (0.01, 0.02)]
    assert [scores["width_1"], scores["width_2"]] == [round(0.01 * count, 2) for count in within]


def test_an_activation_is_analysed_image_by_image_and_object_by_object() -> None:
    scores = artefact_scores(ScoreTally(3, ("cam",)).count(None, iter(samples())), "cam", threshold=0.25)
    images, objects = scores["images"], scores["objects"]
    assert images["count"] == sum(images["own"]) == 3 and objects["count"] == 6
    assert images["miou_own"] >= max(images["miou_best"], images["miou_default"])
    assert [found and found["count"] for found in objects["classes"]] == [None, 3, 3]


def test_a_set_whose_truth_is_void_has_no_figures() -> None:
    void = [
        replace(sample, joined={**sample.joined, "truth": np.full((21, 30), 255, np.uint8)}) for sample in samples()
    ]
    sums = ScoreTally(3, ("cam", "walk")).count(None, iter(void))
    scores = {name: artefact_scores(sums, name, threshold=0.25) for name in ("cam", "walk")}
    assert scores["cam"]["best_miou"] is None and scores["walk"]["miou"] is None
    json.dumps(scores, allow_nan=False)


def test_undecided_labels_count_as_background_and_are_told_apart() -> None:
    found = ScoreTally(3, ("walk",)).count(None, iter(samples()))
    truths = np.concatenate([sample.joined["truth"] for sample in samples()])
    labels = np.concatenate([sample.joined["walk"] for sample in samples()])
    scores = artefact_scores(found, "walk", threshold=0.25)
    valid = truths != 255
    assert found["walk/counts"][:-1].sum() == valid.sum() and found["images"].tolist() == [3]
    assert scores["decided"] == (labels[valid] != 255).mean()
    assert scores["miou"] == mean_iou(iou(confusion(np.where(labels == 255, 0, labels), truths, 3)))


def test_truth_without_objects_has_no_mean() -> None:
    empty = []
    for sample in samples():
        truth = np.where(sample.joined["truth"] == 255, 255, 0).astype(np.uint8)
        empty.append(replace(sample, joined=sample.joined | {"truth": truth, "walk": truth}))
    sums = ScoreTally(3, ("cam", "walk")).count(None, iter(empty))
    maps, labels = (artefact_scores(sums, name, threshold=0.25) for name in ("cam", "walk"))
    assert labels["miou"] is None and labels["boundary_miou"] is None and labels["iou"] == [1.0, None, None]
    assert set(labels["protocols"].values()) == {None} and labels["miou_decided"] is None
    assert maps["best_miou"] is None and maps["default_miou"] is None and set(maps["miou"]) == {None}
    assert {maps["images"][name] for name in maps["images"] if "miou" in name} == {None}
    assert all(figures["best_miou"] is None for figures in maps["protocols"].values())
