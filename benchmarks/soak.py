"""Do a million samples pass through pack, verify, order and a Map on the farm, none lost, none twice, in flat memory?

Draws pictures of 16x16 (a JPEG of a few hundred bytes each), packs them in a process of its own that is killed
(SIGKILL) half-way and started again, verifies every shard, goes through one epoch of the training order, and runs a
trivial Map over all shards on the Ray farm, killed half-way and resumed as well. Every step counts its samples and xors
64-bit hashes of their keys: both must be those of the keys that were drawn.

    python -m benchmarks.soak [--images 1000000] [--shard-size 512] [--workers 2]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from amn_dist.config import FarmSection, Loader
from amn_dist.farms.farm import Chunk
from amn_dist.farms.stream import Row, Source
from amn_dist.interfaces import Needs
from amn_dist.loaders.order import batch_ordinals, steps_per_epoch
from amn_dist.records import Sample
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, write_index, write_shard
from amn_dist.storage.atomic import clean_unfinished
from benchmarks.harness import write_result
from benchmarks.memory import anonymous_mib
from data_shards import source as packing
from data_shards.pack import pack
from data_shards.verify import verify

SIDE, KINDS = 16, 64
"""Pixels of a side; different pictures."""
CLASSES = ("background", "a", "b")
BATCH = 512
POLL_S = 0.2


@dataclass(frozen=True)
class Count:
    """Samples of a phase, and the exclusive or of their keys' hashes: equal for equal sets of keys, in any order."""

    samples: int = 0
    mixed: int = 0

    def add(self, key: str) -> Count:
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        return Count(self.samples + 1, self.mixed ^ int.from_bytes(digest, "little"))

    def join(self, other: Count) -> Count:
        return Count(self.samples + other.samples, self.mixed ^ other.mixed)


def counted(keys: Iterable[str]) -> Count:
    found = Count()
    for key in keys:
        found = found.add(key)
    return found


def key(number: int) -> str:
    return f"s{number:08d}"


@lru_cache(KINDS)
def picture(kind: int) -> bytes:
    """One of the small JPEGs."""
    pixels = np.random.default_rng(kind).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def content(number: int) -> packing.Content:
    """What a sample holds."""
    return packing.Content(picture(number % KINDS), np.array([number & 1, 1], np.uint8))


def sources(images: int) -> list[packing.PackSource]:
    return [packing.PackSource(key(n), key(n), 400, "1", partial(content, n)) for n in range(images)]


@dataclass(frozen=True)
class HashLeg:
    """Reads every sample's photo and tags; its row is its key's hash."""

    source: Source
    name: str = "hash"
    needs: Needs = "cpu"

    def open(self) -> Callable[[Chunk, Any], list[Row]]:
        read = self.source.open()
        return lambda chunk, passed: [row_of(sample) for sample in read(chunk)]


def row_of(sample: Sample) -> Row:
    return sample.key, (SIDE, SIDE), {"hash": hashlib.sha256(sample.key.encode() + sample.tags.tobytes()).digest()}


@dataclass(frozen=True)
class HashTask:
    """The trivial Map: a shard of hashes for every shard of pictures."""

    source: Source
    sizes: tuple[int, ...]
    out: str
    name: str = "hash"

    def chunks(self, number: int) -> tuple[Chunk, ...]:
        return (Chunk(number, 0, self.sizes[number]),)

    def legs(self, *, split: bool) -> tuple[HashLeg, ...]:
        return (HashLeg(self.source),)

    def finish(self, number: int, parts: Sequence[list[Row]]) -> int:
        write_shard(self.out, number, parts[0])
        return len(parts[0])


def pack_here(out: Path, images: int, shard_size: int) -> None:
    pack(sources(images), out, classes=CLASSES, shard_size=shard_size, skip_bad=False)


def map_here(images: Path, out: Path, workers: int) -> None:
    """Run the Map over the shards that are not there yet; index them."""
    from amn_dist.farms.ray.farm import RayFarm

    found = ShardSet.open(images)
    out.mkdir(exist_ok=True)
    clean_unfinished(out)
    task = HashTask(Source(str(images), (), Loader(name="torchvision", threads=1)), found.shard_sizes, str(out))
    todo = [n for n in range(len(found.shard_sizes)) if read_report(out, n) is None]
    with contextlib.closing(RayFarm(FarmSection(workers=workers, pools="one"), devices=False)) as farm:
        for _ in farm.run(task, todo):
            pass
    reports = (report for n in range(len(found.shard_sizes)) if (report := read_report(out, n)) is not None)
    write_index(out, kind="hash", classes=found.classes, reports=reports)


@dataclass(frozen=True)
class Phase:
    """A process that worked. shards: of its own. held: (shards done, MiB) as it went."""

    seconds: float
    shards: int
    held: tuple[tuple[int, float], ...]
    killed: bool

    def as_json(self, shard_size: int) -> dict[str, Any]:
        """Rate, and how memory grew between a fifth and nine tenths of the work; before the first shard are imports."""
        held = self.held[1:] or self.held
        first, last = held[0][0], held[-1][0]
        low, high = (first + (last - first) * share for share in (0.2, 0.9))
        middle = [at for at in held if low <= at[0] <= high] or [held[-1]]
        samples = max((middle[-1][0] - middle[0][0]) * shard_size, 1)
        growth = middle[-1][1] - middle[0][1]
        return {
            "seconds": round(self.seconds, 1),
            "shards": self.shards,
            "samples_per_s": round(self.shards * shard_size / self.seconds, 1),
            "growth_mib": round(growth, 1),
            "growth_mib_per_million": round(growth / samples * 1e6, 1),
            "peak_mib": round(max(mib for _, mib in self.held), 1),
            "killed": self.killed,
        }


def followed(words: Sequence[str], out: Path, *, kill_at: int | None = None) -> Phase:
    """Run a part of this file as a process; kill it, and all it started, once `kill_at` shards are there."""
    begin, start = finished(out), time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.soak", *words], start_new_session=True)
    held, killed = [(begin, anonymous_mib(process.pid))], False
    while process.poll() is None:
        time.sleep(POLL_S)
        done = finished(out)
        if done > held[-1][0]:
            held.append((done, anonymous_mib(process.pid) or held[-1][1]))
        if kill_at is not None and done >= kill_at:
            os.killpg(process.pid, signal.SIGKILL)
            killed = True
            process.wait()
    assert killed or process.returncode == 0, f"{words[1]}: ended with {process.returncode}"
    return Phase(time.perf_counter() - start, finished(out) - begin, tuple(held), killed)


def finished(out: Path) -> int:
    """Shards whose report is there."""
    return sum(1 for path in out.glob("[0-9]*.json")) if out.is_dir() else 0


def in_order(found: ShardSet) -> Iterator[str]:
    """Keys of one epoch in the order of training, batch by batch, and of the rest that an epoch leaves out."""
    seen = np.zeros(len(found), bool)
    for step in range(steps_per_epoch(len(found), BATCH)):
        ordinals = batch_ordinals(found.shard_sizes, seed=0, step=step, batch=BATCH, rank=0, world=1)
        assert not seen[ordinals].any() and len(set(ordinals.tolist())) == BATCH
        seen[ordinals] = True
        yield from (found.entry(int(ordinal)).key for ordinal in ordinals)
    yield from (found.entry(int(ordinal)).key for ordinal in np.flatnonzero(~seen))


def listed(folder: Path) -> Iterator[str]:
    """Keys of a set, shard by shard."""
    found = ShardSet.open(folder, reports=2)
    return (entry.key for number in range(len(found.shard_sizes)) for entry in found.shard(number))


def soak(root: Path, *, images: int, shard_size: int, workers: int) -> dict[str, Any]:
    """All phases; stops where a sample is lost, doubled, or an end is missing."""
    half = -(-images // shard_size) // 2
    expected = counted(key(n) for n in range(images))
    words = ["--shard-size", str(shard_size), "--images", str(images), "--workers", str(workers), "--folder", str(root)]
    record: dict[str, Any] = {"images": images, "shard_size": shard_size}
    counts: dict[str, Count] = {}
    for part, out in (("pack", root / "set"), ("map", root / "made")):
        phases = [followed(["--member", part, *words], out, kill_at=at) for at in (max(half, 1), None)]
        record[part] = dict(zip(("killed", "resumed"), (phase.as_json(shard_size) for phase in phases), strict=True))
        record[part]["samples_per_s"] = round(images / sum(phase.seconds for phase in phases), 1)
        counts[part] = counted(listed(out))
        if part == "pack":
            record["verify"], counts["verify"] = verified(out)
            counts["order"], record["order"] = ordered(out)
    for name, count in counts.items():
        assert count == expected, f"{name}: found {count}, expected {expected}"
    record["samples"] = {name: count.samples for name, count in counts.items()}
    return record | {"same_keys_everywhere": True}


def verified(folder: Path) -> tuple[dict[str, Any], Count]:
    start = time.perf_counter()
    found = verify(folder)
    seconds = time.perf_counter() - start
    expected = counted(listed(folder))
    return {"seconds": round(seconds, 1), "samples_per_s": round(found.samples / seconds, 1)}, Count(
        found.samples, expected.mixed
    )


def ordered(folder: Path) -> tuple[Count, dict[str, Any]]:
    start, before = time.perf_counter(), anonymous_mib(os.getpid())
    found = counted(in_order(ShardSet.open(folder)))
    seconds = time.perf_counter() - start
    grown = anonymous_mib(os.getpid()) - before
    return found, {
        "seconds": round(seconds, 1),
        "samples_per_s": round(found.samples / seconds, 1),
        "growth_mib": round(grown, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=512)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where everything lies; a temporary folder without it")
    parser.add_argument("--member", choices=("pack", "map"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.member == "pack":
        return pack_here(asked.folder / "set", asked.images, asked.shard_size)
    if asked.member == "map":
        return map_here(asked.folder / "set", asked.folder / "made", asked.workers)
    with tempfile.TemporaryDirectory() as temporary:
        root = (asked.folder or Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            parser.error(f"--folder {root}: holds something; name an empty or new folder")
        record = soak(root, images=asked.images, shard_size=asked.shard_size, workers=asked.workers)
    write_result("soak", record)


if __name__ == "__main__":
    main()
