"""Sources to a shard set: checked in full, resumable shard by shard, deterministic.

Which sample goes into which shard is planned before anything is read, so that a killed pack goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

from amn_dist.errors import ConfigError, ShardError
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import INDEX, Index, ShardReport
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, shard_name, write_index
from amn_dist.storage.paths import AnyPath
from data_shards.agreement import WAY_OUT, contradiction, doubts
from data_shards.allowances import STRICT, Allowances
from data_shards.census import Census, no_census
from data_shards.resumable import QUARANTINE, BadSample, ResumableSet, explain, reasons, stamp_of_inputs
from data_shards.shard import Packed, SampleRules, pack_shard
from data_shards.source import PackSource, check_keys
from data_shards.summary import summarise, write_summary
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
    allow: Allowances = STRICT,
    compare: bool = True,
    source_ids: Sequence[int | None] | None = None,
    notes: Sequence[str] = (),
) -> Index:
    """Pack sources into `out`; the same call again goes on after any stop, or returns the finished index.

    shard_size: samples a shard, chosen by their number without it. skip_bad: leave bad samples out and list them in
    quarantine.json. farm: who packs the shards; without one, threads of this process do. The bytes are the same.
    compare: whether tags and truth come from two places, and must mean the same classes. source_ids: the source's ids
    of the classes. notes: what summary.json is to say besides its figures.
    Raises ShardError naming bad samples, or saying that `out` holds something else, or how tags and masks differ.
    """
    check_keys(sources)
    shards = plan(sources, shard_size)
    stamps = [_stamp(shard, classes, allow) for shard in shards]
    making = ResumableSet(out, stamps, PACK, RULES, other="a finished set of other inputs or settings")
    if (out / INDEX).exists():
        return _finished(making, skip_bad)
    making.prepare()
    rules = SampleRules(len(classes), allow, compare)
    outcome = _gather(_write_all(shards, out, rules, skip_bad, farm), len(classes))
    if outcome.bad and not skip_bad:
        making.discard_if_empty()
        raise ShardError(explain(outcome.bad, len(sources), "samples"))
    if not outcome.written:
        making.discard_if_empty()
        raise ShardError(f"every sample is bad: {reasons(outcome.bad)}")
    said = _doubts(making, outcome.census, classes, allow) if compare else []
    making.quarantine(outcome.bad)
    shown = summarise(outcome.census, classes, len(outcome.written), bad=outcome.bad, notes=[*notes, *said])
    write_summary(out, shown)
    reports = _reports(out, outcome.written)
    return write_index(out, kind="images", classes=classes, reports=reports, source_ids=source_ids)


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


@dataclass(frozen=True)
class Outcome:
    """How all shards ended, in order. written: numbers of those there are."""

    written: list[int]
    bad: list[BadSample]
    census: Census


def _gather(packed: Iterable[tuple[int, Packed]], classes: int) -> Outcome:
    written, bad, census = [], {}, no_census(classes)
    for number, shard in packed:
        census += shard.census
        bad[number] = shard.bad
        if shard.written:
            written.append(number)
    return Outcome(sorted(written), [sample for number in sorted(bad) for sample in bad[number]], census)


def _write_all(
    shards: list[list[PackSource]], out: AnyPath, rules: SampleRules, skip_bad: bool, farm: Farm | None
) -> Iterator[tuple[int, Packed]]:
    """How every shard ended, with its number."""
    if farm is not None:
        task = pack_task(shards, out, rules=rules, skip_bad=skip_bad, mark=PACK)
        reports = farm.run(task, range(len(shards)))
        yield from ((report.shard, report.record) for report in reports if report.shard is not None)
        return
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, shard in enumerate(shards):
            yield number, pack_shard(shard, number, out, rules=rules, skip_bad=skip_bad, each=pool.map)


def _doubts(making: ResumableSet, census: Census, classes: Sequence[str], allow: Allowances) -> list[str]:
    """What is to be said of tags and masks that differ. Raises ShardError when they cannot mean the same classes."""
    if allow.trust is not None:
        return []
    if reason := contradiction(census, classes):
        making.discard()
        raise ShardError(f"tags and masks do not mean the same classes: {reason}; {WAY_OUT}")
    return doubts(census, classes)


def _reports(out: AnyPath, numbers: list[int]) -> Iterator[ShardReport]:
    for number in numbers:
        report = read_report(out, number)
        if report is None:
            raise ShardError(
                f"{out / shard_name(number)}: was packed, but is not here; use a folder all machines share, or a URL"
            )
        yield report


def _stamp(shard: Sequence[PackSource], classes: Sequence[str], allow: Allowances) -> str:
    inputs = [[source.key, source.name, source.stamp] for source in shard]
    return stamp_of_inputs(RULES, list(classes), inputs, *allow.moving)


def _finished(making: ResumableSet, skip_bad: bool) -> Index:
    index = ShardSet.open(making.folder).index
    making.check_finished()
    if (making.folder / QUARANTINE).exists() and not skip_bad:
        raise ShardError(
            f"{making.folder}: was packed without the samples in {QUARANTINE}; keep skip-bad, or remove it, pack again"
        )
    return index
