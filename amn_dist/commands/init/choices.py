"""From facts to settings: crops, steps, batches, networks and workers for a set and a machine, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amn_dist.commands.init.facts import ImageFacts, MachineFacts
from amn_dist.commands.init.networks import (
    GENERAL,
    PREFERRED,
    RECIPES,
    SAME_WEIGHTS,
    UNTRAINED,
    VARIANTS,
    Recipe,
)
from amn_dist.commands.init.weights import FoundWeights
from amn_dist.config import Config
from amn_dist.methods import Stage, stages
from amn_dist.models.backbones.architectures import ARCHITECTURES

PUBLISHED_LONG = 500
"""Pixels of the long side of VOC's images, which published crops and walks are made for."""
EPOCHS = {"classify": 5, "amn": 5, "irn": 3, "discriminate": 20, "segment": 19}
"""Published passes over VOC's 10,582 images (amn 4.1, icd 4.2): DeepLab's 20,000 steps of 10 are 19."""
BATCHES = {"classify": 16, "amn": 16, "irn": 32, "discriminate": 32, "segment": 10}
"""Published images a step."""
CPU_SEGMENT_EPOCHS = 6
"""Of DeepLab where no GPU is: half of all work even so."""
MOST_EPOCHS = 30
"""A small set is gone over so often at most, unless the published number is larger."""
MOST_STEPS = 20_000
"""Of DeepLab, as published."""
LEAST_CROP = 32
CPU_SHARE = 0.6
"""Side of a crop without a GPU, by the long side of the images: 192 for 320, as in configs/msrc_amn_vgg16.yaml."""
WORKER_GIB, DRIVER_GIB = 2.0, 3.0
"""Memory of a worker at VOC's size beside 1 GiB of libraries, and of the driver (docs/operations.md, sizing)."""


@dataclass(frozen=True)
class Plan:
    """What a configuration is made from."""

    method: str
    train: ImageFacts
    val: ImageFacts | None
    machine: MachineFacts
    weights: FoundWeights

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Of the method; the last ones only where there is a set to predict on."""
        data = {"val": None if self.val is None else self.val.url}
        return stages(Config.model_validate({"name": "x", "method": self.method, "data": data}))

    @property
    def backbone(self) -> str:
        """Of all networks but DeepLab's: the first that weights are at hand of, else the one that learns from none."""
        return next((name for name in GENERAL if name in self.weights.by_backbone), UNTRAINED)

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.backbone]

    @property
    def pretrained(self) -> bool:
        return self.backbone in self.weights.by_backbone

    @property
    def long(self) -> int:
        """Pixels of the long side, VOC's at most."""
        return min(self.train.long, PUBLISHED_LONG)

    @property
    def crop(self) -> int:
        """Side of a training crop, a multiple of every stride: the long side, less where no GPU is."""
        share = 1.0 if self.machine.devices else CPU_SHARE
        return max(-(-round(share * self.long) // 16) * 16, LEAST_CROP)

    @property
    def odd_crop(self) -> int:
        """As crop, one more than a multiple of stride 8, as DeepLab and ICD have theirs; 321 at most, as published."""
        return min(self.crop // 8 * 8 + 1, 321)

    @property
    def processes(self) -> int:
        """Training processes: one a GPU, as long as each has an image of every step."""
        return max(min(self.machine.devices, *map(self._fair_batch, BATCHES)), 1)

    def batch(self, stage: str) -> int:
        """Images a step: as published, a quarter of a small set, the same number for every process."""
        return self._fair_batch(stage) // self.processes * self.processes

    def _fair_batch(self, stage: str) -> int:
        return max(min(BATCHES[stage], self.train.count // 4), 1)

    def micro_batch(self, stage: str, backbone: str) -> int:
        """Images a process holds at once where memory does not suffice for its share, else 0."""
        side = self.odd_crop if stage in ("segment", "discriminate") else self.crop
        room = 0.8 * self.machine.device_gib if self.machine.devices else 0.4 * self.machine.memory_gib
        fits = int(room * 2**30 / (side**2 * RECIPES[backbone].bytes_per_pixel))
        share = self.batch(stage) // self.processes
        return 0 if fits >= share else max((n for n in range(1, max(fits, 1) + 1) if share % n == 0), default=1)

    def epochs(self, stage: str) -> int:
        """Passes over the set: as published, more on a small one until there are enough steps."""
        published = EPOCHS[stage]
        if stage == "segment" and not self.machine.devices:
            published = CPU_SEGMENT_EPOCHS
        steps = max(self.train.count // self.batch(stage), 1)
        return max(published, min(-(-self.recipe.least_steps // steps), MOST_EPOCHS))

    def steps(self, stage: str) -> int:
        """Optimiser steps."""
        steps = self.epochs(stage) * max(self.train.count // self.batch(stage), 1)
        return min(steps, MOST_STEPS) if stage == "segment" else steps

    @property
    def scales(self) -> list[float]:
        """At which Maps of networks see an image: as published; without a GPU two, three of small images."""
        if self.machine.devices:
            return [1.0, 0.5, 1.5, 2.0]
        return [1.0, 0.5] if self.train.long > 250 else [1.0, 0.5, 1.5]

    @property
    def reach(self) -> float:
        """Size of the images by VOC's, 1 at most: pairs, reach and length of the walk are shortened by it."""
        return self.long / PUBLISHED_LONG

    @property
    def workers(self) -> int:
        """Of the farm, where memory does not suffice for one a core; else 0."""
        each = 1 + WORKER_GIB * min(self.train.pixels / (640 * 480), 13)
        room = max(int((self.machine.memory_gib - DRIVER_GIB) / each), 1)
        return room if room < self.machine.cores and not self.machine.devices else 0

    @property
    def chunk(self) -> int:
        """Samples a worker does at a time: few where all workers together have few."""
        workers = self.workers or self.machine.cores
        return max(min(self.train.count // (4 * workers), 32), 1)

    def network(self, stage: str) -> dict[str, Any]:
        """The backbone of a stage."""
        name = self.network_name(stage)
        weights = self.weights.by_backbone.get(SAME_WEIGHTS.get(name, name))
        frozen = RECIPES[name].frozen_taps.get(stage, 0)
        return {"name": name, "stride": ARCHITECTURES[name].strides[0], "weights": weights, "frozen_taps": frozen}

    def network_name(self, stage: str) -> str:
        """A backbone of the stage's own where weights are at hand of it, else that of all others, or its variant."""
        own = (name for name in PREFERRED.get(stage, ()) if name in self.weights.by_backbone)
        return next(own, VARIANTS.get((stage, self.backbone), self.backbone))
