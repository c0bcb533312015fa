"""Maps of a run: which run together, what they read, and how their shards come to be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from amn_dist.errors import StageError
from amn_dist.farms.stream import Join, MapTask, Source
from amn_dist.interfaces import Map, Prepared, parts_of
from amn_dist.loaders.bounded import working_pixels
from amn_dist.methods import ARTEFACTS, Stage, maker_of
from amn_dist.runs.experiment import Experiment
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import clean_unfinished, index_all, read_reports
from amn_dist.telemetry import Observe


def map_stage(experiment: Experiment, stage: Stage, observe: Observe, wanted: Sequence[Stage]) -> None:
    """Make the shards of a Map, and of those of its stream that are wanted and not done."""
    stream = _stream(experiment, stage, wanted)
    images = experiment.sets[stage.over]
    folders = {
        member.name: experiment.run.stage(member.name) for member in stream if not experiment.run.is_done(member)
    }
    for member in stream:
        if member.name in folders and member is not stage:
            experiment.begin(member, experiment.origin(member))
    for folder in folders.values():
        clean_unfinished(folder)
    maps = _maps(experiment, stream)
    task = MapTask(
        name="+".join(member.name for member in stream),
        source=_source(experiment, stage.over, stream),
        maps=maps,
        folders=tuple(str(folders[step.name]) if step.name in folders else None for step in maps),
        sizes=images.shard_sizes,
        chunk=experiment.config.farm.chunk,
        accelerated=experiment.workers().accelerated,
    )
    reports = zip(*(read_reports(folder, len(images.shard_sizes)) for folder in folders.values()), strict=True)
    todo = [number for number, of_shard in enumerate(reports) if None in of_shard]
    done = len(images) - sum(images.shard_sizes[n] for n in todo)
    start, reduced = time.monotonic(), 0
    for report in experiment.workers().run(task, todo):
        observe(report.metrics(before=done, total=len(images), seconds=time.monotonic() - start))
        if report.shard is not None and task.source.pixels:
            reduced += count_reduced(images, report.shard)
    if reduced:
        experiment.say(
            f"{task.name}: {reduced} photograph(s) of more than {working_pixels(len(images.classes))} pixels were "
            "worked on at a smaller size, and what was made of them enlarged"
        )
    for name, folder in folders.items():
        index_all(folder, kind=name, classes=images.classes, count=len(images.shard_sizes))


def count_reduced(images: ShardSet, shard: int) -> int:
    """Photographs of a shard that are worked on at a smaller size."""
    bound = working_pixels(len(images.classes))
    return sum(entry.height * entry.width > bound for entry in images.shard(shard))


def _maps(experiment: Experiment, stream: Sequence[Stage]) -> tuple[Map, ...]:
    """What the workers of this run do for the stages of a stream, in order."""
    accelerated = experiment.workers().accelerated
    contexts = [replace(experiment.context(member), accelerated=accelerated) for member in stream]
    pairs = zip(stream, contexts, strict=True)
    whole = [_prepared(experiment, member, member.map(context)) for member, context in pairs if member.map is not None]
    return tuple(part for step in whole for part in parts_of(step))


def _prepared(experiment: Experiment, stage: Stage, step: Map) -> Map:
    """The Map with what is made once of it."""
    if not isinstance(step, Prepared):
        return step
    ready, told = step.prepare(str(experiment.run.stage(stage.name).resolve()))
    experiment.say(f"{stage.name}: {told}")
    return ready


def _stream(experiment: Experiment, stage: Stage, wanted: Sequence[Stage]) -> list[Stage]:
    """The maps that run together: what the stage follows, the stage, and what follows it and is wanted."""
    before = [experiment.stage(stage.follows)] if stage.follows else []
    after = experiment.followers(stage, wanted)
    return [*before, stage, *(later for later in after if experiment.reused(later, experiment.origin(later)) is None)]


def _source(experiment: Experiment, over: str, stream: Sequence[Stage]) -> Source:
    """The images with all that the maps of a stream read beside them."""
    reads: dict[str, str] = {}
    for member in stream:
        if any(reads.get(name, artefact) != artefact for name, artefact in member.reads.items()):
            raise StageError(f"{member.name}: stages of one stream read different artefacts under one name")
        reads |= member.reads
    joins = [
        experiment.join(name, maker_of(artefact).name, ARTEFACTS[artefact].field) for name, artefact in reads.items()
    ]
    for member in stream:
        if member.outside is not None:
            given = experiment.outside[member.outside]
            joins.append(Join(member.outside, given.url, member.outside_field, given.digest))
    images, pixels = experiment.sets[over], any(member.looks for member in stream)
    return Source(images.url, tuple(joins), experiment.config.loader, pixels=pixels, digest=images.digest)
