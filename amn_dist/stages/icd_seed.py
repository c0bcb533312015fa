"""Labels from the intra-class discriminator: by the sign of its maps, or by two thresholds as from CAM (icd 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amn_dist.config import IcdSeed
from amn_dist.interfaces import Needs
from amn_dist.loaders.grouping import CRF_IMAGES, Finish, in_batches
from amn_dist.ops.arrays import as_array
from amn_dist.ops.seeds import confident_seed, confident_seeds
from amn_dist.ops.signed import refine_labels, refined_on_device, two_threshold_labels
from amn_dist.ops.transfer import all_to_device, inference_device, placed, to_host
from amn_dist.records import Evidence, Sample


@dataclass(frozen=True)
class IcdSeedMap:
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream.

    Beside a network on a GPU (needs="network") the CRFs run there, in batches.
    """

    section: IcdSeed
    num_classes: int
    name: str = "icd_seed"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def open(self) -> torch.device:
        return inference_device() if self.needs == "network" else torch.device("cpu")

    def run(self, opened: torch.device | None, samples: Iterator[Sample]) -> Iterator[Sample]:
        if opened is not None and opened.type != "cpu":
            return in_batches(samples, lambda group: self._begin(opened, group), number=CRF_IMAGES)
        return self._one_by_one(samples)

    def _one_by_one(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            decode = self._by_sign if self.section.rule == "signed" else self._by_threshold
            sample.made[self.name] = {"seed.png": decode(sample.image, self._evidence(sample))}
            yield sample

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

    def _begin(self, device: torch.device, group: list[Sample]) -> Finish:
        """Give a batch of CRFs to the device; what is returned waits for the seeds and fills them in."""
        images = all_to_device([sample.image for sample in group], device)
        landing = to_host(self._on_device(images, [self._evidence(sample) for sample in group]))

        def finish() -> None:
            for sample, seed in zip(group, landing.arrays(), strict=True):
                sample.made[self.name] = {"seed.png": seed}

        return finish

    def _on_device(self, images: Sequence[Tensor], evidence: Sequence[Evidence]) -> list[Tensor]:
        device = images[0].device
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
