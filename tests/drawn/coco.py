"""A drawn set of COCO's layout: 80 categories, outlines of many corners, crowds, and oddities of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids from 1 to 90 that COCO leaves out."""
CATEGORIES = {
    number: {11: "fire hydrant", 13: "stop sign"}.get(number, f"kind {number}")
    for number in range(1, 91)
    if number not in GAPS
}
SPLITS = {"train2014": (9, 25, 86, 250, 508, *range(1001, 1096)), "val2014": tuple(range(2001, 2037))}
"""Ids of the images that have outlines."""
BOXED = 28
"""Further images of each split, with boxes alone."""
UNLABELLED = (250, 508)
GRAY = 86
CORNERS = 40
Tree = dict[str, Any]


def write_coco(folder: Path) -> Path:
    """Write both splits; returns the folder."""
    (folder / "annotations").mkdir(parents=True)
    for split, ids in SPLITS.items():
        (folder / split).mkdir()
        boxed = range(ids[-1] + 1, ids[-1] + 1 + BOXED)
        for name, numbers in (("instances", ids), ("boxes", boxed)):
            tree = _instances(folder / split, numbers, outlines=name == "instances")
            (folder / "annotations" / f"{name}_{split}.json").write_text(json.dumps(tree))
    return folder


def _instances(folder: Path, ids: tuple[int, ...] | range, *, outlines: bool) -> Tree:
    """Draw the images; returns their annotations, in COCO's form."""
    images: list[Tree] = []
    annotations: list[Tree] = []
    for number in ids:
        rng = np.random.default_rng(number)
        width, height = (int(side) for side in rng.integers(200, 280, 2))
        found = [] if number in UNLABELLED else [_object(width, height, rng) for _ in range(rng.integers(4, 11))]
        name = f"COCO_{folder.name}_{number:012d}.jpg"
        picture = _picture(width, height, found, rng)
        (picture.convert("L") if number == GRAY else picture).save(folder / name, quality=92)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for annotation in found:
            segmentation = annotation["segmentation"] if outlines else []
            place = {"id": 1000 * number + len(annotations), "image_id": number, "segmentation": segmentation}
            annotations.append(annotation | place)
        if outlines and found and rng.random() < 0.1:
            annotations.append(_crowd(number, width, height))
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _object(width: int, height: int, rng: np.random.Generator) -> Tree:
    """A star of uneven rays inside the picture."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, CORNERS))
    radii = rng.uniform(0.4, 1, CORNERS) * rng.uniform(0.08, 0.3) * min(width, height)
    x = (rng.uniform(0, width) + radii * np.cos(angles)).clip(0, width)
    y = (rng.uniform(0, height) + radii * np.sin(angles)).clip(0, height)
    corners = [round(float(value), 2) for value in np.stack([x, y], axis=1).flatten()]
    low, size = (float(x.min()), float(y.min())), (float(np.ptp(x)), float(np.ptp(y)))
    category = int(rng.choice(list(CATEGORIES)))
    return {
        "category_id": category,
        "segmentation": [corners],
        "bbox": [*low, *size],
        "area": size[0] * size[1] / 2,
        "iscrowd": 0,
    }


def _crowd(image: int, width: int, height: int) -> Tree:
    """The left third of a picture, as run lengths."""
    covered = width // 3 * height
    runs = {"counts": [0, covered, width * height - covered], "size": [height, width]}
    box = [0, 0, width // 3, height]
    place = {"id": 1000 * image + 999, "image_id": image, "category_id": 1}
    return {**place, "segmentation": runs, "bbox": box, "area": covered, "iscrowd": 1}


def _picture(width: int, height: int, found: list[Tree], rng: np.random.Generator) -> Image.Image:
    """Smooth noise, and every object in the colour of its category."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for annotation in found:
        colour = np.random.default_rng(annotation["category_id"]).integers(0, 256, 3)
        pen.polygon(annotation["segmentation"][0], fill=tuple(int(channel) for channel in colour))
    return Image.fromarray((np.array(picture) + rng.integers(-8, 9, (height, width, 3))).clip(0, 255).astype(np.uint8))
