"""How many photos a second become class activation maps on this machine, from shard to shard?

Races the cam stage, in worker processes of one thread, against the published loop on all threads: ResNet-50, four
scales and their mirror images. In float32 both must give the same maps; where the machine computes bf16 natively, the
stage runs a second time as it would there.

    python -m benchmarks.cam [PHOTOS] [--classes 21 81] [--images 16] [--rounds 5] [--workers 2]

PHOTOS: a folder with photos of 480x640 or 640x480 pixels, at any depth; others are not used.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from amn_dist.config import BackboneSection, Classify, Config, Infer, Loader
from amn_dist.loaders.decode import decode_images
from amn_dist.models.precision import native_bf16
from amn_dist.models.weights import load_network, save_network
from amn_dist.records import Sample
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.stages.classify import CamMap, cam_network
from benchmarks.harness import PHOTOGRAPHS, race, write_result
from benchmarks.reference import published_cam

CONFIG = Config(
    name="bench",
    classify=Classify(backbone=BackboneSection(name="resnet50", stride=16, weights=None, frozen_taps=3)),
    loader=Loader(name="torchvision", threads=1),
)
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1}
"""Largest difference of two maps in [0, 1], by precision of the backbone."""


class Worker:
    """What a worker process keeps: the set, the stage and its network."""

    step: CamMap
    network: Any
    images: ShardSet
    out: Path

    @classmethod
    def open(cls, images: str, checkpoint: str, classes: int, out: str, precision: str) -> None:
        torch.set_num_threads(1)
        config = CONFIG.model_copy(update={"infer": Infer.model_validate({"precision": precision})})
        cls.step, cls.images, cls.out = CamMap(config, classes, checkpoint), ShardSet.open(images), Path(out)
        cls.network = cls.step.open()

    @classmethod
    def samples(cls, number: int) -> Iterator[Sample]:
        entries = cls.images.shard(number)
        photos = decode_images(((e.key, cls.images.image(e.ordinal)) for e in entries), loader=CONFIG.loader)
        for entry, pixels in zip(entries, photos, strict=True):
            yield Sample(entry.key, entry.ordinal, pixels, cls.images.load(entry.ordinal, "tags"))

    @classmethod
    def shard(cls, number: int) -> None:
        rows = []
        for sample in cls.step.run(cls.network, cls.samples(number)):
            fields = {field: encode(field, array) for field, array in sample.made["cam"].items()}
            rows.append((sample.key, sample.image.shape[:2], fields))
        write_shard(cls.out, number, rows)

    @classmethod
    def maps(cls, number: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        done = cls.step.run(cls.network, cls.samples(number))
        return {s.key: (s.evidence.coarse, s.evidence.fine) for s in done if s.evidence is not None}


def main() -> None:
    arguments = parsed()
    files = chosen(arguments.photos, arguments.images)
    for classes in arguments.classes:
        with tempfile.TemporaryDirectory() as folder:
            record = measured(Path(folder), files, classes, arguments)
        write_result(f"cam_{classes}", record)


def measured(folder: Path, files: list[Path], classes: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Race both on the same photos, compare their maps, count their bytes."""
    tags = drawn_tags(len(files), classes)
    images, checkpoint, theirs = (str(folder / name) for name in ("images", "w.safetensors", "theirs"))
    shards = pack(files, tags, Path(images), classes, arguments.workers)
    torch.manual_seed(0)
    save_network(cam_network(CONFIG, classes), checkpoint)
    network = load_network(cam_network(CONFIG, classes), checkpoint).eval()
    Path(theirs).mkdir()
    loader = published_cam.loader(files, tags)
    rivals: dict[str, Callable[[], Any]] = {
        "published": partial(published_cam.write_maps, network, loader, Path(theirs)),
    }
    names = {"fp32": "cam stage", **({"bf16": "cam stage, bf16"} if native_bf16() else {})}
    pools = {}
    with ExitStack() as stack:
        for precision, name in names.items():
            words = (images, checkpoint, classes, str(folder / precision), precision)
            pool = ProcessPoolExecutor(arguments.workers, get_context("spawn"), Worker.open, words)
            pools[precision] = stack.enter_context(pool)
            rivals[name] = partial(on_all, pool, Worker.shard, shards)
        times = race(rivals, rounds=arguments.rounds)
        found = {
            precision: {key: maps for part in on_all(pool, Worker.maps, shards) for key, maps in part.items()}
            for precision, pool in pools.items()
        }
    differences = {
        precision: largest_difference(maps, Path(theirs), TOLERANCES[precision]) for precision, maps in found.items()
    }
    record = {
        "images": len(files),
        "classes": classes,
        "present": [int(one.sum()) for one in tags],
        "seconds_per_image": {name: timing.as_json(per=len(files)) for name, timing in times.items()},
        "images_per_s": {name: round(len(files) / timing.median, 3) for name, timing in times.items()},
        "speedup": round(times["published"].median / times["cam stage"].median, 2),
        "largest_difference": differences["fp32"],
        "bytes_per_image": {
            "published": size_of(Path(theirs)) // len(files),
            "cam stage": size_of(folder / "fp32") // len(files),
        },
        "threads": {"published": torch.get_num_threads(), "cam stage": f"{arguments.workers} workers of 1"},
    }
    if "bf16" in names:
        speedup = round(times["published"].median / times[names["bf16"]].median, 2)
        record["bf16"] = {"speedup": speedup, "largest_difference": differences["bf16"]}
    return record


def on_all(pool: ProcessPoolExecutor, call: Callable[[int], Any], shards: int) -> list[Any]:
    """A worker's method on every shard."""
    return list(pool.map(call, range(shards)))


def largest_difference(found: dict[str, tuple[np.ndarray, np.ndarray]], theirs: Path, tolerance: float) -> float:
    """Over all maps of both sizes; fails above the tolerance."""
    largest = 0.0
    for key, (coarse, fine) in found.items():
        made = np.load(theirs / f"{key}.npy", allow_pickle=True).item()  # written a moment ago by this very process
        for own, other in ((coarse, made["cam"].numpy()), (fine, made["high_res"])):
            largest = max(largest, float(np.abs(own - other).max()))
    assert len(found) == len(list(theirs.iterdir())) and largest < tolerance, largest
    return largest


def pack(files: list[Path], tags: list[np.ndarray], folder: Path, classes: int, workers: int) -> int:
    """Write the photos as a set of several shards a worker; returns their number."""
    folder.mkdir()
    names = [f"class{i}" for i in range(classes)]
    shares = np.array_split(np.arange(len(files)), min(4 * workers, len(files)))
    reports = []
    for number, share in enumerate(shares):
        rows = [
            (files[i].stem, size_of_photo(files[i]), {"jpg": files[i].read_bytes(), "tags": encode("tags", tags[i])})
            for i in share
        ]
        reports.append(write_shard(folder, number, rows))
    write_index(folder, kind="images", classes=names, reports=reports)
    return len(shares)


def chosen(photos: Path, number: int) -> list[Path]:
    """The first photos of 480x640 or 640x480 pixels."""
    files = (path for path in sorted(photos.rglob("*.jpg")) if sorted(size_of_photo(path)) == [480, 640])
    found = [path for path, _ in zip(files, range(number), strict=False)]
    if len(found) < number:
        raise SystemExit(f"{photos}: found {len(found)} photos of 480x640 pixels, expected {number}")
    return found


def size_of_photo(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.height, image.width


def drawn_tags(number: int, classes: int) -> list[np.ndarray]:
    """Two or three classes an image."""
    draw = np.random.default_rng(0)
    tags = np.zeros((number, classes - 1), np.uint8)
    for row in tags:
        row[draw.choice(classes - 1, draw.integers(2, 4), replace=False)] = 1
    return list(tags)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOGRAPHS)
    parser.add_argument("--classes", type=int, nargs="+", default=[21, 81])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


if __name__ == "__main__":
    main()
