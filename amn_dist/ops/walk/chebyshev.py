"""Powers as Chebyshev sums: t^n = sum_k c_k T_k(t), c_k the chance of a fair walk of n steps to end at distance k."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

TAIL = 1e-8
"""Binomial probability that a sum may leave out."""


@cache
def chebyshev_coefficients(steps: int, tail: float = TAIL) -> np.ndarray:
    """Coefficients f64[degree + 1] of t^steps in Chebyshev polynomials, cut where at most `tail` is left out."""
    chance = [_binomial(steps, k) for k in range(steps + 1)]
    omitted, degree = 0.0, steps
    while degree > 0 and omitted + chance[degree] <= tail:
        omitted += chance[degree]
        degree -= 1
    return np.array(chance[: degree + 1])


def _binomial(steps: int, k: int) -> float:
    """Probability that a fair walk of `steps` steps ends at distance k from its start."""
    return 0.0 if (steps - k) % 2 else math.comb(steps, (steps - k) // 2) * (2 if k else 1) / 2**steps
