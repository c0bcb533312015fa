"""Activation to confident labels: two thresholds, two CRFs, and 255 between them (amn 1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amn_dist.config import Seed
from amn_dist.interfaces import Needs
from amn_dist.ops.seeds import confident_seed
from amn_dist.records import IGNORE, Evidence, Sample


@dataclass(frozen=True)
class SeedMap:
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream.

    A sample about which the stream knows nothing is undecided everywhere, so that nothing is learned from it.
    """

    name: str
    section: Seed
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            sample.made[self.name] = {"seed.png": self._seed(sample.image, sample.evidence)}
            yield sample

    def _seed(self, image: np.ndarray, evidence: Evidence | None) -> np.ndarray:
        if evidence is None:
            return np.full(image.shape[:2], IGNORE, np.uint8)
        return confident_seed(
            image,
            evidence.fine,
            evidence.classes,
            foreground=self.section.foreground,
            background=self.section.background,
            backend=self.section.crf,
        )
