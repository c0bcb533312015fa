"""What is done, run the next. The only place that chooses backends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich.console import Console

from amn_dist.config import Config, EngineSection, dump_config
from amn_dist.errors import MESSAGE, ConfigError, ShardError, StageError, printable
from amn_dist.farms.farm import Farm
from amn_dist.farms.stream import Join, MapTask, Source
from amn_dist.interfaces import Context, Map, Prepared, parts_of
from amn_dist.methods import ARTEFACTS, Stage, maker_of, scored, stages
from amn_dist.ops.devices import has_gpu
from amn_dist.records import ACTIVATION
from amn_dist.runs.checks import check
from amn_dist.runs.findings import refuse
from amn_dist.runs.fitting import train_here
from amn_dist.runs.inputs import open_images, open_outside
from amn_dist.runs.journal import Journal, journal
from amn_dist.runs.neighbours import reuse
from amn_dist.runs.origins import Origin, file_digest, imported_origin, machine_difference, origin_of
from amn_dist.runs.prospect import Prospect
from amn_dist.runs.run import CLASSES, LAST_FILE, DataFile, Run, read_config, read_json, write_json, write_text
from amn_dist.runs.scoring import COUNTS, Counts, count_sets, counted_truths, read_counts, score_tables, write_counts
from amn_dist.runs.unfinished import UNDECIDED, Decision, settle
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import clean_unfinished, index_all, read_reports
from amn_dist.storage.lease import holding
from amn_dist.storage.paths import AnyPath, is_file, path_of
from amn_dist.storage.scratch import scratch
from amn_dist.telemetry import Observe, StageLog, environment, following, stage_log
from amn_dist.training.launchers import leaving_faults, train_together, train_with_torchrun, with_processes
from amn_dist.training.loop import STOP
from amn_dist.variables import whole_number


@dataclass
class Pipeline:
    """One experiment on its way: configuration, data, run folder."""

    config: Config
    run: Run
    data: AnyPath
    console: Console = field(default_factory=lambda: Console(stderr=True))
    _workers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False, repr=False)
    farm: Farm | None = None
    """Workers lent by the caller; without them execute() starts its own when the first Map needs them."""
    address: str | None = None
    reuse: bool = True
    decision: Decision = UNDECIDED
    """What becomes of work that was begun from other settings, inputs or code."""
    class_table: tuple[str, ...] | None = None
    """Class names the run has kept; those of its data without it."""
    _passed_over: set[str] = field(default_factory=set, init=False, repr=False)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return stages(self.config)

    @cached_property
    def sets(self) -> dict[str, ShardSet]:
        """The image sets by role."""
        return open_images(self.config, self.data)

    @cached_property
    def outside(self) -> dict[str, ShardSet]:
        """The shard sets from outside the run that stages read, by setting; each lies over its stage's images."""
        return open_outside(self.config, self.data, self.stages, self.sets)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their ids; of a run that kept none, where its data is gone, those of its Maps."""
        if self.class_table is not None:
            return self.class_table
        try:
            return self.sets["train"].classes
        except ShardError:
            if (mapped := self.run.mapped_classes()) is None:
                raise
            return mapped

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises ConfigError naming the stages there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(
            f"{printable(name)}: no stage of method {self.config.method}; stages: "
            f"{', '.join(stage.name for stage in self.stages)}"
        )

    def execute(
        self, *, until: str | None = None, redo: str | None = None, only: str | None = None, member: bool = False
    ) -> None:
        """Run what is not done yet, in order; `redo` drops a stage and all that reads it first.

        member: this process is one of a gang whose leader holds the run and keeps its records.
        """
        wanted = self._wanted(until, only)
        if member:
            return self._advance_member(wanted[0])
        dropped = [] if redo is None else self.readers(self.stage(redo))
        self.check(wanted, dropped, download=True)
        with self.locked():
            self._check_unchanged([stage for stage in wanted if stage.name not in dropped])
            self.run.drop(dropped)
            self._settle(stage for stage in wanted if self._is_fed(stage))
            self.describe()
            with contextlib.ExitStack() as stack:
                self._workers = stack
                for stage in wanted:
                    self._advance(stage, wanted)

    def readers(self, stage: Stage) -> list[str]:
        """The stage and every later stage that depends on it."""
        names = [stage.name]
        for later in self.stages:
            if later.verb == "score" or any(name in names for name in later.depends_on):
                names.append(later.name)
        return list(dict.fromkeys(names))

    def state(self, stage: Stage) -> str:
        """`done`, `begun` or `open`."""
        if self.run.is_done(stage):
            return "done"
        return "begun" if self.run.origin(stage.name) is not None else "open"

    def origin(self, stage: Stage) -> Origin:
        """From what the stage is (or would be) made; every stage it reads must be done.

        A stage that follows another takes over what that one is made from: its maps never reach the disk.
        """
        if self.run.is_done(stage) and (file := self.run.imported(stage.name)) is not None:
            digest = (self.run.origin(stage.name) or {})["inputs"].get("file", "")
            return imported_origin(self.config, stage, file, digest, self.num_classes)
        read = [name for name in stage.depends_on if name != stage.follows]
        if stage.verb == "score":
            read = self._scored_stages()
        inputs = {name: self.run.digest(self.stage(name)) for name in read}
        over = self.sets if stage.verb == "score" else [stage.over]
        inputs |= {f"{role} set": self.sets[role].digest for role in over}
        if stage.outside is not None:
            inputs[f"{stage.outside} set"] = self.outside[stage.outside].digest
        origin = origin_of(stage, self._context(stage), inputs)
        return origin if stage.follows is None else origin.after(self.origin(self.stage(stage.follows)))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run's folder: one driver at a time."""
        return holding(self.run.folder, self._say)

    def _farm(self) -> Farm:
        """The workers of this run, started when the first Map needs them."""
        if self.farm is None:
            self.farm = start_farm(self.config, self.address)
            self._workers.callback(self._stop_farm)
        return self.farm

    def _stop_farm(self) -> None:
        """Let the workers go; a Fit between two Maps may have done so already."""
        if self.farm is not None:
            self.farm.close()
            self.farm = None

    def check(self, wanted: Sequence[Stage], dropped: Sequence[str] = (), *, download: bool = False) -> None:
        """Refuse what could not be done among stages that are not done, all of it at once; tell what may be amiss.

        dropped: names of stages that are to be made again. download: fetch weights that are still to be had.
        """
        left = tuple(stage for stage in wanted if stage.name in dropped or not self.run.is_done(stage))
        refuse(check(self._prospect(left, download=download)), lambda note: self._say(f"note: {note}"))

    def _prospect(self, left: tuple[Stage, ...], *, download: bool) -> Prospect:
        return Prospect(
            self.config,
            left,
            self.run.folder,
            open_sets=lambda: self.sets,
            open_outside=lambda: self.outside if any(stage.outside for stage in left) else {},
            farm=self.farm,
            address=self.address,
            download=download,
        )

    def describe(self) -> None:
        """Write what the run is: configuration, where its data lies, on what it runs."""
        folder = self.run.folder
        write_text(folder / "config.yaml", dump_config(self.config))
        write_json(folder / CLASSES, list(self.classes))
        write_json(folder / "data.json", {"data": str(self.data.resolve())})
        write_json(folder / "environment.json", environment())

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
                    self._say(f"{stage.name}: {said}")

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
                    self._say(outcome)

    def _begin(self, stage: Stage, origin: Origin) -> None:
        if self.run.begin(stage, origin) and stage.verb != "score":
            self._say(f"{stage.name}: was begun from other settings, inputs or code; nothing of it was finished")

    def _reused(self, stage: Stage, origin: Origin) -> str | None:
        """Take the stage from a run that has it, unless work of more than one origin is to be gone on with here."""
        mixed = "before" in (self.run.origin(stage.name) or {})
        return reuse(self.run, stage, origin, tell=self._pass_over) if self.reuse and not mixed else None

    def _pass_over(self, name: str, why: str) -> None:
        """Say once that a neighbour is not looked at."""
        if name not in self._passed_over:
            self._passed_over.add(name)
            self._say(f"run {name}: passed over ({why})")

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
        if stage.verb == "score" and self._score_without_data():
            return
        origin = self.origin(stage)
        if stage.verb == "score" and self.run.origin("score") == origin.as_json() and self._score_again():
            return
        if self.run.is_done(stage) and stage.verb != "score":
            self.run.check_unchanged(stage, origin)  # a stage it reads may have been made anew in this call
            if self.run.imported(stage.name):
                self._say(f"{stage.name}: weights of {self.run.imported(stage.name)}, imported, not trained here")
            return
        self._settle([stage, *self._followers(stage, wanted)])
        sibling = self._reused(stage, origin)
        if sibling is not None:
            self._say(f"{stage.name}: taken from run {sibling}, same settings, inputs and code")
            return
        self._begin(stage, origin)
        start = time.monotonic()
        with (
            journal(self.run.stage(stage.name)) as log_copy,
            stage_log(log_copy.folder, stage.name, self.console) as log,
        ):
            if stage.verb == "fit":
                self._fit(stage, log, log_copy)
            elif stage.verb == "map":
                self._map(stage, log, wanted)
            else:
                self._score(log)
            log({"done": True, "seconds": round(time.monotonic() - start, 3)})
        self._say(f"{stage.name}: done in {time.monotonic() - start:.0f} s")

    def _fit(self, stage: Stage, log: StageLog, log_copy: Journal) -> None:
        (self.run.stage(stage.name) / STOP).unlink(missing_ok=True)  # it asked an earlier process
        if with_processes(self.config.engine).processes > 1 and "RANK" not in os.environ:
            self._gang(stage, log, log_copy)
        else:
            if has_gpu():
                self._stop_farm()  # its workers hold the memory of the device that this process trains on
            self._fit_here(stage, log, log_copy.try_push)
        digest = file_digest(self.run.checkpoint(stage.name))
        write_json(self.run.stage(stage.name) / "done.json", {"digest": digest})

    def _advance_member(self, stage: Stage) -> None:
        """This rank's share of a Fit; the first rank keeps the log."""
        folder = self.run.stage(stage.name)
        with leaving_faults(folder):
            if whole_number("RANK", 0):
                return self._fit_here(stage, lambda record: None, lambda: None)
            with journal(folder, "member") as log_copy, stage_log(log_copy.folder, stage.name, self.console) as log:
                self._fit_here(stage, log, log_copy.try_push)

    def _fit_here(self, stage: Stage, observe: Observe, keep_log: Callable[[], None]) -> None:
        images, folder, labels = self.sets["train"], self.run.stage(stage.name), None
        if "label" in stage.reads:
            artefact = stage.reads["label"]
            labels = self.open(maker_of(artefact).name), ARTEFACTS[artefact].field
        train_here(self.config, stage, images, labels, folder=folder, observe=observe, keep_log=keep_log)

    def _gang(self, stage: Stage, log: StageLog, log_copy: Journal) -> None:
        folder, engine = self.run.stage(stage.name), with_processes(self.config.engine)
        by_ray = engine.launcher == "ray"
        train = self._with_ray(stage, engine, log, log_copy) if by_ray else self._with_torchrun(stage, engine)

        def start() -> None:
            with log_copy.handed_over():
                train()

        train_together(start, folder, retries=engine.retries, tell=lambda text: log({"warning": text}))

    def _with_ray(self, stage: Stage, engine: EngineSection, log: StageLog, log_copy: Journal) -> Callable[[], None]:
        from amn_dist.farms.ray.training import leave_ray, train_in_ray

        self._stop_farm()  # its workers hold the cores and devices that the gang needs
        self._workers.callback(leave_ray)
        work = partial(train_member, self.run.folder.resolve(), self.data.resolve(), stage.name)
        folder = self.run.stage(stage.name)
        own = folder if isinstance(folder, Path) else scratch(folder, "ray")

        def start() -> None:
            with following(log, bring=log_copy.try_pull, every_s=log_copy.look_s):
                train_in_ray(work, engine, farm=self.config.farm, address=self.address, folder=own)

        return start

    def _with_torchrun(self, stage: Stage, engine: EngineSection) -> Callable[[], None]:
        command = ["fit", str(self.run.folder / "config.yaml"), stage.name]
        command += ["--run", str(self.run.folder), "--data", str(self.data), "--member"]
        return partial(train_with_torchrun, command, engine)

    def _map(self, stage: Stage, observe: Observe, wanted: Sequence[Stage]) -> None:
        stream = self._stream(stage, wanted)
        images = self.sets[stage.over]
        folders = {member.name: self.run.stage(member.name) for member in stream if not self.run.is_done(member)}
        for member in stream:
            if member.name in folders and member is not stage:
                self._begin(member, self.origin(member))
        for folder in folders.values():
            clean_unfinished(folder)
        maps = self._maps(stream)
        task = MapTask(
            name="+".join(member.name for member in stream),
            source=self._source(stage.over, stream),
            maps=maps,
            folders=tuple(str(folders[step.name]) if step.name in folders else None for step in maps),
            sizes=images.shard_sizes,
            chunk=self.config.farm.chunk,
            accelerated=self._farm().accelerated,
        )
        reports = zip(*(read_reports(folder, len(images.shard_sizes)) for folder in folders.values()), strict=True)
        todo = [number for number, of_shard in enumerate(reports) if None in of_shard]
        done = len(images) - sum(images.shard_sizes[n] for n in todo)
        start = time.monotonic()
        for report in self._farm().run(task, todo):
            observe(report.metrics(before=done, total=len(images), seconds=time.monotonic() - start))
        for name, folder in folders.items():
            index_all(folder, kind=name, classes=images.classes, count=len(images.shard_sizes))

    def _maps(self, stream: Sequence[Stage]) -> tuple[Map, ...]:
        """What the workers of this run do for the stages of a stream, in order."""
        accelerated = self._farm().accelerated
        contexts = [replace(self._context(member), accelerated=accelerated) for member in stream]
        pairs = zip(stream, contexts, strict=True)
        whole = [self._prepared(member, member.map(context)) for member, context in pairs if member.map is not None]
        return tuple(part for step in whole for part in parts_of(step))

    def _prepared(self, stage: Stage, step: Map) -> Map:
        """The Map with what is made once of it."""
        if not isinstance(step, Prepared):
            return step
        ready, told = step.prepare(str(self.run.stage(stage.name).resolve()))
        self._say(f"{stage.name}: {told}")
        return ready

    def _stream(self, stage: Stage, wanted: Sequence[Stage]) -> list[Stage]:
        """The maps that run together: what the stage follows, the stage, and what follows it and is wanted."""
        before = [self.stage(stage.follows)] if stage.follows else []
        after = self._followers(stage, wanted)
        return [*before, stage, *(later for later in after if self._reused(later, self.origin(later)) is None)]

    def _followers(self, stage: Stage, wanted: Sequence[Stage]) -> list[Stage]:
        """The wanted maps that take this one's from memory and are not done."""
        return [later for later in wanted if later.follows == stage.name and not self.run.is_done(later)]

    def _context(self, stage: Stage) -> Context:
        """What a stage is built from."""
        weights = "" if stage.checkpoint is None else str(self.run.checkpoint(stage.checkpoint).resolve())
        return Context(self.config, self.classes, weights)

    def _source(self, over: str, stream: Sequence[Stage]) -> Source:
        """The images with all that the maps of a stream read beside them."""
        reads: dict[str, str] = {}
        for member in stream:
            if any(reads.get(name, artefact) != artefact for name, artefact in member.reads.items()):
                raise StageError(f"{member.name}: stages of one stream read different artefacts under one name")
            reads |= member.reads
        joins = [
            self._join(name, maker_of(artefact).name, ARTEFACTS[artefact].field) for name, artefact in reads.items()
        ]
        for name in filter(None, (member.outside for member in stream)):
            joins.append(Join(name, self.outside[name].url, ACTIVATION, self.outside[name].digest))
        return Source(self.sets[over].url, tuple(joins), self.config.loader, digest=self.sets[over].digest)

    def _join(self, name: str, stage: str, field: str) -> Join:
        """A field of a finished Map, under a name."""
        return Join(name, str(self.run.stage(stage).resolve()), field, self.run.digest(self.stage(stage)))

    def open(self, name: str) -> ShardSet:
        """The shard set a finished Map wrote."""
        return ShardSet.open(str(self.run.stage(name)))

    def _scored_stages(self) -> list[str]:
        return sorted({stage.name for stage, _ in scored(self.config) if self.run.is_done(stage)})

    def _score(self, observe: Observe) -> None:
        finished = self._scored_stages()
        counts = count_sets(self.config, self.sets, finished, self._join, self._farm, observe)
        write_counts(self.run.stage("score") / COUNTS, counts)
        write_json(self.run.stage("score") / LAST_FILE["score"], self._tables(counts, self._truths()))

    def _score_again(self) -> bool:
        """Bring the tables up to date from the counts; False where there are no counts."""
        counts = read_counts(self.run.stage("score") / COUNTS)
        if counts is None:
            return False
        self._write_tables(self._tables(counts, self._truths()))
        return True

    def _score_without_data(self) -> bool:
        """Bring the tables up to date where the data is gone; False where it is there.

        Raises ShardError where the counts are not those of what is finished now.
        """
        try:
            return not self.sets
        except ShardError as error:
            finished, counts = self._scored_stages(), read_counts(self.run.stage("score") / COUNTS)
            inputs = (self.run.origin("score") or {"inputs": {}})["inputs"]
            counted = {name: digest for name, digest in inputs.items() if not name.endswith(" set")}
            if counts is None or counted != {name: self.run.digest(self.stage(name)) for name in finished}:
                raise
            self._say(f"score: as counted before; {error}")
            self._write_tables(self._tables(counts, counted_truths(self.config, finished, counts)))
            return True

    def _truths(self) -> dict[str, bool]:
        """Whether the images of a set have a truth, by role."""
        return {over: "gt.png" in images.fields for over, images in self.sets.items()}

    def _tables(self, counts: Counts, truths: Mapping[str, bool]) -> dict[str, Any]:
        return score_tables(self.config, self.classes, truths, self._scored_stages(), counts)

    def _write_tables(self, tables: dict[str, Any]) -> None:
        """Write score.json unless it says so already."""
        path = self.run.stage("score") / LAST_FILE["score"]
        with contextlib.suppress(StageError):
            if path.is_file() and read_json(path) == tables:
                return
        write_json(path, tables)

    def _say(self, text: str) -> None:
        self.console.print(printable(text, MESSAGE), markup=False, highlight=False, soft_wrap=True)


def train_member(folder: AnyPath, data: AnyPath, name: str) -> None:
    """One rank's share of a Fit of the run in `folder`, in a process that a launcher has told its rank."""
    Pipeline(read_config(folder / "config.yaml"), Run(folder), data).execute(only=name, member=True)


def start_farm(config: Config, address: str | None = None) -> Farm:
    """The configured farm. address: a running Ray cluster to work in."""
    if config.farm.name == "local":
        from amn_dist.farms.local import LocalFarm

        return LocalFarm()
    from amn_dist.farms.ray.farm import RayFarm

    return RayFarm(config.farm, address=address)


def reopen(folder: AnyPath, settings: tuple[str, ...] = (), *, data: AnyPath | None = None) -> Pipeline:
    """The pipeline of an existing run, from what the run says of itself; settings go over that.

    data: where its sets lie now, if they were moved.
    """
    if not is_file(folder / "config.yaml") or not is_file(folder / "data.json"):
        raise ConfigError(f"{folder}: not a run (config.yaml or data.json is missing); `amn run` makes one")
    recorded = path_of(read_json(folder / "data.json", DataFile).data)
    config, run = read_config(folder / "config.yaml", settings), Run(folder)
    return Pipeline(config, run, data or recorded, class_table=run.class_table())
