"""How many core-milliseconds does a host spend on an image of COCO beside a GPU, in every stream of Maps?

The streams of AMN run as in a worker with a GPU: bytes from shards, photographs decoded ahead, groups of one size over
256 images, copies into pinned memory, rows encoded by threads, shards written to memory. The device and what it does
cost nothing (device/free_device.py); launching its kernels is not in it either, which gpu_model.py counts. Photographs
have COCO's sizes, qualities and numbers of tags (coco_like.py). Processor time of the process with all its threads, on
one core; what a worker hands to Ray's object store is not in it.

    python -m benchmarks.host [FOLDER of photographs, at any depth] [--images 256] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amn_dist.config import Config
from amn_dist.farms.farm import Chunk
from amn_dist.farms.stream import TOGETHER, Join, MapTask, MapWork, Source
from amn_dist.interfaces import Map
from amn_dist.records import ACTIVATION
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import index_all
from amn_dist.stages.amn import AmnMap
from amn_dist.stages.classify import CamMap
from amn_dist.stages.irn import WalkMap
from amn_dist.stages.predict import PredictMap
from amn_dist.stages.seed import SeedMap
from benchmarks.coco_like import make_coco_like
from benchmarks.device.free_device import DEVICE, FreeNetwork, free_device
from benchmarks.device.stage_counts import CLASSES, published
from benchmarks.gpu_assumptions import CORES
from benchmarks.harness import PHOTOGRAPHS, one_core, write_result
from benchmarks.host_costs import host_parts, sum_of_parts
from benchmarks.thread_times import KINDS, thread_times
from data_shards.coco import pack_coco

SHARD = 128
MEMORY = Path("/dev/shm")
TARGETS_MS = {"cam+cam_seed": 12, "amn_map+amn_seed": 12, "walk": 8, "predict": 10}
"""Core-milliseconds an image, at most."""


@dataclass(frozen=True)
class Stream:
    """Maps that run together, and what they read beside the photographs: name, stage and field."""

    maps: tuple[Map, ...]
    reads: tuple[tuple[str, str, str], ...] = ()

    @property
    def name(self) -> str:
        return "+".join(step.name for step in self.maps)


def streams(config: Config) -> list[Stream]:
    """Those of AMN, each behind what it reads; two of them without their seeds too."""
    cam, seed = CamMap(config, CLASSES, ""), SeedMap("cam_seed", config.cam_seed, needs="network")
    amn, amn_seed = AmnMap(config, CLASSES, ""), SeedMap("amn_seed", config.amn_seed, needs="network")
    labels = (("seed", "cam_seed", "seed.png"),)
    return [
        Stream((cam,)),
        Stream((cam, seed)),
        Stream((amn,), labels),
        Stream((amn, amn_seed), labels),
        Stream((WalkMap(config, CLASSES, ""),), (("activation", "amn_map", ACTIVATION),)),
        Stream((PredictMap(config, CLASSES, "", True),)),
    ]


@dataclass(frozen=True)
class Running:
    """A stream over the set of a folder, whose shards are written beside it."""

    task: MapTask
    work: MapWork

    def __call__(self) -> None:
        """Every chunk in company, every shard committed, every set complete."""
        numbers = range(len(self.task.sizes))
        chunks = [chunk for number in numbers for chunk in self.task.chunks(number)]
        made = [rows for company in companies(chunks) for rows in self.work.bundle(company)]
        for number in numbers:
            parts = [rows for chunk, rows in zip(chunks, made, strict=True) if chunk.shard == number]
            self.task.finish(number, parts)


def running(stream: Stream, config: Config, folder: Path) -> Running:
    """The stream as a worker keeps it."""
    images = ShardSet.open(folder / "images")
    joins = tuple(Join(name, str(folder / stage), field) for name, stage, field in stream.reads)
    source = Source(images.url, joins, config.loader, digest=images.digest)
    folders = tuple(str(folder / step.name) for step in stream.maps)
    task = MapTask(stream.name, source, stream.maps, folders, images.shard_sizes, config.farm.chunk, accelerated=True)
    (leg,) = (one.fed_by(CORES) for one in task.legs(split=True))
    assert leg.accelerated and leg.source is not None
    opened = [DEVICE if isinstance(step, SeedMap) else FreeNetwork() for step in stream.maps]
    return Running(task, MapWork(leg, leg.source.open(), opened))


def companies(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks of TOGETHER samples, as a worker is given them."""
    company: list[Chunk] = []
    for chunk in chunks:
        company.append(chunk)
        if sum(map(len, company)) >= TOGETHER:
            yield company
            company = []
    if company:
        yield company


def draw_images(folder: Path, photographs: Path, images: int, seed: int) -> dict[str, Any]:
    """Pack a drawn set as folder/images; says what it is."""
    facts = make_coco_like(folder / "coco", "train2014", images=images, photographs=photographs, seed=seed)
    pack_coco(folder / "coco", "train2014", folder / "images", shard_size=SHARD)
    return facts


def measured(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Core-milliseconds an image of every stream, all and by kind of thread, over the set of a folder."""
    config, images = published(), ShardSet.open(folder / "images")
    by_stream: dict[str, Any] = {}
    with free_device():
        for stream in streams(config):
            run = running(stream, config, folder)
            spent = [thread_times(run) for _ in range(rounds + 1)][1:]
            for place in run.task.folders:
                index_all(str(place), kind="map", classes=images.classes, count=len(images.shard_sizes))
            by_stream[stream.name] = {
                kind: figures([one[kind] / len(images) for one in spent]) for kind in ("all", *KINDS)
            }
    return by_stream


def figures(values: Sequence[float]) -> dict[str, Any]:
    """Median, least, most and number of milliseconds."""
    found = {"median_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}
    return {**{name: round(value, 3) for name, value in found.items()}, "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="?", default=PHOTOGRAPHS)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    one_core()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        facts = draw_images(Path(folder), asked.photographs, asked.images, asked.seed)
        by_stream = measured(Path(folder), rounds=asked.rounds)
        parts = host_parts(Path(folder) / "coco", rounds=asked.rounds)
    for name, target in TARGETS_MS.items():
        by_stream[name]["all"]["target_ms"] = target
    sums = {name: sum_of_parts(name, parts) for name in by_stream}
    write_result(
        "host", {"seed": asked.seed, "set": facts, "streams": by_stream, "parts": parts, "sum_of_parts_ms": sums}
    )


if __name__ == "__main__":
    main()
