"""What of a run, or which shard set, a command means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from amn_dist.errors import AmnError, ConfigError, StageError, printable
from amn_dist.methods import ARTEFACTS, maker_of, scored
from amn_dist.records import ACTIVATION, IGNORE
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.shards.format import PHOTOS, kind_of
from amn_dist.shards.index import INDEX
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.paths import AnyPath, is_file, path_of

Result = TypeVar("Result")

MASKS = (*dict.fromkeys(a.field for a in reversed(ARTEFACTS.values()) if a.is_labels), "gt.png")
"""Fields of labels, the one that is taken first where a set has several: what a stage makes last."""
THREADS = 4


@dataclass(frozen=True)
class SelectedField:
    """A field of a shard set, and the images it lies over where they are at hand."""

    shards: ShardSet
    field: str
    images: ShardSet | None = None

    def file_name(self, entry: Entry) -> str:
        """The photograph of a sample: the file it was made from, else its key with the ending of what the set holds."""
        if self.images is None:
            return f"{entry.key}.jpg"
        photo = self.images.entry(entry.ordinal)
        ending = next((name for name in PHOTOS if name in photo.fields), PHOTOS[0])
        return photo.source or f"{entry.key}.{ending}"

    @property
    def note(self) -> str:
        """What is to be said of names; empty where they are those of the photographs."""
        if self.images is not None:
            return ""
        return f"{self.shards.url}: its photographs are not at hand (--data); files are called KEY.jpg, ids are our own"


def select_masks(
    source: str, *, stage: str | None = None, field: str | None = None, data: AnyPath | None = None
) -> SelectedField:
    """Labels of a run's stage (without one: those its segmentation network learns from), or of a shard set.

    data: where the sets of the run lie now, if they were moved.
    """
    shards, pipeline = _open_shards(source, stage, data, learned_labels)
    labels = (name for name in shards.fields if kind_of(name) == "labels")
    fields = sorted(labels, key=lambda name: MASKS.index(name) if name in MASKS else len(MASKS))
    if not fields or (field in shards.fields and field not in fields):
        advice = "; amn export maps hands out activations" if ACTIVATION in shards.fields else ""
        held = field if field in shards.fields else ", ".join(shards.fields)
        raise ConfigError(f"{shards.url}: holds {printable(held)}, expected labels such as {', '.join(MASKS)}{advice}")
    return SelectedField(shards, _checked(shards, field or fields[0]), _images_of(shards, pipeline))


def select_maps(
    source: str, *, stage: str | None = None, images: str | None = None, data: AnyPath | None = None
) -> SelectedField:
    """Activation maps of a run's stage (without one: its first), or of a shard set whose images are named.

    data: where the sets of the run lie now, if they were moved.
    """
    shards, pipeline = _open_shards(source, stage, data, first_map_stage)
    if pipeline is None and images is None:
        raise ConfigError(
            f"{source}: the tags say whose maps these are; name the image set they lie over with --images"
        )
    photos = pipeline.sets["train"] if images is None and pipeline is not None else ShardSet.open(str(images))
    photos.join(shards)
    return SelectedField(shards, _checked(shards, ACTIVATION), photos)


def learned_labels(pipeline: Pipeline) -> str:
    """The stage of a run whose labels its segmentation network learns from."""
    return maker_of(pipeline.stage("segment").reads["label"]).name


def first_map_stage(pipeline: Pipeline) -> str:
    """The first stage of a run that makes activation maps."""
    return next(stage.name for stage, artefact in scored(pipeline.config) if artefact.is_activation)


def map_samples(work: Callable[[Entry], Result], shards: ShardSet) -> Iterator[Result]:
    """The results of some work on every sample, in order, a shard at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(len(shards.shard_sizes)):
            yield from pool.map(work, shards.shard(number))


def present(labels: np.ndarray) -> list[int]:
    """The classes in labels uint8[H, W], without background and undecided pixels."""
    return [int(number) for number in np.unique(labels[(labels > 0) & (labels != IGNORE)])]


def _images_of(shards: ShardSet, pipeline: Pipeline | None) -> ShardSet | None:
    """The images that labels lie over; None where they are not at hand."""
    if pipeline is None:
        return shards if any(name in shards.fields for name in PHOTOS) else None
    try:
        images = pipeline.sets[pipeline.stage(shards.kind).over]
        images.join(shards)
    except AmnError:
        return None
    return images


def _open_shards(
    source: str, stage: str | None, data: AnyPath | None, usual: Callable[[Pipeline], str]
) -> tuple[ShardSet, Pipeline | None]:
    """The set a command means, and the run it belongs to. usual: names the stage that is meant without one."""
    folder = path_of(source)
    if is_file(folder / INDEX):
        run = folder.absolute().parent
        inside = (run / "config.yaml").is_file() and (run / "data.json").is_file()
        return ShardSet.open(source), reopen(run, data=data) if inside else None
    pipeline = reopen(folder, data=data)
    wanted = pipeline.stage(stage or usual(pipeline))
    if wanted.verb != "map" or not pipeline.run.is_done(wanted):
        finished = [s.name for s in pipeline.stages if s.verb == "map" and pipeline.run.is_done(s)]
        raise StageError(f"{source}: {wanted.name} has no finished shards; found {', '.join(finished) or 'none'}")
    return pipeline.open(wanted.name), pipeline


def _checked(shards: ShardSet, field: str) -> str:
    """A field that the set has."""
    if field not in shards.fields:
        raise ConfigError(f"{shards.url}: no field {printable(field)}; found {printable(', '.join(shards.fields))}")
    return field
