"""What is done, run the next."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from amn_dist.errors import ConfigError, StageError
from amn_dist.methods import Stage
from amn_dist.runs.checks import check
from amn_dist.runs.experiment import Experiment
from amn_dist.runs.findings import Findings, refuse, refused
from amn_dist.runs.fitting import fit_member, fit_stage
from amn_dist.runs.journal import journal
from amn_dist.runs.mapping import map_stage
from amn_dist.runs.origins import machine_difference
from amn_dist.runs.prospect import Prospect
from amn_dist.runs.run import DataFile, Run, read_config, read_json
from amn_dist.runs.scoring import score_again, score_stage, score_without_data
from amn_dist.runs.unfinished import settle
from amn_dist.storage.paths import AnyPath, is_file, path_of
from amn_dist.telemetry import stage_log


@dataclass
class Pipeline(Experiment):
    """One experiment on its way."""

    def execute(
        self, *, until: str | None = None, redo: str | None = None, only: str | None = None, member: bool = False
    ) -> None:
        """Run what is not done yet, in order; `redo` drops a stage and all that reads it first.

        member: this process is one of a gang whose leader holds the run and keeps its records.
        """
        wanted = self._wanted(until, only)
        if member:
            return fit_member(self, wanted[0])
        dropped = [] if redo is None else self.readers(self.stage(redo))
        self.check(wanted, dropped, download=True)
        with self.locked():
            self._check_unchanged([stage for stage in wanted if stage.name not in dropped])
            self.run.drop(dropped)
            self._settle(stage for stage in wanted if self._is_fed(stage))
            self.describe()
            with contextlib.ExitStack() as stack:
                self.leaving = stack
                for stage in wanted:
                    self._advance(stage, wanted)

    def check(self, wanted: Sequence[Stage], dropped: Sequence[str] = (), *, download: bool = False) -> None:
        """Refuse what could not be done among stages that are not done, all of it at once; tell what may be amiss.

        dropped: names of stages that are to be made again. download: fetch weights that are still to be had.
        """
        left = tuple(stage for stage in wanted if stage.name in dropped or not self.run.is_done(stage))
        findings = chain(check(self._prospect(left, download=download)), self._list_faults(wanted))
        refuse(findings, lambda note: self.say(f"note: {note}"))

    def _list_faults(self, wanted: Sequence[Stage]) -> Findings:
        """A list of images that cannot be scored on, where there are images."""
        if any(stage.verb == "score" for stage in wanted) and not list(refused(lambda: self.sets)):
            yield from refused(lambda: self.scored_images)

    def _prospect(self, left: tuple[Stage, ...], *, download: bool) -> Prospect:
        return Prospect(
            self.config,
            left,
            self.run,
            open_sets=lambda: self.sets,
            open_outside=lambda: self.outside if any(stage.outside for stage in left) else {},
            farm=self.farm,
            address=self.address,
            reuse=self.reuse,
            download=download,
        )

    def _check_unchanged(self, wanted: Sequence[Stage]) -> None:
        """Refuse settings that no longer fit what is finished, before anything of the run is touched."""
        for stage in wanted:
            if stage.verb == "score" or not self.run.is_done(stage):
                continue
            before = [self.stage(name) for name in stage.depends_on]
            if all(self.run.is_done(other) for other in before):
                origin = self.origin(stage)
                self.run.check_unchanged(stage, origin)
                if said := machine_difference(self.run.origin(stage.name) or {"settings": {}}, origin):
                    self.say(f"{stage.name}: {said}")

    def _is_fed(self, stage: Stage) -> bool:
        """Whether all that a stage is made from is there, so that its origin is known."""
        before = [self.stage(name) for name in stage.depends_on if name != stage.follows]
        fed = stage.follows is None or self._is_fed(self.stage(stage.follows))
        return fed and all(self.run.is_done(other) for other in before)

    def _settle(self, begun: Iterable[Stage]) -> None:
        """Decide what becomes of work that stages began from another origin, before any of it is touched."""
        for stage in begun:
            if stage.verb != "score" and self.state(stage) == "begun":
                origin, architecture = self.origin(stage), stage.architecture(self.config)
                fields = tuple(artefact.field for artefact in stage.made(self.config))
                outcome = settle(self.run, stage, origin, self.decision, fields=fields, architecture=architecture)
                if outcome:
                    self.say(outcome)

    def _wanted(self, until: str | None, only: str | None) -> list[Stage]:
        if only is not None:
            return [self.stage(only)]
        if until is None:
            return list(self.stages)
        names = [stage.name for stage in self.stages]
        return list(self.stages[: names.index(self.stage(until).name) + 1])

    def _advance(self, stage: Stage, wanted: Sequence[Stage]) -> None:
        before = [name for name in stage.depends_on if name != stage.follows]
        missing = [name for name in before if not self.run.is_done(self.stage(name))]
        if missing:
            raise StageError(f"{stage.name}: {missing[0]} is not done in {self.run.folder}; run that first")
        if stage.verb == "score" and score_without_data(self):
            return
        origin = self.origin(stage)
        if stage.verb == "score" and self.run.origin("score") == origin.as_json() and score_again(self):
            return
        if self.run.is_done(stage) and stage.verb != "score":
            self.run.check_unchanged(stage, origin)  # a stage it reads may have been made anew in this call
            if self.run.imported(stage.name):
                self.say(f"{stage.name}: weights of {self.run.imported(stage.name)}, imported, not trained here")
            return
        self._settle([stage, *self.followers(stage, wanted)])
        sibling = self.reused(stage, origin)
        if sibling is not None:
            self.say(f"{stage.name}: taken from run {sibling}, same settings, inputs and code")
            return
        self.begin(stage, origin)
        start = time.monotonic()
        with (
            journal(self.run.stage(stage.name)) as log_copy,
            stage_log(log_copy.folder, stage.name, self.console) as log,
        ):
            if stage.verb == "fit":
                fit_stage(self, stage, log, log_copy)
            elif stage.verb == "map":
                map_stage(self, stage, log, wanted)
            else:
                score_stage(self, log)
            log({"done": True, "seconds": round(time.monotonic() - start, 3)})
        self.say(f"{stage.name}: done in {time.monotonic() - start:.0f} s")


def reopen(folder: AnyPath, settings: tuple[str, ...] = (), *, data: AnyPath | None = None) -> Pipeline:
    """The pipeline of an existing run, from what the run says of itself; settings go over that.

    data: where its sets lie now, if they were moved.
    """
    if not is_file(folder / "config.yaml") or not is_file(folder / "data.json"):
        raise ConfigError(f"{folder}: not a run (config.yaml or data.json is missing); `amn run` makes one")
    recorded = path_of(read_json(folder / "data.json", DataFile).data)
    config, run = read_config(folder / "config.yaml", settings), Run(folder)
    return Pipeline(config, run, data or recorded, data_named=data is not None, class_table=run.class_table())
