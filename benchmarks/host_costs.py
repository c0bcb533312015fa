"""Core-milliseconds that a host spends on an image beside a GPU, part by part: reading, decoding, encoding.

Processor time of this process with all its threads, so that what else runs on the machine counts little; decoders run
as beside a GPU that leaves decoding to the host. Every round is all photographs; a pipeline's start is part of it.
benchmarks/host.py measures the streams of Maps as a whole; training has these parts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from amn_dist.loaders.decode import crop_decoder, decode_images
from amn_dist.loaders.decoder import Encoded
from amn_dist.shards.format import decode, encode
from amn_dist.shards.shardset import ShardSet
from benchmarks.decode import RULE, drawn, groups, loader
from benchmarks.device.free_device import drawn_labels, drawn_maps
from benchmarks.harness import PHOTOGRAPHS, one_core
from data_shards.coco import pack_coco

SIZE, GRID = (480, 640), (120, 160)
TAGS = 3
BATCH = 16
MAPS, LABELS = "activation.f16", "seed.png"
PARTS: dict[str, tuple[str, ...]] = {
    "cam": ("read", "photo", "maps_f16"),
    "cam+cam_seed": ("read", "photo", "maps_f16", "labels_png"),
    "amn_map": ("read", "photo", "labels_read", "maps_f16"),
    "amn_map+amn_seed": ("read", "photo", "labels_read", "maps_f16", "labels_png"),
    "walk": ("read", "photo", "maps_read", "labels_png"),
    "predict": ("read", "photo", "labels_png", "labels_png"),
}
"""What a stream of Maps consists of; labels_png as a CPU's worker encodes them, five times as long as beside a GPU."""


def measured_hosts(root: Path = PHOTOGRAPHS, *, images: int = 96, rounds: int = 5) -> dict[str, Any]:
    """Median, least and most core-milliseconds an image by part, and over how many rounds; on one core."""
    one_core()
    return host_parts(root, images=images, rounds=rounds)


def host_parts(root: Path, *, images: int = 96, rounds: int = 5) -> dict[str, Any]:
    """measured_hosts of photographs in COCO's layout, on the cores this process has."""
    files = list(islice(cycle(sorted((root / "train2014").glob("*.jpg"))), images))
    if not files:
        raise SystemExit(f"{root}: found no train2014/*.jpg, expected COCO's layout; name another folder")
    with tempfile.TemporaryDirectory() as folder:
        pack_coco(root, "train2014", Path(folder) / "set", shard_size=32)
        calls = {**_decoders(files), "read": _reading(Path(folder) / "set", images), **_coders(images)}
        return {name: core_ms(call, images, rounds) for name, call in calls.items()}


def sum_of_parts(stream: str, parts: dict[str, Any]) -> float:
    """Core-milliseconds of a stream as its parts have them."""
    return round(sum(parts[name]["median_ms"] for name in PARTS[stream]), 3)


def _decoders(files: list[Path]) -> dict[str, Callable[[], Any]]:
    encoded = [(str(n), file.read_bytes()) for n, file in enumerate(files)]
    crops = drawn(files, RULE)
    samples = [Encoded(key, content, crop) for (key, content), crop in zip(encoded, crops, strict=True)]
    cut = crop_decoder(RULE, loader=loader("dali", 1), raw=True)
    return {
        "crop": lambda: sum(1 for _ in cut(groups(samples, BATCH))),
        "photo": lambda: sum(1 for _ in decode_images(encoded, loader=loader("dali", 1))),
    }


def _reading(folder: Path, images: int) -> Callable[[], Any]:
    shards = ShardSet.open(folder)
    return lambda: [(shards.image(n % len(shards)), shards.read(n % len(shards), "tags")) for n in range(images)]


def _coders(images: int) -> dict[str, Callable[[], Any]]:
    """Maps and labels to their bytes and back."""
    maps = [drawn_maps((TAGS, *GRID), draw).numpy().astype(np.float16) for draw in range(8)]
    labels = [drawn_labels(SIZE, draw).numpy() for draw in range(8)]
    coded_maps, coded_labels = [encode(MAPS, one) for one in maps], [encode(LABELS, one) for one in labels]
    return {
        "maps_f16": lambda: [encode(MAPS, maps[n % 8]) for n in range(images)],
        "maps_read": lambda: [decode(MAPS, coded_maps[n % 8]) for n in range(images)],
        "labels_png": lambda: [encode(LABELS, labels[n % 8]) for n in range(images)],
        "labels_read": lambda: [decode(LABELS, coded_labels[n % 8]) for n in range(images)],
    }


def core_ms(call: Callable[[], Any], images: int, rounds: int) -> dict[str, Any]:
    """Core-milliseconds of one image, after a round that is not counted."""
    spent = []
    for _ in range(rounds + 1):
        start = time.process_time()
        call()
        spent.append((time.process_time() - start) / images * 1e3)
    figures = {"median_ms": statistics.median(spent[1:]), "min_ms": min(spent[1:]), "max_ms": max(spent[1:])}
    return {**{name: round(value, 4) for name, value in figures.items()}, "rounds": rounds, "images": images}
