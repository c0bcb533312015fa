"""A strict look at a tar's headers: what a reader would be handed, and nothing that could surprise it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.index import same_fields

BLOCK = 512
MAX_NAME = 1024
"""Characters of a member's name."""
MAX_FIELDS = 100
"""Members of a sample."""
MAX_EXTENDED = 64 * 1024
"""Bytes of an extended header; real ones hold a name and some times."""
HARMLESS = frozenset({"path", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"})
"""Records of an extended header that change neither where data lies nor what it is."""
NOT_REGULAR = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"g": "a global header",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular member. offset, size: of its data, bytes. The name is key + "." + field, split at the first dot."""

    name: str
    key: str
    field: str
    offset: int
    size: int


def check_tar(path: str | os.PathLike[str]) -> tuple[Member, ...]:
    """The members of a tar of samples, in order; nothing is extracted, no data is read.

    Raises ShardError for members that are not regular, absolute or parent paths, names without a field or spelled in
    more ways than one (`./a.jpg`, `b//a.jpg`), repeated members and keys, samples that differ in their fields, data or
    an end that is missing, and anything after the end.
    """
    try:
        with open(path, "rb") as file:
            return check_open_tar(file, where=os.fspath(path))
    except OSError as error:
        raise ShardError(f"{os.fspath(path)}: cannot be read ({printable(error)})") from error


def check_open_tar(file: BinaryIO, *, where: str) -> tuple[Member, ...]:
    """What check_tar says of an open file; `where` begins its messages."""
    try:
        members = tuple(_members(file, file.seek(0, os.SEEK_END)))
        check_samples(members)
    except ShardError as error:
        raise ShardError(f"{where}: {error}") from error
    return members


def check_samples(members: tuple[Member, ...]) -> dict[str, tuple[str, ...]]:
    """Fields by key. Raises ShardError when a member repeats, a sample is torn apart, or samples differ in fields."""
    fields: dict[str, tuple[str, ...]] = {}
    last_key = None
    for member in members:
        if member.field.lower() in (field.lower() for field in fields.get(member.key, ())):
            # Readers of such tars take .JPG for .jpg.
            raise ShardError(
                f"member {printable(member.name)} appears twice; key {printable(member.key)} must be unique"
            )
        if len(fields.get(member.key, ())) == MAX_FIELDS:
            raise ShardError(f"key {printable(member.key)} has more than {MAX_FIELDS} members")
        if member.key in fields and member.key != last_key:
            raise ShardError(f"key {printable(member.key)} appears twice; the members of a sample must lie together")
        fields[member.key] = (*fields.get(member.key, ()), member.field)
        last_key = member.key
    same_fields("samples", list(fields.items()))
    return fields


def _members(file: BinaryIO, total: int) -> Iterator[Member]:
    offset, name = 0, None
    while True:
        header = _header(file, offset, total)
        if header is None:
            if name is not None:
                raise ShardError(f"names the member {printable(name)} in an extended header, but there is none")
            _check_end(file, offset)
            return
        data = offset + BLOCK
        shown = header.name if name is None else name
        _check_kind(header, shown)
        if data + header.size > total:
            raise ShardError(
                f"member {printable(shown)} declares {header.size} bytes at {data}, but the file ends at {total}: "
                "truncated or forged"
            )
        offset = data + -(-header.size // BLOCK) * BLOCK
        if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            longer = _long_name(file, header, data)
            if name is not None and longer is not None:
                raise ShardError(f"names one member {printable(name)} and {printable(longer)}; expected one name")
            name = name if longer is None else longer
        else:
            yield _member(shown, data, header.size)
            name = None


def _header(file: BinaryIO, offset: int, total: int) -> tarfile.TarInfo | None:
    file.seek(offset)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise ShardError(f"ends at byte {total} without an end mark: truncated")
    if not any(block):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise ShardError(f"no tar header at byte {offset} ({printable(error)}): damaged, or not a tar") from error
    if header.size < 0:
        raise ShardError(f"member {printable(header.name)} declares {header.size} bytes")
    return header


def _check_kind(header: tarfile.TarInfo, name: str) -> None:
    regular = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)
    if header.type not in regular:
        kind = NOT_REGULAR.get(header.type, f"of type {header.type!r}")
        raise ShardError(f"member {printable(name)} is {kind}; expected regular files only")


def _long_name(file: BinaryIO, header: tarfile.TarInfo, offset: int) -> str | None:
    if header.size > MAX_EXTENDED:
        raise ShardError(f"an extended header of {header.size} bytes; expected at most {MAX_EXTENDED}")
    file.seek(offset)
    content = file.read(header.size)
    try:
        if header.type == tarfile.GNUTYPE_LONGNAME:
            return content.rstrip(b"\0").decode()
        return _pax_path(content)
    except ValueError as error:
        raise ShardError(f"an extended header at byte {offset} that cannot be read ({printable(error)})") from error


def _pax_path(content: bytes) -> str | None:
    records: dict[str, bytes] = {}
    while content:
        size = content[: content.index(b" ")]
        length = int(size) if size.isdigit() and len(size) < 9 else 0
        record = content[len(size) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or not 0 < length <= len(content):
            raise ValueError("malformed record")
        if key.decode() not in HARMLESS or key.decode() in records:
            what = "twice" if key.decode() in records else "once"
            raise ShardError(
                f"an extended header sets {quoted(key.decode())} {what}; expected names and times only, each once "
                "(no sparse files)"
            )
        records[key.decode()] = value[:-1]
        content = content[length:]
    return records["path"].decode() if "path" in records else None


def _member(name: str, offset: int, size: int) -> Member:
    if name.startswith(("/", "\\")) or "\\" in name or not name.isprintable() or len(name) > MAX_NAME:
        raise ShardError(
            f"member {quoted(name, 200)} has an absolute, unprintable or too long path; expected KEY.FIELD"
        )
    if ".." in name.split("/"):
        raise ShardError(f"member {quoted(name, 200)} points to a parent folder; expected KEY.FIELD")
    if not {"", "."}.isdisjoint(name.split("/")):
        raise ShardError(
            f"member {quoted(name, 200)} has more than one spelling; expected KEY.FIELD or FOLDER/KEY.FIELD"
        )
    folder, slash, base = name.rpartition("/")
    stem, dot, field = base.partition(".")
    if not stem or not dot or not field:
        raise ShardError(f"member {quoted(name, 200)} is not KEY.FIELD")
    return Member(name, f"{folder}{slash}{stem}", field, offset, size)


def _check_end(file: BinaryIO, offset: int) -> None:
    file.seek(offset)
    while rest := file.read(1 << 20):
        if any(rest):
            raise ShardError(f"holds data after its end mark at byte {offset}; a reader would not see it")
