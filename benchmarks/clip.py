"""How much faster are CLIP's maps in closed form than by a backward pass a tag, as published?

One core, one image at a time, ViT-B/16 of random weights, 1 to 5 tags, COCO's mix of sizes. Both take every image
once a round, one after the other. Seconds of the processor, which other jobs on the machine stretch for both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.config import ClipMapSection
from amn_dist.models.clip.network import ClipNet, ClipShape
from amn_dist.models.clip.texts import TextRows
from amn_dist.stages.clip import ClipWorker, tensors_clip
from benchmarks.coco_like import SIZES
from benchmarks.harness import one_core, write_result
from benchmarks.reference.published_clip import published_clip

CLASSES, BACKGROUND, BOX = 80, 23, 0.7
TOLERANCE = 5e-3
"""Of maps; both compute in float32, and full-size maps enlarge what differs."""


def worker() -> ClipWorker:
    """ViT-B/16 of random weights and random words; the text side is left small."""
    torch.manual_seed(0)
    network = ClipNet(ClipShape(text_depth=1, vocabulary=1024)).eval()
    for name, parameter in network.visual.named_parameters():
        if "embedding" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    rows = functional.normalize(torch.randn(CLASSES + BACKGROUND, 512), dim=1)
    return ClipWorker(network, TextRows(rows[:CLASSES], rows[CLASSES:]))


def examples(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Smooth random photographs of COCO's sizes with 1, 2, 3, 4, 5, 1, ... tags."""
    random = np.random.default_rng(0)
    shares = np.array(list(SIZES.values()))
    drawn = random.choice(len(shares), count, p=shares / shares.sum())
    pairs = []
    for number, place in enumerate(drawn):
        width, height = list(SIZES)[place]
        noise = torch.from_numpy(random.random((1, 3, 12, 16), np.float32))
        smooth = functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)
        tags = np.zeros(CLASSES, np.uint8)
        tags[random.choice(CLASSES, 1 + number % 5, replace=False)] = 1
        pairs.append(((smooth[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8), tags))
    return pairs


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def compared(opened: ClipWorker, section: ClipMapSection, image: np.ndarray, tags: np.ndarray) -> dict[str, Any]:
    """Seconds of both on one image, and how far their maps are apart."""
    published, expected = timed(lambda: published_clip(opened.network, opened.texts, image, tags, BOX))
    closed, maps = timed(lambda: tensors_clip(opened, [image], [tags], section)[0][2])
    difference = float((maps - expected).abs().max())
    size, count = list(image.shape[:2]), int(tags.sum())
    return {"size": size, "tags": count, "published_s": published, "closed_s": closed, "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    one_core()
    opened, section = worker(), ClipMapSection(box=BOX)
    compared(opened, section, np.zeros((64, 80, 3), np.uint8), np.eye(CLASSES, dtype=np.uint8)[0])  # warms up
    pairs = examples(asked.images)
    rounds = [[compared(opened, section, image, tags) for image, tags in pairs] for _ in range(asked.rounds)]
    assert max(row["difference"] for rows in rounds for row in rows) < TOLERANCE, rounds
    write_result("clip", summary(rounds))


def summary(rounds: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Images a second of both over all, their ratio in every round, and that of every number of tags."""
    rows = [row for of_round in rounds for row in of_round]
    totals = {name: sum(row[f"{name}_s"] for row in rows) for name in ("published", "closed")}
    by_tags: dict[str, list[float]] = {}
    for row in rows:
        by_tags.setdefault(str(row["tags"]), []).append(row["published_s"] / row["closed_s"])
    ratios = [sum(row["published_s"] for row in one) / sum(row["closed_s"] for row in one) for one in rounds]
    return {
        "question": "CLIP's maps in closed form against a backward pass a tag, one core",
        "clock": "process_time",
        "n": len(rounds),
        "images": len(rounds[0]),
        "images_per_s": {name: round(len(rows) / seconds, 4) for name, seconds in totals.items()},
        "speedup": round(statistics.median(ratios), 3),
        "speedups": spread_of(ratios),
        "speedups_by_tags": {tags: spread_of(found) for tags, found in sorted(by_tags.items())},
        "largest_difference": max(row["difference"] for row in rows),
        "rows": rows,
    }


def spread_of(ratios: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
