"""The report's gallery: small pictures of images through all stages, inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from amn_dist.errors import ShardError, printable
from amn_dist.methods import SETS
from amn_dist.report.columns import Column, columns_of, stage_pictures, tag_names
from amn_dist.report.image_scores import ImageScores, score_image, select_images, worst_first
from amn_dist.report.run_folder import RunRecord
from amn_dist.shards.sample import evenly
from amn_dist.shards.shardset import ShardSet

LONGEST = 160
"""Pixels of the longer side of a thumbnail."""
CANDIDATES = 4
"""Images looked at for each that is shown."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, its size in pixels, the mean IoU of what it shows."""

    title: str
    uri: str
    width: int
    height: int
    miou: float | None = None


@dataclass(frozen=True)
class GalleryImage:
    """An image through all stages. miou and change: as in ImageScores."""

    key: str
    tags: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]
    miou: float | None
    change: float | None


@dataclass(frozen=True)
class Gallery:
    """The images of one set that are shown, worst first. seen: images looked at. unread: those that cannot be read."""

    title: str
    images: tuple[GalleryImage, ...]
    seen: int
    total: int
    unread: int


def galleries(runs: Sequence[RunRecord], *, images: int) -> Iterator[Gallery]:
    """One gallery for every set of images that runs have, of at most `images` images in all."""
    by_set: dict[tuple[str, str], list[RunRecord]] = {}
    for run, over in ((run, over) for over in SETS for run in runs):
        if any(output.role == over for output in run.outputs.values()):
            by_set.setdefault((over, run.sets[over].digest), []).append(run)
    for (name, _), runs_of_set in by_set.items():
        yield gallery(runs_of_set, name, images // len(by_set))


def gallery(runs: Sequence[RunRecord], over: str, count: int) -> Gallery:
    """The worst, best and most changed images of a set, at most `count`."""
    images = runs[0].sets[over]
    columns = columns_of(runs, over)
    seen = min(len(images), count * CANDIDATES)
    scores, shown, unread = [], [], 0
    for ordinal in evenly(len(images), seen):
        try:
            scores.append(score_image(images, columns, ordinal))
        except ShardError:
            unread += 1
    for of_image in sorted(select_images(scores, count), key=worst_first):
        try:
            shown.append(gallery_image(images, columns, of_image))
        except ShardError:
            unread += 1
    title = f"{over}: {', '.join(run.label for run in runs)}"
    return Gallery(title, tuple(shown), seen, len(images), unread)


def gallery_image(images: ShardSet, columns: Sequence[Column], scores: ImageScores) -> GalleryImage:
    """The thumbnails of an image; those of the columns come last and have a mean IoU."""
    pictures = stage_pictures(images, columns, scores.ordinal, longest=LONGEST)
    mious = (*[None] * (len(pictures) - len(columns)), *scores.mious)
    thumbnails = tuple(thumbnail(*picture, miou) for picture, miou in zip(pictures, mious, strict=True))
    tags = tuple(map(printable, tag_names(images, scores.ordinal)))
    return GalleryImage(images.entry(scores.ordinal).key, tags, thumbnails, scores.miou, scores.change)


def thumbnail(title: str, pixels: np.ndarray, miou: float | None = None) -> Thumbnail:
    """A picture uint8[h, w, 3] as WebP inside the page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=70, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnail(title, uri, pixels.shape[1], pixels.shape[0], miou)
