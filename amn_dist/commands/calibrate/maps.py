"""The maps of a run that a threshold cuts: stored activations, and the walk done again for a few images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from amn_dist.errors import AmnError, ConfigError, ShardError, StageError, listed, printable
from amn_dist.farms.farm import Chunk
from amn_dist.farms.stream import Source
from amn_dist.loaders.decode import decode_images
from amn_dist.methods import ARTEFACTS, maker_of
from amn_dist.models.inference import device_of
from amn_dist.ops.arrays import as_array
from amn_dist.ops.metrics.threshold_choice import ThresholdCounts, image_counts, together
from amn_dist.ops.metrics.thresholds import sweep
from amn_dist.ops.resize import resize_label, upsample
from amn_dist.ops.walk.walk import random_walks, walk_scores
from amn_dist.records import Sample
from amn_dist.report.run_folder import StageOutput, open_outputs
from amn_dist.runs.pipeline import Pipeline
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.irn import WalkMap, images_edge


class CutMaps(Protocol):
    """Maps of the training images that a threshold makes labels of. now: the run's threshold."""

    @property
    def name(self) -> str: ...

    @property
    def now(self) -> float: ...

    def full_size(self, ordinals: Sequence[int]) -> Iterator[np.ndarray]:
        """Maps f32[K, H, W] of images, at their size, in the given order."""
        ...


@dataclass(frozen=True)
class StoredMaps:
    """The activation that a finished Map wrote."""

    images: ShardSet
    output: StageOutput
    now: float

    @property
    def name(self) -> str:
        return self.output.artefact.name

    def full_size(self, ordinals: Sequence[int]) -> Iterator[np.ndarray]:
        for ordinal in ordinals:
            entry = self.images.entry(ordinal)
            yield upsample(self.coarse(ordinal), (entry.height, entry.width))

    def coarse(self, ordinal: int) -> np.ndarray:
        """Maps f16[K, h, w] of an image. Raises ShardError where they are not those of its tags."""
        maps, classes = self.output.load(self.images, ordinal), classes_of(self.images, ordinal)
        if len(maps) != len(classes):
            of = f"found {len(maps)} maps of {self.name}, expected {len(classes)} for its tags"
            raise ShardError(f"{self.images.entry(ordinal).key}: {of}; --redo {self.name}")
        return maps


@dataclass(frozen=True)
class WalkedMaps:
    """Activations after the random walk, over their maximum: what `walk.background` cuts. Each call walks anew."""

    pipeline: Pipeline
    name: str = "walk"

    @property
    def now(self) -> float:
        return self.pipeline.config.walk.background

    def full_size(self, ordinals: Sequence[int]) -> Iterator[np.ndarray]:
        walk = walk_map(self.pipeline)
        network = walk.open()
        for sample in samples(self.pipeline, ordinals, self.pipeline.stage("walk").reads):
            planes = self._planes(network, sample)
            yield planes if sample.size is None else enlarged_planes(planes, sample.size)

    def _planes(self, network: torch.nn.Module, sample: Sample) -> np.ndarray:
        """Walked maps f32[K, H, W] of an image at the size it is worked on."""
        section, size = self.pipeline.config.walk, (sample.image.shape[0], sample.image.shape[1])
        if not sample.tags.any():
            return np.zeros((0, *size), np.float32)
        (edge,) = images_edge(network, [sample.image], pad=section.pad)  # type: ignore[arg-type]
        activation = torch.from_numpy(sample.joined["activation"]).to(device_of(network)).float() ** section.power
        (walked,) = random_walks(
            [activation], [edge.float()], radius=section.radius, beta=section.beta, steps=section.steps
        )
        return as_array(walk_scores(walked, size, background=0)[1:])


def walk_map(pipeline: Pipeline) -> WalkMap:
    """The walk of a run, as it is configured."""
    return WalkMap(pipeline.config, pipeline.num_classes, pipeline.context(pipeline.stage("walk")).weights)


def samples(pipeline: Pipeline, ordinals: Sequence[int], reads: Mapping[str, str]) -> Iterator[Sample]:
    """The images at some positions, in that order, with what stages have made of them: artefacts by name."""
    joins = [pipeline.join(name, maker_of(made).name, ARTEFACTS[made].field) for name, made in reads.items()]
    images = pipeline.sets["train"]
    source = Source(images.url, tuple(joins), pipeline.config.loader, digest=images.digest)
    return source.open()(*(chunk_of(images, ordinal) for ordinal in ordinals))


def photographs(pipeline: Pipeline, ordinals: Sequence[int]) -> Iterator[np.ndarray]:
    """The photographs uint8[H, W, 3] at some positions, in that order, at their own size."""
    images = pipeline.sets["train"]
    encoded = ((images.entry(ordinal).key, images.image(ordinal)) for ordinal in ordinals)
    return decode_images(encoded, loader=pipeline.config.loader)


def chunk_of(images: ShardSet, ordinal: int) -> Chunk:
    """A sample alone."""
    entry = images.entry(ordinal)
    position = entry.ordinal - images.shard(entry.shard)[0].ordinal
    return Chunk(entry.shard, position, position + 1)


def enlarged_planes(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps [K, h, w] of a photograph that was worked on at a smaller size as its labels are enlarged: [K, H, W]."""
    grown = [resize_label(plane, size) for plane in planes]
    return np.stack(grown) if grown else np.zeros((0, *size), planes.dtype)


def classes_of(images: ShardSet, ordinal: int) -> np.ndarray:
    """The tagged classes of an image, uint8[K], 1-based."""
    return (np.flatnonzero(images.load(ordinal, "tags")) + 1).astype(np.uint8)


def cut_maps(pipeline: Pipeline, stage: str | None = None) -> list[CutMaps]:
    """What a run has that a threshold cuts, in order: its finished activations, and the walk where it can be done.

    stage: the only one that is wanted. Raises StageError when there is nothing, ConfigError for another stage.
    """
    images, missing = pipeline.sets["train"], list[str]()
    outputs = open_outputs(pipeline, {"train": images}, missing)
    threshold = pipeline.config.score.threshold
    maps: list[CutMaps] = [
        StoredMaps(images, output, threshold) for output in outputs.values() if output.artefact.is_activation
    ]
    if can_walk(pipeline):
        maps.append(WalkedMaps(pipeline))
    if not maps:
        faults = listed(missing) or "it has no finished map"
        raise StageError(f"{pipeline.run.folder}: {faults}; `amn run` with --until cam makes the first")
    chosen = [one for one in maps if stage in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in maps)
        raise ConfigError(f"--stage {printable(stage)}: found {names} in {pipeline.run.folder}, expected one of them")
    return chosen


def can_walk(pipeline: Pipeline) -> bool:
    """Whether a run has what its walk is made of."""
    walk = next((stage for stage in pipeline.stages if stage.name == "walk"), None)
    if walk is None:
        return False
    try:
        return all(pipeline.run.is_done(pipeline.stage(name)) for name in walk.depends_on)
    except AmnError:
        return False


def count_maps(
    maps: CutMaps, images: ShardSet, ordinals: Sequence[int], truths: Iterable[np.ndarray]
) -> ThresholdCounts:
    """Counts of images against truths uint8[H, W], 255 void, at every threshold."""
    classes = len(images.classes)
    pairs = zip(ordinals, maps.full_size(ordinals), truths, strict=True)
    return together(
        [image_counts(sweep(fine, classes_of(images, o), truth, classes), classes) for o, fine, truth in pairs]
    )
