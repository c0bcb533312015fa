"""Proposals as people have them: COCO's run lengths in JSON, a file an image or one for all, and where each lies.

Of a file for all only a table is held, of 24 bytes an entry; who imports an image reads its own ranges.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from amn_dist.documents import check_keys
from amn_dist.errors import PLACE, ShardError, printable, quoted
from amn_dist.ops.run_lengths import joined_lengths
from amn_dist.shards.names import numbers_of
from amn_dist.shards.run_lengths import MOST_MASKS, MOST_RUNS
from amn_dist.shards.shardset import Entry, ShardSet
from data_shards.instances import AnnotationFile
from data_shards.json_pieces import MOST_BYTES, Piece, entries, lines
from data_shards.outlines import Runs, Size, checked_lengths
from data_shards.source import key_of, stamp_of

LINES = (".jsonl", ".ndjson", ".jsonlines")
"""Endings of a file with a value a line."""

MOST_DIGITS = 18
"""Of an id that is written as a text."""


class NamedImage(msgspec.Struct, frozen=True):
    """How an entry says whose it is, as SA-1B's files do."""

    file_name: str | None = None
    image_id: int | str | None = None


class ProposalEntry(msgspec.Struct, frozen=True):
    """A mask of COCO's results, or an image with its masks. Only what is read of it."""

    file_name: str | None = None
    image: NamedImage | str | int | None = None
    image_id: int | str | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"")
    annotations: msgspec.Raw = msgspec.Raw(b"")
    masks: msgspec.Raw = msgspec.Raw(b"")

    @property
    def name(self) -> str | int | None:
        """Whose it is."""
        within = self.image if isinstance(self.image, NamedImage) else NamedImage()
        called = None if isinstance(self.image, NamedImage) else self.image
        names = (self.file_name, within.file_name, called, self.image_id, within.image_id)
        return next((name for name in names if name is not None), None)


class MaskRecord(msgspec.Struct, frozen=True):
    """A mask. segmentation: its run lengths, unread."""

    segmentation: msgspec.Raw = msgspec.Raw(b"")


_ENTRY = msgspec.json.Decoder(ProposalEntry)
_MASKS = msgspec.json.Decoder(list[MaskRecord])
_RUNS = msgspec.json.Decoder(Runs)


def read_proposals(texts: Iterable[bytes], size: Size) -> np.ndarray:
    """The proposals int32[2 + M] of an image of this size (H, W), from JSON of lists of masks, images or masks.

    Raises ShardError saying which proposal is wrong in what.
    """
    lengths: list[np.ndarray] = []
    total = 0
    for raw in _segmentations(texts):
        try:
            lengths.append(joined_lengths(checked_lengths(_runs(raw), size)))
        except ShardError as error:
            raise ShardError(f"proposal {len(lengths)} {error}") from error
        total += len(lengths[-1])
        if len(lengths) > MOST_MASKS or total > MOST_RUNS:
            raise ShardError(f"has more than {MOST_MASKS} proposals, or {MOST_RUNS} runs; leave small ones out")
    return np.concatenate([np.array(size, np.int32), *lengths])


def _segmentations(texts: Iterable[bytes]) -> Iterator[bytes]:
    for text in texts:
        try:
            check_keys(text.decode())
            if text.lstrip()[:1] == b"{":
                entry = _ENTRY.decode(text)
                held = bytes(entry.annotations) or bytes(entry.masks)
                records = _MASKS.decode(held) if held else [MaskRecord(entry.segmentation)]
            else:
                records = _MASKS.decode(text)
        except (ValueError, RecursionError) as error:
            raise ShardError(
                f"is not JSON of masks ({printable(error)}); expected records with segmentation"
            ) from error
        yield from (bytes(record.segmentation) for record in records)


def _runs(raw: bytes) -> Runs:
    if not raw:
        raise ShardError("has no segmentation")
    if raw.lstrip()[:1] == b"[":
        raise ShardError("has a segmentation of polygons or pixels; expected run lengths, size and counts")
    try:
        return _RUNS.decode(raw)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"has a segmentation that is none ({printable(error)}); expected size and counts") from error


@dataclass(frozen=True)
class ImageNames:
    """Which image of a set a name means."""

    images: ShardSet

    def find(self, name: str | int) -> int | None:
        """The ordinal of a name, or of an id; None of one that the set does not have. Raises ShardError where it may
        be several."""
        if isinstance(name, int):
            return self._by_id.get(name)
        ordinals = self.images.matches(name) or self.images.matches(
            key_of(name.removesuffix(PurePosixPath(name).suffix))
        )
        if len(ordinals) > 1:
            shown = ", ".join(printable(self.images.entry(ordinal).name) for ordinal in ordinals[:3])
            raise ShardError(f"{quoted(name)} may be {len(ordinals)} images ({shown}); write more of it")
        if not ordinals and name.isdecimal() and len(name) <= MOST_DIGITS:
            return self._by_id.get(int(name))
        return ordinals[0] if ordinals else None

    @cached_property
    def _by_id(self) -> dict[int, int]:
        every = [entry for number in range(len(self.images.shard_sizes)) for entry in self.images.shard(number)]
        ids = {entry.source_id: entry.ordinal for entry in every if entry.source_id is not None}
        return ids or dict(zip(numbers_of(entry.key for entry in every), range(len(every)), strict=False))


@dataclass(frozen=True)
class ProposalFile:
    """A file for all images. spans: int64[n, 2], bytes of its entries by image. bounds: int64[images + 1], where each
    image's begin. others: entries of no image."""

    file: AnnotationFile
    spans: np.ndarray
    bounds: np.ndarray
    others: int

    def texts(self, entry: Entry) -> list[bytes]:
        """JSON of an image. Raises ShardError where there is none."""
        spans = self.spans[self.bounds[entry.ordinal] : self.bounds[entry.ordinal + 1]].tolist()
        if not spans:
            raise ShardError("holds no proposals of it; expected some, or an empty list, of every image")
        if sum(stop - start for start, stop in spans) > MOST_BYTES:
            raise ShardError(f"holds more than {MOST_BYTES} bytes of its proposals")
        return self.file.read(spans)


def read_proposal_file(path: Path, images: ShardSet) -> ProposalFile:
    """Look through a file for all images once. Raises ShardError naming the byte where it is damaged, or saying that
    nothing in it belongs to the set."""
    stamp = stamp_of([path])[1]
    table, others, first = array("q"), 0, ""
    try:
        with open(path, "rb") as file:
            # Mapped, not read: its pages are the kernel's to drop.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        find = ImageNames(images).find
        seen: set[int] = set()
        for piece in lines(content) if path.suffix.lower() in LINES else entries(content):
            name = _name(content, piece)
            ordinal = _found(find, name, piece)
            if ordinal is None:
                others, first = others + 1, first or str(name)
                continue
            if piece.name is not None and ordinal in seen:
                raise ValueError(f"byte {piece.start}: found {quoted(name)} twice, expected each image once")
            seen.add(ordinal)
            table.extend((ordinal, piece.start, piece.stop))
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({printable(error)})") from error
    except ValueError as error:
        fault = printable(error, 400) if os.path.getsize(path) else "is empty; expected proposals as JSON"
        raise ShardError(f"{path}: {fault}") from error
    rows = np.frombuffer(table, np.int64).reshape(-1, 3) if table else np.zeros((0, 3), np.int64)
    if not len(rows):
        raise ShardError(_nothing(path, images, others, first))
    order = np.argsort(rows[:, 0], kind="stable")
    bounds = np.searchsorted(rows[order, 0], np.arange(len(images) + 1))
    return ProposalFile(AnnotationFile(str(path), stamp), rows[order, 1:], bounds, others)


def _found(find: Callable[[str | int], int | None], name: str | int, piece: Piece) -> int | None:
    try:
        return find(name)
    except ShardError as error:
        raise ValueError(f"byte {piece.start}: {error}") from error


def _name(content: Any, piece: Piece) -> str | int:
    """Whose an entry is."""
    if piece.name is not None:
        return piece.name
    try:
        entry = _ENTRY.decode(content[piece.start : piece.stop])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the entry at byte {piece.start} is damaged ({printable(error)})") from error
    if entry.name is None:
        raise ValueError(
            f"the entry at byte {piece.start} says not whose it is; expected file_name or image_id, or a file an image"
        )
    return entry.name


def _nothing(path: Path, images: ShardSet, others: int, first: str) -> str:
    if not others:
        return f"{path}: holds no proposals; expected some of every image of {images.url}"
    return (
        f"{printable(path, PLACE)}: none of {others} entries belongs to an image of {images.url}; "
        f"found {quoted(first)}, expected such as {printable(images.entry(0).name)}"
    )
