"""Synthetic scenes: one to three textured objects before a textured background, with exact masks."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_shards.backdrop import backdrop, smooth_noise
from data_shards.shapes import SCENE_CLASSES, SceneClass, body_colour

QUALITY = 92
"""Of the JPEG."""
TRIES = 12
"""Places tried for a further object before the scene does without it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and its truth. image: uint8[H, W, 3]. ids: uint8[H, W], 0 background, i + 1 for SCENE_CLASSES[i]."""

    image: np.ndarray
    ids: np.ndarray

    def jpeg(self) -> bytes:
        """The picture as a JPEG file."""
        stream = io.BytesIO()
        Image.fromarray(self.image).save(stream, "JPEG", quality=QUALITY, subsampling=0)
        return stream.getvalue()


@dataclass(frozen=True, slots=True)
class Pose:
    """Where an object stands: centre and radius in pixels, angle in radians, aspect ratio, mirrored or not."""

    y: float
    x: float
    radius: float
    angle: float
    aspect: float
    mirror: float


@dataclass(frozen=True, slots=True)
class Layer:
    """An object as drawn. colour: f32[H, W, 3]. alpha: f32[H, W]. inside, part: bool[H, W]."""

    kind: int
    colour: np.ndarray
    alpha: np.ndarray
    inside: np.ndarray
    part: np.ndarray


def draw_scene(number: int, *, seed: int, classes: int, size: tuple[int, int]) -> Scene:
    """Scene `number` of the endless sequence of a seed. size: range of both sides, pixels.

    Its first object is of class number mod classes, so that every class is as frequent as the others.
    """
    rng = np.random.default_rng([seed, number])
    height, width = (int(side) for side in rng.integers(size[0], size[1] + 1, 2))
    picture = backdrop(height, width, rng)
    wanted = 1 + int(rng.choice(3, p=(0.45, 0.35, 0.20)))
    kinds = [number % classes, *(int(kind) for kind in rng.integers(0, classes, wanted - 1))]
    layers: list[Layer] = []
    for kind in kinds:
        layer = _place(kind, picture, layers, rng)
        if layer is not None:
            layers.append(layer)
    ids = np.zeros((height, width), np.uint8)
    for layer in layers:
        picture += layer.alpha[..., None] * (layer.colour - picture)
        ids[layer.inside] = layer.kind + 1
    return Scene(_expose(picture, rng), ids)


def _place(kind: int, picture: np.ndarray, before: list[Layer], rng: np.random.Generator) -> Layer | None:
    """An object that leaves enough of those before it in sight; the first one always finds a place."""
    for _ in range(TRIES):
        layer = _draw(kind, _pose(picture.shape[0], picture.shape[1], first=not before, rng=rng), picture, rng)
        if all(_seen(older, [*before[i + 1 :], layer]) for i, older in enumerate(before)):
            return layer
    return None


def _seen(layer: Layer, above: list[Layer]) -> bool:
    """Whether at least half of an object and three quarters of its part stay in sight."""
    hidden = np.logical_or.reduce([other.inside for other in above])
    body = (layer.inside & ~hidden).sum() >= 0.5 * layer.inside.sum()
    return bool(body and (layer.part & ~hidden).sum() >= 0.75 * layer.part.sum())


def _pose(height: int, width: int, *, first: bool, rng: np.random.Generator) -> Pose:
    radius = min(height, width) * (rng.uniform(0.26, 0.44) if first else rng.uniform(0.18, 0.32))
    # Up to a sixth of the object may be cut off by the frame; never the middle, where most parts are.
    margin = 0.85 * radius
    return Pose(
        y=rng.uniform(margin, height - margin),
        x=rng.uniform(margin, width - margin),
        radius=radius,
        angle=rng.normal(0, 0.45),
        aspect=float(np.exp(rng.normal(0, 0.08))),
        mirror=float(rng.choice((-1.0, 1.0))),
    )


def _draw(number: int, pose: Pose, picture: np.ndarray, rng: np.random.Generator) -> Layer:
    kind = SCENE_CLASSES[number]
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    # Pixel centres in the object's own coordinates, and distances back in pixels.
    dy, dx = (y - pose.y) / pose.radius, (x - pose.x) / pose.radius
    u = (dx * np.cos(pose.angle) + dy * np.sin(pose.angle)) * pose.mirror / pose.aspect
    v = (dy * np.cos(pose.angle) - dx * np.sin(pose.angle)) * pose.aspect
    outline = kind.outline(u, v) * pose.radius
    px, py, reach = kind.part
    part = (np.hypot(u - px, v - py) - reach) * pose.radius
    colour = _body(kind, u, v, outline, picture, rng)
    motif = kind.motif((u - px) / reach, (v - py) / reach)[..., None]
    striking = np.array(kind.colours[0]) * (1 - motif) + np.array(kind.colours[1]) * motif
    colour += np.clip(0.5 - part, 0, 1)[..., None] * (striking - colour)
    colour *= 1 - 0.45 * np.clip(1.2 - np.abs(part), 0, 1)[..., None]
    inside = outline < 0
    return Layer(number, colour, np.clip(0.5 - outline, 0, 1), inside, inside & (part < 0))


def _body(
    kind: SceneClass, u: np.ndarray, v: np.ndarray, outline: np.ndarray, picture: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The plain rest f64[H, W, 3]: muted colour, faint texture, light from one side, a dark rim."""
    base = _stand_out(body_colour(kind, rng), picture[np.abs(outline) < 6])
    shade = 0.05 * kind.body(u, v) + 0.04 * smooth_noise(outline.shape[0], outline.shape[1], 3, rng)
    light = rng.uniform(0, 2 * np.pi)
    shade = shade + 0.10 * (u * np.cos(light) + v * np.sin(light))
    rim = 0.42 * np.clip(2.4 + outline, 0, 1.6) / 1.6
    return base * (1 + shade[..., None]) * (1 - rim[..., None])


def _stand_out(colour: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The colour, made lighter or darker when it would melt into what lies around the outline."""
    behind = around.mean(0)
    if np.abs(colour - behind).max() > 0.22:
        return colour
    return colour * (1.35 if behind.mean() < 0.5 else 0.62)


def _expose(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light, exposure and sensor noise; uint8[H, W, 3]."""
    height, width = picture.shape[:2]
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)[None, :]
    slope = rng.normal(0, 0.18, 2)
    light = rng.uniform(0.82, 1.12) * (1 + slope[0] * y + slope[1] * x)
    tint = 1 + rng.normal(0, 0.03, 3)
    noise = rng.normal(0, rng.uniform(0.005, 0.018), picture.shape)
    return np.clip((picture * light[..., None] * tint + noise) * 255 + 0.5, 0, 255).astype(np.uint8)
