"""Seeds of samples: one image after the other on a CPU, or the CRFs of many at a time on a network's device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from amn_dist.loaders.grouping import CRF_IMAGES, Finish, in_batches
from amn_dist.ops.transfer import inference_device, to_host
from amn_dist.records import Sample

FIELD = "seed.png"
"""What such a Map writes."""


class Seeding:
    """What Maps that write a seed share. Beside a network on a GPU (needs="network") the CRFs run there, in batches."""

    name: str
    needs: str

    @abstractmethod
    def seed(self, sample: Sample) -> np.ndarray:
        """The seed uint8[H, W] of a sample, made on the CPU."""

    @abstractmethod
    def seeds(self, device: torch.device, group: list[Sample]) -> list[Tensor]:
        """The seeds uint8[H, W] of samples, on the device."""

    def open(self) -> torch.device:
        return inference_device() if self.needs == "network" else torch.device("cpu")

    def run(self, opened: torch.device | None, samples: Iterator[Sample]) -> Iterator[Sample]:
        if opened is not None and opened.type != "cpu":
            return in_batches(samples, lambda group: self._begin(opened, group), number=CRF_IMAGES)
        return self._one_by_one(samples)

    def _one_by_one(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            sample.made[self.name] = {FIELD: self.seed(sample)}
            yield sample

    def _begin(self, device: torch.device, group: list[Sample]) -> Finish:
        """Give a batch of CRFs to the device; what is returned waits for the seeds and fills them in."""
        landing = to_host(self.seeds(device, group))

        def finish() -> None:
            for sample, seed in zip(group, landing.arrays(), strict=True):
                sample.made[self.name] = {FIELD: seed}

        return finish
