"""What of a run, or which shard set, a command means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from amn_dist.errors import ConfigError, StageError, printable
from amn_dist.methods import ARTEFACTS, maker_of, scored
from amn_dist.records import ACTIVATION
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.shards.format import kind_of
from amn_dist.shards.index import INDEX
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.paths import is_file, path_of

Result = TypeVar("Result")

MASKS = (*dict.fromkeys(a.field for a in reversed(ARTEFACTS.values()) if a.is_labels), "gt.png")
"""Fields of labels, the one that is taken first where a set has several: what a stage makes last."""
THREADS = 4


@dataclass(frozen=True)
class SelectedField:
    """A field of a shard set, and the images it lies over where they are known."""

    shards: ShardSet
    field: str
    images: ShardSet | None = None


def select_masks(source: str, *, stage: str | None = None, field: str | None = None) -> SelectedField:
    """Labels of a run's stage (without one: those its segmentation network learns from), or of a shard set."""
    shards, _ = _open_shards(source, stage, lambda pipeline: maker_of(pipeline.stage("segment").reads["label"]).name)
    labels = (name for name in shards.fields if kind_of(name) == "labels")
    fields = sorted(labels, key=lambda name: MASKS.index(name) if name in MASKS else len(MASKS))
    if not fields or (field in shards.fields and field not in fields):
        advice = "; amn export maps hands out activations" if ACTIVATION in shards.fields else ""
        held = field if field in shards.fields else ", ".join(shards.fields)
        raise ConfigError(f"{shards.url}: holds {printable(held)}, expected labels such as {', '.join(MASKS)}{advice}")
    return SelectedField(shards, _checked(shards, field or fields[0]))


def select_maps(source: str, *, stage: str | None = None, images: str | None = None) -> SelectedField:
    """Activation maps of a run's stage (without one: its first), or of a shard set whose images are named."""
    shards, pipeline = _open_shards(source, stage, first_map_stage)
    if pipeline is None and images is None:
        raise ConfigError(
            f"{source}: the tags say whose maps these are; name the image set they lie over with --images"
        )
    photos = pipeline.sets["train"] if images is None and pipeline is not None else ShardSet.open(str(images))
    photos.join(shards)
    return SelectedField(shards, _checked(shards, ACTIVATION), photos)


def first_map_stage(pipeline: Pipeline) -> str:
    """The first stage of a run that makes activation maps."""
    return next(stage.name for stage, artefact in scored(pipeline.config) if artefact.is_activation)


def map_samples(work: Callable[[Entry], Result], shards: ShardSet) -> Iterator[Result]:
    """The results of some work on every sample, in order, a shard at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(len(shards.shard_sizes)):
            yield from pool.map(work, shards.shard(number))


def _open_shards(source: str, stage: str | None, usual: Callable[[Pipeline], str]) -> tuple[ShardSet, Pipeline | None]:
    """The set a command means, and the run it belongs to. usual: names the stage that is meant without one."""
    folder = path_of(source)
    if is_file(folder / INDEX):
        run = folder.absolute().parent
        inside = (run / "config.yaml").is_file() and (run / "data.json").is_file()
        return ShardSet.open(source), reopen(run) if inside else None
    pipeline = reopen(folder)
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
