"""Run lengths of masks as COCO has them: down the columns, background first; as numbers, and as its text."""

from __future__ import annotations

import numpy as np
from numba import njit

from amn_dist.errors import ShardError

NOT_TEXT, CUT = -1, -2
"""What is wrong with a text, in the place of the number of its runs."""
DEEPEST = 30
"""Bits before the last group of a number: with it 35, while a picture that is decoded has fewer than 2^27 pixels."""


def unpack_lengths(text: str) -> np.ndarray:
    """Numbers int64[n] of COCO's run-length text: groups of 5 bits from the lowest, plus 48; from the fourth on less
    the one two before. Raises ShardError where it is no such text."""
    if not text.isascii():
        raise ShardError("has run lengths that are not COCO's text")
    letters = np.frombuffer(text.encode("ascii"), np.uint8)
    lengths = np.empty(len(letters), np.int64)
    count = _unpack(letters, lengths)
    if count == NOT_TEXT:
        raise ShardError("has run lengths that are not COCO's text")
    if count == CUT:
        raise ShardError("has run lengths that end inside a number")
    return lengths[:count]


def joined_lengths(lengths: np.ndarray) -> np.ndarray:
    """The same mask without runs of no pixel, but for a first one of background: int32[m]. lengths: int64[n] that are
    not negative and cover a picture."""
    joined = np.empty(max(len(lengths), 1), np.int32)
    return joined[: _join(np.asarray(lengths, np.int64), joined)]


def lengths_of(mask: np.ndarray) -> np.ndarray:
    """Run lengths int32[m] of a mask bool[H, W], as joined_lengths has them."""
    flat = np.ascontiguousarray(mask.T, bool).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return np.concatenate([[0], lengths] if flat[0] else [lengths]).astype(np.int32)


@njit(cache=True, nogil=True)
def _unpack(letters, lengths):  # type: ignore[no-untyped-def]
    """Fill lengths; returns how many there are, or what is wrong."""
    count, value, shift = 0, np.int64(0), np.int64(0)
    for letter in letters:
        group = np.int64(letter) - 48
        if group < 0 or group > 63 or shift > DEEPEST:
            return NOT_TEXT
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        value -= (group & 16) << (shift - 4)  # the sign
        lengths[count] = value + (lengths[count - 2] if count > 2 else 0)
        count += 1
        value = shift = np.int64(0)
    return CUT if shift else count


@njit(cache=True, nogil=True)
def _join(lengths, joined):  # type: ignore[no-untyped-def]
    """Fill joined; returns how many runs are left."""
    count, inside = 0, False  # inside: what the last run of joined is of
    joined[0] = 0
    for number, length in enumerate(lengths):
        if length == 0:
            continue
        if (number % 2 == 1) != inside:
            count += 1
            inside = not inside
            joined[count] = 0
        joined[count] += length
    return count + 1
