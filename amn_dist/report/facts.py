"""What a run's folder says of the run; what is missing or damaged is named, the rest is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amn_dist.documents import read_json
from amn_dist.errors import MESSAGE, AmnError, ConfigError, printable
from amn_dist.methods import Stage, scored
from amn_dist.report.progress import Progress, read_progress
from amn_dist.report.tables import has_threshold, readable
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.runs.run import LAST_FILE
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath, is_file
from amn_dist.telemetry import METRICS


@dataclass(frozen=True)
class StageFacts:
    """A stage: what it yielded (digest), by which code, and how it went. follows: the Map it ran together with."""

    name: str
    verb: str
    state: str
    follows: str | None
    digest: str
    code: str
    progress: Progress


@dataclass(frozen=True)
class RunFacts:
    """A run. label: its name in the report. sets: image sets by role. made: finished shards by what is scored of them:
    name to set, field and role. threshold: default of its activations."""

    label: str
    folder: AnyPath
    config: str
    method: str = ""
    threshold: float = 0.25
    environment: dict[str, Any] = field(default_factory=dict)
    stages: tuple[StageFacts, ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    sets: dict[str, ShardSet] = field(default_factory=dict)
    made: dict[str, tuple[ShardSet, str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        return [printable(name) for name in self.scores.get("classes", [])]

    def rows(self, over: str) -> dict[str, Any]:
        """Scores over a set by artefact; empty where there are none."""
        found: dict[str, Any] = self.scores.get("sets", {}).get(over, {}).get("rows", {})
        return found


def read_runs(folders: Sequence[AnyPath]) -> list[RunFacts]:
    """The runs in the given order, told apart by as much of their paths as that takes."""
    whole = [folder.resolve() for folder in folders]
    parts = [tuple(str(path).split("/")) for path in whole]
    depth = next((n for n in range(1, 9) if len({names[-n:] for names in parts}) == len(whole)), 1)
    return [read_run(path, label=printable("/".join(names[-depth:]))) for path, names in zip(whole, parts, strict=True)]


def read_run(folder: AnyPath, *, label: str) -> RunFacts:
    """Everything a run's folder says. Raises ConfigError when it is no run."""
    path = folder / "config.yaml"
    if not is_file(path):
        raise ConfigError(f"{folder}: not a run (config.yaml is missing); `amn run` makes one")
    missing: list[str] = []
    config = path.read_text(encoding="utf-8", errors="backslashreplace")
    scores = read_scores(folder, missing)
    environment = read_object(folder / "environment.json", missing)
    try:
        line = reopen(folder)
    except (AmnError, KeyError) as error:
        return RunFacts(label, folder, config, scores=scores, missing=_told([*missing, printable(error, MESSAGE)]))
    sets = open_sets(line, missing)
    stages = tuple(read_stage(line, stage, missing) for stage in line.stages)
    made = open_made(line, sets, missing)
    method, threshold = line.config.method, line.config.score.threshold
    return RunFacts(label, folder, config, method, threshold, environment, stages, scores, sets, made, _told(missing))


def _told(missing: Sequence[str]) -> tuple[str, ...]:
    """What is missing, each once."""
    return tuple(dict.fromkeys(printable(text, MESSAGE) for text in missing))


def read_stage(line: Pipeline, stage: Stage, missing: list[str]) -> StageFacts:
    """A stage of a run."""
    folder = line.run.stage(stage.name)
    state = "done" if line.run.is_done(stage) else "begun" if (folder / "origin.json").is_file() else "open"
    if state != "done" and stage.verb != "score":
        missing.append(f"{stage.name}: not made yet" if state == "open" else f"{stage.name}: not finished")
    last = read_object(folder / LAST_FILE[stage.verb], missing) if state == "done" and stage.verb != "score" else {}
    origin = read_object(folder / "origin.json", missing) if state != "open" else {}
    progress = read_progress(folder / METRICS, verb=stage.verb)
    if progress.damaged:
        missing.append(f"{stage.name}: {progress.damaged} damaged line(s) of {METRICS} left out")
    digest, code = str(last.get("digest", "")), str(origin.get("code", ""))
    return StageFacts(stage.name, stage.verb, state, stage.follows, digest, code, progress)


def open_sets(line: Pipeline, missing: list[str]) -> dict[str, ShardSet]:
    """The image sets by role; none where they cannot be read."""
    try:
        return line.sets
    except AmnError as error:
        missing.append(f"images: {error}")
        return {}


def open_made(line: Pipeline, sets: dict[str, ShardSet], missing: list[str]) -> dict[str, tuple[ShardSet, str, str]]:
    """Finished shards over sets that can be read."""
    found = {}
    for name, (stage, wanted, over) in scored(line.config).items():
        if over not in sets or not line.run.is_done(line.stage(stage)):
            continue
        try:
            made = line.open(stage)
        except AmnError as error:
            missing.append(f"{stage}: {error}")
            continue
        if made.shard_sizes != sets[over].shard_sizes:
            missing.append(f"{name}: its shards do not lie over the images of {over}; --redo {stage}")
        elif wanted not in made.fields:
            missing.append(f"{name}: {stage} holds {', '.join(made.fields)}, expected {wanted}; --redo {stage}")
        else:
            found[name] = (made, wanted, over)
    return found


def read_scores(folder: AnyPath, missing: list[str]) -> dict[str, Any]:
    """The scores of a run; empty where there are none of this version."""
    path = folder / "score" / "score.json"
    if not path.is_file():
        missing.append("score: not made yet; `amn score` makes it")
        return {}
    scores = read_object(path, missing)
    sets = scores.get("sets")
    if not isinstance(sets, dict) or not isinstance(scores.get("classes"), list):
        missing.append("score: score.json is damaged; `amn score` makes it again")
        return {}
    scores, formless = readable(scores)
    missing += [printable(text) for text in (*scores.get("missing", []), *formless)]
    for over, found in scores["sets"].items():
        for name, row in found["rows"].items():
            if has_threshold(row) and "images" not in row:
                missing.append(f"score: {printable(name)} ({over}) lacks the threshold analysis; `amn score` makes it")
    return scores


def read_object(path: AnyPath, missing: list[str]) -> dict[str, Any]:
    """A JSON object of a run's file; empty, and noted, where it is absent or damaged."""
    try:
        found = read_json(path.read_bytes())
    except (AmnError, OSError, ValueError) as error:
        missing.append(f"{path.parent.name}/{path.name}: cannot be read ({type(error).__name__})")
        return {}
    if isinstance(found, dict):
        return found
    missing.append(f"{path.parent.name}/{path.name}: found {type(found).__name__}, expected an object")
    return {}
