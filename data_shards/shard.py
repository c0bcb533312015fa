"""One shard of a pack: its samples are checked, and written when all are good or the bad ones may be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from amn_dist.errors import ShardError
from amn_dist.shards.format import encode
from amn_dist.shards.writer import Row, read_report, shard_name, write_shard
from amn_dist.storage.paths import AnyPath
from data_shards.photo import check_photo, check_truth
from data_shards.resumable import BadSample
from data_shards.source import PackSource, named


@dataclass(frozen=True, slots=True)
class Packed:
    """How a shard ended. written: whether there is one; it may be from an earlier call."""

    written: bool
    bad: tuple[BadSample, ...]


Each = Callable[[Callable[[PackSource], Row | BadSample], Sequence[PackSource]], Iterable[Row | BadSample]]
"""Calls a function on every source, in order: `map`, or that of a pool of threads."""


def pack_shard(
    sources: Sequence[PackSource], number: int, out: AnyPath, *, classes: int, skip_bad: bool, each: Each = map
) -> Packed:
    """Write a shard unless it is there. classes: C with background.

    Raises ShardError when it cannot be written, or a sample that was bad has been mended since.
    """
    report = read_report(out, number)
    done = {sample.key for sample in report.samples} if report else set()
    # What a finished shard lacks was bad; looking again gives the reason.
    unpacked = [source for source in sources if source.key not in done]
    checked = list(each(lambda source: check_sample(source, classes), unpacked))
    bad = tuple(sample for sample in checked if isinstance(sample, BadSample))
    good = [sample for sample in checked if not isinstance(sample, BadSample)]
    if report is not None and good:
        raise ShardError(
            f"{out / shard_name(number)}: {good[0][0]} was bad and is not any more; remove {out}, pack again"
        )
    if good and (skip_bad or not bad):
        files = {source.key: source.file for source in sources if source.file is not None}
        report = write_shard(out, number, good, sources=files)
    return Packed(report is not None, bad)


def check_sample(source: PackSource, classes: int) -> Row | BadSample:
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
        return BadSample(source.key, str(error), file=source.name)
    return source.key, (photo.height, photo.width), fields
