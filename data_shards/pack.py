"""Sources to a shard set: checked in full, resumable shard by shard, deterministic.

Which sample goes into which shard is planned before anything is read, so that a killed pack goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

from amn_dist.documents import read_json
from amn_dist.errors import ConfigError, ShardError, listed, printable
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import INDEX, Index, ShardReport
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, shard_name, write_index
from amn_dist.storage.atomic import UNFINISHED, clean_unfinished, commit_json, json_bytes
from amn_dist.storage.paths import AnyPath
from data_shards.shard import Bad, Packed, pack_shard
from data_shards.source import Source, check_keys
from data_shards.task import pack_task

MAX_SHARD_BYTES = 256 * 2**20
MAX_SHARDS = 1_000_000
"""Their names have six digits."""
PACK = "pack.json"
"""What the shards are made from; tells a restarted pack which of them still hold."""
QUARANTINE = "quarantine.json"
"""The samples left out by skip_bad, with reasons."""
RULES = 1
"""Raised when the same inputs give other shards."""

_OURS = re.compile(rf"([0-9]{{6}}\.(tar|json)|{PACK}|{QUARANTINE})(\Z|{re.escape(UNFINISHED)})")


@dataclass(frozen=True)
class Plan:
    """What PACK says: a stamp of every shard's inputs."""

    shards: list[str]


def pack(
    sources: list[Source],
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
    if (out / INDEX).exists():
        return _finished(out, stamps, skip_bad)
    _prepare(out, stamps)
    packed = _write_all(shards, out, len(classes), skip_bad, farm)
    bad = [sample for number in sorted(packed) for sample in packed[number].bad]
    if bad and not skip_bad:
        _leave(out)
        raise ShardError(_explain(bad, len(sources)))
    written = [number for number in sorted(packed) if packed[number].written]
    if not written:
        _leave(out)
        raise ShardError(f"every sample is bad: {_told(bad)}")
    _quarantine(out, bad)
    return write_index(out, kind="images", classes=classes, reports=_reports(out, written))


def plan(sources: Sequence[Source], shard_size: int | None) -> list[list[Source]]:
    """Cut the sources, in order, into shards of at most `shard_size` samples and 256 MB."""
    if shard_size is not None and shard_size < 1:
        raise ConfigError(f"shard size: found {shard_size}, expected at least 1")
    limit = shard_size or min(512, max(8, ceil(len(sources) / 16)))
    shards: list[list[Source]] = []
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
    shards: list[list[Source]], out: AnyPath, classes: int, skip_bad: bool, farm: Farm | None
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


def _stamp(shard: Sequence[Source], classes: Sequence[str]) -> str:
    inputs = [[source.key, source.name, source.stamp] for source in shard]
    return hashlib.sha256(json_bytes([RULES, list(classes), inputs])).hexdigest()


def _finished(out: AnyPath, stamps: list[str], skip_bad: bool) -> Index:
    index = ShardSet.open(out).index
    if _read_stamps(out) != stamps:
        raise ShardError(f"{out}: holds a finished set of other inputs or settings; remove it or choose another folder")
    if (out / QUARANTINE).exists() and not skip_bad:
        raise ShardError(
            f"{out}: was packed without the samples in {QUARANTINE}; keep skip-bad, or remove it, pack again"
        )
    return index


def _prepare(out: AnyPath, stamps: list[str]) -> None:
    try:
        names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    except OSError as error:
        raise ShardError(f"{out}: cannot be written to ({printable(error)})") from error
    foreign = [name for name in names if not (_OURS.match(name) or name.startswith(INDEX + UNFINISHED))]
    if foreign or (names and not any(name.startswith(PACK) for name in names)):
        raise ShardError(
            f"{out}: holds other files ({printable(', '.join((foreign or names)[:3]))}); choose an empty or new folder"
        )
    if names:
        clean_unfinished(out)
        known = _read_stamps(out)
        for name in names:
            number = int(name[:6]) if name[:6].isdigit() else None
            if number is not None and known[number : number + 1] != stamps[number : number + 1]:
                (out / name).unlink(missing_ok=True)
    commit_json(out / PACK, {"format": RULES, "shards": stamps})


def _read_stamps(out: AnyPath) -> list[str]:
    try:
        found: Plan = read_json((out / PACK).read_bytes(), Plan)
    except (OSError, ValueError):
        return []
    return found.shards


def _leave(out: AnyPath) -> None:
    # Finished shards spare the next try their work; a folder without any says nothing and goes.
    if not any(out.glob("[0-9]*.json")):
        (out / PACK).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()


def _quarantine(out: AnyPath, bad: list[Bad]) -> None:
    if bad:
        listed = [{"key": sample.key, "file": sample.file, "reason": sample.reason} for sample in bad]
        commit_json(out / QUARANTINE, {"count": len(bad), "samples": listed})
    else:
        (out / QUARANTINE).unlink(missing_ok=True)


def _explain(bad: list[Bad], total: int) -> str:
    return f"{len(bad)} of {total} samples are bad: {_told(bad)}. Mend them, or leave them out with --skip-bad"


def _told(bad: list[Bad]) -> str:
    return listed(f"[{sample.key}] {printable(sample.reason, 400)}" for sample in bad)
