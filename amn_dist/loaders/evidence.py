"""What a network's maps become on their samples, and on the way from one worker to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from amn_dist.loaders.grouping import Finish
from amn_dist.ops.transfer import to_host
from amn_dist.records import ACTIVATION, Evidence, Sample

TensorMaps = tuple[np.ndarray, Tensor, Tensor]
"""classes uint8[K] (1-based), coarse f32[K, h, w], fine f32[K, H, W], both where the network is."""


def hand_out(
    stage: str, group: Sequence[Sample], maps: Sequence[TensorMaps], decided: Sequence[Tensor] = ()
) -> Finish | None:
    """Give samples their maps as evidence, and the coarse ones as what the stage yields. decided: labels uint8[H, W] of
    a network that decides.

    From a device coarse maps and labels come in one go, which the function returned waits for; the fine maps stay.
    """

    def take(arrays: list[np.ndarray]) -> None:
        labels: list[np.ndarray | None] = [*arrays[len(maps) :]] if decided else [None for _ in maps]
        for sample, (classes, _, fine), coarse, own in zip(group, maps, arrays[: len(maps)], labels, strict=True):
            sample.evidence = Evidence(classes, coarse, fine if fine.is_cuda else fine.numpy(), own)
            sample.made[stage] = {ACTIVATION: coarse.astype(np.float16)}

    return to_host([*(coarse for _, coarse, _ in maps), *decided]).then(take)


def on_host(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their fine maps in the host's memory, brought there in one go."""
    evident = [(sample, sample.evidence) for sample in samples if sample.evidence is not None]
    away = [(sample, evidence) for sample, evidence in evident if isinstance(evidence.fine, Tensor)]
    landing = to_host([evidence.fine for _, evidence in away if isinstance(evidence.fine, Tensor)])
    for (sample, evidence), fine in zip(away, landing.arrays(), strict=True):
        sample.evidence = replace(evidence, fine=fine)
    return list(samples)
