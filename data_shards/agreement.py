"""Whether the tags of images and the ids in their masks mean the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amn_dist.errors import listed, printable
from amn_dist.records import IGNORE
from data_shards.census import Census

SHOWN = 8
"""Classes and ids a message names."""
WAY_OUT = (
    "mend tags or masks, or pack with --trust-masks (tags are made of the masks) or --trust-tags (both as they are)"
)


def contradiction(census: Census, classes: Sequence[str]) -> str | None:
    """Why tags and masks cannot mean the same classes, in words; None where they can.

    They cannot where no image of a class has its id in the mask, and where every class fits another id exactly.
    """
    if not census.masks:
        return None
    absent = [number for number in _tagged(census) if not census.held[number, number]]
    order = other_order(census)
    if not absent and order is None:
        return None
    parts = [_no_mask_holds(census, classes, absent), _explanation(census, classes, absent, order)]
    return "; ".join(filter(None, parts))


def doubts(census: Census, classes: Sequence[str]) -> list[str]:
    """What is to be said of single images whose tags and masks differ."""
    said = []
    numbers = np.arange(len(classes))
    both, tagged, held = census.held[numbers, numbers], census.tagged, census.held[0]
    if census.lacking:
        counts = {number: f"{tagged[number] - both[number]} of {tagged[number]}" for number in numbers[1:]}
        fewer = [number for number in numbers[1:] if tagged[number] > both[number]]
        said.append(
            f"{census.lacking} of {census.masks} images have tags whose ids their masks do not hold "
            f"({_each(fewer, counts, classes)})"
        )
    if census.untagged:
        counts = {number: f"{held[number] - both[number]} of {held[number]}" for number in numbers[1:]}
        more = [number for number in numbers[1:] if held[number] > both[number]]
        said.append(
            f"{census.untagged} of {census.masks} images have classes in their masks that are no tags "
            f"({_each(more, counts, classes)})"
        )
    if said:
        said[-1] += f"; such as {listed((printable(name) for _, _, name in census.examples), 400)}"
    return said


def other_order(census: Census) -> dict[int, int] | None:
    """The id that every tagged class has in the masks, where the ids of the class list do not fit and others do.

    An id fits a class when exactly the masks of its images hold it.
    """
    fits = {
        number: [
            held
            for held in range(1, IGNORE)
            if census.held[number, held] == census.held[0, held] == census.tagged[number]
        ]
        for number in _tagged(census)
    }
    order: dict[int, int] = {}
    # Classes with the fewest choices first, their own id before others.
    for number, ids in sorted(fits.items(), key=lambda item: len(item[1])):
        free = [held for held in ids if held not in order.values()]
        if not free:
            return None
        order[number] = number if number in free else free[0]
    return None if all(number == held for number, held in order.items()) else dict(sorted(order.items()))


def _tagged(census: Census) -> list[int]:
    return [int(number) for number in np.flatnonzero(census.tagged) if number]


def _no_mask_holds(census: Census, classes: Sequence[str], absent: list[int]) -> str:
    if not absent:
        return ""
    first = absent[0]
    count = census.tagged[first]
    said = f"{count} of {count} images are tagged {printable(classes[first], 60)}, no mask holds id {first}"
    if len(absent) > 1:
        others = ", ".join(f"{printable(classes[number], 60)} ({number})" for number in absent[1:SHOWN])
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        said += f"; nor are the ids of {others}{more} in any mask of their images"
    return said


def _explanation(census: Census, classes: Sequence[str], absent: list[int], order: dict[int, int] | None) -> str:
    ids = [int(number) for number in np.flatnonzero(census.held[0])]
    held = f"masks hold {_numbers(ids)}"
    if set(ids) <= {0, IGNORE}:
        return f"{held} only; write the ids of the classes ({IGNORE} is void, and no class)"
    tagged = _tagged(census)
    for off, words in ((1, "above"), (-1, "below")):
        moved = all(census.held[number, number + off] == census.tagged[number] for number in tagged)
        if absent and moved and max(tagged) + off > 0:
            return f"{held}; every class has the id one {words} its place in the class list: ids are off by one"
    if order is not None:
        ordered = sorted((there, printable(classes[number], 60)) for number, there in order.items())
        fit = ", ".join(f"id {there} is {name}" for there, name in ordered[: 2 * SHOWN])
        return f"{held} and fit another order of the classes exactly: {fit}; list them so (classes.txt, --classes FILE)"
    return held


def _numbers(ids: list[int]) -> str:
    shown = [str(number) for number in ids[: 2 * SHOWN]]
    if len(ids) > 2 * SHOWN:
        return f"{', '.join(shown)} and {len(ids) - 2 * SHOWN} more ids"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _each(numbers: Sequence[int], counts: dict[int, str], classes: Sequence[str]) -> str:
    shown = [f"{printable(classes[number], 60)} {counts[number]}" for number in numbers[:SHOWN]]
    return ", ".join([*shown, f"and {len(numbers) - SHOWN} more classes"] if len(numbers) > SHOWN else shown)
