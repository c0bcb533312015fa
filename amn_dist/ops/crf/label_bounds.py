"""Labels too weak to matter to a mean field (amn 6), found before it runs.

Let Q_l be the softmax of the unaries and e_l its maximum over the pixels; W the largest message that marginals of one
everywhere would send. Kernels and weights are not negative, so messages are not, and they only enlarge the softmax's
denominator: in every iteration Q_l <= e_l exp(message) and message <= W max Q_l. Hence e_l <- e_l(0) exp(W e_l),
iterated as often as the mean field is, bounds Q_l throughout.

Without its message, label l lacks at most a share e_l(0) (exp(W e_l) - 1) of a denominator, and nothing else: with
Potts weights no other label receives anything from it. Labels are left out while their shares add up to TOLERANCE at
most, which is less than adding up the denominator in float32 costs. A looser tolerance has no sound bound: where pixels
are undecided one iteration may enlarge a difference W / 2 times, ten of them a millionfold - rounding as well.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from amn_dist.ops.crf.simd import LANES_8, add, divide, exponential, fill, load, maximum, multiply, store, subtract

TOLERANCE = 2.0**-23
"""Share of a softmax denominator that all messages left out may make up."""
STRIP = len(LANES_8)


def negligible_labels(unary: np.ndarray, labels: int, reach: float, iterations: int) -> np.ndarray:
    """Labels whose messages may be left out, i64 ascending; unary f32[P / 8, labels, 8], reach: W above."""
    strongest = np.zeros(labels, np.float32)
    _strongest(unary, strongest, LANES_8)
    return weak_labels(strongest, reach, iterations)


def weak_labels(strongest: np.ndarray, reach: float, iterations: int) -> np.ndarray:
    """negligible_labels of labels whose largest probabilities are f32[labels]."""
    weak = np.flatnonzero(strongest * reach < 1)
    start = strongest[weak].astype(np.float64)
    bound = start
    for _ in range(iterations):
        bound = np.minimum(start * np.exp(reach * bound), 1)
    shares = start * np.expm1(reach * bound)
    ascending = np.argsort(shares, kind="stable")
    return np.sort(weak[ascending[np.cumsum(shares[ascending]) <= TOLERANCE]])


@njit(cache=True, nogil=True, error_model="numpy")
def _strongest(unary, strongest, lanes):  # type: ignore[no-untyped-def]
    """Raise f32[labels] to every label's largest probability."""
    labels = len(strongest)
    scratch, highest = np.empty(labels * STRIP, np.float32), np.zeros(labels * STRIP, np.float32)
    zero = fill(np.float32(0), lanes)
    for start in range(0, len(unary), labels * STRIP):
        logit = fill(np.float32(-np.inf), lanes)
        for label in range(labels):
            logit = maximum(logit, subtract(zero, load(unary, start + label * STRIP, lanes)))
        total = zero
        for label in range(labels):
            energy = load(unary, start + label * STRIP, lanes)
            e = exponential(subtract(subtract(zero, energy), logit), lanes)
            store(scratch, label * STRIP, e)
            total = add(total, e)
        inverse = divide(fill(np.float32(1), lanes), total)
        for label in range(labels):
            q = multiply(inverse, load(scratch, label * STRIP, lanes))
            store(highest, label * STRIP, maximum(q, load(highest, label * STRIP, lanes)))
    for label in range(labels):
        for i in range(STRIP):
            strongest[label] = max(strongest[label], highest[label * STRIP + i])


@njit(cache=True, nogil=True, error_model="numpy")
def pool_dropped(unary, labels, strong, dropped, pooled, lanes):  # type: ignore[no-untyped-def]
    """Keep strong labels' unaries and pool the dropped ones' to a last: pooled f32[P / 8, strong + 1, 8]."""
    count = len(strong) + 1
    for strip in range(len(unary) // (labels * STRIP)):
        start, target = strip * labels * STRIP, strip * count * STRIP
        for k in range(len(strong)):
            store(pooled, target + k * STRIP, load(unary, start + strong[k] * STRIP, lanes))
        zero = fill(np.float32(0), lanes)
        highest, total = fill(np.float32(-np.inf), lanes), zero
        for k in range(len(dropped)):
            highest = maximum(highest, subtract(zero, load(unary, start + dropped[k] * STRIP, lanes)))
        for k in range(len(dropped)):
            logit = subtract(zero, load(unary, start + dropped[k] * STRIP, lanes))
            total = add(total, exponential(subtract(logit, highest), lanes))
        rest = target + (count - 1) * STRIP
        store(pooled, rest, total)
        for i in range(STRIP):
            pooled[rest + i] = -np.float32(math.log(pooled[rest + i]))
        store(pooled, rest, subtract(load(pooled, rest, lanes), highest))


@njit(cache=True, nogil=True, error_model="numpy")
def divide_pooled(unary, labels, order, dropped, pooled, strong_count, result, lanes):  # type: ignore[no-untyped-def]
    """Divide the pooled marginal, row `labels` of result f32[labels + 1, N], among the dropped labels."""
    scratch = np.empty(STRIP, np.float32)
    for strip in range(len(unary) // (labels * STRIP)):
        energy = load(pooled, (strip * (strong_count + 1) + strong_count) * STRIP, lanes)
        for k in range(len(dropped)):
            own = load(unary, (strip * labels + dropped[k]) * STRIP, lanes)
            store(scratch, 0, exponential(subtract(energy, own), lanes))
            for i in range(min(STRIP, result.shape[1] - strip * STRIP)):
                pixel = order[strip * STRIP + i]
                result[dropped[k], pixel] = scratch[i] * result[labels, pixel]
