"""Seconds that every stage of a run still takes, and how that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amn_dist.commands.estimates.cost import Measured, fullest
from amn_dist.commands.estimates.memory import remember, remembered, trial_key
from amn_dist.commands.estimates.neighbours import neighbour_rate
from amn_dist.commands.estimates.trial import farm_workers, measure
from amn_dist.errors import AmnError, printable

if TYPE_CHECKING:  # annotations alone: tests replace neither
    from amn_dist.methods import Stage
    from amn_dist.runs.pipeline import Pipeline


@dataclass(frozen=True)
class Estimates:
    """seconds: by stage. rates: images a second of neighbours, of the stages they stand for. start_s: of a run outside
    its stages. unknown: stages nobody knows about. note: why something was not measured, or empty."""

    seconds: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    start_s: float = 0.0
    unknown: tuple[str, ...] = ()
    note: str = ""


def estimated(pipeline: Pipeline, *, measuring: bool, tell: Callable[[str], None]) -> Estimates:
    """What is left of a run: by the rates of equal neighbours, else by a trial on this machine.

    tell: is told when a trial begins.
    """
    open_stages = [stage for stage in pipeline.stages if _is_estimated(pipeline, stage)]
    rates = {stage.name: rate for stage in open_stages if (rate := _rate_beside(pipeline, stage)) is not None}
    seconds = {name: sees(pipeline, pipeline.stage(name)) / rate for name, rate in rates.items()}
    left = [stage for stage in open_stages if stage.name not in rates]
    if not left or not measuring:
        return Estimates(seconds, rates, unknown=tuple(stage.name for stage in left))
    try:
        costs = _measured(pipeline, tell)
    except (AmnError, OSError) as error:
        note = f"not measured: {printable(error, 800)}"
        return Estimates(seconds, rates, unknown=tuple(stage.name for stage in left), note=note)
    seconds |= {stage.name: _by_trial(pipeline, stage, costs) for stage in left if stage.name in costs.costs}
    unknown = tuple(stage.name for stage in left if stage.name not in seconds)
    return Estimates(seconds, rates, costs.start_s, unknown)


def sees(pipeline: Pipeline, stage: Stage) -> int:
    """Images a stage goes through, a Fit in all its steps."""
    images = len(pipeline.sets[stage.over])
    if stage.verb != "fit":
        return images
    section = getattr(pipeline.config, stage.name)
    return steps(section, images) * int(section.batch)


def steps(section: Any, images: int) -> int:
    """Optimiser steps of a Fit over so many images."""
    return int(section.steps or section.epochs * (images // section.batch))


def has_truth(pipeline: Pipeline) -> bool:
    """Whether there is anything to score against."""
    return any(images.has_truth for images in pipeline.sets.values())


def _is_estimated(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether a stage is to be done, has time of its own, and can be done at all."""
    if stage.follows is not None or pipeline.run.is_done(stage):
        return False
    if stage.verb == "score":
        return has_truth(pipeline)
    return stage.verb == "map" or getattr(pipeline.config, stage.name).batch <= len(pipeline.sets[stage.over])


def _rate_beside(pipeline: Pipeline, stage: Stage) -> float | None:
    if stage.verb == "score":
        return None
    followers = [later for later in pipeline.stages if later.follows == stage.name]
    return neighbour_rate(pipeline.run, pipeline.config, stage, pipeline.sets[stage.over], followers)


def _measured(pipeline: Pipeline, tell: Callable[[str], None]) -> Measured:
    """Costs as they are remembered, or from a trial, which is remembered."""
    every_set = {**pipeline.sets, **pipeline.outside}
    key = trial_key(pipeline.config, every_set)
    if (before := remembered(key)) is not None:
        return before
    tell("measuring on a few images: minutes where networks are large; --no-measure leaves it out")
    costs = measure(pipeline.config, pipeline.sets, pipeline.outside)
    remember(key, costs)
    return costs


def _by_trial(pipeline: Pipeline, stage: Stage, measured: Measured) -> float:
    cost = measured.costs[stage.name]
    if stage.verb == "fit":
        return cost.of(sees(pipeline, stage))
    chunk, workers = pipeline.config.farm.chunk, farm_workers(pipeline.config)
    if stage.verb == "map":
        return cost.of(fullest(pipeline.sets[stage.over].shard_sizes, chunk, workers))
    return cost.of(sum(_fullest_shards(images.shard_sizes, workers) for images in pipeline.sets.values()))


def _fullest_shards(sizes: Sequence[int], workers: int) -> int:
    """Images of the worker that has most, where whole shards are given out."""
    return fullest(sizes, max(sizes), workers)
