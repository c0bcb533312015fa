"""Backgrounds of the synthetic scenes: textured, varied, and silent about what stands before them."""

from __future__ import annotations

import colorsys

import numpy as np


def backdrop(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A background f32[H, W, 3] in 0..1: one texture, or two that meet at a slanted horizon, with clutter."""
    picture = _texture(height, width, rng)
    if rng.random() < 0.45:
        y, x = np.mgrid[:height, :width]
        line = height * rng.uniform(0.3, 0.7) + (x - width / 2) * rng.normal(0, 0.15)
        share = np.clip(y - line, 0, 1)[..., None]
        picture = picture * (1 - share) + _texture(height, width, rng) * share
    for _ in range(int(rng.integers(2, 7))):
        _clutter(picture, rng)
    return picture.astype(np.float32)


def smooth_noise(height: int, width: int, cell: float, rng: np.random.Generator) -> np.ndarray:
    """Value noise f64[H, W] in -1..1 with blobs about `cell` pixels wide."""
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    grid = rng.uniform(-1, 1, (rows, columns))
    y, x = (np.arange(height) + rng.random() * cell) / cell, (np.arange(width) + rng.random() * cell) / cell
    along = _blend(grid, x, axis=1)
    return _blend(along, y, axis=0)


def _blend(grid: np.ndarray, at: np.ndarray, *, axis: int) -> np.ndarray:
    low = at.astype(int)
    share = at - low
    share = share * share * (3 - 2 * share)
    share = share if axis == 1 else share[:, None]
    return np.take(grid, low, axis) * (1 - share) + np.take(grid, low + 1, axis) * share


def _texture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    dark, light = _pair(rng)
    kind = rng.integers(5)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    if kind == 0:
        shade = sum(smooth_noise(height, width, cell, rng) * cell for cell in (32, 12, 5)) / 35
    elif kind == 1:
        angle, period = rng.uniform(0, np.pi), rng.uniform(7, 22)
        wave = x * np.cos(angle) + y * np.sin(angle) + 4 * smooth_noise(height, width, 30, rng)
        shade = np.sin(2 * np.pi * wave / period)
    elif kind == 2:
        brick_h, brick_w = rng.uniform(8, 16), rng.uniform(16, 34)
        row = np.floor(y / brick_h)
        edge = np.minimum(y % brick_h, (x + row % 2 * brick_w / 2) % brick_w)
        shade = np.where(edge < 1.5, -1.0, 0.4 + 0.4 * smooth_noise(height, width, 9, rng))
    elif kind == 3:
        shade = _cells(x, y, rng)
    else:
        shade = 2 * (x / width * rng.uniform(-1, 1) + y / height * rng.uniform(-1, 1))
        shade = shade + 0.35 * smooth_noise(height, width, 3, rng)
    share = np.clip(0.5 + 0.5 * shade, 0, 1)[..., None]
    return dark * (1 - share) + light * share


def _cells(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(14, 40))
    px, py = rng.uniform(0, x.shape[1], count), rng.uniform(0, x.shape[0], count)
    distance = (x[..., None] - px) ** 2 + (y[..., None] - py) ** 2
    return rng.uniform(-1, 1, count)[distance.argmin(-1)]


def _pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    hue, value = rng.random(), rng.uniform(0.25, 0.75)
    step = rng.uniform(0.10, 0.25)
    near = (hue + rng.normal(0, 0.08)) % 1
    dark = colorsys.hsv_to_rgb(hue, rng.uniform(0.03, 0.30), value)
    light = colorsys.hsv_to_rgb(near, rng.uniform(0.03, 0.30), min(value + step, 1.0))
    return np.array(dark), np.array(light)


def _clutter(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a streak or a pebble of any colour, thinner and smaller than any object."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    cy, cx, angle = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, np.pi)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    length, thick = (rng.uniform(10, 40), rng.uniform(0.6, 1.4)) if rng.random() < 0.6 else rng.uniform(1.5, 4.5, 2)
    alpha = np.clip(1.0 - (np.hypot(along / length, across / thick) - 1) * thick, 0, 1)[..., None]
    colour = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.9)))
    picture += alpha * rng.uniform(0.5, 0.9) * (colour - picture)
