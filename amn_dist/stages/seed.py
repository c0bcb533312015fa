"""Activation to confident labels: two thresholds, two CRFs, and 255 between them (amn 1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from amn_dist.config import Seed
from amn_dist.interfaces import Needs
from amn_dist.loaders.grouping import CRF_IMAGES, Finish, in_batches
from amn_dist.ops.arrays import as_array
from amn_dist.ops.seeds import confident_seed, confident_seeds
from amn_dist.ops.transfer import all_to_device, inference_device, placed, to_host
from amn_dist.records import IGNORE, Evidence, Sample


@dataclass(frozen=True)
class SeedMap:
    """Writes uint8[H, W] labels: 0 background, 1..C-1 classes, 255 undecided. Reads the evidence of its stream.

    A sample about which the stream knows nothing is undecided everywhere, so that nothing is learned from it. Beside a
    network on a GPU (needs="network") the CRFs run there, in batches, on maps that never leave it.
    """

    name: str
    section: Seed
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
            sample.made[self.name] = {"seed.png": self._seed(sample.image, sample.evidence)}
            yield sample

    def _seed(self, image: np.ndarray, evidence: Evidence | None) -> np.ndarray:
        if evidence is None:
            return _undecided(image)
        return confident_seed(
            image,
            as_array(evidence.fine),
            evidence.classes,
            foreground=self.section.foreground,
            background=self.section.background,
            backend=self.section.crf,
        )

    def _begin(self, device: torch.device, group: list[Sample]) -> Finish:
        """Give a batch of CRFs to the device; what is returned waits for the seeds and fills them in."""
        evident = [(sample, sample.evidence) for sample in group if sample.evidence is not None]
        seeds = confident_seeds(
            all_to_device([sample.image for sample, _ in evident], device),
            [placed(evidence.fine, device) for _, evidence in evident],
            [evidence.classes for _, evidence in evident],
            foreground=self.section.foreground,
            background=self.section.background,
        )
        landing = to_host(seeds)

        def finish() -> None:
            for sample in group:
                sample.made[self.name] = {"seed.png": _undecided(sample.image)}
            for (sample, _), seed in zip(evident, landing.arrays(), strict=True):
                sample.made[self.name] = {"seed.png": seed}

        return finish


def _undecided(image: np.ndarray) -> np.ndarray:
    return np.full(image.shape[:2], IGNORE, np.uint8)
