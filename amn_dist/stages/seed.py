"""Activation to confident labels: two thresholds, two CRFs, and 255 between them (amn 1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amn_dist.config import Seed
from amn_dist.ops.seeds import confident_seed
from amn_dist.records import Sample
from amn_dist.verbs import Needs


@dataclass(frozen=True)
class SeedMap:
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream."""

    name: str
    section: Seed
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            assert sample.evidence is not None, f"{self.name} follows a stage that yields evidence"
            seed = confident_seed(
                sample.image,
                sample.evidence.fine,
                sample.evidence.classes,
                foreground=self.section.foreground,
                background=self.section.background,
                backend=self.section.crf,
            )
            sample.made[self.name] = {"seed.png": seed}
            yield sample
