"""Pictures of a sample on its way: photo, truth, maps, seeds, masks side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from amn_dist.records import IGNORE

GAP, TITLE = 6, 22
IGNORE_COLOUR = (224, 224, 192)
"""VOC's own colour for undecided pixels."""


def palette(entries: int = 256) -> np.ndarray:
    """The VOC colour map, uint8[entries, 3]: the bits of the id spread over red, green and blue."""
    ids = np.arange(entries)
    colours = np.zeros((entries, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> channel) & 1) << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    colours[IGNORE % entries] = IGNORE_COLOUR
    return colours


def palette_png(labels: np.ndarray) -> bytes:
    """Labels uint8[H, W] as a PNG of ids under the VOC colour map."""
    picture = Image.fromarray(labels)
    picture.putpalette(palette().tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def overlay(image: np.ndarray, labels: np.ndarray, *, strength: float = 0.6) -> np.ndarray:
    """Labels uint8[H, W] over a photo uint8[H, W, 3]: classes tinted and outlined, background darkened a little."""
    colours = palette()[labels].astype(np.float32)
    weight = np.where(labels == 0, 0.35, strength)[..., None]
    shown = image.astype(np.float32) * (1 - weight) + colours * weight
    shown[outline(labels)] = 255
    return shown.round().clip(0, 255).astype(np.uint8)


def outline(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, bool[H, W]."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def heat(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """The strongest activation f[K, H, W] in [0, 1] of each pixel as colour over a photo uint8[H, W, 3]."""
    strongest = activation.max(0) if len(activation) else np.zeros(image.shape[:2])
    colours = matplotlib.colormaps["turbo"](strongest.clip(0, 1))[..., :3] * 255
    return (image * 0.35 + colours * 0.65).round().clip(0, 255).astype(np.uint8)


def sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]], *, height: int = 160) -> Image.Image:
    """A contact sheet: one row an image, one titled picture a column, all scaled to one height in pixels."""
    font = ImageFont.load_default(size=13)
    lines = [[(title, scaled(picture, height)) for title, picture in row] for row in rows]
    columns = max(len(line) for line in lines)
    widths = [max((line[c][1].width for line in lines if c < len(line)), default=0) for c in range(columns)]
    canvas = Image.new("RGB", (sum(widths) + GAP * (columns + 1), (height + TITLE + GAP) * len(lines) + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for r, line in enumerate(lines):
        top = GAP + r * (height + TITLE + GAP)
        for c, (title, picture) in enumerate(line):
            left = GAP + sum(widths[:c]) + GAP * c
            draw.text((left, top + 3), clipped(title, font, picture.width), fill="black", font=font)
            canvas.paste(picture, (left, top + TITLE))
    return canvas


def clipped(title: str, font: Any, width: int) -> str:
    """As much of a title as `width` pixels show."""
    while title and font.getlength(title) > width:
        title = title[:-1]
    return title


def scaled(picture: np.ndarray, height: int) -> Image.Image:
    """A picture uint8[H, W, 3] at the given height."""
    image = Image.fromarray(picture)
    return image.resize((max(round(image.width * height / image.height), 1), height), Image.Resampling.BILINEAR)
