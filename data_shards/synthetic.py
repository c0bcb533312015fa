"""Synthetic scenes to shards: a data set with exact truth that needs no download."""

from __future__ import annotations

import os
from functools import partial

import numpy as np

from amn_dist.errors import ConfigError
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import Index
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.classes import BACKGROUND
from data_shards.pack import pack
from data_shards.scenes import draw_scene
from data_shards.shapes import SCENE_CLASSES
from data_shards.source import Content, PackSource

DRAWING = 2
"""Raised when the same seed draws other pictures."""


def pack_synthetic(
    out: str | os.PathLike[str] | RemotePath,
    *,
    images: int,
    seed: int = 0,
    classes: int = 6,
    size: tuple[int, int] = (96, 160),
    shard_size: int | None = None,
    skip_bad: bool = False,
    farm: Farm | None = None,
) -> Index:
    """Draw and pack `images` scenes with truth. classes: without background, 2 to 6. size: range of both sides, pixels.

    Scene n depends on seed, n, classes and size alone. The same call again resumes.
    """
    _check(images, seed, classes, size)
    names = (BACKGROUND, *(kind.name for kind in SCENE_CLASSES[:classes]))
    sources = [_source(number, seed, classes, size) for number in range(images)]
    return pack(
        sources, path_of(out), classes=names, shard_size=shard_size, skip_bad=skip_bad, farm=farm, compare=False
    )


def _check(images: int, seed: int, classes: int, size: tuple[int, int]) -> None:
    if images < 1:
        raise ConfigError(f"images: found {images}, expected at least 1")
    if seed < 0:
        raise ConfigError(f"seed: found {seed}, expected at least 0")
    if not 2 <= classes <= len(SCENE_CLASSES):
        raise ConfigError(f"classes: found {classes}, expected 2 to {len(SCENE_CLASSES)}")
    if not 32 <= size[0] <= size[1] <= 2048:
        raise ConfigError(f"size: found {size[0]} to {size[1]} pixels, expected an ascending range within 32 to 2048")


def _source(number: int, seed: int, classes: int, size: tuple[int, int]) -> PackSource:
    key = f"scene_{seed}_{number:06d}"
    stamp = f"{DRAWING};{classes};{size[0]};{size[1]}"
    # A JPEG of this quality takes about a byte a pixel.
    return PackSource(key, key, size[1] ** 2, stamp, partial(_read, number, seed, classes, size), key)


def _read(number: int, seed: int, classes: int, size: tuple[int, int]) -> Content:
    scene = draw_scene(number, seed=seed, classes=classes, size=size)
    tags = np.zeros(classes, np.uint8)
    tags[np.unique(scene.ids[scene.ids > 0]) - 1] = 1
    return Content(scene.jpeg(), tags, scene.ids)
