"""An experiment as its parts share it: configuration, sets, run folder, workers, and what stages are made from."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rich.console import Console

from amn_dist.config import Config, dump_config
from amn_dist.errors import MESSAGE, ConfigError, ShardError, printable
from amn_dist.farms.farm import Farm
from amn_dist.farms.stream import Join
from amn_dist.interfaces import Context
from amn_dist.methods import Stage, scored, stages
from amn_dist.runs.inputs import IMAGES, ImageList, open_images, open_outside, scored_images
from amn_dist.runs.neighbours import reuse
from amn_dist.runs.origins import Origin, imported_origin, origin_of
from amn_dist.runs.run import CLASSES, Run, write_json, write_text
from amn_dist.runs.unfinished import UNDECIDED, Decision
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.lease import holding
from amn_dist.storage.paths import AnyPath
from amn_dist.telemetry import environment


@dataclass
class Experiment:
    """One experiment: configuration, data, run folder."""

    config: Config
    run: Run
    data: AnyPath
    data_named: bool = False
    """Whether `data` was named in this call; then sets of absolute paths that are not there are looked for in it."""
    console: Console = field(default_factory=lambda: Console(stderr=True))
    leaving: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False, repr=False)
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
        return open_images(self.config, self.data, moved_to=self.data if self.data_named else None)

    @cached_property
    def outside(self) -> dict[str, ShardSet]:
        """The shard sets from outside the run that stages read, by setting; each lies over its stage's images."""
        return open_outside(self.config, self.data, self.stages, self.sets)

    @cached_property
    def scored_images(self) -> ImageList | None:
        """The training images that are scored; None: all. Raises ConfigError where the list names none."""
        chosen = scored_images(self.config, self.data)
        if chosen is not None:
            chosen.check(self.sets["train"])
        return chosen

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
            read = self.scored_stages()
        inputs = {name: self.run.digest(self.stage(name)) for name in read}
        over = self.sets if stage.verb == "score" else [stage.over]
        inputs |= {f"{role} set": self.sets[role].digest for role in over}
        if stage.verb == "score" and self.scored_images is not None:
            inputs[IMAGES] = self.scored_images.digest
        if stage.outside is not None:
            inputs[f"{stage.outside} set"] = self.outside[stage.outside].digest
        origin = origin_of(stage, self.context(stage), inputs)
        return origin if stage.follows is None else origin.after(self.origin(self.stage(stage.follows)))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run's folder: one driver at a time."""
        return holding(self.run.folder, self.say)

    def workers(self) -> Farm:
        """The workers of this run, started when the first Map needs them."""
        if self.farm is None:
            self.farm = start_farm(self.config, self.address)
            self.leaving.callback(self.stop_workers)
        return self.farm

    def stop_workers(self) -> None:
        """Let the workers go; a Fit between two Maps may have done so already."""
        if self.farm is not None:
            self.farm.close()
            self.farm = None

    def describe(self) -> None:
        """Write what the run is: configuration, where its data lies, on what it runs."""
        folder = self.run.folder
        write_text(folder / "config.yaml", dump_config(self.config))
        write_json(folder / CLASSES, list(self.classes))
        write_json(folder / "data.json", {"data": str(self.data.resolve())})
        write_json(folder / "environment.json", environment())

    def begin(self, stage: Stage, origin: Origin) -> None:
        if self.run.begin(stage, origin) and stage.verb != "score":
            self.say(f"{stage.name}: was begun from other settings, inputs or code; nothing of it was finished")

    def reused(self, stage: Stage, origin: Origin) -> str | None:
        """Take the stage from a run that has it, unless work of more than one origin is to be gone on with here."""
        mixed = "before" in (self.run.origin(stage.name) or {})
        return reuse(self.run, stage, origin, tell=self._pass_over) if self.reuse and not mixed else None

    def _pass_over(self, name: str, why: str) -> None:
        """Say once that a neighbour is not looked at."""
        if name not in self._passed_over:
            self._passed_over.add(name)
            self.say(f"run {name}: passed over ({why})")

    def followers(self, stage: Stage, wanted: Sequence[Stage]) -> list[Stage]:
        """The wanted maps that take this one's from memory and are not done."""
        return [later for later in wanted if later.follows == stage.name and not self.run.is_done(later)]

    def context(self, stage: Stage) -> Context:
        """What a stage is built from."""
        weights = "" if stage.checkpoint is None else str(self.run.checkpoint(stage.checkpoint).resolve())
        return Context(self.config, self.classes, weights)

    def join(self, name: str, stage: str, field: str) -> Join:
        """A field of a finished Map, under a name."""
        return Join(name, str(self.run.stage(stage).resolve()), field, self.run.digest(self.stage(stage)))

    def open(self, name: str) -> ShardSet:
        """The shard set a finished Map wrote."""
        return ShardSet.open(str(self.run.stage(name)))

    def scored_stages(self) -> list[str]:
        return sorted({stage.name for stage, _ in scored(self.config) if self.run.is_done(stage)})

    def say(self, text: str) -> None:
        self.console.print(printable(text, MESSAGE), markup=False, highlight=False, soft_wrap=True)


def start_farm(config: Config, address: str | None = None) -> Farm:
    """The configured farm. address: a running Ray cluster to work in."""
    if config.farm.name == "local":
        from amn_dist.farms.local import LocalFarm

        return LocalFarm()
    from amn_dist.farms.ray.farm import RayFarm

    return RayFarm(config.farm, address=address)
