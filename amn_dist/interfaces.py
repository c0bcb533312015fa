"""The two verbs of the system. A stage is a Fit or a Map; it says what it needs, never who runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from amn_dist.records import Batch, CropRule, Sample

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config, FitSection

Needs = Literal["network", "cpu"]
"""What a Map asks of a worker: the device its network runs on, or processor cores alone."""


@dataclass(frozen=True)
class Context:
    """What a stage is built from.

    classes: names in the order of their ids, background first. weights: those of the Fit that a Map runs, a
    .safetensors on this machine or behind a URL; empty for any other stage. accelerated: whether the workers that run
    networks have a GPU.
    """

    config: Config
    classes: tuple[str, ...]
    weights: str = ""
    accelerated: bool = False

    @property
    def num_classes(self) -> int:
        """C, background included."""
        return len(self.classes)


class Fit(Protocol):
    """Shards in, checkpoint out: one network, its crops and its losses."""

    @property
    def name(self) -> str: ...

    @property
    def section(self) -> FitSection: ...

    @property
    def rule(self) -> CropRule: ...

    def network(self) -> nn.Module:
        """The network with its initial weights."""
        ...

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Optimiser groups: params, lr (initial), weight_decay. Parameters in no group are not trained."""
        ...

    def normalisers(self, batch: Batch) -> Tensor:
        """f64[n] counts this rank's batch adds to the denominators of the losses; the gang sums them."""
        ...

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        """This (micro-)batch's parts of the global losses, by name; `total` is what is minimised.

        pooled: f64[n], `normalisers` summed over the whole global batch. Parts divide by pooled counts, so that the
        sum over micro-batches and ranks is the loss of the global batch.
        """
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A network that gathers statistics over the pieces and ranks of a step, and keeps them in buffers."""

    def end_step(self) -> None:
        """Close a step; the loop calls it on every rank after each update, before any checkpoint."""
        ...


class Map(Protocol):
    """Shards in, shards out: a transform of a stream of samples.

    `name` is the stage; `fields` are what it writes for every sample; `needs` says on which workers it belongs where a
    farm has two kinds. A call yields the samples it was given, in order, each with `made[name]` filled. It is opened
    once a worker, so that weights load once.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Needs: ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    def open(self) -> Any:
        """What a worker keeps between shards (a network on its device, or None)."""
        ...

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples in order, with this stage's evidence and fields added."""
        ...


@runtime_checkable
class Divided(Protocol):
    """A Map whose work belongs on workers of two kinds: parts that run one after the other yield what it yields."""

    def parts(self) -> tuple[Map, ...]:
        """Maps of one name each, of which the last has the name and the fields of the whole; or the whole alone."""
        ...


def crf_needs(backend: str, accelerated: bool) -> Needs:
    """Where a dense CRF of the setting `crf` belongs: `auto` is the network's device when that is a GPU."""
    return "network" if backend == "gpu" or (backend == "auto" and accelerated) else "cpu"


def parts_of(step: Map) -> tuple[Map, ...]:
    """The Maps that a farm runs for this one."""
    return step.parts() if isinstance(step, Divided) else (step,)


@runtime_checkable
class Pretrained(Protocol):
    """A Map with weights that no stage of the run has trained. Origins hold their digests: it is made again when they
    change."""

    @property
    def weight_files(self) -> Mapping[str, str]:
        """Path of every file of weights, by a name."""
        ...

    def check_weights(self) -> None:
        """Raise ConfigError unless the files are there and fit the network, of names and shapes alone where formats
        have them."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A Map of which a part is the same for all images. The driver has it made once, before workers open the Map."""

    def prepare(self, folder: str) -> tuple[Map, str]:
        """Make that part and keep it in the stage's folder, a path or URL; the Map that reads it there, and a line that
        says what was made."""
        ...


class Tally(Protocol):
    """Shards in, counts out: what a Map is to shards, a Tally is to sums of int64 arrays."""

    @property
    def name(self) -> str: ...

    def open(self) -> Any:
        """What a worker keeps between shards."""
        ...

    def count(self, opened: Any, samples: Iterator[Sample]) -> dict[str, np.ndarray]:
        """Counts of a shard by name; the counts of all shards are added up."""
        ...
