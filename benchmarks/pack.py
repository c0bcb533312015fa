"""Packing COCO: images and megabytes a second by threads and by processes, beside a plain copy of the same files.

python -m benchmarks.pack [ROOT] [--split train2014]; annotations and pictures are read from the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from amn_dist.farms.farm import Farm
from amn_dist.shards.index import Index
from benchmarks.harness import PHOTOGRAPHS, race, write_result
from data_shards.coco import pack_coco
from data_shards.instances import read_instances
from data_shards.task import packing_farm


def copy_files(folder: Path, names: list[str], out: Path) -> None:
    """Copy pictures one by one and flush each to the disk, as packing flushes its shards."""
    out.mkdir()
    for name in names:
        with open(shutil.copyfile(folder / name, out / name), "rb+") as file:
            os.fsync(file.fileno())


def fresh(call: Callable[[Path], Any], place: Path) -> Callable[[], Any]:
    """The call with a folder that does not exist yet; what it left the last time is removed first."""

    def again() -> Any:
        shutil.rmtree(place, ignore_errors=True)
        return call(place)

    return again


def packing(root: Path, split: str, farm: Farm | None, found: dict[str, Index], name: str) -> Callable[[Path], None]:
    def call(out: Path) -> None:
        found[name] = pack_coco(root, split, out, shard_size=16, farm=farm)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=PHOTOGRAPHS)
    parser.add_argument("--split", default="train2014")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    root, split = arguments.root, arguments.split
    names = [listed.file_name for listed in read_instances(root / "annotations" / f"instances_{split}.json").images]
    size = sum((root / split / name).stat().st_size for name in names)
    found: dict[str, Index] = {}
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start = time.perf_counter()
        farm = stack.enter_context(packing_farm(arguments.workers, None))
        processes = f"{arguments.workers}_processes"
        rivals = {
            "copy": partial(copy_files, root / split, names),
            "threads": packing(root, split, None, found, "threads"),
            processes: packing(root, split, farm, found, processes),
        }
        rivals[processes](place / "first")
        started = time.perf_counter() - start
        timings = race({name: fresh(call, place / name) for name, call in rivals.items()}, rounds=arguments.rounds)
    assert found["threads"] == found[processes], "the bytes depend on who packs"
    write_result(
        "pack",
        {
            "images": len(names),
            "megabytes": round(size / 1e6, 1),
            "seconds_an_image": {name: timing.as_json(per=len(names)) for name, timing in timings.items()},
            "images_per_s": {name: round(len(names) / timing.median, 1) for name, timing in timings.items()},
            "megabytes_per_s": {name: round(size / timing.median / 1e6, 1) for name, timing in timings.items()},
            "processes_start_and_first_pack_s": round(started, 1),
        },
    )


if __name__ == "__main__":
    main()
