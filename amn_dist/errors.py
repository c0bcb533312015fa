"""What can go wrong, said in one line: where, what was found, what was expected, what to do."""

MESSAGE = 4000
"""Characters of a whole message at most."""


def printable(value: object, limit: int = 200) -> str:
    """One line of printable characters: how any text of foreign origin is quoted in a message, a log or a table.

    Runs of white space become one space; control, format and direction marks, lone surrogates and other unprintable
    characters become escapes such as `\\x1b`. Longer than limit characters, the text keeps its beginning and its end.
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
    # A text of megabytes is cut before it is looked at character by character.
    text = " ".join(_cut(text, 4 * limit).split())
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    """The beginning and the end of a text that is too long."""
    if len(text) <= limit:
        return text
    tail = (limit - 5) // 3
    return f"{text[: limit - 5 - tail]} ... {text[-tail:]}" if tail else text[:limit]


class AmnError(Exception):
    """Base of every error a user is meant to read; its text is one line."""

    exit_code = 1


class ConfigError(AmnError):
    """An argument or a configuration that cannot be meant."""

    exit_code = 2


class ShardError(AmnError):
    """Input data or a shard set that cannot be used."""

    exit_code = 2


class StageError(AmnError):
    """A stage that could not be finished."""


class PeerLost(StageError):
    """A process of a gang is gone or does not answer; the gang can be started again from its last checkpoint."""
