"""What a run's folder says of the run; what is missing or damaged is named, the rest is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amn_dist.documents import read_json
from amn_dist.errors import MESSAGE, AmnError, ConfigError, ShardError, printable
from amn_dist.methods import Artefact, SetName, Stage, scored
from amn_dist.report.stage_metrics import StageMetrics, read_stage_metrics
from amn_dist.report.tables import has_threshold, readable
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.runs.run import LAST_FILE
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath, is_file
from amn_dist.telemetry import METRICS


@dataclass(frozen=True)
class StageRecord:
    """A stage: what it yielded (digest), by which code, and how it went. follows: the Map it ran together with."""

    name: str
    verb: str
    state: str
    follows: str | None
    digest: str
    code: str
    metrics: StageMetrics


@dataclass(frozen=True)
class StageOutput:
    """An artefact of a finished stage, in shards that lie over the image set of a role."""

    shards: ShardSet
    artefact: Artefact
    role: SetName

    def load(self, images: ShardSet, ordinal: int) -> np.ndarray:
        """Labels [H, W] or activations [K, h, w] of an image. Raises ShardError where they are those of another."""
        key = images.entry(ordinal).key
        if self.shards.entry(ordinal).key != key:
            raise ShardError(f"{self.shards.url}: sample {ordinal} is not {key}; make it again from this set")
        return self.shards.load(ordinal, self.artefact.field)


@dataclass(frozen=True)
class RunRecord:
    """A run. label: its name in the report. sets: image sets by role. outputs: of finished stages, by the name they
    are scored under. threshold: default of its activations."""

    label: str
    folder: AnyPath
    config: str
    method: str = ""
    threshold: float = 0.25
    environment: dict[str, Any] = field(default_factory=dict)
    stages: tuple[StageRecord, ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    sets: dict[str, ShardSet] = field(default_factory=dict)
    outputs: dict[str, StageOutput] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        return [printable(name) for name in self.scores.get("classes", [])]

    def rows(self, over: str) -> dict[str, Any]:
        """Scores over a set by artefact; empty where there are none."""
        rows: dict[str, Any] = self.scores.get("sets", {}).get(over, {}).get("rows", {})
        return rows


def read_runs(folders: Sequence[AnyPath], *, data: AnyPath | None = None) -> list[RunRecord]:
    """The runs in the given order, told apart by as much of their paths as that takes.

    data: where their sets lie now, if they were moved.
    """
    paths = [folder.resolve() for folder in folders]
    return [read_run(path, label=label, data=data) for path, label in zip(paths, labels_of(paths), strict=True)]


def labels_of(paths: Sequence[AnyPath]) -> list[str]:
    """Names of runs: as much of the ends of their resolved paths as tells them apart."""
    parts = [tuple(str(path).split("/")) for path in paths]
    depth = next((n for n in range(1, 9) if len({names[-n:] for names in parts}) == len(paths)), 1)
    return [printable("/".join(names[-depth:])) for names in parts]


def read_run(folder: AnyPath, *, label: str, data: AnyPath | None = None) -> RunRecord:
    """Everything a run's folder says. Raises ConfigError when it is no run."""
    path = folder / "config.yaml"
    if not is_file(path):
        raise ConfigError(f"{folder}: not a run (config.yaml is missing); `amn run` makes one")
    missing: list[str] = []
    config = path.read_text(encoding="utf-8", errors="backslashreplace")
    scores = read_scores(folder, missing)
    environment = read_object(folder / "environment.json", missing)
    try:
        pipeline = reopen(folder, data=data)
    except (AmnError, KeyError) as error:
        return RunRecord(label, folder, config, scores=scores, missing=_once([*missing, printable(error, MESSAGE)]))
    sets = open_sets(pipeline, missing)
    stages = tuple(read_stage(pipeline, stage, missing) for stage in pipeline.stages)
    outputs = open_outputs(pipeline, sets, missing)
    method, threshold = pipeline.config.method, pipeline.config.score.threshold
    return RunRecord(
        label, folder, config, method, threshold, environment, stages, scores, sets, outputs, _once(missing)
    )


def _once(missing: Sequence[str]) -> tuple[str, ...]:
    """What is missing, each once."""
    return tuple(dict.fromkeys(printable(text, MESSAGE) for text in missing))


def read_stage(pipeline: Pipeline, stage: Stage, missing: list[str]) -> StageRecord:
    """A stage of a run."""
    folder = pipeline.run.stage(stage.name)
    state = "done" if pipeline.run.is_done(stage) else "begun" if (folder / "origin.json").is_file() else "open"
    if state != "done" and stage.verb != "score":
        missing.append(f"{stage.name}: not made yet" if state == "open" else f"{stage.name}: not finished")
    last = read_object(folder / LAST_FILE[stage.verb], missing) if state == "done" and stage.verb != "score" else {}
    origin = read_object(folder / "origin.json", missing) if state != "open" else {}
    metrics = read_stage_metrics(folder / METRICS, verb=stage.verb)
    if metrics.damaged:
        missing.append(f"{stage.name}: {metrics.damaged} damaged line(s) of {METRICS} left out")
    digest, code = str(last.get("digest", "")), str(origin.get("code", ""))
    return StageRecord(stage.name, stage.verb, state, stage.follows, digest, code, metrics)


def open_sets(pipeline: Pipeline, missing: list[str]) -> dict[str, ShardSet]:
    """The image sets by role; none where they cannot be read."""
    try:
        return pipeline.sets
    except AmnError as error:
        missing.append(f"images: {error}")
        return {}


def open_outputs(pipeline: Pipeline, sets: dict[str, ShardSet], missing: list[str]) -> dict[str, StageOutput]:
    """What finished stages made over sets that can be read, by the name it is scored under."""
    outputs = {}
    for stage, artefact in scored(pipeline.config):
        name, field, over = artefact.name, artefact.field, stage.over
        if over not in sets or not pipeline.run.is_done(stage):
            continue
        try:
            shards = pipeline.open(stage.name)
        except AmnError as error:
            missing.append(f"{stage.name}: {error}")
            continue
        if shards.shard_sizes != sets[over].shard_sizes:
            missing.append(f"{name}: its shards do not lie over the images of {over}; --redo {stage.name}")
        elif field not in shards.fields:
            held = ", ".join(shards.fields)
            missing.append(f"{name}: {stage.name} holds {held}, expected {field}; --redo {stage.name}")
        else:
            outputs[name] = StageOutput(shards, artefact, over)
    return outputs


def read_scores(folder: AnyPath, missing: list[str]) -> dict[str, Any]:
    """The scores of a run; empty where there are none of this version."""
    path = folder / "score" / "score.json"
    if not path.is_file():
        missing.append("score: not made yet; `amn score` makes it")
        return {}
    scores = read_object(path, missing)
    if not isinstance(scores.get("sets"), dict) or not isinstance(scores.get("classes"), list):
        missing.append("score: score.json is damaged; `amn score` makes it again")
        return {}
    scores, formless = readable(scores)
    missing += [printable(text) for text in (*scores.get("missing", []), *formless)]
    for over, of_set in scores["sets"].items():
        for name, row in of_set["rows"].items():
            if has_threshold(row) and "images" not in row:
                missing.append(f"score: {printable(name)} ({over}) lacks the threshold analysis; `amn score` makes it")
    return scores


def read_object(path: AnyPath, missing: list[str]) -> dict[str, Any]:
    """A JSON object of a run's file; empty, and noted, where it is absent or damaged."""
    try:
        value = read_json(path.read_bytes())
    except (AmnError, OSError, ValueError) as error:
        missing.append(f"{path.parent.name}/{path.name}: cannot be read ({type(error).__name__})")
        return {}
    if isinstance(value, dict):
        return value
    missing.append(f"{path.parent.name}/{path.name}: found {type(value).__name__}, expected an object")
    return {}
