"""What a finished pack holds, in figures, and what it left out: kept beside the set, so that the same call tells it
again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from amn_dist.documents import read_json
from amn_dist.storage.atomic import commit_json
from amn_dist.storage.paths import AnyPath
from data_shards.census import Census
from data_shards.resumable import SHOWN, SUMMARY, BadSample

REASONS = 4
"""Kinds of reasons told; the rest are counted together."""


@dataclass(frozen=True)
class ClassCount:
    """A class. tagged: images. masks: those that hold its id; None without truth. alone: images with no other tag; None
    of a set from before it was counted."""

    name: str
    tagged: int
    masks: int | None = None
    alone: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """Samples that were left out. of: how many there were. reasons: with their counts. names: the first."""

    count: int
    of: int
    reasons: dict[str, int]
    names: list[str]


@dataclass(frozen=True)
class Summary:
    """What was packed. untagged: images without any tag. notes: what else there is to say."""

    images: int
    shards: int
    untagged: int
    classes: list[ClassCount]
    notes: list[str]
    left_out: LeftOut | None = None


def summarise(
    census: Census, classes: Sequence[str], shards: int, *, bad: Sequence[BadSample], notes: Sequence[str]
) -> Summary:
    """The figures of a set. classes: names in id order, background first. bad: what was left out."""
    counts = [
        ClassCount(
            name,
            int(census.tagged[number]),
            int(census.held[0, number]) if census.masks else None,
            int(census.alone[number]),
        )
        for number, name in enumerate(classes)
        if number
    ]
    left_out = _left_out(bad, census.images + len(bad)) if bad else None
    return Summary(census.images, shards, int(census.tagged[0]), counts, list(notes), left_out)


def write_summary(folder: AnyPath, summary: Summary) -> None:
    """Put a summary beside a set."""
    commit_json(folder / SUMMARY, asdict(summary))


def read_summary(folder: AnyPath) -> Summary | None:
    """The summary beside a set; None of a set from before there were any, or when it is damaged."""
    try:
        summary: Summary = read_json((folder / SUMMARY).read_bytes(), Summary)
    except (OSError, ValueError):
        return None
    return summary


def _left_out(bad: Sequence[BadSample], of: int) -> LeftOut:
    # The name of the file stands before what is wrong with it.
    counts = Counter(sample.reason.partition(": ")[2] or sample.reason for sample in bad)
    reasons = dict(counts.most_common(REASONS))
    others = len(bad) - sum(reasons.values())
    names = [sample.file or sample.key for sample in bad[:SHOWN]]
    return LeftOut(len(bad), of, reasons | ({"other reasons": others} if others else {}), names)
