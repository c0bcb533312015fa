"""Activation maps of another method as the first evidence of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amn_dist.errors import ShardError
from amn_dist.interfaces import Needs
from amn_dist.ops.resize import upsample
from amn_dist.records import ACTIVATION, Evidence, Sample, grid_size


@dataclass(frozen=True)
class RefineMap:
    """Hands on maps made elsewhere, f16[K, h, w] in [0, 1]; their seed reads them at the size of the photograph.

    A tagged sample whose map is empty, f16[0, h, w], has none (`amn import maps --skip-bad`): it passes without
    evidence, and its map is written as zeros.
    """

    name: str = "refine"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = (ACTIVATION,)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            maps, size = sample.joined["maps"], sample.image.shape[:2]
            classes = (np.flatnonzero(sample.tags) + 1).astype(np.uint8)
            absent = len(classes) > 0 and len(maps) == 0
            if absent:
                maps = np.zeros((len(classes), *maps.shape[1:]), np.float16)
            check_maps(sample.key, maps, (len(classes), *grid_size(*size)))
            sample.evidence = None if absent else Evidence(classes, maps.astype(np.float32), upsample(maps, size))
            sample.made[self.name] = {ACTIVATION: maps}
            yield sample


def check_maps(key: str, maps: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise ShardError naming the sample unless its maps have this shape and lie in [0, 1]."""
    if maps.shape != shape:
        raise ShardError(f"{key}: found maps {list(maps.shape)}, expected {list(shape)} for its tags and size")
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise ShardError(f"{key}: its maps run from {maps.min()} to {maps.max()}, expected 0 to 1; amn import maps")
