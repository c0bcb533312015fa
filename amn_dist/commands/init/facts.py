"""What a configuration is made for: the images of a set, as its reports say, and this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median

import torch

from amn_dist.errors import ConfigError, printable
from amn_dist.ops.host_memory import host_memory
from amn_dist.runs.machine import is_installed
from amn_dist.shards.sample import evenly
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath

LOOKED = 500
"""Images at most whose sizes are read."""
GIB = 2**30


@dataclass(frozen=True)
class ImageFacts:
    """The images of a set. url: where it lies. classes: names in id order, background first. long, short: medians of
    the upright sides, pixels. least, most: of any side. looked: images whose sizes were read."""

    url: str
    count: int
    classes: tuple[str, ...]
    long: int
    short: int
    least: int
    most: int
    looked: int

    @property
    def pixels(self) -> int:
        """Of an image of the median sides."""
        return self.long * self.short


@dataclass(frozen=True)
class MachineFacts:
    """This machine. memory_gib: that may be had. devices: GPUs that torch can use. device_gib: memory of the smallest.
    libraries: which of the configurable ones are installed."""

    cores: int
    memory_gib: float
    devices: int = 0
    device_gib: float = 0.0
    libraries: frozenset[str] = frozenset()


def look_at_images(place: AnyPath) -> ImageFacts:
    """The facts of a packed set, from the reports beside its tars: no image is opened.

    Raises ShardError where there is no set, ConfigError where it is no set of tagged images.
    """
    images = ShardSet.open(place, reports=1)
    if images.kind != "images" or "tags" not in images.fields:
        found = f"a set of kind {printable(images.kind)} with {printable(', '.join(images.fields))}"
        raise ConfigError(f"{images.url}: found {found}, expected images with tags; `amn pack` makes one")
    looked = min(len(images), LOOKED)
    if not looked or len(images.classes) < 2:
        found = f"{len(images)} images, {len(images.classes) - 1} classes beside the background"
        raise ConfigError(f"{images.url}: found {found}, expected one of each at least; pack images with tags")
    entries = [images.entry(ordinal) for ordinal in evenly(len(images), looked)]
    long = [max(entry.height, entry.width) for entry in entries]
    short = [min(entry.height, entry.width) for entry in entries]
    sides = round(median(long)), round(median(short)), min(short), max(long)
    return ImageFacts(images.url, len(images), images.classes, *sides, looked)


def look_at_machine() -> MachineFacts:
    """The facts of this machine."""
    devices = torch.cuda.device_count()
    memory = [torch.cuda.get_device_properties(number).total_memory / GIB for number in range(devices)]
    libraries = {"dali": "nvidia.dali", "deepspeed": "deepspeed", "ray": "ray"}
    installed = frozenset(name for name, module in libraries.items() if is_installed(module))
    _, available = host_memory()
    cores, smallest = len(os.sched_getaffinity(0)), min(memory, default=0.0)
    return MachineFacts(cores, available / GIB, devices, smallest, installed)
