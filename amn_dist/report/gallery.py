"""A sample through all stages of a run, as a row of pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from amn_dist.config import Loader
from amn_dist.errors import PLACE, ConfigError, ShardError, printable, quoted
from amn_dist.loaders.decode import decode_images
from amn_dist.ops.resize import upsample
from amn_dist.report.facts import open_made
from amn_dist.report.pictures import heat, overlay, sheet
from amn_dist.report.tables import title_of
from amn_dist.runs.pipeline import reopen
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.atomic import commit
from amn_dist.storage.paths import AnyPath, is_file

Column = tuple[str, ShardSet, str]
"""Title, shards and field of what a stage made."""


@dataclass(frozen=True)
class Shown:
    """An image set with what a run made over it."""

    images: ShardSet
    columns: tuple[Column, ...] = ()


def places(place: AnyPath) -> tuple[list[Shown], list[str]]:
    """What lies behind a folder, a shard set of images or a run; and what was made and cannot be shown."""
    if is_file(place / "index.json"):
        return [Shown(ShardSet.open(str(place)))], []
    line = reopen(place)
    missing: list[str] = []
    made = open_made(line, line.sets, missing)
    shown = [
        Shown(images, tuple((title_of(name), found, field) for name, (found, field, of) in made.items() if of == over))
        for over, images in line.sets.items()
    ]
    return shown, missing


def gallery(samples: Sequence[tuple[Shown, int]], *, height: int = 160) -> Image.Image:
    """A contact sheet of samples, each a set and an ordinal: photo, truth and what every finished stage made of it."""
    return sheet([row(shown, ordinal) for shown, ordinal in samples], height=height)


def row(shown: Shown, ordinal: int) -> list[tuple[str, np.ndarray]]:
    """The pictures of a sample, titled."""
    images, key = shown.images, shown.images.entry(ordinal).key
    (photo,) = decode_images([(key, images.image(ordinal))], loader=Loader(name="torchvision"))
    tags = images.load(ordinal, "tags")
    names = [images.classes[i + 1] for i in np.flatnonzero(tags)]
    pictures = [(printable(", ".join(names) or key), photo)]
    if "gt.png" in images.fields:
        pictures.append(("truth", overlay(photo, images.load(ordinal, "gt.png"))))
    for title, made, field in shown.columns:
        pictures.append((title, picture(photo, made.load(made.find(key), field))))
    return pictures


def write_picture(picture: Image.Image, out: Path) -> None:
    """Write a picture as its ending says, whole or not at all. Raises ConfigError for an ending of no picture."""
    form = Image.registered_extensions().get(out.suffix.lower())
    if form not in Image.SAVE:
        raise ConfigError(
            f"{out}: found the ending {printable(out.suffix) or 'none'}, expected one such as .png or .jpg"
        )
    stream = io.BytesIO()
    picture.save(stream, form)
    commit(out, stream.getvalue())


def picture(photo: np.ndarray, found: np.ndarray) -> np.ndarray:
    """An activation as heat, labels as an overlay."""
    if found.ndim == 3:
        return heat(photo, upsample(found, photo.shape[:2]))
    return overlay(photo, found)


def named(sets: Sequence[Shown], keys: Sequence[str]) -> list[tuple[Shown, int]]:
    """The samples of these keys, in every set that has them. Raises ShardError for a key that none has."""
    found = []
    for key in keys:
        places = []
        for shown in sets:
            with suppress(ShardError):
                places.append((shown, shown.images.find(key)))
        if not places:
            where = printable(", ".join(shown.images.url for shown in sets), PLACE)
            raise ShardError(f"{where}: no sample {quoted(key)}; keys are in the shard reports")
        found += places
    return found


def spread(sets: Sequence[Shown], count: int) -> list[tuple[Shown, int]]:
    """At most `count` samples of every set, taken evenly."""
    return [
        (shown, ordinal)
        for shown in sets
        for ordinal in range(0, len(shown.images), max(len(shown.images) // max(count, 1), 1))[:count]
    ]
