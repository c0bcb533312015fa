"""The scores of a run: counts over everything its stages made, summed over shards, and the tables they give."""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amn_dist.config import Config
from amn_dist.errors import AmnError, ConfigError, ShardError, StageError
from amn_dist.farms.farm import Farm
from amn_dist.farms.stream import Join, Source, TallyTask
from amn_dist.methods import scored
from amn_dist.runs.experiment import Experiment
from amn_dist.runs.inputs import IMAGES, ImageList, scored_images
from amn_dist.runs.run import LAST_FILE, read_json, write_bytes, write_json
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.score import ScoreTally, artefact_scores
from amn_dist.storage.paths import AnyPath
from amn_dist.telemetry import Observe

OpenJoin = Callable[[str, str, str], Join]
"""A field of a finished Map, under a name: name, stage, field."""
Counts = dict[str, np.ndarray]
"""Sums by set, artefact and part, as `train/walk/counts`; images of a set as `train/images`. No setting of `score`
moves them."""
COUNTS = "counts.npz"


def score_stage(experiment: Experiment, observe: Observe) -> None:
    """Count what was made of every set with a truth; write the counts and the tables they give."""
    finished = experiment.scored_stages()
    chosen = experiment.scored_images
    counts = count_sets(
        experiment.config, experiment.sets, finished, experiment.join, experiment.workers, observe, only=chosen
    )
    write_counts(experiment.run.stage("score") / COUNTS, counts)
    write_json(experiment.run.stage("score") / LAST_FILE["score"], _tables(experiment, counts, _truths(experiment)))


def score_again(experiment: Experiment) -> bool:
    """Bring the tables up to date from the counts; False where there are no counts."""
    counts = read_counts(experiment.run.stage("score") / COUNTS)
    if counts is None:
        return False
    _write_tables(experiment, _tables(experiment, counts, _truths(experiment)))
    return True


def score_without_data(experiment: Experiment) -> bool:
    """Bring the tables up to date where the data is gone; False where it is there.

    Raises ShardError where the counts are not those of what is finished now.
    """
    try:
        return not experiment.sets
    except ShardError as error:
        finished, counts = experiment.scored_stages(), read_counts(experiment.run.stage("score") / COUNTS)
        inputs = dict((experiment.run.origin("score") or {"inputs": {}})["inputs"])
        listed = inputs.pop(IMAGES, None)
        counted = {name: digest for name, digest in inputs.items() if not name.endswith(" set")}
        if counts is None or counted != {name: experiment.run.digest(experiment.stage(name)) for name in finished}:
            raise
        if listed != _list_digest(experiment, listed):
            raise
        experiment.say(f"score: as counted before; {error}")
        _write_tables(experiment, _tables(experiment, counts, counted_truths(experiment.config, finished, counts)))
        return True


def count_sets(
    config: Config,
    sets: Mapping[str, ShardSet],
    finished: list[str],
    join: OpenJoin,
    farm: Callable[[], Farm],
    observe: Observe,
    *,
    only: ImageList | None = None,
) -> Counts:
    """Count what was made over every set with a truth. finished: the finished stages among the scored. farm: starts the
    workers, when there is anything to count. only: the training images that count; None: all."""
    counts: Counts = {}
    for over, images in sets.items():
        joins = {
            artefact.name: join(artefact.name, stage.name, artefact.field)
            for stage, artefact in scored(config)
            if stage.name in finished and stage.over == over
        }
        if joins and images.has_truth:
            keys = only.keys if only is not None and over == "train" else None
            sums = _count_set(config, images, joins, farm(), observe, keys)
            counts |= {f"{over}/{name}": value for name, value in sums.items()}
    return counts


def score_tables(
    config: Config, classes: Sequence[str], truths: Mapping[str, bool], finished: list[str], counts: Counts
) -> dict[str, Any]:
    """What score.json holds: class names, scores by set, what is missing. truths: whether a set's images have one."""
    wanted = list(scored(config))
    open_stages = dict.fromkeys(stage.name for stage, _ in wanted if stage.name not in finished)
    missing = [f"{name}: not made yet" for name in open_stages]
    tables: dict[str, Any] = {}
    for over, has_truth in truths.items():
        sums = {key.removeprefix(f"{over}/"): value for key, value in counts.items() if key.startswith(f"{over}/")}
        if not has_truth:
            missing.append(f"{over}: its images have no truth (gt.png)")
        elif sums:
            names = [artefact.name for stage, artefact in wanted if stage.name in finished and stage.over == over]
            tables[over] = _table(config, over, sums, names)
            if not any(sums[key][:-1].any() for key in sums if key.endswith(("/counts", "/histogram"))):
                missing.append(f"{over}: its truth is 255 everywhere, nothing can be compared with it")
    return {"classes": list(classes), "sets": tables, "missing": missing}


def counted_truths(config: Config, finished: list[str], counts: Counts) -> dict[str, bool]:
    """Which sets had a truth when they were counted, by their counts: all of them, but where finished stages over a set
    left none."""
    overs = {stage.over for stage, _ in scored(config) if stage.name in finished}
    roles = ("train",) if config.data.val is None else ("train", "val")
    return {over: over not in overs or any(key.startswith(f"{over}/") for key in counts) for over in roles}


def write_counts(path: AnyPath, counts: Counts) -> None:
    """Keep counts, so that other settings of `score` need no other pass."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **counts)  # type: ignore[arg-type]
    write_bytes(path, stream.getvalue())


def read_counts(path: AnyPath) -> Counts | None:
    """Counts that were kept; None where there are none that can be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (AmnError, OSError, ValueError, zipfile.BadZipFile):
        return None


def _table(config: Config, over: str, sums: Counts, names: list[str]) -> dict[str, Any]:
    """The scores of artefacts over one set. list: the file that names its images, where not all count."""
    protocol, threshold = config.score.by(over), config.score.threshold
    rows = {name: artefact_scores(sums, name, threshold=threshold, protocol=protocol) for name in names}
    chosen = {} if over != "train" or config.score.images is None else {"list": config.score.images}
    return {"images": int(sums["images"][0]), **chosen, "protocol": protocol, "rows": rows}


def _count_set(
    config: Config,
    images: ShardSet,
    joins: Mapping[str, Join],
    farm: Farm,
    observe: Observe,
    keys: frozenset[str] | None,
) -> Counts:
    """Sums of artefacts over one set. keys: of the images that count; None: all."""
    truth = Join("truth", images.url, "gt.png")
    source = Source(images.url, (truth, *joins.values()), config.loader, pixels=False, digest=images.digest, keys=keys)
    tally = ScoreTally(len(images.classes), tuple(joins))
    return _sums(TallyTask("score", source, tally, images.shard_sizes), farm, observe)


def _sums(task: TallyTask, farm: Farm, observe: Observe) -> Counts:
    sums: Counts = {}
    start = time.monotonic()
    for report in farm.run(task, range(len(task.sizes))):
        observe(report.metrics(before=0, total=sum(task.sizes), seconds=time.monotonic() - start))
        for name, value in (report.record or {}).items():
            sums[name] = sums[name] + value if name in sums else value
    return sums


def _list_digest(experiment: Experiment, counted: str | None) -> str | None:
    """Digest of the list of images that is asked for; where it went with the data, that of the one counted."""
    try:
        return None if (chosen := scored_images(experiment.config, experiment.data)) is None else chosen.digest
    except ConfigError:
        return counted


def _truths(experiment: Experiment) -> dict[str, bool]:
    """Whether the images of a set have a truth, by role."""
    return {over: images.has_truth for over, images in experiment.sets.items()}


def _tables(experiment: Experiment, counts: Counts, truths: Mapping[str, bool]) -> dict[str, Any]:
    return score_tables(experiment.config, experiment.classes, truths, experiment.scored_stages(), counts)


def _write_tables(experiment: Experiment, tables: dict[str, Any]) -> None:
    """Write score.json unless it says so already."""
    path = experiment.run.stage("score") / LAST_FILE["score"]
    with contextlib.suppress(StageError):
        if path.is_file() and read_json(path) == tables:
            return
    write_json(path, tables)
