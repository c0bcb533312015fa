"""What a run reads that no stage of it made: shard sets, and the list of images that are scored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from amn_dist.config import Config
from amn_dist.errors import ConfigError, ShardError, listed, printable, quoted
from amn_dist.methods import Stage
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath, is_file, path_of


def open_images(config: Config, data: AnyPath, *, moved_to: AnyPath | None = None) -> dict[str, ShardSet]:
    """The image sets by role. Raises ConfigError when their class tables differ.

    moved_to: where a set of an absolute path that is not there any more lies under its own name, if anywhere.
    """
    named = {"train": config.data.train, "val": config.data.val}
    sets = {role: _opened(data, path, moved_to) for role, path in named.items() if path is not None}
    if "val" in sets and sets["val"].classes != sets["train"].classes:
        raise ConfigError(
            f"{sets['val'].url}: its classes are not those of the training set "
            f"({first_difference(sets['val'].classes, sets['train'].classes)}); pack both with one class list"
        )
    return sets


def _opened(data: AnyPath, path: str, moved_to: AnyPath | None) -> ShardSet:
    """A configured set. Raises ShardError, which says what to do where it is not there any more."""
    url = locate(data, path)
    try:
        return ShardSet.open(url)
    except ShardError as error:
        if "://" in url or os.path.exists(url):
            raise
        if Path(path).is_absolute() and moved_to is not None:
            return ShardSet.open(moved_to / Path(path).name)
        raise ShardError(f"{error}; of a set that was moved, --data says where it lies now") from error


def open_outside(
    config: Config, data: AnyPath, stages: Iterable[Stage], sets: Mapping[str, ShardSet]
) -> dict[str, ShardSet]:
    """The sets from outside the run that stages read, by setting. Raises ConfigError or ShardError unless each lies
    over its stage's images and holds the field they read."""
    return {s.outside: _lying_over(config, data, s, s.outside, sets[s.over]) for s in stages if s.outside is not None}


def _lying_over(config: Config, data: AnyPath, stage: Stage, setting: str, images: ShardSet) -> ShardSet:
    try:
        shards = ShardSet.open(locate(data, getattr(getattr(config, stage.name), setting)))
    except ShardError as error:
        raise ShardError(f"{stage.name}.{setting}: {error}") from error
    where = f"{stage.name}.{setting}: {shards.url}"
    if stage.outside_field not in shards.fields:
        held = printable(", ".join(shards.fields))
        raise ConfigError(f"{where}: found the fields {held}, expected {stage.outside_field}; see amn import")
    if shards.classes != images.classes:
        raise ConfigError(
            f"{where}: its classes {printable(list(shards.classes))} are not those of {images.url}; make it from this "
            "set"
        )
    images.join(shards)
    return shards


IMAGES = "images list"
"""Input of scores: the digest of the list that `score.images` names."""


@dataclass(frozen=True)
class ImageList:
    """Keys of the training images that are scored. where: the file they stand in, after the setting."""

    where: str
    keys: frozenset[str]

    @cached_property
    def digest(self) -> str:
        """sha256 of the keys, in whatever order they stood."""
        return hashlib.sha256("\n".join(sorted(self.keys)).encode()).hexdigest()

    def check(self, images: ShardSet) -> None:
        """Raises ConfigError where none of the keys is an image of the set."""
        shards = (images.shard(number) for number in range(len(images.shard_sizes)))
        if not any(entry.key in self.keys for entries in shards for entry in entries):
            found, expected = sorted(self.keys)[:3], [entry.key for entry in images.shard(0)[:3]]
            raise ConfigError(
                f"{self.where}: found {listed(found, 200)}, and none of {len(self.keys)} lines is an image of "
                f"{images.url}, expected keys such as {listed(expected, 200)}"
            )


def scored_images(config: Config, data: AnyPath) -> ImageList | None:
    """The list that `score.images` names; None without it. Raises ConfigError where it cannot be read or is empty."""
    if config.score.images is None:
        return None
    path = path_of(locate(data, config.score.images))
    where = f"score.images: {printable(path)}"
    expected = "expected a text file with a key of an image a line"
    try:
        if not is_file(path):
            raise ConfigError(f"{where}: no such file, {expected}")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read ({printable(error)}), {expected}") from error
    keys = frozenset(filter(None, map(str.strip, text.splitlines())))
    if not keys:
        raise ConfigError(f"{where}: is empty, {expected}")
    return ImageList(where, keys)


def locate(root: AnyPath, path: str) -> str:
    """A set's place: URLs and absolute paths as they are, others under the data folder."""
    if "://" in path or Path(path).is_absolute():
        return path
    return str((root / str(path_of(path))).resolve())


def first_difference(names: Sequence[str], others: Sequence[str]) -> str:
    """Where two class tables part, in words."""
    for number, (mine, other) in enumerate(zip(names, others, strict=False)):
        if mine != other:
            return f"class {number} is {quoted(mine)} here, {quoted(other)} there"
    return f"{len(names)} classes here, {len(others)} there"
