"""A fused stream slow enough to be hit in the middle. As a script: `python slow_stream.py CASE.json` drives it.

CASE: section (of the farm), address (of a cluster; absent: its own), images, out, nap.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray

from amn_dist.config import FarmSection, Loader
from amn_dist.errors import AmnError
from amn_dist.farms.ray.farm import RayFarm
from amn_dist.farms.stream import MapTask, Source
from amn_dist.interfaces import Needs
from amn_dist.records import Evidence, Sample
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report

CHUNK = 2


@dataclass(frozen=True)
class SlowMap:
    """Passes maps on, a nap a sample; leaves process and node of whoever opened it in `seen`."""

    name: str
    needs: Needs
    seen: str
    nap: float
    fields: tuple[str, ...] = ("activation.npy",)

    def open(self) -> None:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        Path(self.seen).mkdir(parents=True, exist_ok=True)
        (Path(self.seen) / f"{self.name}-{os.getpid()}").write_text(node)

    def run(self, opened: None, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            time.sleep(self.nap)
            if sample.evidence is None:
                fine = sample.image.transpose(2, 0, 1).astype(np.float32) / 256
                sample.evidence = Evidence(np.arange(1, 4, dtype=np.uint8), fine[:, ::4, ::4], fine)
            made = sample.evidence.fine.cumsum(axis=2)[:, ::8, ::8]
            sample.made[self.name] = {"activation.npy": (made / (made.max() + 1)).astype(np.float16)}
            yield sample


def stream(images: ShardSet, out: Path, *, nap: float) -> MapTask:
    """A network map and a CPU map half as fast, into out/net and out/crf."""
    seen = str(out.parent / f"{out.name}.seen")
    return MapTask(
        name="net+crf",
        source=Source(images.url, (), Loader(name="torchvision")),
        maps=(SlowMap("net", "network", seen, nap), SlowMap("crf", "cpu", seen, 2 * nap)),
        folders=(str(out / "net"), str(out / "crf")),
        sizes=images.shard_sizes,
        chunk=CHUNK,
    )


def missing(task: MapTask) -> list[int]:
    """Shards that are not finished in every folder."""
    folders = [Path(folder) for folder in task.folders if folder is not None]
    return [n for n in range(len(task.sizes)) if any(read_report(folder, n) is None for folder in folders)]


def main(case: dict) -> None:
    task = stream(ShardSet.open(case["images"]), Path(case["out"]), nap=case["nap"])
    farm = RayFarm(FarmSection.model_validate(case["section"]), address=case.get("address"))
    try:
        for report in farm.run(task, missing(task)):
            print(report.shard, report.warning, flush=True)
    except AmnError as error:
        sys.exit(f"error: {error}")
    finally:
        farm.close()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
