"""A shard set, read by ordinal: any field of any sample is one range read."""

from __future__ import annotations

import difflib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import PurePosixPath

import numpy as np

from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.format import PHOTOS, decode
from amn_dist.shards.index import INDEX, VERSION, Index, ShardReport, parse
from amn_dist.shards.names import spelling
from amn_dist.storage.paths import RemotePath
from amn_dist.storage.ranges import RangeReader, open_ranges

REPORTS = 128
"""Shards whose reports a process keeps parsed."""
HINTED = 20_000
"""Samples of a set in which the nearest name is looked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample. ordinal: position in the set. height, width: upright pixels. fields: offset and size in the tar.

    source: the file its image came from, relative to its folder; source_id: its id there. None where nobody said.
    """

    key: str
    ordinal: int
    shard: int
    height: int
    width: int
    fields: dict[str, tuple[int, int]]
    source: str | None = None
    source_id: int | None = None

    @property
    def name(self) -> str:
        """What people know the sample by: the name of its file, or its key."""
        return self.source or self.key


class ShardSet:
    """A complete shard set. Safe to share between threads and to pickle; a copy opens its own files."""

    def __init__(self, files: RangeReader, index: Index, *, reports: int = REPORTS) -> None:
        self.files = files
        self.index = index
        files.expect(index.shards)
        self.shard_sizes = tuple(shard.count for shard in index.shards)
        self._starts = (0, *accumulate(self.shard_sizes))
        self._entries: Callable[[int], tuple[Entry, ...]] = lru_cache(reports)(self._read_entries)

    @classmethod
    def open(
        cls, path_or_url: str | os.PathLike[str] | RemotePath, *, reports: int = REPORTS, digest: str | None = None
    ) -> ShardSet:
        """Open a set by local path or URL; the index and the sizes of all shards are checked.

        reports: shards whose samples are remembered; who goes through a set in order needs few. digest: of the set
        that is expected here. Raises ShardError when there is no sound index of a known version, a shard is missing or
        of another size, or the set is another one.
        """
        files = open_ranges(str(path_or_url))
        try:
            sizes = files.sizes()
        except OSError as error:
            raise ShardError(f"{files.url}: cannot be listed ({printable(error)}); expected a shard set") from error
        if INDEX not in sizes:
            raise ShardError(f"{files.url}: no {INDEX}; expected a finished shard set, made by `amn pack` or a Map")
        index = _parse_index(files)
        for shard in index.shards:
            if shard.name not in sizes:
                raise ShardError(
                    f"{files.url}/{shard.name}: missing, but listed in {INDEX}; copy or make the set again"
                )
            if sizes[shard.name] != shard.bytes:
                raise ShardError(
                    f"{files.url}/{shard.name}: found {sizes[shard.name]} bytes, expected {shard.bytes}; "
                    "copy or make the set again"
                )
        if digest not in (None, index.digest):
            raise ShardError(
                f"{files.url}: holds another set than this stage began with (digest {index.digest[:12]}..., expected "
                f"{str(digest)[:12]}...); it was changed meanwhile; run the same command again"
            )
        return cls(files, index, reports=reports)

    def __reduce__(self) -> tuple[Callable[[str, Index], ShardSet], tuple[str, Index]]:
        return _reopen, (self.url, self.index)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def url(self) -> str:
        """Absolute path or URL under which other processes can open the set."""
        return self.files.url

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order, background first."""
        return self.index.classes

    @property
    def digest(self) -> str:
        """sha256 of the content; equal for equal sets wherever they lie."""
        return self.index.digest

    @property
    def kind(self) -> str:
        """`images`, or the stage that made the set."""
        return self.index.kind

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, sorted; every sample has them all, but of jpg and png one."""
        return self.index.fields

    @property
    def has_truth(self) -> bool:
        """Whether every sample has a mask that others are compared with."""
        return "gt.png" in self.fields

    def shard(self, number: int) -> tuple[Entry, ...]:
        """The samples of a shard, in order."""
        return self._entries(number)

    def entry(self, ordinal: int) -> Entry:
        """The sample at a position, 0 <= ordinal < len."""
        if not 0 <= ordinal < len(self):
            raise IndexError(f"ordinal {ordinal} of {len(self)} samples in {self.url}")
        number = bisect_right(self._starts, ordinal) - 1
        return self._entries(number)[ordinal - self._starts[number]]

    def find(self, name: str) -> int:
        """The ordinal of a key, or of a source file with or without folders and ending, where that fits one alone.

        Raises ShardError when the set has no such sample, or several.
        """
        ordinals = self.matches(name)
        if len(ordinals) == 1:
            return ordinals[0]
        if ordinals:
            shown = ", ".join(printable(self.entry(ordinal).name) for ordinal in ordinals[:8])
            raise ShardError(f"{self.url}: {quoted(name)} may be {len(ordinals)} samples ({shown}); write more of it")
        raise ShardError(f"{self.url}: no sample {quoted(name)}{self._hint(name)}")

    def matches(self, name: str) -> tuple[int, ...]:
        """The ordinals that a name may mean: of a key one; of a source file, with or without folders and ending, any
        number."""
        if name in self._ordinals:
            return (self._ordinals[name],)
        return self._by_source.get(spelling(name), ())

    def read(self, ordinal: int, field: str) -> bytes:
        """The bytes of a field, as they were written. Raises ShardError naming tar, sample and field."""
        entry = self.entry(ordinal)
        if field not in entry.fields:
            raise ShardError(
                f"{self._where(entry, field)}: no such field; found {printable(', '.join(sorted(entry.fields)))}"
            )
        offset, size = entry.fields[field]
        try:
            content = self.files.read_range(self.index.shards[entry.shard].name, offset, size)
        except OSError as error:
            raise ShardError(f"{self._where(entry, field)}: cannot be read ({printable(error)})") from error
        if len(content) != size:
            raise ShardError(
                f"{self._where(entry, field)}: found {len(content)} bytes, expected {size}; run amn verify"
            )
        return content

    def load(self, ordinal: int, field: str) -> np.ndarray:
        """The decoded array of a field that is one (format.kind_of). Raises ShardError naming tar, sample and field."""
        content = self.read(ordinal, field)
        try:
            return decode(field, content)
        except ShardError as error:
            raise ShardError(f"{self._where(self.entry(ordinal), field)}: {error}") from error

    def image(self, ordinal: int) -> bytes:
        """The original JPEG or PNG file, to be turned upright by its EXIF orientation."""
        entry = self.entry(ordinal)
        field = next((name for name in PHOTOS if name in entry.fields), None)
        if field is None:
            raise ShardError(
                f"{self.url}: {entry.key} has no jpg or png; expected a set of kind images, not {printable(self.kind)}"
            )
        return self.read(ordinal, field)

    def join(self, other: ShardSet, shards: Iterable[int] | None = None) -> None:
        """Check that another set holds the same keys in the same order, shard by shard. Raises ShardError.

        shards: numbers of those whose keys are compared; all without it.
        """
        if self.shard_sizes != other.shard_sizes:
            raise ShardError(
                f"{other.url}: {len(other)} samples in {len(other.shard_sizes)} shards do not lie over {self.url} with "
                f"{len(self)} in {len(self.shard_sizes)}; make it again from this set"
            )
        for number in range(len(self.shard_sizes)) if shards is None else shards:
            for mine, its in zip(self._entries(number), other._entries(number), strict=True):
                if mine.key != its.key:
                    raise ShardError(
                        f"{other.url}: sample {mine.ordinal} is {its.key}, but {mine.key} in {self.url}; "
                        "make it again from this set"
                    )

    @cached_property
    def _ordinals(self) -> dict[str, int]:
        return {entry.key: entry.ordinal for n in range(len(self.shard_sizes)) for entry in self._entries(n)}

    @cached_property
    def _by_source(self) -> dict[str, tuple[int, ...]]:
        """Ordinals by the names of source files, whole, without ending, without folders, without both."""
        ordinals: dict[str, set[int]] = {}
        for ordinal in self._ordinals.values():
            path = PurePosixPath(spelling(self.entry(ordinal).name))
            for name in (str(path), str(path.with_suffix("")), path.name, path.stem):
                ordinals.setdefault(name, set()).add(ordinal)
        return {name: tuple(sorted(numbers)) for name, numbers in ordinals.items()}

    def _hint(self, name: str) -> str:
        names = [*self._ordinals, *self._by_source] if len(self) <= HINTED else []
        near = difflib.get_close_matches(name, names, n=1)
        return f" (did you mean {quoted(near[0])}?)" if near else "; keys are in the reports beside the tars"

    def _where(self, entry: Entry, field: str) -> str:
        return f"{self.url}/{self.index.shards[entry.shard].name}: {entry.key}.{field}"

    def _read_entries(self, number: int) -> tuple[Entry, ...]:
        shard = self.index.shards[number]
        name = shard.name.replace(".tar", ".json")
        try:
            text = self.files.read(name)
        except OSError as error:
            raise ShardError(f"{self.url}/{name}: cannot be read ({printable(error)}); copy the set again") from error
        report = parse(ShardReport, f"{self.url}/{name}", text)
        if (report.sha256, report.count) != (shard.sha256, shard.count):
            raise ShardError(f"{self.url}/{name}: describes another tar than {INDEX} lists; copy or make the set again")
        start = self._starts[number]
        return tuple(
            Entry(
                sample.key,
                start + position,
                number,
                sample.height,
                sample.width,
                sample.fields,
                sample.source,
                sample.source_id,
            )
            for position, sample in enumerate(report.samples)
        )


def _reopen(url: str, index: Index) -> ShardSet:
    return ShardSet(open_ranges(url), index)


def _parse_index(files: RangeReader) -> Index:
    where = f"{files.url}/{INDEX}"
    try:
        text = files.read(INDEX)
    except OSError as error:
        raise ShardError(f"{where}: cannot be read ({printable(error)})") from error
    try:
        return parse(Index, where, text)
    except ShardError as error:
        if ": format: " in str(error):
            raise ShardError(f"{where}: is of another format version; this program reads version {VERSION}") from error
        raise
