"""A run's thresholds by a few drawn masks: what they choose, how sure they are, and what to draw next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from amn_dist.commands.calibrate.maps import CutMaps, StoredMaps, count_maps
from amn_dist.commands.calibrate.masks import DrawnMask, untagged
from amn_dist.errors import ConfigError, printable
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.ops.metrics.threshold_choice import Choice, choose, images_for
from amn_dist.records import IGNORE
from amn_dist.runs.pipeline import Pipeline
from amn_dist.shards.shardset import ShardSet

FEWEST = 5
"""Masks below which an interval says little."""
NAMED = 8
"""Masks or classes a note spells out."""


@dataclass(frozen=True)
class Calibrated:
    """Maps, and the threshold that masks choose for them. masks: their number."""

    maps: CutMaps
    choice: Choice
    masks: int

    @property
    def now(self) -> int:
        """Position of the run's threshold among those that are swept, the nearest."""
        return grid_position(self.maps.now)

    def more_masks(self, width: float) -> int:
        """How many more masks an interval of this width takes, an estimate."""
        return max(images_for(self.choice, self.masks, width) - self.masks, 0)


def grid_position(threshold: float) -> int:
    """Position of the nearest of the thresholds that are swept."""
    return int(np.abs(np.asarray(GRID) - threshold).argmin())


def calibrated(
    pipeline: Pipeline, maps: Sequence[CutMaps], masks: Sequence[DrawnMask], *, seed: int
) -> list[Calibrated]:
    """The threshold of every map by the protocol of the training set. Raises ConfigError where masks hold no class."""
    images, protocol = pipeline.sets["train"], pipeline.config.score.by("train")
    ordinals, truths = [mask.ordinal for mask in masks], [mask.labels for mask in masks]
    rows = []
    for one in maps:
        choice = choose(count_maps(one, images, ordinals, truths), protocol, seed=seed)
        if choice is None:
            raise ConfigError(f"--masks: found no class in {len(masks)} masks, expected some of objects")
        rows.append(Calibrated(one, choice, len(masks)))
    return rows


def last_stored(maps: Sequence[CutMaps]) -> StoredMaps | None:
    """The last activation."""
    return next((one for one in reversed(maps) if isinstance(one, StoredMaps)), None)


def mask_notes(masks: Sequence[DrawnMask], images: ShardSet) -> Iterator[str]:
    """What makes a calibration by these masks worth less."""
    if len(masks) < FEWEST:
        yield (
            f"{len(masks)} mask(s), expected {FEWEST} at least: resampled sets of so few are much alike, so that "
            "interval and regret come out too small; take the threshold as a hint"
        )
    void = [mask.name for mask in masks if (mask.labels == IGNORE).all()]
    if void:
        yield f"255 throughout, and without a say: {shown(void)}"
    for mask in masks:
        if others := untagged(mask, images):
            yield f"{printable(mask.name)} holds {shown(others)}, which the tags of its image lack; another image?"
    present = np.unique(np.concatenate([mask.classes for mask in masks]))
    absent = [images.classes[label] for label in range(1, len(images.classes)) if label not in present]
    if absent:
        yield f"no mask holds {shown(absent)}: the thresholds are those of the other classes"
    if images.has_truth:
        yield "the set has a truth of its own; `amn score` compares with all of it"


def row_notes(rows: Sequence[Calibrated]) -> Iterator[str]:
    """Which of the run's thresholds these masks give no reason to change."""
    kept = [row for row in rows if row.choice.low <= row.now <= row.choice.high and row.now != row.choice.best]
    for row in kept:
        low, high = row.choice.interval
        yield f"{row.maps.name}: {row.maps.now:.2f}, as it is, lies between {low:.2f} and {high:.2f} too"


def shown(names: Sequence[str], most: int = NAMED) -> str:
    """Names, a few of them where they are many."""
    more = len(names) - most
    few = ", ".join(printable(name) for name in names[:most])
    return f"{few} and {more} more" if more > 0 else few
