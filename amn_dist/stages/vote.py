"""Labels sharpened by proposals: masks of a foundation model, or superpixels, take the class that most of them lies in
(amn 1.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amn_dist.config import Vote
from amn_dist.errors import ShardError
from amn_dist.interfaces import Needs
from amn_dist.ops.vote import VoteRule, vote_lengths, vote_regions
from amn_dist.records import Sample


@dataclass(frozen=True)
class VoteMap:
    """Writes labels uint8[H, W]: the `labels` of an earlier stage, after the vote of `proposals` (int32[2 + M]) or, of
    a sample without these, of `regions` (uint16[H, W]). The photograph is not looked at."""

    section: Vote
    name: str = "vote"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("mask.png",)

    @property
    def rule(self) -> VoteRule:
        section = self.section
        return VoteRule(section.overlap, section.coverage, section.background, section.clear)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            labels, proposals = sample.joined["labels"], sample.joined.get("proposals")
            if proposals is None:
                voted = vote_regions(labels, sample.joined["regions"], self.rule)
            else:
                check_size(sample.key, proposals, labels.shape)
                voted = vote_lengths(labels, proposals[2:], self.rule)
            sample.made[self.name] = {"mask.png": voted}
            yield sample


def check_size(key: str, proposals: np.ndarray, size: tuple[int, ...]) -> None:
    """Raise ShardError naming the sample unless its proposals are of an image of this size (H, W)."""
    height, width = proposals[:2].tolist()
    if (height, width) != size:
        raise ShardError(
            f"{key}: its proposals are of {width}x{height} pixels, its labels of {size[1]}x{size[0]}; amn import "
            "regions over the images of the run"
        )
