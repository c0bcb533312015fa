"""Vectors in compiled code against NumPy."""

from typing import Any

import numpy as np
import pytest
from numba import njit

from amn_dist.ops.crf.simd import (
    LANES_4,
    LANES_8,
    LANES_16,
    add,
    at,
    divide,
    exponential,
    fill,
    less,
    load,
    maximum,
    multiply,
    multiply_add,
    nearest,
    store,
    subtract,
    transpose,
)


@njit
def exponentials(x: Any, out: Any, lanes: Any) -> None:
    for start in range(0, len(x), len(lanes)):
        store(out, start, exponential(load(x, start, lanes), lanes))


@njit
def arithmetic(a: Any, b: Any, out: Any, lanes: Any) -> None:
    x, y, width = load(a, 0, lanes), load(b, 0, lanes), len(lanes)
    store(out, 0, add(x, y))
    store(out, width, subtract(x, y))
    store(out, 2 * width, multiply(x, y))
    store(out, 3 * width, divide(x, y))
    store(out, 4 * width, maximum(x, y))
    store(out, 5 * width, less(x, y))
    store(out, 6 * width, nearest(x))
    store(out, 7 * width, multiply_add(x, y, fill(at(b, 1), lanes)))


@njit
def transposed(a: Any, out: Any, lanes: Any) -> None:
    transpose(a, 1, len(lanes) + 3, out, 2, len(lanes), lanes)


def test_exponentials() -> None:
    x = np.linspace(-87, 88, 1 << 16, dtype=np.float32)
    values = np.empty_like(x)
    exponentials(x, values, LANES_8)
    np.testing.assert_allclose(values, np.exp(x.astype(np.float64)), rtol=3e-7)


def test_exponentials_end_near_zero() -> None:
    x = np.array([-87.5, -1e4, -np.inf, 0], np.float32)
    values = np.empty_like(x)
    exponentials(x, values, LANES_4)
    assert (values[:3] < 2e-38).all() and (values >= 0).all() and values[3] == 1


@pytest.mark.parametrize("lanes", [LANES_4, LANES_8, LANES_16])
def test_arithmetic(lanes: tuple[int, ...]) -> None:
    a, b = np.random.default_rng(0).normal(scale=3, size=(2, len(lanes))).astype(np.float32)
    a[:3] = 0.5, 1.5, b[2]
    values = np.empty(8 * len(lanes), np.float32)
    arithmetic(a, b, values, lanes)
    exact = [a + b, a - b, a * b, a / b, np.maximum(a, b), a < b, np.rint(a)]
    assert np.array_equal(values[: -len(lanes)], np.concatenate(exact))
    np.testing.assert_allclose(values[-len(lanes) :], a * b + b[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lanes", [LANES_4, LANES_8])
def test_transpose(lanes: tuple[int, ...]) -> None:
    width = len(lanes)
    a, target = np.arange((width + 3) * width + 1, dtype=np.float32), np.zeros(width * width + 2, np.float32)
    transposed(a, target, lanes)
    assert np.array_equal(target[2:].reshape(width, width).T, a[1:].reshape(width, width + 3)[:, :width])
