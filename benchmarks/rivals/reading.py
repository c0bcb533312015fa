"""Readers of training crops compared: samples a second, whole epochs, orders, and what a kill in the middle costs."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from amn_dist.records import CropRule
from amn_dist.shards.shardset import ShardSet
from benchmarks.harness import PHOTOGRAPHS, race, rates
from benchmarks.rivals.readers import READERS, Reading
from data_shards.synthetic import pack_synthetic

QUICK: dict[str, Any] = {"images": 44, "seed": 0, "classes": 2, "shard_size": 8, "size": (48, 64)}
PATIENCE_S = 300.0


class Noted(NamedTuple):
    """A batch as a process wrote it down. at: seconds since it began."""

    keys: tuple[str, ...]
    state: str
    at: float


def measured(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All questions to all readers that are installed; crops equal to ours are asserted first."""
    with tempfile.TemporaryDirectory() as temporary:
        reading = drawn(Path(temporary)) if quick else photographed(Path(temporary))
        names = installed()
        expected = contents("amn-dist", reading)
        for name in names:
            found = contents(name, reading)
            assert all(found[key] == expected[key] for key in found.keys() & expected.keys()), f"{name}: other crops"
        whole = {name: epoch_facts(name, reading) for name in names}
        struck = {name: killed_facts(name, reading, Path(temporary)) for name in names}
        samples = len(ShardSet.open(reading.folder))
        calls = {name: drained(name, reading) for name in names}
        speeds = rates(race(calls, rounds=rounds), samples, per=samples)
    readers = {name: {**speeds[name], **whole[name], "killed": struck[name]} for name in names}
    facts = {"samples": samples, "batch": reading.batch, "crop": reading.rule.size, "workers": reading.workers}
    return {**facts, "readers": readers, "absent": [name for name in READERS if name not in names]}


def drawn(folder: Path) -> Reading:
    pack_synthetic(folder / "set", **QUICK)
    return Reading(str(folder / "set"), 4, CropRule(size=32, long_side=(40, 64)))


def photographed(folder: Path) -> Reading:
    """Photographs of COCO, each four times, where they are at hand; else drawn scenes of their size."""
    from benchmarks.read import packed

    if PHOTOGRAPHS.is_dir():
        out = packed(PHOTOGRAPHS, folder, 4)
    else:
        out = folder / "set"
        pack_synthetic(out, images=400, size=(375, 500), shard_size=32)
    return Reading(str(out), 16, CropRule(size=512, long_side=(320, 640)))


def installed() -> list[str]:
    """Readers whose libraries are there."""
    from importlib.util import find_spec

    return [name for name in READERS if not name.startswith("torchdata") or find_spec("torchdata") is not None]


def drained(name: str, reading: Reading) -> Callable[[], int]:
    return lambda: sum(len(crops.keys) for crops, _ in READERS[name](reading, None))


def contents(name: str, reading: Reading) -> dict[str, str]:
    """Digest of every crop of an epoch by key."""
    digests = {}
    for crops, _ in READERS[name](reading, None):
        for key, image in zip(crops.keys, crops.image, strict=True):
            digests[key] = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
    return digests


def order(name: str, reading: Reading) -> list[tuple[str, ...]]:
    """Keys of an epoch, step by step."""
    return [tuple(crops.keys) for crops, _ in READERS[name](reading, None)]


def epoch_facts(name: str, reading: Reading) -> dict[str, Any]:
    """How often samples come on one and on two ranks, and what the order depends on."""
    one = order(name, reading)
    ranks = [order(name, replace(reading, rank=rank, world=2)) for rank in (0, 1)]
    orders = {str(order(name, replace(reading, workers=workers))) for workers in (1, 2, 3)}
    same_batches = len(ranks[0]) == len(ranks[1]) == len(one) and all(
        set(first) | set(second) == set(whole) for first, second, whole in zip(*ranks, one, strict=True)
    )
    return {
        "one_rank": counted(reading, [one]),
        "two_ranks": counted(reading, ranks),
        "orders_of_1_2_3_workers": len(orders),
        "same_batches_on_two_ranks": same_batches,
    }


def counted(reading: Reading, ranks: list[list[tuple[str, ...]]]) -> dict[str, Any]:
    """Samples that came not at all or again, and steps by rank; a gang waits for ever for a rank with fewer."""
    times = Counter(key for steps in ranks for keys in steps for key in keys)
    return {
        "missing": len(ShardSet.open(reading.folder)) - len(times),
        "again": sum(count - 1 for count in times.values()),
        "steps": [len(steps) for steps in ranks],
    }


def killed_facts(name: str, reading: Reading, folder: Path) -> dict[str, Any]:
    """A process is killed half-way; another goes on from its last state, on as many workers and on one more."""
    whole = order(name, reading)
    path = folder / f"{name}.jsonl"
    before = noted(name, reading, path, None, kill_at=len(whole) // 2)
    facts: dict[str, Any] = {}
    for label, workers in (("same_order", reading.workers), ("same_order_on_another_worker", reading.workers + 1)):
        try:
            after = noted(name, replace(reading, workers=workers), path, before[-1].state)
        except ChildProcessError:
            after = []
        facts[label] = [note.keys for note in (*before, *after)] == whole
        if workers == reading.workers and after:
            facts["first_batch_s"] = round(after[0].at, 3)
            facts["step_s"] = round(sum(b.at - a.at for a, b in pairwise(after)) / max(len(after) - 1, 1), 3)
    return facts


def noted(name: str, reading: Reading, path: Path, state: str | None, *, kill_at: int | None = None) -> list[Noted]:
    """Batches of a process of its own, which is killed with its workers once `kill_at` are written down.

    Raises ChildProcessError when it fails.
    """
    path.unlink(missing_ok=True)
    # A server that was begun without threads: a copy of this process could not use torch.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    process = server.Process(target=write_down, args=(name, reading, path, state))
    process.start()
    until = time.monotonic() + PATIENCE_S
    while process.is_alive() and time.monotonic() < until:
        if kill_at is not None and len(lines_of(path)) >= kill_at:
            break
        time.sleep(0.005)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    if kill_at is None and process.exitcode:
        raise ChildProcessError(f"{name}: ended with {process.exitcode}")
    return list(lines_of(path))


def lines_of(path: Path) -> list[Noted]:
    """What is wholly written."""
    text = path.read_text() if path.exists() else ""
    return [Noted(tuple(keys), state, at) for keys, state, at in map(json.loads, text.split("\n")[:-1])]


def write_down(name: str, reading: Reading, path: Path, state: str | None) -> None:
    """As a process of its own: write a line a batch with the state behind it."""
    os.setsid()
    start = time.perf_counter()
    begun = None if state is None else pickle.loads(base64.b64decode(state))
    with path.open("w") as file:
        try:
            for crops, tell in READERS[name](reading, begun):
                told = base64.b64encode(pickle.dumps(tell())).decode()
                file.write(json.dumps([crops.keys, told, time.perf_counter() - start]) + "\n")
                file.flush()
        except Exception:  # a state that a reader refuses is one of the answers
            sys.exit(1)


def rows(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row a reader, for people."""
    yield ("reader", "crops/s", "ratio", "missing/again, 1 rank", "2 ranks", "orders", "same order after a kill")
    for name, row in record["readers"].items():
        one, two = row["one_rank"], row["two_ranks"]
        yield (
            name,
            f"{row['images_per_s']:.0f}",
            f"{row['ratio']:.2f}",
            f"{one['missing']}/{one['again']}",
            f"{two['missing']}/{two['again']}, steps {two['steps']}",
            str(row["orders_of_1_2_3_workers"]),
            str(row["killed"]["same_order"]),
        )
