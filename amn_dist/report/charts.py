"""Line charts as numbers on a canvas, for the page to draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 10, 38
"""Pixels around the area of the curves."""
STYLES = 8
"""Colours there are; dashes tell more lines apart."""


@dataclass(frozen=True)
class Axis:
    """A range with its name. percent: ticks are shares of 1."""

    name: str
    low: float
    high: float
    percent: bool = False

    def ticks(self) -> list[float]:
        """Round values inside the range, about five."""
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def text(self, value: float) -> str:
        """A tick as text."""
        return f"{100 * value:g}" if self.percent else f"{value:.6g}"


@dataclass(frozen=True)
class Line:
    """A curve. mark: its place of note, drawn as a dot."""

    label: str
    points: Sequence[tuple[float, float]]
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """Curves over two axes. rules: vertical lines with a name."""

    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    rules: tuple[tuple[float, str], ...] = ()

    width: int = WIDTH
    height: int = HEIGHT

    def across(self, value: float) -> float:
        """Pixels from the left."""
        return round(LEFT + (value - self.x.low) / (self.x.high - self.x.low) * (WIDTH - LEFT - RIGHT), 1)

    def down(self, value: float) -> float:
        """Pixels from the top."""
        return round(HEIGHT - BOTTOM - (value - self.y.low) / (self.y.high - self.y.low) * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, line: Line) -> str:
        """The points of a line as SVG wants them."""
        return " ".join(f"{self.across(x):g},{self.down(y):g}" for x, y in line.points)

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the area of the curves."""
        return LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM


def fitted(name: str, values: Sequence[float], *, percent: bool = False, zero: bool = False) -> Axis:
    """An axis that holds the values, its ends round. zero: it starts at 0 unless a value lies below."""
    low, high = min(values), max(values)
    low = min(low, 0.0) if zero else low
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        low, high = low - 0.5, high + 0.5
    power = 10.0 ** math.floor(math.log10(high - low))
    step = power if high - low > 2 * power else power / 5
    return Axis(name, math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, percent)
