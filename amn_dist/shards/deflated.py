"""What fields keep deflated: bytes of a size that the field declares, inflated without trusting it."""

from __future__ import annotations

import zlib

from amn_dist.errors import ShardError, printable


def inflated(data: bytes, size: int, *, field: str, declared: str, advice: str) -> bytes:
    """Exactly `size` bytes. Deflate shrinks at most 1032 times, so that a lie about the size allocates nothing.

    field: the ending of the field's name. declared: what the field says of itself, as messages begin. advice: what to
    do where that is not true. Raises ShardError.
    """
    if size > 1032 * len(data):
        raise ShardError(f"{declared} but holds {len(data)} bytes")
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise ShardError(f"is a damaged {field} field ({printable(error)})") from error
    if len(content) != size or not stream.eof or stream.unused_data:
        raise ShardError(f"{declared} but does not hold that; {advice}")
    return content
