"""New photographs through a finished run: masks and overlays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from amn_dist.errors import ConfigError, ShardError, StageError
from amn_dist.pipeline import Pipeline, reopen
from amn_dist.report.pictures import overlay, palette
from amn_dist.stages.segment import PredictMap

MAX_PIXELS = 64_000_000
"""Larger photographs are refused before they are decoded."""


def predict_files(run: Path, images: Sequence[Path], out: Path) -> Iterator[Path]:
    """Write STEM.png (VOC palette) and STEM.overlay.jpg for every photograph; yields the mask paths.

    Raises ShardError naming a photograph that cannot be read, ConfigError when two would be written to one name.
    """
    stems = [path.stem for path in images]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ConfigError(f"{twice[0]}: two photographs of that name; predict them into two folders")
    photos = [read_photo(path) for path in images]
    step = segmenter(reopen(run))
    opened = step.open()
    out.mkdir(parents=True, exist_ok=True)
    for path, photo in zip(images, photos, strict=True):
        made = step.labels(opened, photo)
        yield write_mask(out / f"{path.stem}.png", photo, made.get("mask.png", made["raw.png"]))


def segmenter(line: Pipeline) -> PredictMap:
    """The predict stage of a run. Raises StageError when its network is not trained yet."""
    weights = line.run.checkpoint("segment")
    if not line.run.is_done(line.stage("segment")):
        raise StageError(f"{weights}: not there yet; finish the run with `amn run` first")
    return PredictMap(line.config, line.num_classes, str(weights))


def read_photo(path: Path) -> np.ndarray:
    """A photograph as uint8[H, W, 3] RGB, upright. Raises ShardError naming the file and the fault."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ShardError(f"{path}: {image.width}x{image.height} pixels, at most {MAX_PIXELS:,} are read")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ShardError(f"{path}: not a readable photograph ({error})") from error


def write_mask(path: Path, photo: np.ndarray, labels: np.ndarray) -> Path:
    """Write a palette mask and, beside it, its overlay."""
    mask = Image.fromarray(labels)
    mask.putpalette(palette().tobytes())
    mask.save(path)
    Image.fromarray(overlay(photo, labels)).save(path.with_suffix(".overlay.jpg"), quality=92)
    return path
