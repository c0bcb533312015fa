"""Compiled passes of the mean field: gather messages, take the softmax, scatter marginals, blur (amn 6).

One pass over the pixels gathers what the last iteration left on the lattices, forms the marginals and scatters them to
the lattices of the next; they reach memory only in the last pass. Values are f32[blocks, points, row] with 4, 8 or 16
channels in a row, as small as a block may be to stay cached while it is blurred along all axes.

In a strip (the pixels that fill a register) arithmetic per label runs over pixels, and over channels elsewhere;
`transpose` goes between. Of every group's labels the last has no channel: marginals sum to one, so its message is the
filtered ones less the others' (implied), or it has none (not implied).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from amn_dist.ops.crf.permutohedral import PREFETCH_AHEAD, STRIP
from amn_dist.ops.crf.simd import (
    add,
    at,
    divide,
    exponential,
    fill,
    load,
    maximum,
    multiply,
    multiply_add,
    prefetch,
    store,
    subtract,
    transpose,
)

BILATERAL, GAUSSIAN = 6, 3
"""Vertices of a simplex over positions and colours, and over positions."""


class Field(NamedTuple):
    """What all passes share; a tuple because compiled code reads it."""

    unary: np.ndarray
    """f32[P / strip, groups, labels, strip], in tile order."""
    order: np.ndarray
    """Pixel of every position, i32[P]."""
    names: np.ndarray
    """Row of the result that each of the groups' labels goes to, i64[groups labels]."""
    ones: np.ndarray
    """Messages that marginals of one everywhere would send, f32[P]; zeros where the last label gets none."""
    factors: np.ndarray
    """Weight times gain of the bilateral and the Gaussian kernel, f32[2]."""
    groups: int
    labels: int
    implied: bool


@njit(cache=True, nogil=True, error_model="numpy")
def blur(values, size, chains, begins, row):  # type: ignore[no-untyped-def]
    """Blur values f32[blocks, size] in place along all axes; a point keeps its value until its successor has it."""
    width = len(row)
    for base in range(0, len(values), size):
        for axis in range(len(begins) - 1):
            entry = np.int64(at(chains, begins[axis]))
            address = base + (entry >> 1) * width
            here = load(values, address, row)
            before = coupling = fill(np.float32(0), row)
            for k in range(begins[axis] + 1, begins[axis + 1]):
                following = np.int64(at(chains, k))
                prefetch(values, base + (np.int64(at(chains, k + PREFETCH_AHEAD)) >> 1) * width)
                ahead = base + (following >> 1) * width
                after = load(values, ahead, row)
                link = fill(np.float32(0.5) * np.float32(entry & 1), row)
                store(values, address, multiply_add(link, after, multiply_add(coupling, before, here)))
                before, here, coupling, entry, address = here, after, link, following, ahead


@njit(nogil=True, error_model="numpy")
def _gather(p, pixels, blocks, field, bilateral, gaussian, values_b, values_g, messages, row):  # type: ignore[no-untyped-def]
    """Messages f32[strip, blocks, row] that the lattices' values_b and values_g hold for pixels from p on."""
    width = len(row)
    factor_b, factor_g = fill(field.factors[0], row), fill(field.factors[1], row)
    # Long rows miss the cache: the next strip's are asked for.
    ahead = STRIP if width == 16 and p + 2 * STRIP <= len(field.order) else 0
    for i in range(pixels):
        b, g = (p + i) * BILATERAL, (p + i) * GAUSSIAN
        for block in range(blocks):
            base_b, base_g = block * bilateral.points, block * gaussian.points
            if ahead:
                for j in range(BILATERAL):
                    prefetch(values_b, (base_b + np.int64(at(bilateral.offsets, b + ahead * BILATERAL + j))) * width)
                for j in range(GAUSSIAN):
                    prefetch(values_g, (base_g + np.int64(at(gaussian.offsets, g + ahead * GAUSSIAN + j))) * width)
            sum_b = sum_g = fill(np.float32(0), row)
            for j in range(BILATERAL):
                vector = load(values_b, (base_b + np.int64(at(bilateral.offsets, b + j))) * width, row)
                sum_b = multiply_add(fill(at(bilateral.weights, b + j), row), vector, sum_b)
            for j in range(GAUSSIAN):
                vector = load(values_g, (base_g + np.int64(at(gaussian.offsets, g + j))) * width, row)
                sum_g = multiply_add(fill(at(gaussian.weights, g + j), row), vector, sum_g)
            message = multiply_add(factor_b, sum_b, multiply(factor_g, sum_g))
            store(messages, (i * blocks + block) * width, message)


@njit(nogil=True, error_model="numpy")
def _scatter(p, pixels, blocks, field, bilateral, gaussian, values_b, values_g, rows, row):  # type: ignore[no-untyped-def]
    """Add marginals f32[strip, blocks, row] of pixels from p on to the lattices' values."""
    width = len(row)
    ahead = STRIP if width == 16 and p + 2 * STRIP <= len(field.order) else 0
    for i in range(pixels):
        b, g = (p + i) * BILATERAL, (p + i) * GAUSSIAN
        for block in range(blocks):
            base_b, base_g = block * bilateral.points, block * gaussian.points
            if ahead:
                for j in range(BILATERAL):
                    prefetch(values_b, (base_b + np.int64(at(bilateral.offsets, b + ahead * BILATERAL + j))) * width)
                for j in range(GAUSSIAN):
                    prefetch(values_g, (base_g + np.int64(at(gaussian.offsets, g + ahead * GAUSSIAN + j))) * width)
            q = load(rows, (i * blocks + block) * width, row)
            for j in range(BILATERAL):
                address = (base_b + np.int64(at(bilateral.offsets, b + j))) * width
                weight = fill(at(bilateral.weights, b + j), row)
                store(values_b, address, multiply_add(weight, q, load(values_b, address, row)))
            for j in range(GAUSSIAN):
                address = (base_g + np.int64(at(gaussian.offsets, g + j))) * width
                weight = fill(at(gaussian.weights, g + j), row)
                store(values_g, address, multiply_add(weight, q, load(values_g, address, row)))


@njit(nogil=True, error_model="numpy")
def _clear(values, p, blocks, lattice, row):  # type: ignore[no-untyped-def]
    """Zero the points that the strip from p on is the first to touch: they are numbered in that order."""
    start = np.int64(lattice.frontier[p // STRIP - 1]) if p else 0
    for block in range(blocks):
        for point in range(block * lattice.points + start, block * lattice.points + lattice.frontier[p // STRIP]):
            store(values, point * len(row), fill(np.float32(0), row))


@njit(nogil=True, error_model="numpy")
def _softmax(p, field, planes, marginals, first, strip):  # type: ignore[no-untyped-def]
    """Marginals f32[groups, labels, strip] from messages f32[channels, strip]; they replace the messages."""
    pixels, labels = len(strip), field.labels
    for group in range(field.groups):
        channel, label_0 = group * (labels - 1) * pixels, group * labels * pixels
        left, highest = load(field.ones, p, strip), fill(np.float32(-np.inf), strip)
        for label in range(labels):
            message = fill(np.float32(0), strip)
            if label < labels - 1 and not first:
                message = load(planes, channel + label * pixels, strip)
                left = subtract(left, message)
            elif field.implied and not first:
                message = left
            energy = load(field.unary, p * field.groups * labels + label_0 + label * pixels, strip)
            logit = subtract(message, energy)
            highest = maximum(highest, logit)
            store(marginals, label_0 + label * pixels, logit)
        total = fill(np.float32(0), strip)
        for label in range(labels):
            e = exponential(subtract(load(marginals, label_0 + label * pixels, strip), highest), strip)
            total = add(total, e)
            store(marginals, label_0 + label * pixels, e)
        inverse = divide(fill(np.float32(1), strip), total)
        for label in range(labels):
            q = multiply(inverse, load(marginals, label_0 + label * pixels, strip))
            store(marginals, label_0 + label * pixels, q)
            if label < labels - 1:
                store(planes, channel + label * pixels, q)


@njit(cache=True, nogil=True, error_model="numpy")
def iterate(field, bilateral, gaussian, read, write, result, first, last, row, strip):  # type: ignore[no-untyped-def]
    """One pass: messages from the values in `read`, unless first, to marginals in `write`, or in `result` if last.

    read, write: bilateral and Gaussian values f32[blocks, points, row]. result: f32[rows, pixels].
    """
    width, pixels = len(row), len(strip)
    blocks = (field.groups * (field.labels - 1) + width - 1) // width
    rows, planes = np.zeros(pixels * blocks * width, np.float32), np.zeros(pixels * blocks * width, np.float32)
    marginals = np.empty(field.groups * field.labels * pixels, np.float32)
    for p in range(0, len(field.order), pixels):
        if not first:
            _gather(p, pixels, blocks, field, bilateral, gaussian, read[0], read[1], rows, row)
            for channel in range(0, blocks * width, pixels):
                transpose(rows, channel, blocks * width, planes, channel * pixels, pixels, strip)
        _softmax(p, field, planes, marginals, first, strip)
        if last:
            for i in range(min(pixels, result.shape[1] - p)):
                for label in range(len(field.names)):
                    result[field.names[label], field.order[p + i]] = marginals[label * pixels + i]
            continue
        for channel in range(0, blocks * width, pixels):
            transpose(planes, channel * pixels, pixels, rows, channel, blocks * width, strip)
        if p % STRIP == 0:
            _clear(write[0], p, blocks, bilateral, row)
            _clear(write[1], p, blocks, gaussian, row)
        _scatter(p, pixels, blocks, field, bilateral, gaussian, write[0], write[1], rows, row)


@njit(cache=True, nogil=True, error_model="numpy")
def arrange(planes, order, arranged, pixels):  # type: ignore[no-untyped-def]
    """Bring f32[labels, N] into strips: arranged[P / pixels, labels, pixels]."""
    for strip in range(len(order) // pixels):
        for label in range(len(planes)):
            for i in range(pixels):
                value = planes[label, order[strip * pixels + i]]
                arranged[(strip * len(planes) + label) * pixels + i] = value
