"""A run before it works: what checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from amn_dist.config import Config, FitSection
from amn_dist.farms.farm import Farm
from amn_dist.methods import Stage
from amn_dist.runs.estimates import Looked, look_at
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet


@dataclass(frozen=True)
class Prospect:
    """A run before it works. left: its stages that are not done, in order. run: its folder. open_sets, open_outside:
    the image sets by role, the sets from outside by setting. farm: workers lent to it. address: of a Ray cluster to
    work in. reuse: stages of neighbours are taken over. download: fetch what can be, in the place of a note."""

    config: Config
    left: tuple[Stage, ...]
    run: Run
    open_sets: Callable[[], Mapping[str, ShardSet]]
    open_outside: Callable[[], Mapping[str, ShardSet]]
    farm: Farm | None = None
    address: str | None = None
    reuse: bool = True
    download: bool = False

    @property
    def fits(self) -> Iterator[tuple[Stage, FitSection]]:
        """The Fits among them with their sections."""
        return ((stage, getattr(self.config, stage.name)) for stage in self.left if stage.verb == "fit")

    @cached_property
    def looked(self) -> dict[str, Looked]:
        """The sets, looked at."""
        return {role: look_at(images) for role, images in self.open_sets().items()}

    def may_be_there(self, stage: Stage) -> bool:
        """Whether some of what a stage writes may lie on the disk already: its own unfinished work, or a neighbour's
        finished one."""
        if self.run.origin(stage.name) is not None:
            return True
        return self.reuse and any(neighbour.is_done(stage) for neighbour in self.run.siblings())
