"""What of a run, or which shard set, a command means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from amn_dist.errors import ConfigError, StageError, printable
from amn_dist.methods import ACTIVATION, is_labels, scored
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.shards.index import INDEX
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.paths import is_file, path_of

Result = TypeVar("Result")

MASKS = ("mask.png", "seed.png", "raw.png", "gt.png")
"""Fields of labels, the one that is taken first where a set has several; one that is not listed comes last."""
THREADS = 4


@dataclass(frozen=True)
class Artefact:
    """A field of a shard set, and the images it lies over where they are known."""

    made: ShardSet
    field: str
    images: ShardSet | None = None


def masks_of(place: str, *, stage: str | None = None, field: str | None = None) -> Artefact:
    """Labels of a run's stage (without one: those its segmentation network learns from), or of a shard set."""
    made, _ = _opened(place, stage, lambda line: str((line.stage("segment").label or ("walk",))[0]))
    labels = filter(is_labels, made.fields)
    fields = sorted(labels, key=lambda name: MASKS.index(name) if name in MASKS else len(MASKS))
    if not fields or (field in made.fields and field not in fields):
        advice = "; amn export maps hands out activations" if ACTIVATION in made.fields else ""
        held = field if field in made.fields else ", ".join(made.fields)
        raise ConfigError(f"{made.url}: holds {printable(held)}, expected labels such as {', '.join(MASKS)}{advice}")
    return Artefact(made, _known(made, field or fields[0]))


def maps_of(place: str, *, stage: str | None = None, images: str | None = None) -> Artefact:
    """Activation maps of a run's stage (without one: its first), or of a shard set whose images are named."""
    made, line = _opened(place, stage, first_maps)
    if line is None and images is None:
        raise ConfigError(f"{place}: the tags say whose maps these are; name the image set they lie over with --images")
    photos = line.sets["train"] if images is None and line is not None else ShardSet.open(str(images))
    photos.join(made)
    return Artefact(made, _known(made, ACTIVATION), photos)


def first_maps(line: Pipeline) -> str:
    """The first stage of a run that makes activation maps."""
    return next(stage for stage, field, _ in scored(line.config).values() if field == ACTIVATION)


def each(found: ShardSet, work: Callable[[Entry], Result]) -> Iterator[Result]:
    """The results of some work on every sample, in order, a shard at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(len(found.shard_sizes)):
            yield from pool.map(work, found.shard(number))


def _opened(place: str, stage: str | None, usual: Callable[[Pipeline], str]) -> tuple[ShardSet, Pipeline | None]:
    """The set a command means, and the run it belongs to."""
    folder = path_of(place)
    if is_file(folder / INDEX):
        run = folder.absolute().parent
        inside = (run / "config.yaml").is_file() and (run / "data.json").is_file()
        return ShardSet.open(place), reopen(run) if inside else None
    line = reopen(folder)
    wanted = line.stage(stage or usual(line))
    if wanted.verb != "map" or not line.run.is_done(wanted):
        maps = [s.name for s in line.stages if s.verb == "map" and line.run.is_done(s)]
        raise StageError(f"{place}: {wanted.name} has no finished shards; found {', '.join(maps) or 'none'}")
    return line.open(wanted.name), line


def _known(made: ShardSet, field: str) -> str:
    if field not in made.fields:
        raise ConfigError(f"{made.url}: no field {printable(field)}; found {printable(', '.join(made.fields))}")
    return field
