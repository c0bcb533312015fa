"""Scores against counting by hand."""

from __future__ import annotations

import numpy as np

from amn_dist.ops.metrics import confusion, iou, mean_iou
from amn_dist.records import Sample
from amn_dist.stages.score import ScoreTally, activation_scores, label_scores, upsample


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
    scores = activation_scores(found["cam"], threshold=0.25)
    for threshold in (0.05, 0.25, 0.5, 0.99):
        matrix = np.zeros((3, 3), np.int64)
        for sample in samples():
            maps = upsample(sample.joined["cam"], (21, 30))
            planes = np.concatenate([np.full((1, 21, 30), threshold, np.float32), maps])
            matrix += confusion(planes.argmax(0).astype(np.uint8), sample.joined["truth"], 3)
        assert scores["miou"][scores["thresholds"].index(threshold)] == mean_iou(iou(matrix))
    assert scores["default_miou"] == scores["miou"][24] and scores["best_miou"] == max(scores["miou"])


def test_undecided_labels_count_as_background_and_are_told_apart() -> None:
    found = ScoreTally(3, ("walk",)).count(None, iter(samples()))
    truths = np.concatenate([sample.joined["truth"] for sample in samples()])
    labels = np.concatenate([sample.joined["walk"] for sample in samples()])
    scores = label_scores(found["walk"], found["walk/kept"])
    valid = truths != 255
    assert found["walk"].sum() == valid.sum() and found["images"].tolist() == [3]
    assert scores["decided"] == (labels[valid] != 255).mean()
    assert scores["miou"] == mean_iou(iou(confusion(np.where(labels == 255, 0, labels), truths, 3)))
