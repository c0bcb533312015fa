"""A sample through all stages of a run, as a row of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from amn_dist.config import Loader
from amn_dist.errors import PLACE, ShardError, printable, quoted
from amn_dist.loaders.decode import decode_images
from amn_dist.ops.resize import upsample
from amn_dist.pipeline import reopen
from amn_dist.report.pictures import heat, overlay, sheet
from amn_dist.shards.paths import AnyPath, is_file
from amn_dist.shards.shardset import ShardSet

STEPS = (
    ("cam", "activation.f16", "CAM"),
    ("cam_seed", "seed.png", "CAM seed"),
    ("icd_map", "activation.f16", "ICD"),
    ("icd_seed", "seed.png", "ICD seed"),
    ("refine", "activation.f16", "maps given"),
    ("refine_seed", "seed.png", "their seed"),
    ("amn_map", "activation.f16", "AMN"),
    ("amn_seed", "seed.png", "AMN seed"),
    ("walk", "mask.png", "pseudo-mask"),
    ("predict", "raw.png", "prediction"),
    ("predict", "mask.png", "prediction + CRF"),
)
"""Stage, field and title of every column after photo and truth."""


def gallery(sets: Sequence[ShardSet], run: AnyPath | None, keys: Sequence[str], *, height: int = 160) -> Image.Image:
    """A contact sheet of the named samples. sets: image sets to look for the keys in. run: folder with stages."""
    return sheet([row(sets, run, key) for key in keys], height=height)


def row(sets: Sequence[ShardSet], run: AnyPath | None, key: str) -> list[tuple[str, np.ndarray]]:
    """Photo, truth and what every finished stage made of it, titled. Raises ShardError for an unknown key."""
    images, ordinal = find(sets, key)
    (photo,) = decode_images([(key, images.image(ordinal))], loader=Loader(name="torchvision"))
    tags = images.load(ordinal, "tags")
    names = [images.classes[i + 1] for i in np.flatnonzero(tags)]
    pictures = [(printable(", ".join(names) or key), photo)]
    if "gt.png" in images.fields:
        pictures.append(("truth", overlay(photo, images.load(ordinal, "gt.png"))))
    for stage, field, title in STEPS if run is not None else ():
        made = open_made(run / stage, images) if run is not None else None
        if made is not None and field in made.fields:
            pictures.append((title, picture(photo, made.load(made.find(key), field))))
    return pictures


def picture(photo: np.ndarray, found: np.ndarray) -> np.ndarray:
    """An activation as heat, labels as an overlay."""
    if found.ndim == 3:
        return heat(photo, upsample(found, photo.shape[:2]))
    return overlay(photo, found)


def find(sets: Sequence[ShardSet], key: str) -> tuple[ShardSet, int]:
    """The set that holds a key, and its ordinal there."""
    for images in sets:
        try:
            return images, images.find(key)
        except ShardError:
            continue
    where = printable(", ".join(images.url for images in sets), PLACE)
    raise ShardError(f"{where}: no sample {quoted(key)}; keys are in the shard reports")


def open_made(folder: AnyPath, images: ShardSet) -> ShardSet | None:
    """A finished stage's shards when they lie over this image set, else None."""
    if not (folder / "index.json").is_file():
        return None
    made = ShardSet.open(str(folder))
    return made if made.shard_sizes == images.shard_sizes else None


def places(place: AnyPath) -> tuple[list[ShardSet], AnyPath | None]:
    """The image sets behind a folder, and the run in it: a shard set of images, a stage's shards, or a run."""
    if is_file(place / "index.json"):
        return [ShardSet.open(str(place))], None
    return list(reopen(place).sets.values()), place


def spread_keys(images: ShardSet, count: int) -> list[str]:
    """Keys of `count` samples, evenly over a set."""
    step = max(len(images) // max(count, 1), 1)
    return [images.entry(i).key for i in range(0, len(images), step)][:count]
