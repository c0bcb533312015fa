"""A Map that takes a while for a sample and writes down who took which: deaths strike it, and repeats are counted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amn_dist.config import Loader
from amn_dist.farms.stream import MapTask, Source
from amn_dist.interfaces import Needs
from amn_dist.records import ACTIVATION, Sample
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report

CHUNK = 4


@dataclass(frozen=True)
class NotedMap:
    """Writes a quarter of every photograph as maps. seen: folder of a file a process: its node, then keys."""

    seen: str
    nap_s: float
    name: str = "noted"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = (ACTIVATION,)

    def open(self) -> Path:
        import ray

        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        path = Path(self.seen) / str(os.getpid())
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"node {node}\n")
        return path

    def run(self, opened: Path, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            time.sleep(self.nap_s)
            with opened.open("a") as file:
                file.write(f"{sample.key}\n")
            made = sample.image[::4, ::4].transpose(2, 0, 1).astype(np.float16) / 256
            sample.made[self.name] = {ACTIVATION: made}
            yield sample


def noted_task(images: str, out: Path, *, nap_s: float) -> MapTask:
    """The Map over a set, into out/noted; its notes lie in out/seen."""
    found = ShardSet.open(images)
    source = Source(images, (), Loader(name="torchvision", threads=1), digest=found.digest)
    maps = (NotedMap(str(out / "seen"), nap_s),)
    (out / "noted").mkdir(parents=True, exist_ok=True)
    return MapTask("noted", source, maps, (str(out / "noted"),), found.shard_sizes, CHUNK)


def notes(out: Path) -> list[tuple[int, str, list[str]]]:
    """Process, node and keys of everybody who worked, the latest last."""
    found = []
    for path in sorted((out / "seen").glob("*"), key=lambda path: path.stat().st_mtime_ns):
        lines = path.read_text().splitlines()
        nodes = [line.split()[1] for line in lines if line.startswith("node ")]
        if nodes:
            found.append((int(path.name), nodes[-1], [line for line in lines if not line.startswith("node ")]))
    return found


def finished(out: Path, task: MapTask) -> list[int]:
    """Shards that are there."""
    return [number for number in range(len(task.sizes)) if read_report(out / "noted", number) is not None]
