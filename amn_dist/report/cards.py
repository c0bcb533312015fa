"""The report's gallery: small pictures of images through all stages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from amn_dist.config import Loader
from amn_dist.errors import ShardError, printable
from amn_dist.loaders.decode import decode_images
from amn_dist.report.facts import RunFacts
from amn_dist.report.grids import ROLES
from amn_dist.report.looks import Column, Look, chosen, columns_of, look, worst_first
from amn_dist.report.pictures import heat, overlay
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.score import upsample

THUMBNAIL = 160
"""Pixels of the longer side."""
CANDIDATES = 4
"""Images looked at for each that is shown."""


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a data URI, its size in pixels, the mean IoU of what it shows."""

    title: str
    uri: str
    width: int
    height: int
    miou: float | None = None


@dataclass(frozen=True)
class Card:
    """An image through all stages. miou and change: as in Look."""

    key: str
    tags: tuple[str, ...]
    pictures: tuple[Picture, ...]
    miou: float | None
    change: float | None


@dataclass(frozen=True)
class Gallery:
    """The images of one set that are shown, worst first. seen: images looked at. unread: those that cannot be read."""

    title: str
    cards: tuple[Card, ...]
    seen: int
    total: int
    unread: int


def galleries(runs: Sequence[RunFacts], *, images: int) -> Iterator[Gallery]:
    """One gallery for every set of images that runs have, of at most `images` images in all."""
    found: dict[tuple[str, str], list[RunFacts]] = {}
    for run, over in ((run, over) for over in ROLES for run in runs):
        if any(role == over for _, _, role in run.made.values()):
            found.setdefault((over, run.sets[over].digest), []).append(run)
    for (over, _), of_set in found.items():
        yield gallery(of_set, over, images // len(found))


def gallery(runs: Sequence[RunFacts], over: str, images: int) -> Gallery:
    """The worst, best and most changed images of a set."""
    photos = runs[0].sets[over]
    columns = columns_of(runs, over)
    count = min(len(photos), images * CANDIDATES)
    looks, cards, unread = [], [], 0
    for ordinal in (i * len(photos) // count for i in range(count)):
        try:
            looks.append(look(photos, columns, ordinal))
        except ShardError:
            unread += 1
    for found in sorted(chosen(looks, images), key=worst_first):
        try:
            cards.append(card(photos, columns, found))
        except ShardError:
            unread += 1
    title = f"{over}: {', '.join(run.label for run in runs)}"
    return Gallery(title, tuple(cards), count, len(photos), unread)


def card(photos: ShardSet, columns: Sequence[Column], found: Look) -> Card:
    """The pictures of an image."""
    entry = photos.entry(found.ordinal)
    (photo,) = decode_images([(entry.key, photos.image(found.ordinal))], loader=Loader(name="torchvision"))
    small = reduced(photo)
    pictures = [picture("photo", small)]
    if "gt.png" in photos.fields:
        pictures.append(picture("truth", overlay(small, sampled(photos.load(found.ordinal, "gt.png"), small))))
    for column, miou in zip(columns, found.mious, strict=True):
        made = column.made.load(found.ordinal, column.field)
        if made.ndim == 3:
            shown = heat(small, sampled(upsample(made, photo.shape[:2]), small))
        else:
            shown = overlay(small, sampled(made, small))
        pictures.append(picture(column.title, shown, miou))
    tags = tuple(printable(photos.classes[i + 1]) for i in np.flatnonzero(photos.load(found.ordinal, "tags")))
    return Card(entry.key, tags, tuple(pictures), found.miou, found.change)


def reduced(photo: np.ndarray) -> np.ndarray:
    """A photo uint8[H, W, 3] no longer than a thumbnail."""
    image = Image.fromarray(photo)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return np.asarray(image)


def sampled(values: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Values [..., H, W] at the pixels of a smaller picture [h, w, 3], nearest."""
    rows, columns = (
        ((np.arange(short) + 0.5) * whole / short).astype(int)
        for short, whole in zip(small.shape[:2], values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]


def picture(title: str, pixels: np.ndarray, miou: float | None = None) -> Picture:
    """A picture uint8[h, w, 3] as WebP inside the page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=70, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(title, uri, pixels.shape[1], pixels.shape[0], miou)
