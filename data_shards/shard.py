"""One shard of a pack: its samples are checked, and written when all are good or the bad ones may be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from amn_dist.errors import ShardError, printable
from amn_dist.shards.format import decode, decode_ids, encode
from amn_dist.shards.index import ShardReport
from amn_dist.shards.writer import Row, read_report, shard_name, write_shard
from amn_dist.storage.paths import AnyPath
from amn_dist.storage.ranges import open_ranges
from data_shards.allowances import STRICT, Allowances
from data_shards.census import Census, Contents, ids_in, take_census
from data_shards.colours import check_colours
from data_shards.photo import Photo, check_truth, take_photo
from data_shards.resumable import BadSample
from data_shards.source import Content, PackSource, named


@dataclass(frozen=True, slots=True)
class SampleRules:
    """What samples are checked by. classes: C with background. compare: whether tags and truth, which come from two
    places, are to mean the same."""

    classes: int
    allow: Allowances = STRICT
    compare: bool = True


@dataclass(frozen=True, slots=True)
class Checked:
    """A sample ready to be written, and which classes it shows."""

    row: Row
    contents: Contents


@dataclass(frozen=True, slots=True)
class Packed:
    """How a shard ended. written: whether there is one; it may be from an earlier call. census: of what it holds."""

    written: bool
    bad: tuple[BadSample, ...]
    census: Census


Each = Callable[[Callable[[PackSource], Checked | BadSample], Sequence[PackSource]], Iterable[Checked | BadSample]]
"""Calls a function on every source, in order: `map`, or that of a pool of threads."""


def pack_shard(
    sources: Sequence[PackSource], number: int, out: AnyPath, *, rules: SampleRules, skip_bad: bool, each: Each = map
) -> Packed:
    """Write a shard unless it is there.

    Raises ShardError when it cannot be written, or a sample that was bad has been mended since.
    """
    report = read_report(out, number)
    done = {sample.key for sample in report.samples} if report else set()
    # What a finished shard lacks was bad; looking again gives the reason.
    unpacked = [source for source in sources if source.key not in done]
    checked = list(each(lambda source: check_sample(source, rules), unpacked))
    bad = tuple(sample for sample in checked if isinstance(sample, BadSample))
    good = [sample for sample in checked if not isinstance(sample, BadSample)]
    if report is not None and good:
        raise ShardError(
            f"{out / shard_name(number)}: {good[0].row[0]} was bad and is not any more; remove {out}, pack again"
        )
    contents = [sample.contents for sample in good] if report is None else read_contents(out, report)
    if good and (skip_bad or not bad):
        files = {source.key: source.file for source in sources if source.file is not None}
        report = write_shard(out, number, (sample.row for sample in good), sources=files)
    return Packed(report is not None, bad, take_census(contents, rules.classes, number))


def check_sample(source: PackSource, rules: SampleRules) -> Checked | BadSample:
    """A sample ready to be written, or why it cannot be."""
    try:
        content = source.read()
        with named(source.name):
            image, photo = take_photo(content.image, convert=rules.allow.convert)
        fields, tags, held = {photo.field: image}, content.tags, None
        if content.truth is not None:
            with named(source.truth):
                ids, held = _truth(content, photo, rules)
            fields["gt.png"] = encode("gt.png", ids)
            if rules.allow.trust == "masks":
                tags = Contents(source.name, np.zeros(rules.classes - 1, np.uint8), held).shown
        fields["tags"] = encode("tags", tags)
    except ShardError as error:
        return BadSample(source.key, str(error), file=source.name)
    return Checked((source.key, (photo.height, photo.width), fields), Contents(source.name, tags, held))


def read_contents(out: AnyPath, report: ShardReport) -> list[Contents]:
    """The classes of the samples of a finished shard. Raises ShardError when it cannot be read."""
    files = open_ranges(str(out))

    def field(sample_fields: dict[str, tuple[int, int]], name: str) -> np.ndarray:
        return decode(name, files.read_range(report.name, *sample_fields[name]))

    try:
        return [
            Contents(
                sample.source or sample.key,
                field(sample.fields, "tags"),
                ids_in(field(sample.fields, "gt.png")) if "gt.png" in sample.fields else None,
            )
            for sample in report.samples
        ]
    except OSError as error:
        raise ShardError(
            f"{out / report.name}: cannot be read ({printable(error)}); remove {out}, pack again"
        ) from error


def _truth(content: Content, photo: Photo, rules: SampleRules) -> tuple[np.ndarray, np.ndarray]:
    """Ids uint8[H, W] of a sample's truth, and which there are. Raises ShardError when they cannot be meant."""
    assert content.truth is not None
    by_colour = content.truth if isinstance(content.truth, bytes) else b""
    if not rules.compare or rules.allow.trust is not None:
        by_colour = b""
    try:
        ids = check_truth(content.truth, photo, rules.classes)
    except ShardError:
        if by_colour:  # ids beyond the table, perhaps, because they are out of order
            check_colours(by_colour, ids_in(decode_ids(by_colour)), content.tags)
        raise
    held = ids_in(ids)
    if by_colour:
        check_colours(by_colour, held, content.tags)
    return ids, held
