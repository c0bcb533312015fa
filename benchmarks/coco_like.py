"""A set shaped like COCO 2014, of any size, from real photographs that are cropped and changed anew for every image.

Where the shape comes from: the sizes, qualities and counts of 100 images of train2014 (their files and annotations),
rounded; frequencies of the classes beyond `person` follow a power law, since only their skew matters here. 702 of the
82,783 images have no object (configs/coco14_amn.yaml). Content does not repeat: every image is its own crop, at its own
scale, mirrored, brightened and grained by numbers drawn from (seed, split, number). Truth is star-shaped outlines: it
costs what outlines cost, and means nothing.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from amn_dist.storage.atomic import atomic_file

TRAIN, VAL = 82_783, 40_504
"""Images of COCO 2014."""
CLASSES = 80
SIZES = {
    (640, 480): 0.33, (640, 427): 0.19, (480, 640): 0.10, (640, 426): 0.08, (427, 640): 0.06, (640, 428): 0.05,
    (640, 425): 0.04, (500, 375): 0.04, (640, 360): 0.03, (640, 640): 0.02, (426, 640): 0.02, (375, 500): 0.02,
    (500, 333): 0.02,
}  # fmt: skip
"""Share of images by width and height."""
QUALITIES = {96: 0.72, 90: 0.27, 81: 0.01}
"""Share of JPEG qualities, from the first entry of their luminance tables; chroma is halved both ways."""
UNLABELLED = 702 / TRAIN
MEAN_TAGS = 2.93
"""Classes of an image that has any; geometric."""
MOST_TAGS = 18
PERSON = 0.54
"""Share of labelled images with the first class."""
SKEW = 0.6
"""Power of a class's rank that its frequency falls with."""
INSTANCES = 2.6
"""Objects of a present class in the mean; geometric."""


@dataclass(frozen=True)
class Shape:
    """What an image is, before its pixels. tags: classes from 1, ascending."""

    size: tuple[int, int]
    quality: int
    tags: tuple[int, ...]


def draw_shape(random: np.random.Generator) -> Shape:
    """Width, height, quality and classes of one image."""
    sizes, qualities = list(SIZES), list(QUALITIES)
    size = sizes[random.choice(len(sizes), p=_shares(SIZES.values()))]
    quality = qualities[random.choice(len(qualities), p=_shares(QUALITIES.values()))]
    if random.random() < UNLABELLED:
        return Shape(size, quality, ())
    count = min(int(random.geometric(1 / MEAN_TAGS)), MOST_TAGS)
    person = random.random() < PERSON
    others = random.choice(np.arange(2, CLASSES + 1), max(count - person, 0), replace=False, p=_frequencies())
    return Shape(size, quality, tuple(sorted([1] * person + others.tolist())) or (1,))


def draw_photo(shape: Shape, files: Sequence[Path], random: np.random.Generator) -> bytes:
    """A JPEG of that size and quality, cut from one of the photographs."""
    source = _opened(files[int(random.integers(len(files)))])
    width, height = shape.size
    room = min(source.width / width, source.height / height)
    scale = room * random.uniform(0.55, 1.0)
    left = random.uniform(0, source.width - scale * width)
    top = random.uniform(0, source.height - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    picture = source.resize(shape.size, Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(picture, np.float32)[:, :: 1 if random.random() < 0.5 else -1]
    # A crop that is enlarged has no grain of its own; without it files would be too small.
    grain = random.standard_normal(pixels.shape[:2], np.float32)[..., None] * random.uniform(2, 5)
    changed = (pixels - 128) * random.uniform(0.85, 1.1) + 128 + random.uniform(-12, 12) + grain
    stream = io.BytesIO()
    Image.fromarray(changed.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=shape.quality, subsampling=2)
    return stream.getvalue()


def draw_objects(shape: Shape, random: np.random.Generator) -> list[tuple[int, list[float]]]:
    """Class and outline x, y, x, y, ... in pixels of every object."""
    found = []
    for tag in shape.tags:
        for _ in range(int(random.geometric(1 / INSTANCES))):
            found.append((tag, _outline(shape.size, random)))
    return found


def make_coco_like(root: Path, split: str, *, images: int, photographs: Path, seed: int = 0) -> dict[str, Any]:
    """Write ROOT/SPLIT/*.jpg and ROOT/annotations/instances_SPLIT.json; what is there already stays. Returns figures.

    The same seed and photographs give the same bytes, however often the call was cut off.
    """
    files = sorted(photographs.rglob("*.jpg"))
    if not files:
        raise SystemExit(f"{photographs}: found no *.jpg, expected photographs; name another folder")
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    total, tags = 0, 0
    for number in range(1, images + 1):
        random = np.random.default_rng([seed, sum(split.encode()), number])
        shape = draw_shape(random)
        objects = draw_objects(shape, random)
        path = root / split / f"COCO_{split}_{number:012d}.jpg"
        if not path.is_file():
            _write(path, draw_photo(shape, files, random))
        total, tags = total + path.stat().st_size, tags + len(shape.tags)
        listed.append({"id": number, "file_name": path.name, "width": shape.size[0], "height": shape.size[1]})
        annotations += [_annotation(len(annotations) + n, number, *found) for n, found in enumerate(objects, 1)]
    categories = [{"id": n, "name": f"class {n:02d}", "supercategory": "thing"} for n in range(1, CLASSES + 1)]
    tree = {"images": listed, "annotations": annotations, "categories": categories}
    _write(root / "annotations" / f"instances_{split}.json", json.dumps(tree).encode())
    return {
        "images": images,
        "photographs": len(files),
        "bytes_per_image": round(total / images),
        "tags_per_image": round(tags / images, 3),
        "objects_per_image": round(len(annotations) / images, 3),
    }


def _annotation(number: int, image: int, tag: int, outline: list[float]) -> dict[str, Any]:
    x, y = outline[::2], outline[1::2]
    box = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
    return {"id": number, "image_id": image, "category_id": tag, "segmentation": [outline], "bbox": box, "iscrowd": 0,
            "area": round(box[2] * box[3] / 2, 2)}  # fmt: skip


def _outline(size: tuple[int, int], random: np.random.Generator) -> list[float]:
    """A star-shaped polygon of 12 to 60 corners inside the image."""
    width, height = size
    reach = float(np.exp(random.uniform(np.log(8), np.log(min(size) / 2.2))))
    x, y = random.uniform(reach, width - reach), random.uniform(reach, height - reach)
    corners = int(random.integers(12, 60))
    angles = np.arange(corners) * (2 * math.pi / corners)
    radius = reach * random.uniform(0.4, 1.0, corners)
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
    return np.asarray(points.round(2)).ravel().tolist()


@lru_cache(1)
def _frequencies() -> np.ndarray:
    """Of the classes behind the first."""
    rank = np.arange(1, CLASSES, dtype=np.float64) ** -SKEW
    return np.asarray(rank / rank.sum())


def _shares(values: Any) -> np.ndarray:
    shares = np.array(list(values), np.float64)
    return shares / shares.sum()


@lru_cache(64)
def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _write(path: Path, content: bytes) -> None:
    """A file that is whole or absent."""
    with atomic_file(path, durable=False) as temporary:
        temporary.write_bytes(content)
