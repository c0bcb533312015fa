"""Activation to confident labels: two thresholds, two CRFs, and 255 between them (amn 1.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from amn_dist.config import Seed
from amn_dist.interfaces import Needs
from amn_dist.loaders.seeding import Seeding
from amn_dist.ops.arrays import as_array
from amn_dist.ops.seeds import confident_seed, confident_seeds
from amn_dist.ops.transfer import all_to_device, placed
from amn_dist.records import IGNORE, Sample


@dataclass(frozen=True)
class SeedMap(Seeding):
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream.

    A sample about which the stream knows nothing is undecided everywhere, so that nothing is learned from it. Beside a
    network on a GPU (needs="network") the CRFs run there, in batches, on maps that never leave it.
    """

    name: str
    section: Seed
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("seed.png",)

    def seed(self, sample: Sample) -> np.ndarray:
        evidence = sample.evidence
        if evidence is None:
            return np.full(sample.image.shape[:2], IGNORE, np.uint8)
        return confident_seed(
            sample.image,
            as_array(evidence.fine),
            evidence.classes,
            foreground=self.section.foreground,
            background=self.section.background,
            backend=self.section.crf,
        )

    def seeds(self, device: torch.device, group: list[Sample]) -> list[Tensor]:
        evident = [(sample, sample.evidence) for sample in group if sample.evidence is not None]
        confident = confident_seeds(
            all_to_device([sample.image for sample, _ in evident], device),
            [placed(evidence.fine, device) for _, evidence in evident],
            [evidence.classes for _, evidence in evident],
            foreground=self.section.foreground,
            background=self.section.background,
        )
        decided = iter(confident)
        undecided = partial(torch.full, fill_value=IGNORE, dtype=torch.uint8, device=device)
        return [undecided(one.image.shape[:2]) if one.evidence is None else next(decided) for one in group]
