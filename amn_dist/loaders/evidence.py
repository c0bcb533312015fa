"""What a network's maps become on their samples, and on the way from one worker to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from amn_dist.loaders.grouping import Finish
from amn_dist.ops.transfer import to_host
from amn_dist.records import ACTIVATION, CoarseMaps, Evidence, Sample

TensorMaps = tuple[np.ndarray, Tensor, Tensor]
"""classes uint8[K] (1-based), coarse f32[K, h, w], fine f32[K, H, W], both where the network is."""


def hand_out(
    stage: str,
    group: Sequence[Sample],
    maps: Sequence[TensorMaps],
    decided: Sequence[Tensor] = (),
    stored: Sequence[Tensor] = (),
) -> Finish | None:
    """Give samples their maps as evidence, and the coarse ones as what the stage yields. decided: labels uint8[H, W] of
    a network that decides. stored: maps [K, h', w'] that the coarse ones are bilinear between, yielded in their place.

    From a device all but the fine maps come in one go, which the function returned waits for; these stay.
    """

    def take(arrays: list[np.ndarray]) -> None:
        coarse, rest = arrays[: len(maps)], iter(arrays[len(maps) :])
        labels = [next(rest) if decided else None for _ in maps]
        few = [next(rest) if stored else None for _ in maps]
        for sample, (classes, _, fine), many, own, values in zip(group, maps, coarse, labels, few, strict=True):
            sample.evidence = Evidence(classes, many, fine if fine.is_cuda else fine.numpy(), own)
            half = (many if values is None else values).astype(np.float16)
            sample.made[stage] = {ACTIVATION: half if values is None else CoarseMaps(half, many.shape[1:])}

    return to_host([*(coarse for _, coarse, _ in maps), *decided, *stored]).then(take)


def on_host(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their fine maps in the host's memory, brought there in one go."""
    evident = [(sample, sample.evidence) for sample in samples if sample.evidence is not None]
    away = [(sample, evidence) for sample, evidence in evident if isinstance(evidence.fine, Tensor)]
    landing = to_host([evidence.fine for _, evidence in away if isinstance(evidence.fine, Tensor)])
    for (sample, evidence), fine in zip(away, landing.arrays(), strict=True):
        sample.evidence = replace(evidence, fine=fine)
    return list(samples)
