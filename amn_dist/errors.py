"""What can go wrong, said in one line: where, what was found, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable

MESSAGE, PLACE = 4000, 1000
"""Characters at most of a whole message, and of a path in it."""


def printable(value: object, limit: int = 200) -> str:
    """One line of printable characters: how any text of foreign origin is quoted in a message, a log or a table.

    Runs of white space become one space; control, format and direction marks, lone surrogates and other unprintable
    characters become escapes such as `\\x1b`. Longer than limit characters, the text keeps its beginning and its end.
    Of an exception it is the text, of the system's errors without number and path, or else the type's name.
    """
    if isinstance(value, OSError) and value.strerror:
        value = value.strerror
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else _text(value, str)
    # A text of megabytes is cut before it is looked at character by character.
    text = " ".join(_cut(text.strip(), 4 * limit).split())
    if not text and isinstance(value, BaseException):
        text = type(value).__name__
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return _cut(text, limit)


def quoted(value: object, limit: int = 80) -> str:
    """A value as Python writes it, in quotes where it is a text; printable, and no longer than limit characters."""
    return printable(_text(value, repr), limit)


def listed(texts: Iterable[object], limit: int = MESSAGE - 1000) -> str:
    """Texts behind each other, each printable; those that would lead beyond limit characters are counted."""
    parts: list[str] = []
    left, more = limit, 0
    for text in texts:
        part = printable(text, limit // 2)
        left -= len(part) + 2
        if left > 0:
            parts.append(part)
        else:
            more += 1
    return "; ".join([*parts, f"and {more} more"] if more else parts)


def _text(value: object, write: Callable[[object], str]) -> str:
    try:
        return write(value)
    except Exception:  # a number of too many digits, a tree that is too deep
        return f"a {type(value).__name__}"


def _cut(text: str, limit: int) -> str:
    """The beginning and the end of a text that is too long."""
    if len(text) <= limit:
        return text
    tail = max(limit - 5, 0) // 3
    return f"{text[: limit - 5 - tail].rstrip()} ... {text[-tail:].lstrip()}" if tail else text[:limit]


class AmnError(Exception):
    """Base of every error a user is meant to read; its text is one printable line of bounded length."""

    exit_code = 1

    def __str__(self) -> str:
        # A second line of defence: what a message quotes is made printable, and bounded, where it is quoted.
        return printable(super().__str__(), MESSAGE) or type(self).__name__


class ConfigError(AmnError):
    """An argument or a configuration that cannot be meant."""

    exit_code = 2


class ConfigFaults(ConfigError):
    """Several faults of a configuration, its files or the machine, told at once: each is one argument, and one line."""

    def __str__(self) -> str:
        return listed(self.args)


class ShardError(AmnError):
    """Input data or a shard set that cannot be used."""

    exit_code = 2


class StageError(AmnError):
    """A stage that could not be finished."""


class PeerLost(StageError):
    """A process of a gang is gone or does not answer; the gang can be started again from its last checkpoint."""
