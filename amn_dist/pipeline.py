"""What is done, run the next. The only place that chooses backends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from amn_dist.config import Config, dump_config, load_config
from amn_dist.errors import ConfigError, StageError
from amn_dist.farms.farm import Farm
from amn_dist.farms.stream import Join, MapTask, Source, TallyTask
from amn_dist.gangs import leaving_faults, train_together, train_with_torchrun
from amn_dist.methods import Stage, scored, stages
from amn_dist.runs import Origin, Run, file_digest, imported_origin, origin_of, read_json, reuse, write_json, write_text
from amn_dist.shards.index import ShardReport
from amn_dist.shards.paths import AnyPath, path_of
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import clean_unfinished, read_report, write_index
from amn_dist.stages.score import ScoreTally, artefact_scores
from amn_dist.telemetry import Observe, StageLog, environment, following, stage_log


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

    @property
    def stages(self) -> tuple[Stage, ...]:
        return stages(self.config)

    @cached_property
    def sets(self) -> dict[str, ShardSet]:
        """The image sets by role."""
        named = {"train": self.config.data.train, "val": self.config.data.val}
        found = {role: ShardSet.open(locate(self.data, path)) for role, path in named.items() if path is not None}
        if "val" in found and found["val"].classes != found["train"].classes:
            raise ConfigError(
                f"{found['val'].url}: its classes are not those of the training set "
                f"({first_difference(found['val'].classes, found['train'].classes)}); pack both with one class list"
            )
        return found

    @cached_property
    def given(self) -> dict[str, ShardSet]:
        """The shard sets from outside the run that stages read, by setting; each lies over its stage's images."""
        return {stage.given[0]: self._given(stage, *stage.given) for stage in self.stages if stage.given is not None}

    @property
    def num_classes(self) -> int:
        return len(self.sets["train"].classes)

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises ConfigError naming the stages there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(
            f"{name}: no stage of method {self.config.method}; stages: {', '.join(stage.name for stage in self.stages)}"
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
        with self.locked():
            if redo is not None:
                self.run.drop(self.readers(self.stage(redo)))
            self._check_unchanged(wanted)
            self.describe()
            with contextlib.ExitStack() as stack:
                self._workers = stack
                for stage in wanted:
                    self._advance(stage, wanted)

    def readers(self, stage: Stage) -> list[str]:
        """The stage and every later stage that depends on it."""
        names = [stage.name]
        for later in self.stages:
            if later.verb == "score" or any(name in names for name in later.reads):
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
            digest = (self.run.origin(stage.name) or {})["inputs"]["file"]
            return imported_origin(self.config, stage, file, digest, self.num_classes)
        read = [name for name in stage.reads if name != stage.follows]
        if stage.verb == "score":
            read = self._scored_stages()
        inputs = {name: self.run.digest(self.stage(name)) for name in read}
        inputs[f"{stage.over} set"] = self.sets[stage.over].digest
        if stage.given is not None:
            inputs[f"{stage.given[0]} set"] = self.given[stage.given[0]].digest
        origin = origin_of(self.config, stage, inputs)
        return origin if stage.follows is None else origin.after(self.origin(self.stage(stage.follows)))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's folder: one driver at a time."""
        self.run.folder.mkdir(parents=True, exist_ok=True)
        with (self.run.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StageError(
                    f"{self.run.folder}: another process is working on this run; wait or stop it"
                ) from error
            yield

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

    def describe(self) -> None:
        """Write what the run is: configuration, where its data lies, on what it runs."""
        folder = self.run.folder
        write_text(folder / "config.yaml", dump_config(self.config))
        write_json(folder / "data.json", {"data": str(self.data.resolve())})
        write_json(folder / "environment.json", environment())

    def _check_unchanged(self, wanted: Sequence[Stage]) -> None:
        """Refuse settings that no longer fit what is finished, before anything of the run is touched."""
        for stage in wanted:
            if stage.verb == "score" or not self.run.is_done(stage):
                continue
            before = [self.stage(name) for name in stage.reads]
            if all(self.run.is_done(other) for other in before):
                self.run.check_unchanged(stage, self.origin(stage))

    def _wanted(self, until: str | None, only: str | None) -> list[Stage]:
        if only is not None:
            return [self.stage(only)]
        if until is None:
            return list(self.stages)
        names = [stage.name for stage in self.stages]
        return list(self.stages[: names.index(self.stage(until).name) + 1])

    def _advance(self, stage: Stage, wanted: Sequence[Stage]) -> None:
        missing = [name for name in stage.reads if name != stage.follows and not self.run.is_done(self.stage(name))]
        if missing:
            raise StageError(f"{stage.name}: {missing[0]} is not done in {self.run.folder}; run that first")
        origin = self.origin(stage)
        if self.run.is_done(stage) and (stage.verb != "score" or self.run.origin("score") == origin.as_json()):
            self.run.check_unchanged(stage, origin)  # a stage it reads may have been made anew in this call
            if self.run.imported(stage.name):
                self._say(f"{stage.name}: weights of {self.run.imported(stage.name)}, imported, not trained here")
            return
        other = reuse(self.run, stage, origin) if self.reuse else None
        if other is not None:
            self._say(f"{stage.name}: taken from run {other}, same settings, inputs and code")
            return
        if self.run.begin(stage, origin):
            self._say(f"{stage.name}: unfinished work of other settings, inputs or code was dropped")
        start = time.monotonic()
        with stage_log(self.run.stage(stage.name), stage.name, self.console) as log:
            {"fit": self._fit, "map": self._map, "score": self._score}[stage.verb](stage, log, wanted)
            log({"done": True, "seconds": round(time.monotonic() - start, 3)})
        self._say(f"{stage.name}: done in {time.monotonic() - start:.0f} s")

    def _fit(self, stage: Stage, log: StageLog, wanted: Sequence[Stage]) -> None:
        if self.config.engine.processes > 1 and "RANK" not in os.environ:
            self._gang(stage, log)
        else:
            self._fit_here(stage, log)
        digest = file_digest(self.run.checkpoint(stage.name))
        write_json(self.run.stage(stage.name) / "done.json", {"digest": digest})

    def _advance_member(self, stage: Stage) -> None:
        """This rank's share of a Fit; the first rank keeps the log."""
        folder = self.run.stage(stage.name)
        with leaving_faults(folder):
            if os.environ.get("RANK", "0") != "0":
                return self._fit_here(stage, lambda record: None)
            with stage_log(folder, stage.name, self.console) as log:
                self._fit_here(stage, log)

    def _fit_here(self, stage: Stage, observe: Observe) -> None:
        from amn_dist.engines.gang import join_gang
        from amn_dist.engines.loop import fit as train
        from amn_dist.loaders.batches import batches

        assert stage.fit is not None
        task = stage.fit(self.config, self.num_classes)
        gang = join_gang(timeout_s=self.config.engine.timeout_s)
        images = self.sets["train"]
        labels = None if stage.label is None else (self.open(stage.label[0]), stage.label[1])

        def batches_from(consumed: int) -> Any:
            return batches(
                images,
                labels,
                rule=task.rule,
                batch=task.section.batch,
                seed=self.config.seed,
                consumed=consumed,
                rank=gang.rank,
                world=gang.size,
                loader=self.config.loader,
            )

        train(
            task,
            batches_from,
            folder=self.run.stage(stage.name),
            engine=self.config.engine,
            seed=self.config.seed,
            samples=len(images),
            observe=observe,
        )

    def _gang(self, stage: Stage, log: StageLog) -> None:
        folder, engine = self.run.stage(stage.name), self.config.engine
        train_together(
            self._with_ray(stage, log) if engine.launcher == "ray" else self._with_torchrun(stage),
            folder,
            retries=engine.retries,
            tell=lambda text: log({"warning": text}),
        )

    def _with_ray(self, stage: Stage, log: StageLog) -> Callable[[], None]:
        from amn_dist.farms.ray.gang import leave_ray, train_in_ray

        self._stop_farm()  # its workers hold the cores and devices that the gang needs
        self._workers.callback(leave_ray)
        work = partial(train_member, self.run.folder.resolve(), self.data.resolve(), stage.name)

        def start() -> None:
            with following(log):
                folder = self.run.stage(stage.name)
                train_in_ray(work, self.config.engine, farm=self.config.farm, address=self.address, folder=folder)

        return start

    def _with_torchrun(self, stage: Stage) -> Callable[[], None]:
        command = ["fit", str(self.run.folder / "config.yaml"), stage.name]
        command += ["--run", str(self.run.folder), "--data", str(self.data), "--member"]
        return partial(train_with_torchrun, command, self.config.engine)

    def _map(self, stage: Stage, observe: Observe, wanted: Sequence[Stage]) -> None:
        stream = self._stream(stage, wanted)
        images = self.sets[stage.over]
        kept = {member.name: self.run.stage(member.name) for member in stream if not self.run.is_done(member)}
        for member in stream:
            if member.name in kept and member is not stage and self.run.begin(member, self.origin(member)):
                self._say(f"{member.name}: unfinished work of other settings, inputs or code was dropped")
        for folder in kept.values():
            clean_unfinished(folder)
        task = MapTask(
            name="+".join(member.name for member in stream),
            source=self._source(stage.over, stream),
            maps=tuple(self._build(member) for member in stream),
            folders=tuple(str(kept[member.name]) if member.name in kept else None for member in stream),
            sizes=images.shard_sizes,
            chunk=self.config.farm.chunk,
        )
        todo = [n for n in range(len(images.shard_sizes)) if any(read_report(f, n) is None for f in kept.values())]
        done = len(images) - sum(images.shard_sizes[n] for n in todo)
        start = time.monotonic()
        for report in self._farm().run(task, todo):
            observe(report.metrics(before=done, total=len(images), seconds=time.monotonic() - start))
        for name, folder in kept.items():
            self._index(name, folder, images)

    def _index(self, name: str, folder: Path, images: ShardSet) -> None:
        def reports() -> Iterator[ShardReport]:
            for number in range(len(images.shard_sizes)):
                report = read_report(folder, number)
                if report is None:
                    raise StageError(f"{folder}: shard {number} is missing after all were done; run again")
                yield report

        write_index(folder, kind=name, classes=images.classes, reports=reports())

    def _stream(self, stage: Stage, wanted: Sequence[Stage]) -> list[Stage]:
        """The maps that run together: what the stage follows, the stage, and what follows it and is wanted."""
        before = [self.stage(stage.follows)] if stage.follows else []
        after = [later for later in wanted if later.follows == stage.name and not self.run.is_done(later)]
        if self.reuse:
            after = [later for later in after if reuse(self.run, later, self.origin(later)) is None]
        return [*before, stage, *after]

    def _build(self, stage: Stage) -> Any:
        assert stage.map is not None
        weights = "" if stage.checkpoint is None else str(self.run.checkpoint(stage.checkpoint).resolve())
        return stage.map(self.config, self.num_classes, weights)

    def _source(self, over: str, stream: Sequence[Stage]) -> Source:
        """The images with all that the maps of a stream read beside them."""
        pairs = dict.fromkeys(pair for member in stream for pair in member.joins)
        joins = [self._join(name, name, kind) for name, kind in pairs]
        given = [member.given for member in stream if member.given is not None]
        joins += [Join(name, self.given[name].url, kind, self.given[name].digest) for name, kind in given]
        return Source(self.sets[over].url, tuple(joins), self.config.loader, digest=self.sets[over].digest)

    def _join(self, name: str, made: str, kind: str) -> Join:
        """A field of a finished Map, under a name."""
        return Join(name, str(self.run.stage(made).resolve()), kind, self.run.digest(self.stage(made)))

    def _given(self, stage: Stage, setting: str, kind: str) -> ShardSet:
        images = self.sets[stage.over]
        found = ShardSet.open(locate(self.data, getattr(getattr(self.config, stage.name), setting)))
        where = f"{stage.name}.{setting}: {found.url}"
        if kind not in found.fields:
            raise ConfigError(f"{where}: found the fields {', '.join(found.fields)}, expected {kind}; see amn import")
        if found.classes != images.classes:
            raise ConfigError(
                f"{where}: its classes {list(found.classes)} are not those of {images.url}; make it from this set"
            )
        images.join(found)
        return found

    def open(self, name: str) -> ShardSet:
        """The shard set a finished Map wrote."""
        return ShardSet.open(str(self.run.stage(name)))

    def _scored_stages(self) -> list[str]:
        return sorted({stage for stage, _, _ in scored(self.config).values() if self.run.is_done(self.stage(stage))})

    def _score(self, stage: Stage, observe: Observe, wanted: Sequence[Stage]) -> None:
        made = self._scored_stages()
        found = {name: where for name, where in scored(self.config).items() if where[0] in made}
        absent = dict.fromkeys(where[0] for where in scored(self.config).values() if where[0] not in made)
        missing = [f"{name}: not made yet" for name in absent]
        sets: dict[str, Any] = {}
        for over, images in self.sets.items():
            names = [name for name, where in found.items() if where[2] == over]
            if "gt.png" not in images.fields:
                missing.append(f"{over}: its images have no truth (gt.png)")
            elif names:
                sets[over] = self._scores(images, {name: found[name] for name in names}, observe)
        tables = {"classes": list(self.sets["train"].classes), "sets": sets, "missing": missing}
        write_json(self.run.stage("score") / "score.json", tables)

    def _scores(self, images: ShardSet, found: dict[str, tuple[str, str, str]], observe: Observe) -> dict[str, Any]:
        """Scores of artefacts over one set."""
        joins = [Join("truth", images.url, "gt.png")]
        joins += [self._join(name, made, field) for name, (made, field, _) in found.items()]
        source = Source(images.url, tuple(joins), self.config.loader, pixels=False, digest=images.digest)
        tally = ScoreTally(self.num_classes, tuple(found))
        sums = self._sums(TallyTask("score", source, tally, images.shard_sizes), observe)
        threshold = self.config.score.threshold
        rows = {name: artefact_scores(sums, name, threshold=threshold) for name in found}
        return {"images": int(sums["images"][0]), "rows": rows}

    def _sums(self, task: TallyTask, observe: Observe) -> dict[str, np.ndarray]:
        sums: dict[str, np.ndarray] = {}
        start = time.monotonic()
        for report in self._farm().run(task, range(len(task.sizes))):
            observe(report.metrics(before=0, total=sum(task.sizes), seconds=time.monotonic() - start))
            for name, value in (report.record or {}).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def train_member(folder: Path, data: AnyPath, name: str) -> None:
    """One rank's share of a Fit of the run in `folder`, in a process that a launcher has told its rank."""
    Pipeline(load_config(folder / "config.yaml"), Run(folder), data).execute(only=name, member=True)


def start_farm(config: Config, address: str | None = None) -> Farm:
    """The configured farm. address: a running Ray cluster to work in."""
    if config.farm.name == "local":
        from amn_dist.farms.local import LocalFarm

        return LocalFarm()
    from amn_dist.farms.ray.farm import RayFarm

    return RayFarm(config.farm, address=address)


def first_difference(names: Sequence[str], others: Sequence[str]) -> str:
    """Where two class tables part, in words."""
    for number, (mine, other) in enumerate(zip(names, others, strict=False)):
        if mine != other:
            return f"class {number} is {mine!r} here, {other!r} there"
    return f"{len(names)} classes here, {len(others)} there"


def locate(root: AnyPath, path: str) -> str:
    """A set's place: URLs and absolute paths as they are, others under the data folder."""
    if "://" in path or Path(path).is_absolute():
        return path
    return str((root / path).resolve())


def reopen(folder: Path) -> Pipeline:
    """The pipeline of an existing run, from what the run says of itself."""
    if not (folder / "config.yaml").is_file() or not (folder / "data.json").is_file():
        raise ConfigError(f"{folder}: not a run (config.yaml or data.json is missing); `amn run` makes one")
    data = path_of(read_json(folder / "data.json")["data"])
    return Pipeline(load_config(folder / "config.yaml"), Run(folder), data)
