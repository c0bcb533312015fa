"""Work that a stage began from other settings, inputs or code: what there is of it, and what becomes of it.

Hours of training are neither dropped nor mixed with others without a word of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amn_dist.errors import ConfigError, printable
from amn_dist.methods import Stage
from amn_dist.runs.origins import Origin, first_difference, is_of, known_part
from amn_dist.runs.run import Run
from amn_dist.shards.writer import read_report
from amn_dist.storage.paths import AnyPath
from amn_dist.training.checkpoints import complete
from amn_dist.training.loop import CHECKPOINTS

NAMED = 3
"""Modules a message spells out."""


@dataclass(frozen=True)
class Decision:
    """What becomes of such work. keep: it is gone on with. ask: shows a question, says whether it may be dropped; None
    where nobody can be asked. Without either the run stops."""

    keep: bool = False
    ask: Callable[[str], bool] | None = None


UNDECIDED = Decision()
"""Nothing is dropped and nothing mixed: the run says what there is and stops."""


@dataclass(frozen=True)
class Unfinished:
    """Work of a stage, done in part, from another origin.

    work: what there is, such as `a checkpoint of step 400`. changed: the first difference, in words. code: whether
    nothing but code differs. unusable: why it cannot be gone on with, in words; empty when it can.
    """

    stage: str
    verb: str
    folder: AnyPath
    work: str
    changed: str
    code: bool
    unusable: str

    def __str__(self) -> str:
        return f"{self.folder}: holds {self.work}, made with {self.changed}"

    @property
    def choices(self) -> str:
        """What the user may do, as options."""
        drop = f"--redo {self.stage} drops it and begins anew"
        if self.unusable:
            return f"{drop}; it cannot be gone on with ({self.unusable})"
        if self.verb == "map":
            return f"--keep makes the other shards as it is now and mixes the two, {drop}"
        advice = " (settings and inputs are the same: the sensible choice)" if self.code else ""
        return f"--keep goes on with it{advice}, {drop}"


def settle(
    run: Run,
    stage: Stage,
    origin: Origin,
    decision: Decision,
    *,
    fields: tuple[str, ...] = (),
    architecture: frozenset[str] = frozenset(),
) -> str:
    """Decide what becomes of unfinished work of another origin; '' when there is none worth a question.

    fields: what a Map writes. architecture: the settings of a Fit that say what its network is. Work that is kept is of
    the new origin from now on. Returns what was done, in words. Raises ConfigError when nobody decides, and when what
    should be kept is of no use.
    """
    unfinished = find_unfinished(run, stage, origin, fields=fields, architecture=architecture)
    if unfinished is None:
        return ""
    if decision.keep:
        if unfinished.unusable:
            raise ConfigError(f"{unfinished}; {unfinished.choices}")
        run.go_on(stage, origin, unfinished.work)
        return f"{stage.name}: goes on with {unfinished.work}, made with {unfinished.changed}"
    if decision.ask is None or not decision.ask(f"{unfinished}; {unfinished.choices}. Drop it and begin anew?"):
        raise ConfigError(f"{unfinished}; {unfinished.choices}")
    run.drop([stage.name])
    return f"{stage.name}: {unfinished.work}, made with {unfinished.changed}, was dropped"


def find_unfinished(
    run: Run,
    stage: Stage,
    origin: Origin,
    *,
    fields: tuple[str, ...] = (),
    architecture: frozenset[str] = frozenset(),
) -> Unfinished | None:
    """Finished parts of a stage that is not done, when they are of another origin."""
    recorded = run.origin(stage.name)
    if recorded is None or run.is_done(stage) or is_of(recorded, origin):
        return None
    work = work_of(run, stage)
    if not work:
        return None
    changed = difference(recorded, origin)
    reasons: Iterable[str] = _unusable_network(stage, recorded, origin, architecture) if stage.verb == "fit" else ()
    if stage.verb == "map":
        reasons = _unusable_shards(run, stage, recorded, origin, fields)
    unusable = "; ".join(reasons)
    return Unfinished(
        stage.name, stage.verb, run.stage(stage.name), work, changed, _only_code(recorded, origin), unusable
    )


def work_of(run: Run, stage: Stage) -> str:
    """What there is of a stage that is not done, in words: its newest checkpoint or its finished shards."""
    if stage.verb == "fit":
        newest = complete(run.stage(stage.name) / CHECKPOINTS)[:1]
        return f"a checkpoint of step {int(newest[0].name)}" if newest else ""
    count = len(_reports(run, stage))
    return f"{count} finished shard{'s' if count > 1 else ''}" if count else ""


def difference(recorded: Mapping[str, Any], origin: Origin) -> str:
    """Where a recorded origin and another part first, in words: a setting, an input, or code."""
    wanted = origin.as_json()
    wanted["settings"] = known_part(recorded.get("settings"), wanted["settings"])
    for part in ("settings", "inputs"):
        if recorded.get(part) != wanted[part]:
            return printable(f"{part[:-1]} {first_difference(recorded.get(part), wanted[part])}")
    modules = recorded.get("modules")
    if not isinstance(modules, dict):
        return "the code of an earlier version"
    changed = sorted(path for path in {*modules, *origin.modules} if modules.get(path) != origin.modules.get(path))
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    return printable(f"other code ({', '.join(changed[:NAMED])}{more})")


def _only_code(recorded: Mapping[str, Any], origin: Origin) -> bool:
    settings = known_part(recorded.get("settings"), origin.settings)
    return (recorded.get("settings"), recorded.get("inputs")) == (settings, origin.inputs)


def _unusable_network(
    stage: Stage, recorded: Mapping[str, Any], origin: Origin, architecture: frozenset[str]
) -> Iterator[str]:
    """Why checkpoints of another origin are of no use, in words."""
    compared = sorted({*architecture, "optimiser"})
    before, now = (
        _network(settings, stage, compared) for settings in (recorded.get("settings") or {}, origin.settings)
    )
    if (now := known_part(before, now)) != before:
        yield f"of another network or optimiser: {first_difference(before, now)}"


def _unusable_shards(
    run: Run, stage: Stage, recorded: Mapping[str, Any], origin: Origin, fields: tuple[str, ...]
) -> Iterator[str]:
    """Why shards of another origin are of no use, in words."""
    images = f"{stage.over} set"
    if (recorded.get("inputs") or {}).get(images) != origin.inputs.get(images):
        yield "its shards lie over other images"
    reports = (read_report(run.stage(stage.name), number) for number in _reports(run, stage))
    report = next(filter(None, reports), None)
    if report is not None and report.fields != tuple(sorted(fields)):
        yield f"its shards hold {' '.join(report.fields)}, now {' '.join(sorted(fields))} are wanted"


def _network(settings: Mapping[str, Any], stage: Stage, names: Sequence[str]) -> dict[str, Any]:
    """What a Fit's settings say of its network and of what its optimiser remembers."""
    section = settings.get(stage.name) or {}
    part = {name: section[name] for name in names if name in section}
    if isinstance(part.get("backbone"), dict):
        part["backbone"] = {name: value for name, value in part["backbone"].items() if name != "weights"}
    return part


def _reports(run: Run, stage: Stage) -> list[int]:
    """Numbers of a Map's shards that are finished."""
    return sorted(int(path.stem) for path in run.stage(stage.name).glob("[0-9]*.json") if path.stem.isdigit())
