"""The shard sets a run reads that no stage of it made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from amn_dist.config import Config
from amn_dist.errors import ConfigError, ShardError, printable, quoted
from amn_dist.methods import Stage
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath, path_of


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
