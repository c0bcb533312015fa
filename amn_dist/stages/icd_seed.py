"""Labels from the intra-class discriminator: by the sign of its maps, or by two thresholds as from CAM (icd 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amn_dist.config import IcdSeed
from amn_dist.interfaces import Needs
from amn_dist.loaders.seeding import Seeding
from amn_dist.ops.arrays import as_array
from amn_dist.ops.seeds import confident_seed, confident_seeds
from amn_dist.ops.signed import refine_labels, refined_on_device, two_threshold_labels
from amn_dist.ops.transfer import all_to_device, placed
from amn_dist.records import Evidence, Sample


@dataclass(frozen=True)
class IcdSeedMap(Seeding):
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream.

    Beside a network on a GPU (needs="network") the CRFs run there, in batches.
    """

    section: IcdSeed
    num_classes: int
    name: str = "icd_seed"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def seed(self, sample: Sample) -> np.ndarray:
        decode = self._by_sign if self.section.rule == "signed" else self._by_threshold
        return decode(sample.image, self._evidence(sample))

    def _by_sign(self, image: np.ndarray, evidence: Evidence) -> np.ndarray:
        decided = self._decided(evidence)
        if self.section.crf == "off":
            return decided
        return refine_labels(image, decided, self.num_classes, backend=self.section.crf)

    def _by_threshold(self, image: np.ndarray, evidence: Evidence) -> np.ndarray:
        fine = as_array(evidence.fine)
        thresholds = {"foreground": self.section.foreground, "background": self.section.background}
        if self.section.crf == "off":
            return two_threshold_labels(fine, evidence.classes, **thresholds)
        return confident_seed(image, fine, evidence.classes, **thresholds, backend=self.section.crf)

    def seeds(self, device: torch.device, group: list[Sample]) -> list[Tensor]:
        images = all_to_device([sample.image for sample in group], device)
        evidence = [self._evidence(sample) for sample in group]
        if self.section.rule == "signed":
            labels = all_to_device([self._decided(one) for one in evidence], device)
            return refined_on_device(images, labels, self.num_classes)
        return confident_seeds(
            images,
            [placed(one.fine, device) for one in evidence],
            [one.classes for one in evidence],
            foreground=self.section.foreground,
            background=self.section.background,
        )

    def _evidence(self, sample: Sample) -> Evidence:
        assert sample.evidence is not None, f"{self.name} follows a stage that yields evidence"
        return sample.evidence

    def _decided(self, evidence: Evidence) -> np.ndarray:
        assert evidence.decided is not None, f"{self.name} by sign follows a stage that decides"
        return evidence.decided
