"""Labels from the maps of a frozen CLIP, undecided where the CRF is not sure (clip 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from amn_dist.interfaces import Needs
from amn_dist.loaders.seeding import Seeding
from amn_dist.ops.arrays import as_array
from amn_dist.ops.clip.seed import confident_labels, confident_labels_on_device, largest_labels, with_background
from amn_dist.ops.transfer import all_to_device, placed
from amn_dist.records import Evidence, Sample

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import ClipSeed


@dataclass(frozen=True)
class ClipSeedMap(Seeding):
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream.

    Beside a network on a GPU (needs="network") the CRFs run there, in batches.
    """

    section: ClipSeed
    name: str = "clip_seed"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def seed(self, sample: Sample) -> np.ndarray:
        section, evidence = self.section, self._evidence(sample)
        return confident_labels(
            sample.image,
            as_array(evidence.fine),
            evidence.classes,
            confidence=section.confidence,
            half=section.half,
            wrap_image=section.wrap_image,
            backend=None if section.crf == "off" else section.crf,
        )

    def seeds(self, device: torch.device, group: list[Sample]) -> list[Tensor]:
        section, evidence = self.section, [self._evidence(sample) for sample in group]
        maps = [placed(one.fine, device) for one in evidence]
        classes = all_to_device([with_background(one.classes) for one in evidence], device)
        if section.crf == "off":
            return [largest_labels(*one, half=section.half) for one in zip(maps, classes, strict=True)]
        return confident_labels_on_device(
            all_to_device([np.ascontiguousarray(sample.image) for sample in group], device),
            maps,
            classes,
            confidence=section.confidence,
            half=section.half,
            wrap_image=section.wrap_image,
        )

    def _evidence(self, sample: Sample) -> Evidence:
        assert sample.evidence is not None, f"{self.name} follows a stage that yields evidence"
        return sample.evidence
