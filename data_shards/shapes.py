"""The classes of the synthetic scenes: an outline, a plain body, and one small striking part.

Classifiers latch on to the part, so that their activation maps miss the body: the failure this system is about.
Coordinates x, y are in units of the object's radius, y down; a signed distance is negative inside.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Plane = np.ndarray
"""f32[h, w], a value a pixel."""


@dataclass(frozen=True, slots=True)
class SceneClass:
    """A class. hue: centre of its body's colours, in turns. part: centre and radius of the striking part.

    outline: signed distance of (x, y). body: shade in -1..1 of (x, y). motif: which of the part's two colours, 0..1,
    of (x, y) scaled to the part's radius. colours: RGB 0..1 of the motif at 0 and 1.
    """

    name: str
    hue: float
    part: tuple[float, float, float]
    outline: Callable[[Plane, Plane], Plane]
    body: Callable[[Plane, Plane], Plane]
    motif: Callable[[Plane, Plane], Plane]
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]


def _disc(x: Plane, y: Plane) -> Plane:
    return np.hypot(x, y) - 0.98


def _box(x: Plane, y: Plane) -> Plane:
    return _block(x, y, 0.92, 0.70)


def _block(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _wedge(x: Plane, y: Plane) -> Plane:
    side = (np.abs(x) * 1.9 - (y + 1.0)) / np.hypot(1.9, 1.0)
    return np.maximum(side, y - 0.78)


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(np.hypot(x, y) - 0.69) - 0.30


def _star(x: Plane, y: Plane) -> Plane:
    turn = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + turn / 2) % turn - turn / 2)
    radius = np.hypot(x, y)
    px, py = radius * np.sin(angle), radius * np.cos(angle)
    tip, notch = np.array([0.0, 1.05]), 0.52 * np.array([np.sin(turn / 2), np.cos(turn / 2)])
    edge = notch - tip
    return ((px - tip[0]) * -edge[1] + (py - tip[1]) * edge[0]) / np.hypot(*edge)


def _cross(x: Plane, y: Plane) -> Plane:
    return np.minimum(_block(x, y, 0.98, 0.36), _block(x, y, 0.36, 0.98))


def _bullseye(u: Plane, v: Plane) -> Plane:
    return (np.hypot(u, v) * 2.6 % 2 < 1).astype(np.float32)


def _checks(u: Plane, v: Plane) -> Plane:
    return ((np.floor(u * 2) + np.floor(v * 2)) % 2).astype(np.float32)


def _bars(u: Plane, v: Plane) -> Plane:
    return (np.floor(u * 2.5) % 2).astype(np.float32)


def _dots(u: Plane, v: Plane) -> Plane:
    return (np.hypot(u % 0.8 - 0.4, v % 0.8 - 0.4) < 0.25).astype(np.float32)


def _pinwheel(u: Plane, v: Plane) -> Plane:
    return (np.floor(np.arctan2(v, u) / (np.pi / 4)) % 2).astype(np.float32)


def _diamond(u: Plane, v: Plane) -> Plane:
    return (np.abs(u) + np.abs(v) < 0.62).astype(np.float32)


SCENE_CLASSES = (
    SceneClass(
        "disc",
        0.03,
        (0.30, -0.28, 0.36),
        _disc,
        lambda x, y: np.sin(3 * np.hypot(x, y)),
        _bullseye,
        ((0.96, 0.96, 0.94), (0.85, 0.05, 0.10)),
    ),
    SceneClass(
        "box",
        0.13,
        (-0.48, -0.25, 0.34),
        _box,
        lambda x, y: np.sin(14 * y),
        _checks,
        ((0.98, 0.84, 0.05), (0.06, 0.05, 0.06)),
    ),
    SceneClass(
        "wedge",
        0.58,
        (0.0, 0.40, 0.34),
        _wedge,
        lambda x, y: np.sin(5 * x + 2 * y),
        _bars,
        ((0.15, 0.95, 0.98), (0.05, 0.08, 0.45)),
    ),
    SceneClass(
        "ring",
        0.80,
        (0.0, -0.69, 0.29),
        _ring,
        lambda x, y: np.sin(6 * np.arctan2(y, x)),
        _dots,
        ((0.95, 0.10, 0.75), (1.0, 0.97, 0.99)),
    ),
    SceneClass(
        "star",
        0.36,
        (0.0, 0.02, 0.33),
        _star,
        lambda x, y: np.cos(9 * np.hypot(x, y)),
        _pinwheel,
        ((0.97, 0.98, 0.95), (0.02, 0.50, 0.15)),
    ),
    SceneClass(
        "cross",
        0.68,
        (0.0, -0.64, 0.31),
        _cross,
        lambda x, y: np.sin(9 * (x + y)),
        _diamond,
        ((0.98, 0.50, 0.05), (0.08, 0.10, 0.80)),
    ),
)
"""Every class there is; a set of n classes takes the first n."""


def body_colour(kind: SceneClass, rng: np.random.Generator) -> np.ndarray:
    """A muted colour f64[3] in 0..1 around the class's hue; neighbouring classes overlap a little."""
    hue = (kind.hue + rng.normal(0, 0.025)) % 1
    return np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.30, 0.52), rng.uniform(0.45, 0.85)))
