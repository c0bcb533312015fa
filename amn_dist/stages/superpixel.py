"""Superpixels: regions of like colour that the intra-class discriminator makes its targets even in (icd 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amn_dist.config import Superpixel
from amn_dist.interfaces import Needs
from amn_dist.ops.superpixel import felzenszwalb_regions
from amn_dist.records import Sample


@dataclass(frozen=True)
class SuperpixelMap:
    """Writes region ids uint16[H, W] of every photograph."""

    section: Superpixel
    name: str = "superpixel"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = ("superpixel.u16.png",)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            regions = felzenszwalb_regions(sample.image, **self.section.model_dump())
            sample.made[self.name] = {"superpixel.u16.png": regions}
            yield sample
