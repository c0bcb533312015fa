"""Sources to a shard set: checked in full, resumable shard by shard, deterministic.

Which sample goes into which shard is planned before anything is read, so that a killed pack goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from amn_dist.errors import ConfigError, ShardError
from amn_dist.shards.commit import MARK, clean_unfinished, commit_json, json_bytes
from amn_dist.shards.format import encode
from amn_dist.shards.index import INDEX, Index, ShardReport
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import Row, read_report, shard_name, write_index, write_shard
from data_shards.photo import check_photo, check_truth
from data_shards.source import Source, check_keys, named

MAX_SHARD_BYTES = 256 * 2**20
PACK = "pack.json"
"""What the shards are made from; tells a restarted pack which of them still hold."""
QUARANTINE = "quarantine.json"
"""The samples left out by skip_bad, with reasons."""
RULES = 1
"""Raised when the same inputs give other shards."""

_OURS = re.compile(rf"([0-9]{{6}}\.(tar|json)|{PACK}|{QUARANTINE})(\Z|{re.escape(MARK)})")


@dataclass(frozen=True, slots=True)
class Bad:
    """A sample that cannot be packed."""

    key: str
    file: str
    reason: str


def pack(
    sources: list[Source], out: Path, *, classes: tuple[str, ...], shard_size: int | None, skip_bad: bool
) -> Index:
    """Pack sources into `out`; the same call again goes on after any stop, or returns the finished index.

    shard_size: samples a shard, chosen by their number without it. skip_bad: leave bad samples out and list them in
    quarantine.json. Raises ShardError naming every bad sample, or saying that `out` holds something else.
    """
    check_keys(sources)
    shards = plan(sources, shard_size)
    stamps = [_stamp(shard, classes) for shard in shards]
    if (out / INDEX).exists():
        return _finished(out, stamps, skip_bad)
    _prepare(out, stamps)
    reports, bad = _write_all(shards, out, len(classes), skip_bad)
    if bad and not skip_bad:
        _leave(out)
        raise ShardError(_explain(bad, len(sources)))
    if not reports:
        _leave(out)
        raise ShardError(f"every sample is bad: {_listed(bad)}")
    _quarantine(out, bad)
    return write_index(out, kind="images", classes=classes, reports=reports)


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
    return shards


def check_sample(source: Source, classes: int) -> Row | Bad:
    """A sample ready to be written, or why it cannot be."""
    try:
        content = source.read()
        with named(source.name):
            photo = check_photo(content.image)
        fields = {photo.field: content.image, "tags": encode("tags", content.tags)}
        if content.truth is not None:
            with named(source.truth):
                ids = check_truth(content.truth, photo, classes)
            fields["gt.png"] = encode("gt.png", ids)
    except ShardError as error:
        return Bad(source.key, source.name, str(error))
    return source.key, (photo.height, photo.width), fields


def _write_all(
    shards: list[list[Source]], out: Path, classes: int, skip_bad: bool
) -> tuple[list[ShardReport], list[Bad]]:
    reports: list[ShardReport] = []
    bad: list[Bad] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, shard in enumerate(shards):
            report, faults = _write_one(shard, number, out, classes, skip_bad, pool)
            bad += faults
            if report is not None:
                reports.append(report)
    return reports, bad


def _write_one(
    shard: list[Source], number: int, out: Path, classes: int, skip_bad: bool, pool: Executor
) -> tuple[ShardReport | None, list[Bad]]:
    report = read_report(out, number)
    done = {place.key for place in report.samples} if report else set()
    # What a finished shard lacks was bad; looking again gives the reason.
    found = list(pool.map(lambda source: check_sample(source, classes), [s for s in shard if s.key not in done]))
    bad = [sample for sample in found if isinstance(sample, Bad)]
    good = [sample for sample in found if not isinstance(sample, Bad)]
    if report is not None and good:
        raise ShardError(
            f"{out / shard_name(number)}: {good[0][0]} was bad and is not any more; remove {out}, pack again"
        )
    if good and (skip_bad or not bad):
        report = write_shard(out, number, good)
    return report, bad


def _stamp(shard: Sequence[Source], classes: Sequence[str]) -> str:
    inputs = [[source.key, source.name, source.stamp] for source in shard]
    return hashlib.sha256(json_bytes([RULES, list(classes), inputs])).hexdigest()


def _finished(out: Path, stamps: list[str], skip_bad: bool) -> Index:
    index = ShardSet.open(out).index
    if _read_stamps(out) != stamps:
        raise ShardError(f"{out}: holds a finished set of other inputs or settings; remove it or choose another folder")
    if (out / QUARANTINE).exists() and not skip_bad:
        raise ShardError(
            f"{out}: was packed without the samples in {QUARANTINE}; keep skip-bad, or remove it, pack again"
        )
    return index


def _prepare(out: Path, stamps: list[str]) -> None:
    try:
        names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    except OSError as error:
        raise ShardError(f"{out}: cannot be written to ({error.strerror or error})") from error
    foreign = [name for name in names if not (_OURS.match(name) or name.startswith(INDEX + MARK))]
    if foreign or (names and not any(name.startswith(PACK) for name in names)):
        raise ShardError(
            f"{out}: holds other files ({', '.join((foreign or names)[:3])}); choose an empty or new folder"
        )
    if names:
        clean_unfinished(out)
        known = _read_stamps(out)
        for name in names:
            number = int(name[:6]) if name[:6].isdigit() else None
            if number is not None and known[number : number + 1] != stamps[number : number + 1]:
                (out / name).unlink(missing_ok=True)
    commit_json(out / PACK, {"format": RULES, "shards": stamps})


def _read_stamps(out: Path) -> list[str]:
    try:
        tree = json.loads((out / PACK).read_bytes())
    except (OSError, ValueError):
        return []
    found = tree.get("shards") if isinstance(tree, dict) else None
    return [str(stamp) for stamp in found] if isinstance(found, list) else []


def _leave(out: Path) -> None:
    # Finished shards spare the next try their work; a folder without any says nothing and goes.
    if not any(out.glob("[0-9]*.json")):
        (out / PACK).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()


def _quarantine(out: Path, bad: list[Bad]) -> None:
    if bad:
        listed = [{"key": sample.key, "file": sample.file, "reason": sample.reason} for sample in bad]
        commit_json(out / QUARANTINE, {"count": len(bad), "samples": listed})
    else:
        (out / QUARANTINE).unlink(missing_ok=True)


def _explain(bad: list[Bad], total: int) -> str:
    return f"{len(bad)} of {total} samples are bad: {_listed(bad)}. Mend them, or leave them out with --skip-bad"


def _listed(bad: list[Bad]) -> str:
    return "; ".join(f"[{sample.key}] {sample.reason}" for sample in bad)
