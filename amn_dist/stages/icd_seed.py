"""Labels from the intra-class discriminator: by the sign of its maps, or by two thresholds as from CAM (icd 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amn_dist.config import IcdSeed
from amn_dist.interfaces import Needs
from amn_dist.ops.seeds import confident_seed
from amn_dist.ops.signed import refine_labels, two_threshold_labels
from amn_dist.records import Evidence, Sample


@dataclass(frozen=True)
class IcdSeedMap:
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream."""

    section: IcdSeed
    num_classes: int
    name: str = "icd_seed"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            assert sample.evidence is not None, f"{self.name} follows a stage that yields evidence"
            decode = self._by_sign if self.section.rule == "signed" else self._by_threshold
            sample.made[self.name] = {"seed.png": decode(sample.image, sample.evidence)}
            yield sample

    def _by_sign(self, image: np.ndarray, evidence: Evidence) -> np.ndarray:
        assert evidence.decided is not None, f"{self.name} by sign follows a stage that decides"
        if self.section.crf == "off":
            return evidence.decided
        return refine_labels(image, evidence.decided, self.num_classes, backend=self.section.crf)

    def _by_threshold(self, image: np.ndarray, evidence: Evidence) -> np.ndarray:
        thresholds = {"foreground": self.section.foreground, "background": self.section.background}
        if self.section.crf == "off":
            return two_threshold_labels(evidence.fine, evidence.classes, **thresholds)
        return confident_seed(image, evidence.fine, evidence.classes, **thresholds, backend=self.section.crf)
