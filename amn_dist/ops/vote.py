"""Proposals vote: every one takes the class that most of it lies in, and sharpens labels to its outline (amn 1.7).

Nothing is held per proposal and pixel: labels are cut into stretches of one value down the columns, as run lengths
are, and a run of a proposal is counted by the stretches it meets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from amn_dist.errors import ShardError
from amn_dist.records import IGNORE


@dataclass(frozen=True)
class VoteRule:
    """When a proposal is accepted for the class that covers most of it, all as shares.

    overlap: more than this of the proposal lies in the class; or coverage: at least this of the class lies in the
    proposal. background: proposals of which more is background stay untouched. clear: a class that only proposals
    without one cover becomes background.
    """

    overlap: float = 0.5
    coverage: float = 0.85
    background: float = 0.5
    clear: bool = False


def vote_lengths(labels: np.ndarray, lengths: np.ndarray, rule: VoteRule) -> np.ndarray:
    """Labels uint8[H, W] sharpened by proposals; small ones lie over large ones, of equal ones the later.

    lengths: int32[M], run lengths of one proposal behind those of another, each H W pixels down the columns, background
    first. Pixels of no accepted proposal keep their label. Raises ShardError where lengths end inside a proposal.
    """
    starts = _proposal_starts(lengths, labels.size)
    if starts[-1] != len(lengths):
        raise ShardError(f"has run lengths that do not cover {labels.shape[1]}x{labels.shape[0]} pixels each")
    flat = np.ascontiguousarray(labels.T).ravel()
    totals, columns, classes = _present(flat)
    begins, firsts = _stretches(flat, len(labels))
    counts = _count_lengths(lengths, starts, flat, begins, firsts, columns, len(classes) + 2)
    winners = elected(counts, totals, classes, rule)
    accepted = np.flatnonzero(winners)
    order = accepted[np.argsort(-counts[accepted].sum(1), kind="stable")]
    voted = flat.copy()
    if rule.clear:
        _clear(voted, lengths, starts, np.flatnonzero(winners == 0))
    _paint(voted, lengths, starts, order, winners)
    return np.ascontiguousarray(voted.reshape(labels.shape[::-1]).T)


def vote_regions(labels: np.ndarray, regions: np.ndarray, rule: VoteRule) -> np.ndarray:
    """As vote_lengths, by the regions int[H, W] of a partition of the image, ids 0..S-1."""
    totals, columns, classes = _present(labels.ravel())
    counts = _count_regions(labels.ravel(), regions.ravel(), int(regions.max()) + 1, columns, len(classes) + 2)
    winners = elected(counts, totals, classes, rule)[regions]
    left = np.where(labels == IGNORE, labels, 0) if rule.clear else labels
    return np.where(winners > 0, winners, left).astype(np.uint8)


def elected(counts: np.ndarray, totals: np.ndarray, classes: np.ndarray, rule: VoteRule) -> np.ndarray:
    """The class uint8[N] of every proposal, 0 where it is not accepted. Of two that cover as much, the first.

    counts: int64[N, K + 2], pixels of the proposal that are background, of each class, undecided. totals: int64[K + 2],
    those of the image. classes: uint8[K].
    """
    winners = np.zeros(len(counts), np.uint8)
    if not len(classes) or not len(counts):
        return winners
    best = counts[:, 1:-1].argmax(1)
    held = counts[np.arange(len(counts)), 1 + best]
    area = np.maximum(counts.sum(1), 1)
    fits = (held / area > rule.overlap) | (held / totals[1 + best] >= rule.coverage)
    accepted = (held > 0) & fits & (counts[:, 0] / area <= rule.background)
    winners[accepted] = classes[best[accepted]]
    return winners


def _present(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of labels uint8[N]: pixels int64[K + 2] of background, each class, undecided; the column of every id uint8[256];
    the classes uint8[K]."""
    pixels = _histogram(flat)
    classes = np.flatnonzero(pixels[1:IGNORE]) + 1
    ids = np.array([0, *classes, IGNORE])
    columns = np.zeros(256, np.uint8)
    columns[ids] = np.arange(len(ids))
    return pixels[ids], columns, classes.astype(np.uint8)


@njit(cache=True, nogil=True)
def _histogram(flat):  # type: ignore[no-untyped-def]
    pixels = np.zeros(256, np.int64)
    for label in flat:
        pixels[label] += 1
    return pixels


@njit(cache=True, nogil=True)
def _proposal_starts(lengths, pixels):  # type: ignore[no-untyped-def]
    """Where the runs of each proposal begin, int64[N + 1]; the last is where whole proposals end."""
    starts, count, at = np.zeros(len(lengths) + 1, np.int64), 0, np.int64(0)
    for number, length in enumerate(lengths):
        at += length
        if length < 0 or at > pixels:
            break
        if at == pixels:
            count, at = count + 1, np.int64(0)
            starts[count] = number + 1
    return starts[: count + 1]


@njit(cache=True, nogil=True)
def _stretches(flat, height):  # type: ignore[no-untyped-def]
    """Where stretches of one label begin, int64[T + 1] with the end; and the stretch every column begins in."""
    count = 1
    for i in range(1, len(flat)):
        count += flat[i] != flat[i - 1]
    begins, columns = np.empty(count + 1, np.int64), np.empty(len(flat) // height, np.int64)
    begins[0], last = 0, 0
    for column in range(len(columns)):
        for i in range(column * height, (column + 1) * height):
            if i and flat[i] != flat[i - 1]:
                last += 1
                begins[last] = i
            if i == column * height:
                columns[column] = last
    begins[count] = len(flat)
    return begins, columns


@njit(cache=True, nogil=True)
def _count_lengths(lengths, starts, flat, begins, firsts, columns, width):  # type: ignore[no-untyped-def]
    """Pixels int64[N, width] of every proposal by the column of their label."""
    counts = np.zeros((len(starts) - 1, width), np.int64)
    height = len(flat) // len(firsts)
    for proposal in range(len(counts)):
        at, row = np.int64(0), counts[proposal]
        for number in range(starts[proposal], starts[proposal + 1]):
            stop = at + lengths[number]
            if (number - starts[proposal]) % 2 == 0:
                at = stop
                continue
            stretch = firsts[at // height]
            while begins[stretch + 1] <= at:
                stretch += 1
            while at < stop:
                end = min(begins[stretch + 1], stop)
                row[columns[flat[at]]] += end - at
                at = end
                stretch += 1
    return counts


@njit(cache=True, nogil=True)
def _count_regions(flat, regions, count, columns, width):  # type: ignore[no-untyped-def]
    counts = np.zeros((count, width), np.int64)
    for i in range(len(flat)):
        counts[regions[i], columns[flat[i]]] += 1
    return counts


@njit(cache=True, nogil=True)
def _paint(flat, lengths, starts, order, winners):  # type: ignore[no-untyped-def]
    for proposal in order:
        at, winner = np.int64(0), winners[proposal]
        for number in range(starts[proposal], starts[proposal + 1]):
            stop = at + lengths[number]
            if (number - starts[proposal]) % 2 == 1:
                flat[at:stop] = winner
            at = stop


@njit(cache=True, nogil=True)
def _clear(flat, lengths, starts, rejected):  # type: ignore[no-untyped-def]
    for proposal in rejected:
        at = np.int64(0)
        for number in range(starts[proposal], starts[proposal + 1]):
            stop = at + lengths[number]
            if (number - starts[proposal]) % 2 == 1:
                for i in range(at, stop):
                    if flat[i] != IGNORE:
                        flat[i] = 0
            at = stop
