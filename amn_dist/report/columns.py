"""A sample through the stages of runs: one column a stage, one picture a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from amn_dist.config import Loader
from amn_dist.loaders.decode import decode_images
from amn_dist.methods import in_order, title_of
from amn_dist.ops.resize import upsample
from amn_dist.report.pictures import heat, overlay
from amn_dist.report.run_folder import RunRecord, StageOutput
from amn_dist.shards.shardset import ShardSet


@dataclass(frozen=True)
class Column:
    """What a stage made, under the labels of the runs that share it. threshold: default of its activations. final: the
    last labels of some run."""

    title: str
    output: StageOutput
    threshold: float
    final: bool


def columns_of(runs: Sequence[RunRecord], over: str) -> list[Column]:
    """What runs made over a set, by stage; shards that runs share come once."""
    shared: dict[tuple[str, str], list[RunRecord]] = {}
    for name in in_order(name for run in runs for name in run.outputs):
        for run in runs:
            if name in run.outputs and run.outputs[name].role == over:
                output = run.outputs[name]
                shared.setdefault((name, output.shards.digest), []).append(run)
    final = {(name, run.outputs[name].shards.digest) for run in runs if (name := last_labels(run, over))}
    return [
        Column(
            title_of(name) + ("" if len(sharing) == len(runs) else f" ({', '.join(run.label for run in sharing)})"),
            sharing[0].outputs[name],
            sharing[0].threshold,
            (name, digest) in final,
        )
        for (name, digest), sharing in shared.items()
    ]


def last_labels(run: RunRecord, over: str) -> str:
    """The last labels a run made over a set; empty where there are none."""
    outputs = run.outputs.items()
    labels = [name for name, output in outputs if output.role == over and output.artefact.is_labels]
    return labels[-1] if labels else ""


def stage_pictures(
    images: ShardSet, columns: Sequence[Column], ordinal: int, *, longest: int | None = None
) -> list[tuple[str, np.ndarray]]:
    """The photo of a sample, its truth where there is one, and every column over the photo: titles and uint8[h, w, 3].

    longest: most pixels of a side; the photo of a larger one is reduced, and the rest drawn in its size.
    """
    (photo,) = decode_images([(images.entry(ordinal).key, images.image(ordinal))], loader=Loader(name="torchvision"))
    canvas = photo if longest is None else reduced(photo, longest)
    pictures = [("photo", canvas)]
    if images.has_truth:
        pictures.append(("truth", overlay(canvas, sampled(images.load(ordinal, "gt.png"), canvas.shape[:2]))))
    for column in columns:
        values = column.output.load(images, ordinal)
        if values.ndim == 3:
            picture = heat(canvas, sampled(upsample(values, photo.shape[:2]), canvas.shape[:2]))
        else:
            picture = overlay(canvas, sampled(values, canvas.shape[:2]))
        pictures.append((column.title, picture))
    return pictures


def tag_names(images: ShardSet, ordinal: int) -> list[str]:
    """The classes a sample is tagged with."""
    return [images.classes[i + 1] for i in np.flatnonzero(images.load(ordinal, "tags"))]


def reduced(photo: np.ndarray, longest: int) -> np.ndarray:
    """A photo uint8[H, W, 3] with no side longer than `longest` pixels."""
    image = Image.fromarray(photo)
    image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    return np.asarray(image)


def sampled(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Values [..., H, W] at the pixels of a picture of another size (h, w), nearest."""
    if values.shape[-2:] == size:
        return values
    rows, columns = (
        ((np.arange(short) + 0.5) * whole / short).astype(int)
        for short, whole in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]
