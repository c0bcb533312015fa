"""A JSON file of any length, an entry of its outermost list or object, or a line, at a time.

The file is mapped, never held: compiled code looks at brackets and texts where they lie, and who wants an entry decodes
its range. Every function raises ValueError saying at which byte what was found and expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numba import njit

from amn_dist.documents import DEEPEST
from amn_dist.errors import printable, quoted

QUOTE, BACKSLASH, OPENING, CLOSING = ord('"'), ord("\\"), (ord("["), ord("{")), (ord("]"), ord("}"))
EVENTS = 4096
"""Ranges that are found at a time."""
MOST_BYTES = 2**26
"""Of an entry."""
MOST_BETWEEN = 2**16
"""Bytes between two entries."""
SPACE = b" \t\r\n"
THINGS = "a list or an object"
"""What an entry is."""


class Piece(NamedTuple):
    """An entry. start, stop: its bytes. name: under which it stands in an object; None in a list, and of a line."""

    start: int
    stop: int
    name: str | None = None


def entries(content: Any) -> Iterator[Piece]:
    """The lists and objects that the outermost list or object of a buffer holds."""
    opening = _first(content)
    if content[opening] not in b"[{":
        raise ValueError(f"{_at(content, opening)}, expected {THINGS}")
    named, name, last, before = content[opening] == ord("{"), None, opening + 1, b""
    for start, stop in _outermost(content, opening):
        mark = content[start]
        if mark in b"]}":
            _check_end(content, opening, (last, start, stop), name)
        elif (mark == ord('"')) != (named and name is None):
            raise ValueError(f"{_at(content, start)}, expected {'a name' if named and name is None else THINGS}")
        elif mark == ord('"'):
            _check_between(content, last, start, before)
            name, before = _text(content[start:stop], start), b":"
        else:
            _check_between(content, last, start, before)
            yield _checked(Piece(start, stop, name))
            name, before = None, b","
        last = stop


def _outermost(content: Any, opening: int) -> Iterator[tuple[int, int]]:
    """Ranges of the texts, lists and objects right inside the outermost bracket, and of the one that closes it."""
    ranges, state = np.empty((EVENTS, 2), np.int64), np.array([opening, 0, opening, -1], np.int64)
    letters, depth = np.frombuffer(content, np.uint8), 1
    while depth:
        count = _scan(letters, ranges, state)
        yield from map(tuple, ranges[:count].tolist())
        at, depth, begun, text = state.tolist()
        if depth > DEEPEST:
            raise ValueError(f"byte {at}: is nested more than {DEEPEST} levels deep")
        if depth and at >= len(letters):
            inside = f"the text that begins at byte {text}" if text >= 0 else f"what begins at byte {begun}"
            raise ValueError(f"ends at byte {len(letters)}, inside of {inside}; the file is cut or damaged")


@njit(cache=True, nogil=True)
def _scan(letters, ranges, state):  # type: ignore[no-untyped-def]
    """Fill ranges, from where state says on; returns how many. state: the byte that is next, the depth it is
    in, where the last entry and the text that is open begin (-1: none)."""
    at, depth, begun, text = state
    count = 0
    while at < len(letters) and count < len(ranges) and depth <= DEEPEST:
        letter = letters[at]
        if text >= 0:
            if letter == BACKSLASH:
                at += 1
            elif letter == QUOTE:
                if depth == 1:
                    ranges[count] = text, at + 1
                    count += 1
                text = -1
        elif letter == QUOTE:
            text = at
        elif letter in OPENING:
            begun, depth = (at if depth <= 1 else begun), depth + 1
        elif letter in CLOSING:
            depth -= 1
            if depth <= 1:
                ranges[count] = (begun if depth else at), at + 1
                count += 1
            if not depth:
                break
        at += 1
    state[:] = at, depth, begun, text
    return count


def _check_end(content: Any, opening: int, span: tuple[int, int, int], name: str | None) -> None:
    """Raise ValueError unless the outermost bracket is closed by its own, behind an entry, and nothing follows."""
    last, start, stop = span
    if name is not None:
        raise ValueError(f"{_at(content, last)}, expected ':' and {THINGS}")
    if content[start] != content[opening] + 2:  # of [] and {} the second is two characters on
        raise ValueError(f"{_at(content, start)}, expected the end of what begins at byte {opening}")
    _check_between(content, last, start, b"")
    _check_between(content, stop, len(content), b"")


def lines(content: Any) -> Iterator[Piece]:
    """The lines of a buffer that are not blank."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start)
        stop = len(content) if end < 0 else end
        piece = _checked(Piece(start, stop))
        if content[start:stop].strip(SPACE):
            yield piece
        start = stop + 1


def _first(content: Any) -> int:
    """Where a buffer's first byte lies that is no white space."""
    for start in range(0, len(content), MOST_BETWEEN):
        part = content[start : start + MOST_BETWEEN].lstrip(SPACE)
        if part:
            return int(min(start + MOST_BETWEEN, len(content)) - len(part))
    raise ValueError("is empty, expected JSON")


def _checked(piece: Piece) -> Piece:
    if piece.stop - piece.start > MOST_BYTES:
        raise ValueError(f"what begins at byte {piece.start} has more than {MOST_BYTES} bytes; expected one image's")
    return piece


def _check_between(content: Any, start: int, stop: int, expected: bytes) -> None:
    """Raise ValueError unless these bytes are white space around what is expected."""
    if stop - start > MOST_BETWEEN or content[start:stop].strip(SPACE) != expected:
        wanted = quoted(expected.decode()) if expected else f"{THINGS}, or the end"
        raise ValueError(f"{_at(content, start)}, expected {wanted}")


def _text(raw: bytes, start: int) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except ValueError as error:
        raise ValueError(f"byte {start}: the name is damaged ({printable(error)})") from error


def _at(content: Any, start: int) -> str:
    return f"byte {start}: found '{printable(bytes(content[start : start + 40]), 60)}'"
