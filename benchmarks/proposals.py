"""What does a vote of proposals make of a finished run's masks, by superpixels and by proposals drawn from the truth?

The run's images need truth. Proposals drawn from it are its connected pieces (of background too) with bent outlines,
some cut in two, joined or left out: an upper case, for no model that proposes masks has seen the truth. Each votes by
the rules as configured by default, and as published (`background: 1, clear: true`).

    python -m benchmarks.proposals RUN [--stage walk] [--data DATA] [--images N] [--seed 0] [--jitter 2] [--out NAME]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from amn_dist.config import Loader
from amn_dist.errors import AmnError
from amn_dist.interchange.selection import SelectedField, select_masks
from amn_dist.loaders.decode import decode_images
from amn_dist.ops.metrics.counts import label_counts, protocol_iou
from amn_dist.ops.run_lengths import lengths_of
from amn_dist.ops.superpixel import felzenszwalb_regions
from amn_dist.ops.vote import VoteRule, vote_lengths, vote_regions
from amn_dist.records import IGNORE
from amn_dist.shards.sample import evenly
from benchmarks.harness import write_result

RULES = {"default": VoteRule(), "published": VoteRule(background=1.0, clear=True)}
LEAST = 20
"""Pixels of a piece that is proposed."""
SMOOTH = 6.0
"""Deviation of the blur of the noise that bends outlines, pixels: about the length of a bend."""
MISSING, SPLIT, JOINED = 0.1, 0.25, 0.1
"""Shares of the pieces that are left out, cut in two beside the whole, and joined to another."""


def drawn_proposals(truth: np.ndarray, random: np.random.Generator, jitter: float) -> list[np.ndarray]:
    """Masks bool[H, W] of the pieces of truth uint8[H, W], with noise. jitter: deviation of outlines, pixels."""
    pieces = [piece for piece in true_pieces(truth) if random.random() >= MISSING]
    proposals = []
    for piece in pieces:
        mask = bent(piece, random, jitter)
        if random.random() < JOINED:
            mask = mask | bent(pieces[random.integers(len(pieces))], random, jitter)
        proposals += [mask, *(halves(mask, random) if random.random() < SPLIT else ())]
    return [mask for mask in proposals if mask.sum() >= LEAST]


def true_pieces(truth: np.ndarray) -> Iterator[np.ndarray]:
    """Connected pieces of every class and of background, as bool[H, W]."""
    for number in np.unique(truth[truth != IGNORE]):
        places, count = ndimage.label(truth == number)
        for piece in range(1, count + 1):
            mask = places == piece
            if mask.sum() >= LEAST:
                yield mask


def bent(mask: np.ndarray, random: np.random.Generator, jitter: float) -> np.ndarray:
    """A mask whose outline is moved in and out by smooth noise."""
    noise = ndimage.gaussian_filter(random.standard_normal(mask.shape), SMOOTH, mode="reflect")
    inside = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(np.pad(~mask, 1, mode="edge"))[1:-1, 1:-1]
    return np.where(mask, inside - 0.5, 0.5 - outside) + jitter * noise / max(noise.std(), 1e-9) > 0


def halves(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The two parts of a mask beside a line through its middle."""
    rows, columns = np.indices(mask.shape)
    middle, angle = np.argwhere(mask).mean(0) if mask.any() else (0, 0), random.random() * np.pi
    side = (rows - middle[0]) * np.cos(angle) + (columns - middle[1]) * np.sin(angle) > 0
    return mask & side, mask & ~side


def voted(labels: np.ndarray, truth: np.ndarray, photo: np.ndarray, drawn: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The labels before a vote and after each, by name."""
    regions = felzenszwalb_regions(photo)
    lengths = np.concatenate([np.zeros(0, np.int32), *map(lengths_of, drawn)])
    after = {"before": labels}
    for name, rule in RULES.items():
        after[f"superpixels, {name}"] = vote_regions(labels, regions, rule)
        after[f"drawn from truth (upper case), {name}"] = vote_lengths(labels, lengths, rule)
    return after


def counted(
    selected: SelectedField, ordinals: list[int], seed: int, jitter: float
) -> tuple[dict[str, np.ndarray], Any]:
    """Sums of label_counts by vote, and proposals drawn an image."""
    images, num_classes = selected.images, len(selected.shards.classes)
    assert images is not None
    sums: dict[str, np.ndarray] = {}
    numbers = []
    for ordinal in ordinals:
        truth, labels = images.load(ordinal, "gt.png"), selected.shards.load(ordinal, selected.field)
        (photo,) = decode_images(
            [(images.entry(ordinal).key, images.image(ordinal))], loader=Loader(name="torchvision")
        )
        drawn = drawn_proposals(truth, np.random.default_rng([seed, ordinal]), jitter)
        numbers.append(len(drawn))
        for name, after in voted(labels, truth, photo, drawn).items():
            counts = label_counts(after, truth, num_classes)
            sums[name] = sums.get(name, 0) + counts
    return sums, {"mean": float(np.mean(numbers)), "min": min(numbers), "max": max(numbers)}


def figures(sums: dict[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, Any]:
    """IoU of the classes that the truth has, by the protocol voc, and their mean; percent."""
    rows = {}
    for name, counts in sums.items():
        present = np.flatnonzero(counts[:-1].sum(1))
        ious = protocol_iou(counts, "voc")
        by_class = {classes[number]: round(100 * float(ious[number]), 2) for number in present}
        rows[name] = {"miou": round(float(np.mean(list(by_class.values()))), 2), "iou": by_class}
    return rows


def table(rows: dict[str, Any]) -> str:
    """Rows as people read them: classes down, votes across."""
    names = list(rows)
    lines = [f"| IoU, percent | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for title in rows["before"]["iou"]:
        lines.append(f"| {title} | {' | '.join(str(rows[name]['iou'].get(title, '')) for name in names)} |")
    return "\n".join([*lines, f"| mean | {' | '.join(str(rows[name]['miou']) for name in names)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a finished run")
    parser.add_argument("--stage", help="whose labels; without it those its segmentation network learns from")
    parser.add_argument("--data", type=Path, help="where its sets lie now, if they were moved")
    parser.add_argument("--images", type=int, default=10**9, help="of its set, evenly chosen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jitter", type=float, default=2.0, help="deviation of drawn outlines, pixels")
    parser.add_argument("--out", default="proposals", help="name of the result")
    asked = parser.parse_args()
    try:
        selected = select_masks(asked.run, stage=asked.stage, data=asked.data)
    except AmnError as error:
        parser.error(str(error))
    if selected.images is None or "gt.png" not in selected.images.fields:
        parser.error(f"{asked.run}: found no truth beside its images, expected gt.png (or --data)")
    ordinals = evenly(len(selected.shards), asked.images)
    sums, numbers = counted(selected, ordinals, asked.seed, asked.jitter)
    rows = figures(sums, selected.shards.classes)
    record = {
        "labels": selected.shards.kind,
        "digest": selected.shards.digest,
        "images": len(ordinals),
        "seed": asked.seed,
        "jitter_pixels": asked.jitter,
        "drawn_an_image": numbers,
        "note": "proposals drawn from the truth are an upper case: no model that proposes masks has seen it",
        "rows": rows,
    }
    write_result(asked.out, record)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
