"""How fast are shards read, in order and at random, beside the plain files and beside the webdataset library?

Every sample's photo and tags come out; the readers must hand out the same bytes. "plain" reads tars in large blocks,
or the same ranges, and knows nothing of samples. The library cannot read at random: its shuffle goes through a buffer
over tars read in order. Warm: from the page cache; cold: the kernel is asked to drop the tars' pages first.

    python -m benchmarks.read [ROOT in COCO's layout, or a shard set] [--rounds 5] [--copies 4]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import webdataset

from amn_dist.loaders.order import epoch_order
from amn_dist.shards.index import INDEX
from amn_dist.shards.shardset import ShardSet
from benchmarks.harness import PHOTOGRAPHS, Timing, race, write_result
from data_shards.coco import pack_coco

BLOCK = 2**20
FIELDS = ("jpg", "png", "tags")
BUFFER = 1000
"""Samples in the library's shuffle buffer, its documentation's number."""

Reading = Iterator[tuple[str, bytes, bytes]]
"""Key, photo, tags."""


def ours(folder: Path, ordinals: Iterable[int]) -> Reading:
    """Range reads of a set that is opened anew."""
    found = ShardSet.open(folder)
    for ordinal in ordinals:
        yield found.entry(ordinal).key, found.image(ordinal), found.read(ordinal, "tags")


def library(tars: list[str], shuffle: int = 0) -> Reading:
    """The webdataset library's own reader."""
    pipeline = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    for sample in pipeline.shuffle(shuffle) if shuffle else pipeline:
        yield sample["__key__"], sample.get("jpg") or sample["png"], sample["tags"]


def plain_files(tars: list[str]) -> int:
    """Bytes of the tars, read block by block."""
    total = 0
    for tar in tars:
        with open(tar, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                total += len(block)
    return total


def plain_ranges(folder: Path, ranges: list[tuple[int, int, int]]) -> int:
    """Bytes of (shard, offset, size) ranges, read as they lie."""
    handles: dict[int, int] = {}
    total = 0
    try:
        for shard, offset, size in ranges:
            if shard not in handles:
                handles[shard] = os.open(folder / f"{shard:06d}.tar", os.O_RDONLY)
            total += len(os.pread(handles[shard], size, offset))
    finally:
        for handle in handles.values():
            os.close(handle)
    return total


def drained(reading: Reading) -> int:
    """Bytes of a reading's photos and tags."""
    return sum(len(photo) + len(tags) for _, photo, tags in reading)


def content(reading: Reading) -> dict[str, str]:
    """Digest of what a reading hands out, by key."""
    return {key: hashlib.sha256(photo + tags).hexdigest() for key, photo, tags in reading}


def dropping(tars: list[str], call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with the tars' pages out of the cache, as far as the kernel does what it is asked."""

    def cold() -> Any:
        for tar in tars:
            handle = os.open(tar, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        return call()

    return cold


def rivals(folder: Path, tars: list[str], order: list[int]) -> dict[str, dict[str, Callable[[], int]]]:
    """Readers by question."""
    found = ShardSet.open(folder)
    spots = [entry.fields[name] + (entry.shard,) for n in order for entry in [found.entry(n)] for name in entry.fields
             if name in FIELDS]  # fmt: skip
    ranges = [(shard, offset, size) for offset, size, shard in spots]
    return {
        "in_order": {
            "plain": partial(plain_files, tars),
            "webdataset": lambda: drained(library(tars)),
            "shard set": lambda: drained(ours(folder, range(len(found)))),
        },
        "at_random": {
            "plain": partial(plain_ranges, folder, ranges),
            "webdataset, shuffle buffer": lambda: drained(library(tars, BUFFER)),
            "shard set": lambda: drained(ours(folder, order)),
        },
    }


def rows(timings: dict[str, Timing], size: dict[str, int], samples: int) -> dict[str, Any]:
    """Megabytes and samples a second of every reader, and its speed over the library's."""
    base = next(timing.median for name, timing in timings.items() if name.startswith("webdataset"))
    return {
        name: {
            **timing.as_json(),
            "mb_per_s": round(size[name] / timing.median / 1e6, 1),
            "samples_per_s": round(samples / timing.median, 1),
            "ratio": round(base / timing.median, 2),
        }
        for name, timing in timings.items()
    }


def measured(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Race the readers over one set, after comparing what they hand out."""
    found = ShardSet.open(folder)
    tars = [str(folder / shard.name) for shard in found.index.shards]
    order = epoch_order(found.shard_sizes, seed=0, epoch=0).tolist()
    expected = content(library(tars))
    for name, reading in {"in order": ours(folder, range(len(found))), "at random": ours(folder, order)}.items():
        assert content(reading) == expected, f"{name}: other bytes than the library's"
    record: dict[str, Any] = {"samples": len(found), "shards": len(tars), "same_samples": len(expected)}
    for question, calls in rivals(folder, tars, order).items():
        size = {name: call() for name, call in calls.items()}
        cold = {name: dropping(tars, call) for name, call in calls.items()}
        record[question] = {
            "warm": rows(race(calls, rounds=rounds), size, len(found)),
            "cold": rows(race(cold, rounds=rounds, warmup=0), size, len(found)),
        }
    return record


def packed(root: Path, out: Path, copies: int) -> Path:
    """The photographs of a folder as a set, several times over."""
    for split in ("train2014", "val2014"):
        if (root / split).is_dir():
            pack_coco(root, split, out / "once", shard_size=32)
            return repeated(out / "once", out / "set", copies)
    raise SystemExit(
        f"{root}: found no train2014 or val2014, expected COCO's layout or a shard set; name another folder"
    )


def repeated(once: Path, out: Path, copies: int) -> Path:
    """A set that holds the samples of another several times, under new keys."""
    from amn_dist.shards.writer import write_index, write_shard

    source = ShardSet.open(once)
    reports = []
    for number in range(copies * len(source.shard_sizes)):
        copy, shard = divmod(number, len(source.shard_sizes))
        entries = source.shard(shard)
        rows = [
            (
                f"{entry.key}_{copy}",
                (entry.height, entry.width),
                {f: source.read(entry.ordinal, f) for f in entry.fields},
            )
            for entry in entries
        ]
        reports.append(write_shard(out, number, rows))
    write_index(out, kind="images", classes=source.classes, reports=reports)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=PHOTOGRAPHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=4, help="of COCO's sample; a shard set is read as it is")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        known = (asked.root / INDEX).is_file()
        folder = asked.root.absolute() if known else packed(asked.root, Path(temporary), asked.copies)
        write_result("read", measured(folder, rounds=asked.rounds))


if __name__ == "__main__":
    main()
