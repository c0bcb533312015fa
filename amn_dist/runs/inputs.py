"""The shard sets a run reads that no stage of it made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from amn_dist.config import Config
from amn_dist.errors import ConfigError, printable, quoted
from amn_dist.methods import Stage
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath, path_of


def open_images(config: Config, data: AnyPath) -> dict[str, ShardSet]:
    """The image sets by role. Raises ConfigError when their class tables differ."""
    named = {"train": config.data.train, "val": config.data.val}
    found = {role: ShardSet.open(locate(data, path)) for role, path in named.items() if path is not None}
    if "val" in found and found["val"].classes != found["train"].classes:
        raise ConfigError(
            f"{found['val'].url}: its classes are not those of the training set "
            f"({first_difference(found['val'].classes, found['train'].classes)}); pack both with one class list"
        )
    return found


def open_given(
    config: Config, data: AnyPath, stages: Iterable[Stage], sets: Mapping[str, ShardSet]
) -> dict[str, ShardSet]:
    """The sets that stages read beside their images, by setting. Raises ConfigError or ShardError unless each lies over
    its stage's images and has the field that is read."""
    return {s.given[0]: _lying_over(config, data, s, *s.given, sets[s.over]) for s in stages if s.given is not None}


def _lying_over(config: Config, data: AnyPath, stage: Stage, setting: str, kind: str, images: ShardSet) -> ShardSet:
    found = ShardSet.open(locate(data, getattr(getattr(config, stage.name), setting)))
    where = f"{stage.name}.{setting}: {found.url}"
    if kind not in found.fields:
        raise ConfigError(
            f"{where}: found the fields {printable(', '.join(found.fields))}, expected {kind}; see amn import"
        )
    if found.classes != images.classes:
        raise ConfigError(
            f"{where}: its classes {printable(list(found.classes))} are not those of {images.url}; "
            "make it from this set"
        )
    images.join(found)
    return found


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
