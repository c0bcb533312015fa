"""Photographs to network inputs (amn 5.2)."""

from __future__ import annotations

import numpy as np

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of RGB in 0..1."""
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet deviation of RGB in 0..1."""
CAFFE_MEAN = (104.008, 116.669, 122.675)
"""Mean of BGR in 0..255 that Caffe-style networks subtract."""

CENTRE = 127.0
"""Mean of every colour in 0..255 that ICD's network subtracts."""


def centred_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to f32[..., 3, H, W] minus CENTRE."""
    return np.ascontiguousarray(np.moveaxis(image.astype(np.float32) - CENTRE, -1, -3))


def imagenet_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to f32[..., 3, H, W], normalised in float64."""
    scaled = (image / 255.0 - MEAN) / DEVIATION
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3), np.float32)


def caffe_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to BGR f32[..., 3, H, W] minus the mean."""
    shifted = image[..., ::-1].astype(np.float32) - np.asarray(CAFFE_MEAN, np.float32)
    return np.ascontiguousarray(np.moveaxis(shifted, -1, -3))
