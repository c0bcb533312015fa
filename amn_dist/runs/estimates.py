"""What a run will take of disk and memory, from the sizes of its photographs: bounds, so that only what cannot be is
refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from amn_dist.config import Config, FitSection
from amn_dist.errors import ShardError
from amn_dist.loaders.bounded import working_pixels
from amn_dist.methods import Artefact, Stage
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.precision import precision_name
from amn_dist.models.weight_files import backbone_shape
from amn_dist.shards.format import FieldKind
from amn_dist.shards.sample import evenly
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.folders import in_parallel

REPORTS, TAGS = 32, 8
"""Shards of a set whose reports are looked at, and samples whose tags are counted, evenly spaced."""
VALUE_BYTES: Mapping[FieldKind, tuple[float, float]] = {
    "maps": (0.02, 0.09),
    "labels": (0.001, 0.05),
    "regions": (0.01, 0.6),
}
"""Least and most bytes a pixel of the photograph that a field takes when it is compressed; of maps, a class. Maps of
drawn scenes took 0.06, labels 0.03."""
SAMPLE_BYTES = (1_000, 2_500)
"""Of a sample beside its values: headers and padding in the tar, its line in the report."""


@dataclass(frozen=True)
class Bounds:
    """Least and most of something that is not known before."""

    least: float = 0.0
    most: float = 0.0

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.least + other.least, self.most + other.most)

    def times(self, factor: float) -> Bounds:
        """The bounds of so many."""
        return Bounds(self.least * factor, self.most * factor)


@dataclass(frozen=True)
class Looked:
    """A set as far as it was looked at. entries: samples. images: those of the whole set. classes: C. tags: classes an
    image is tagged with, on average."""

    entries: tuple[Entry, ...]
    images: int
    classes: int
    tags: float

    @property
    def largest(self) -> Entry:
        """The photograph with most pixels."""
        return max(self.entries, key=lambda entry: entry.height * entry.width)

    @property
    def pixels(self) -> float:
        """Of all images together."""
        seen = sum(entry.height * entry.width for entry in self.entries)
        return seen / len(self.entries) * self.images


def look_at(images: ShardSet) -> Looked:
    """Sizes of the photographs of a set, and how many classes they are tagged with. Raises ShardError for a damaged
    set, or one without any."""
    if not len(images):
        raise ShardError(f"{images.url}: holds no sample, expected one at least; pack it again")
    numbers = evenly(len(images.shard_sizes), REPORTS)
    entries = tuple(chain.from_iterable(in_parallel(images.shard, numbers)))
    tagged = [entry.ordinal for entry in entries[:: max(len(entries) // TAGS, 1)] if "tags" in entry.fields]
    counts = in_parallel(lambda ordinal: float(images.load(ordinal, "tags").sum()), tagged)
    return Looked(entries, len(images), len(images.classes), sum(counts) / max(len(counts), 1))


def disk_of_fit(section: FitSection) -> Bounds:
    """Bytes a Fit writes: weights, and at most three checkpoints with what the optimiser remembers."""
    weights = 4.0 * backbone_shape(section.backbone).parameters
    moments = 2 if section.optimiser == "adam" else 1
    trained = section.backbone.frozen_taps == 0
    checkpoint = Bounds(weights * (1 + moments * trained), 1.2 * weights * (1 + moments))
    return Bounds(weights, 1.2 * weights) + Bounds(checkpoint.least, 3 * checkpoint.most)


def disk_of_map(artefacts: Iterable[Artefact], over: Looked) -> Bounds:
    """Bytes a Map writes over a set."""
    values = [
        Bounds(*VALUE_BYTES[one.kind]).times(over.tags if one.is_activation else 1) for one in artefacts if one.kind
    ]
    return sum((one.times(over.pixels) for one in values), Bounds(*SAMPLE_BYTES).times(over.images))


def memory_of(config: Config, stage: Stage, over: Looked) -> tuple[float, float]:
    """Bytes at least that the network of a Map takes for a photograph at the largest scale, and that scale.

    What goes into and comes out of the widest convolution, of the image and its mirror image where they go together.
    """
    section = getattr(config, stage.name)
    backbone = getattr(config, str(stage.checkpoint)).backbone
    scale = max(getattr(section, "scales", (1.0,)))
    mirrored = getattr(section, "flip", hasattr(section, "scales"))
    largest = over.largest
    value = 2 if precision_name(config.infer.precision) == "bf16" else 4
    pixels = min(largest.height * largest.width, working_pixels(over.classes)) * scale**2
    return pixels * ARCHITECTURES[backbone.name].widest * value * (1 + mirrored), scale
