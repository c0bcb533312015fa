"""Samples through all stages of a run as one picture: a row a sample, a column a stage."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from amn_dist.errors import ConfigError, ShardError, listed, printable
from amn_dist.report.columns import Column, columns_of, stage_pictures, tag_names
from amn_dist.report.run_folder import RunRecord, open_outputs
from amn_dist.runs.pipeline import reopen
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.atomic import commit
from amn_dist.storage.paths import AnyPath, is_file

GAP, TITLE = 6, 22
"""Pixels around a picture and above it."""


@dataclass(frozen=True)
class ImageColumns:
    """An image set with what a run made over it."""

    images: ShardSet
    columns: Sequence[Column] = ()


SheetSample = tuple[ImageColumns, int]
"""A set and an ordinal in it."""


def open_image_columns(folder: AnyPath, *, data: AnyPath | None = None) -> tuple[list[ImageColumns], list[str]]:
    """What lies behind a folder, a shard set of images or a run; and what was made and cannot be shown.

    data: where the sets of the run lie now, if they were moved.
    """
    if is_file(folder / "index.json"):
        return [ImageColumns(ShardSet.open(str(folder)))], []
    pipeline = reopen(folder, data=data)
    missing: list[str] = []
    outputs = open_outputs(pipeline, pipeline.sets, missing)
    run = RunRecord(printable(folder), folder, "", sets=pipeline.sets, outputs=outputs)
    return [ImageColumns(images, columns_of([run], over)) for over, images in run.sets.items()], missing


def samples_by_key(sets: Sequence[ImageColumns], keys: Sequence[str]) -> list[SheetSample]:
    """The samples of these keys, in every set that has them. Raises ShardError for a key that none has."""
    samples: list[SheetSample] = []
    for key in keys:
        matches, faults = [], []
        for of_set in sets:
            try:
                matches.append((of_set, of_set.images.find(key)))
            except ShardError as error:
                faults.append(str(error))
        if not matches:
            raise ShardError(listed(faults))
        samples += matches
    return samples


def even_samples(sets: Sequence[ImageColumns], count: int) -> list[SheetSample]:
    """At most `count` samples of every set, taken evenly."""
    return [
        (of_set, ordinal)
        for of_set in sets
        for ordinal in range(0, len(of_set.images), max(len(of_set.images) // max(count, 1), 1))[:count]
    ]


def contact_sheet(samples: Sequence[SheetSample], *, height: int = 160) -> Image.Image:
    """Photo, truth and what every finished stage made of each sample, titled, all scaled to one height in pixels."""
    font = ImageFont.load_default(size=13)
    rows = [[(title, scaled(pixels, height)) for title, pixels in sheet_row(*sample)] for sample in samples]
    count = max(len(row) for row in rows)
    widths = [max((row[c][1].width for row in rows if c < len(row)), default=0) for c in range(count)]
    canvas = Image.new("RGB", (sum(widths) + GAP * (count + 1), (height + TITLE + GAP) * len(rows) + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for r, row in enumerate(rows):
        top = GAP + r * (height + TITLE + GAP)
        for c, (title, picture) in enumerate(row):
            left = GAP + sum(widths[:c]) + GAP * c
            draw.text((left, top + 3), clipped(title, font, picture.width), fill="black", font=font)
            canvas.paste(picture, (left, top + TITLE))
    return canvas


def sheet_row(of_set: ImageColumns, ordinal: int) -> list[tuple[str, np.ndarray]]:
    """The pictures of a sample uint8[H, W, 3], titled; the photo with its tags, or its key where it has none."""
    (_, photo), *others = stage_pictures(of_set.images, of_set.columns, ordinal)
    title = ", ".join(tag_names(of_set.images, ordinal)) or of_set.images.entry(ordinal).key
    return [(printable(title), photo), *others]


def clipped(title: str, font: Any, width: int) -> str:
    """As much of a title as `width` pixels show."""
    while title and font.getlength(title) > width:
        title = title[:-1]
    return title


def scaled(pixels: np.ndarray, height: int) -> Image.Image:
    """A picture uint8[H, W, 3] at the given height."""
    image = Image.fromarray(pixels)
    return image.resize((max(round(image.width * height / image.height), 1), height), Image.Resampling.BILINEAR)


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
