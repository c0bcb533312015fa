"""Sources to a shard set: checked in full, resumable shard by shard, deterministic.

Which sample goes into which shard is planned before anything is read, so that a killed pack goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil

from amn_dist.errors import ConfigError, ShardError
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import INDEX, Index, ShardReport
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, shard_name, write_index
from amn_dist.storage.paths import AnyPath
from data_shards.resumable import QUARANTINE, ResumableSet, explain, reasons, stamp_of_inputs
from data_shards.shard import Packed, pack_shard
from data_shards.source import PackSource, check_keys
from data_shards.task import pack_task

MAX_SHARD_BYTES = 256 * 2**20
MAX_SHARDS = 1_000_000
"""Their names have six digits."""
PACK = "pack.json"
"""What the shards are made from; tells a restarted pack which of them still hold."""
RULES = 1
"""Raised when the same inputs give other shards."""


def pack(
    sources: list[PackSource],
    out: AnyPath,
    *,
    classes: tuple[str, ...],
    shard_size: int | None,
    skip_bad: bool,
    farm: Farm | None = None,
) -> Index:
    """Pack sources into `out`; the same call again goes on after any stop, or returns the finished index.

    shard_size: samples a shard, chosen by their number without it. skip_bad: leave bad samples out and list them in
    quarantine.json. farm: who packs the shards; without one, threads of this process do. The bytes are the same.
    Raises ShardError naming bad samples, or saying that `out` holds something else.
    """
    check_keys(sources)
    shards = plan(sources, shard_size)
    stamps = [_stamp(shard, classes) for shard in shards]
    making = ResumableSet(out, stamps, PACK, RULES, other="a finished set of other inputs or settings")
    if (out / INDEX).exists():
        return _finished(making, skip_bad)
    making.prepare()
    packed = _write_all(shards, out, len(classes), skip_bad, farm)
    bad = [sample for number in sorted(packed) for sample in packed[number].bad]
    if bad and not skip_bad:
        making.discard_if_empty()
        raise ShardError(explain(bad, len(sources), "samples"))
    written = [number for number in sorted(packed) if packed[number].written]
    if not written:
        making.discard_if_empty()
        raise ShardError(f"every sample is bad: {reasons(bad)}")
    making.quarantine(bad)
    return write_index(out, kind="images", classes=classes, reports=_reports(out, written))


def plan(sources: Sequence[PackSource], shard_size: int | None) -> list[list[PackSource]]:
    """Cut the sources, in order, into shards of at most `shard_size` samples and 256 MB."""
    if shard_size is not None and shard_size < 1:
        raise ConfigError(f"shard size: found {shard_size}, expected at least 1")
    limit = shard_size or min(512, max(8, ceil(len(sources) / 16)))
    shards: list[list[PackSource]] = []
    total = 0
    for source in sources:
        if not shards or len(shards[-1]) == limit or total + source.size > MAX_SHARD_BYTES:
            shards.append([])
            total = 0
        shards[-1].append(source)
        total += source.size
    if len(shards) > MAX_SHARDS:
        raise ConfigError(f"shard size {limit}: makes {len(shards)} shards, expected at most {MAX_SHARDS}; enlarge it")
    return shards


def _write_all(
    shards: list[list[PackSource]], out: AnyPath, classes: int, skip_bad: bool, farm: Farm | None
) -> dict[int, Packed]:
    """How every shard ended, by number."""
    if farm is not None:
        task = pack_task(shards, out, classes=classes, skip_bad=skip_bad, mark=PACK)
        reports = farm.run(task, range(len(shards)))
        return {report.shard: report.record for report in reports if report.shard is not None}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return {
            number: pack_shard(shard, number, out, classes=classes, skip_bad=skip_bad, each=pool.map)
            for number, shard in enumerate(shards)
        }


def _reports(out: AnyPath, numbers: list[int]) -> Iterator[ShardReport]:
    for number in numbers:
        report = read_report(out, number)
        if report is None:
            raise ShardError(
                f"{out / shard_name(number)}: was packed, but is not here; use a folder all machines share, or a URL"
            )
        yield report


def _stamp(shard: Sequence[PackSource], classes: Sequence[str]) -> str:
    inputs = [[source.key, source.name, source.stamp] for source in shard]
    return stamp_of_inputs(RULES, list(classes), inputs)


def _finished(making: ResumableSet, skip_bad: bool) -> Index:
    index = ShardSet.open(making.folder).index
    making.check_finished()
    if (making.folder / QUARANTINE).exists() and not skip_bad:
        raise ShardError(
            f"{making.folder}: was packed without the samples in {QUARANTINE}; keep skip-bad, or remove it, pack again"
        )
    return index
