"""How well every stage did on single images, and which of them are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from statistics import fmean

import numpy as np

from amn_dist.errors import ShardError
from amn_dist.ops.metrics.counts import confusion, iou
from amn_dist.report.facts import RunFacts
from amn_dist.report.tables import ordered, title_of
from amn_dist.shards.format import kind_of
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.score import upsample


@dataclass(frozen=True)
class Column:
    """What a stage made, under the labels of the runs that share it. final: the last labels of some run."""

    title: str
    made: ShardSet
    field: str
    threshold: float
    final: bool


@dataclass(frozen=True)
class Look:
    """How well every column did on an image; None without truth. miou: mean of the last labels of the runs. change: the
    largest mean IoU of a column minus the smallest; without truth the share of pixels that the last labels name
    otherwise than the first."""

    ordinal: int
    mious: tuple[float | None, ...]
    miou: float | None
    change: float | None


def columns_of(runs: Sequence[RunFacts], over: str) -> list[Column]:
    """What runs made over a set, by stage; shards that runs share come once."""
    found: dict[tuple[str, str, str], list[RunFacts]] = {}
    for name in ordered(name for run in runs for name in run.made):
        for run in runs:
            if name in run.made and run.made[name][2] == over:
                made, wanted, _ = run.made[name]
                found.setdefault((name, wanted, made.digest), []).append(run)
    last = {(name := last_labels(run, over), run.made[name][0].digest) for run in runs if last_labels(run, over)}
    return [
        Column(
            title_of(name) + ("" if len(sharing) == len(runs) else f" ({', '.join(run.label for run in sharing)})"),
            sharing[0].made[name][0],
            wanted,
            sharing[0].threshold,
            (name, digest) in last,
        )
        for (name, wanted, digest), sharing in found.items()
    ]


def last_labels(run: RunFacts, over: str) -> str:
    """The last labels a run made over a set; empty where there are none."""
    labels = [name for name, (_, field, role) in run.made.items() if role == over and kind_of(field) == "labels"]
    return labels[-1] if labels else ""


def look(photos: ShardSet, columns: Sequence[Column], ordinal: int) -> Look:
    """Compare what every stage made of an image with its truth, or the last labels with the first."""
    labels = [labels_of(photos, column, ordinal) for column in columns]
    if "gt.png" not in photos.fields:
        plain = [found for found, column in zip(labels, columns, strict=True) if kind_of(column.field) == "labels"]
        change = float((plain[0] != plain[-1]).mean()) if len(plain) > 1 else None
        return Look(ordinal, (None,) * len(columns), None, change)
    truth = photos.load(ordinal, "gt.png")
    if any(found.shape != truth.shape for found in labels):
        raise ShardError(f"{photos.url}: {photos.entry(ordinal).key}: its truth has another size; pack the set again")
    mious = tuple(image_miou(found, truth, len(photos.classes)) for found in labels)
    known = [value for value in mious if value is not None]
    final = [v for v, column in zip(mious, columns, strict=True) if column.final and v is not None] or known
    change = max(known) - min(known) if known else None
    return Look(ordinal, mious, fmean(final) if final else None, change)


def labels_of(photos: ShardSet, column: Column, ordinal: int) -> np.ndarray:
    """Labels uint8[H, W] of a stage; of an activation those at its default threshold."""
    entry = photos.entry(ordinal)
    if column.made.entry(ordinal).key != entry.key:
        raise ShardError(f"{column.made.url}: sample {ordinal} is not {entry.key}; make it again from this set")
    found = column.made.load(ordinal, column.field)
    if found.ndim == 2:
        return found
    maps = upsample(found, (entry.height, entry.width))
    if not len(maps):
        return np.zeros((entry.height, entry.width), np.uint8)
    classes = np.flatnonzero(photos.load(ordinal, "tags")).astype(np.uint8) + 1
    return np.where(maps.max(0) > np.float32(column.threshold), classes[maps.argmax(0)], 0).astype(np.uint8)


def image_miou(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> float | None:
    """Mean IoU over the classes of an image's truth, background among them; None where the truth is void."""
    counts = confusion(labels, truth, num_classes)
    true = counts.sum(1) > 0
    return float(iou(counts)[true].mean()) if true.any() else None


def chosen(looks: Sequence[Look], count: int) -> list[Look]:
    """At most `count` images: of the worst, the best and the most changed equally many."""
    if len(looks) <= count:
        return list(looks)
    by_miou = sorted(looks, key=worst_first)
    by_change = sorted(looks, key=lambda found: -(found.change or 0))
    turns = chain.from_iterable(zip_longest(by_miou, reversed(by_miou), by_change))
    return list({found.ordinal: found for found in turns if found is not None}.values())[:count]


def worst_first(found: Look) -> float:
    """A key that sorts by mean IoU, images without one last."""
    return float("inf") if found.miou is None else found.miou
