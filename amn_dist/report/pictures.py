"""Labels and activations in colours: palette, overlay, heat."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from amn_dist.report.turbo import turbo
from amn_dist.shards.palette import palette


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
    tinted = image.astype(np.float32) * (1 - weight) + colours * weight
    tinted[outline(labels)] = 255
    return tinted.round().clip(0, 255).astype(np.uint8)


def outline(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, bool[H, W]."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def heat(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """The strongest activation f[K, H, W] in [0, 1] of each pixel as colour over a photo uint8[H, W, 3]."""
    strongest = activation.max(0) if len(activation) else np.zeros(image.shape[:2])
    return (image * 0.35 + turbo(strongest.clip(0, 1)) * 255 * 0.65).round().clip(0, 255).astype(np.uint8)
