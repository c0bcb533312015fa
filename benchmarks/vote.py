"""What does the vote of 100 proposals cost an image of 500x375, over run lengths and over dense masks, on one core?

Blobs of all sizes, some nested, over masks of three classes. Raced are the vote over run lengths, the same from the
bytes of the shard field on, pycocotools' decoding with a vote over the dense masks, and the plain dense reference,
which is given its masks; all four vote the same.

    python -m benchmarks.vote [--rounds 9] [--images 5] [--proposals 100]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as rasteriser
from scipy import ndimage

from amn_dist.ops.run_lengths import lengths_of
from amn_dist.ops.vote import VoteRule, vote_lengths
from amn_dist.records import PROPOSALS
from amn_dist.shards.format import decode, encode
from benchmarks.harness import Timing, one_core, write_result
from benchmarks.reference.dense_vote import dense_vote, stacked_vote

SIZE = (375, 500)
RULE = VoteRule()


def blob(random: np.random.Generator) -> np.ndarray:
    """A mask bool[H, W] with a bent outline: a noisy disc of 1 % to 30 % of the image."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    centre = random.random(2) * SIZE
    radius = np.sqrt(random.uniform(0.01, 0.3) * SIZE[0] * SIZE[1] / np.pi)
    small = random.standard_normal((SIZE[0] // 8 + 1, SIZE[1] // 8 + 1))
    noise = ndimage.zoom(ndimage.gaussian_filter(small, 2), 8, order=1)[: SIZE[0], : SIZE[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) + 60 * noise < radius


def scene(random: np.random.Generator, proposals: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels of three classes with undecided rims, and proposals."""
    labels = np.zeros(SIZE, np.uint8)
    for number in (1, 8, 15):
        mask = blob(random)
        labels[ndimage.binary_dilation(mask, iterations=3)] = 255
        labels[mask] = number
    return labels, [blob(random) for _ in range(proposals)]


def field_of(masks: list[np.ndarray]) -> bytes:
    """Proposals as a shard holds them."""
    return encode(PROPOSALS, np.concatenate([np.array(SIZE, np.int32), *map(lengths_of, masks)]))


def rivals(scenes: list[tuple[np.ndarray, list[np.ndarray]]]) -> dict[str, Callable[[], list[np.ndarray]]]:
    """Votes over all scenes, each from the form it takes proposals in."""
    labels, masks = zip(*scenes, strict=True)
    lengths = [np.concatenate([*map(lengths_of, some)]) for some in masks]
    fields = [field_of(some) for some in masks]
    texts = [[rasteriser.encode(np.asfortranarray(mask, np.uint8)) for mask in some] for some in masks]
    return {
        "run lengths": lambda: [vote_lengths(*both, RULE) for both in zip(labels, lengths, strict=True)],
        "run lengths from bytes": lambda: [
            vote_lengths(label, decode(PROPOSALS, field)[2:], RULE) for label, field in zip(labels, fields, strict=True)
        ],
        "pycocotools decode": lambda: [
            stacked_vote(label, rasteriser.decode(text), RULE) for label, text in zip(labels, texts, strict=True)
        ],
        "dense reference": lambda: [dense_vote(*both, RULE) for both in zip(labels, masks, strict=True)],
    }


def core_race(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Processor time of rivals that take turns, which other processes of a busy machine lengthen less than seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--proposals", type=int, default=100)
    asked = parser.parse_args()
    one_core()
    random = np.random.default_rng(0)
    scenes = [scene(random, asked.proposals) for _ in range(asked.images)]
    calls = rivals(scenes)
    results = [call() for call in calls.values()]
    equal = all(np.array_equal(one, other) for some in results for one, other in zip(results[0], some, strict=True))
    changed = [int((voted != labels).sum()) for voted, (labels, _) in zip(results[0], scenes, strict=True)]
    assert equal and min(changed) > 0, (equal, changed)
    times = core_race(calls, asked.rounds)
    ours = times["run lengths"].median
    write_result(
        "vote",
        {
            "images": asked.images,
            "proposals": asked.proposals,
            "size": SIZE,
            "runs_an_image": [sum(len(lengths_of(mask)) for mask in masks) for _, masks in scenes],
            "bytes_an_image": [len(field_of(masks)) for _, masks in scenes],
            "equal": equal,
            "core_ms_an_image": {name: in_ms(timing, asked.images) for name, timing in times.items()},
            "times_faster": {name: round(timing.median / ours, 1) for name, timing in times.items()},
        },
    )


def in_ms(timing: Timing, images: int) -> dict[str, float]:
    """Median, least and most milliseconds of an image, and the rounds."""
    figures = {"median": timing.median, "min": min(timing.seconds), "max": max(timing.seconds)}
    return {**{name: round(1000 * value / images, 3) for name, value in figures.items()}, "n": len(timing.seconds)}


if __name__ == "__main__":
    main()
