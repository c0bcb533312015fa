"""New photographs through a finished run: masks and overlays."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from amn_dist.errors import ConfigError, ShardError, StageError, listed, printable
from amn_dist.loaders.bounded import working_size
from amn_dist.ops.resize import resize_image, resize_label
from amn_dist.report.pictures import overlay, palette_png
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.shards.photographs import ENDINGS, read_photo
from amn_dist.stages.predict import PredictMap
from amn_dist.storage.atomic import commit
from amn_dist.storage.paths import AnyPath

SMALLEST = 16
"""Pixels a side that the network needs; smaller photographs are continued by their last row and column."""


@dataclass(frozen=True)
class Predicted:
    """What became of a photograph. mask: None when it could not be read. note: why, or what was done to it."""

    photo: Path
    mask: Path | None
    note: str = ""


def predict_files(
    run: AnyPath, sources: Sequence[Path], out: Path, *, data: AnyPath | None = None
) -> Iterator[Predicted]:
    """Write NAME.png (VOC palette) and NAME.overlay.jpg for every photograph; those of a folder keep their paths in it.

    A photograph that cannot be read is told and the rest goes on. data: where the sets of the run lie now; only a run
    of an older version, which kept no class table, looks for them. Raises ConfigError when two would be written to one
    name, or one over a photograph.
    """
    targets = targets_of(sources, out)
    predict = predict_map(reopen(run, data=data))
    network = predict.open()
    for photo, target in targets.items():
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                pixels = read_photo(photo)
        except ShardError as error:
            yield Predicted(photo, None, str(error))
            continue
        notes = [f"{photo}: {printable(warning.message)}" for warning in heard]
        notes.append(segment(predict, network, pixels, photo, target))
        yield Predicted(photo, target, listed(dict.fromkeys(filter(None, notes))))


def targets_of(sources: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The mask of every photograph, in order: under its name, with its ending where two differ in that alone."""
    named = [(photo, name) for source in sources for photo, name in photographs_at(source, out)]
    stems = Counter(name.with_suffix("") for _, name in named)
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for photo, name in named:
        stem = name.with_suffix("") if stems[name.with_suffix("")] == 1 else name
        target = out / stem.parent / f"{stem.name}.png"
        if target in taken:
            raise ConfigError(f"{photo}: a second photograph for {target}; predict them into two folders")
        taken.add(target)
        targets[photo] = target
    overwritten = {photo.resolve() for photo in targets} & {target.resolve() for target in targets.values()}
    if overwritten:
        raise ConfigError(f"{min(overwritten)}: would be overwritten by a mask; choose another --out")
    return targets


def photographs_at(source: Path, out: Path) -> list[tuple[Path, PurePath]]:
    """A photograph, or all below a folder but what lies in `out`, with the paths they are known by."""
    if not os.path.isdir(source):
        return [(source, PurePath(source.name))]
    paths = (path for path in sorted(source.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file())
    inside = [path for path in paths if not path.resolve().is_relative_to(out.resolve())]
    if not inside:
        raise ConfigError(f"{source}: holds no photographs; expected {', '.join(ENDINGS)}")
    return [(path, PurePath(path.relative_to(source))) for path in inside]


def predict_map(pipeline: Pipeline) -> PredictMap:
    """The predict stage of a run. Raises StageError when its network is not trained yet."""
    weights = pipeline.run.checkpoint("segment")
    if not pipeline.run.is_done(pipeline.stage("segment")):
        raise StageError(f"{weights}: not there yet; finish the run with `amn run` first")
    return PredictMap(pipeline.config, pipeline.num_classes, str(weights))


def segment(predict: PredictMap, network: Any, pixels: np.ndarray, photo: Path, target: Path) -> str:
    """Write mask and overlay of a photograph uint8[H, W, 3]; returns what there is to say about it.

    The mask has the photograph's size; the overlay that of the work.
    """
    size = (pixels.shape[0], pixels.shape[1])
    work_size = working_size(size, predict.num_classes)
    shown = pixels if work_size == size else resize_image(pixels, work_size)
    labels = labels_of(predict, network, shown)
    commit(target, palette_png(labels if work_size == size else resize_label(labels, size)))
    stream = io.BytesIO()
    Image.fromarray(overlay(shown, labels)).save(stream, "JPEG", quality=92)
    commit(target.with_suffix(".overlay.jpg"), stream.getvalue())
    if work_size == size:
        return ""
    return f"{photo}: {size[1]}x{size[0]} pixels, segmented at {work_size[1]}x{work_size[0]}; its mask is enlarged"


def labels_of(predict: PredictMap, network: Any, pixels: np.ndarray) -> np.ndarray:
    """Labels uint8[H, W] of a photograph uint8[H, W, 3], however small: after the CRF where the run has one."""
    height, width = pixels.shape[:2]
    below, right = max(SMALLEST - height, 0), max(SMALLEST - width, 0)
    fields = predict.labels(network, np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge"))
    return fields.get("mask.png", fields["raw.png"])[:height, :width]
