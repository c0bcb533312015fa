"""Colours of activations and labels."""

from __future__ import annotations

import hashlib

import numpy as np

from amn_dist.report.pictures import heat
from amn_dist.report.turbo import TURBO, turbo


def test_turbo_has_the_published_values() -> None:
    """The digest is of matplotlib 3.11's colormaps["turbo"] at its 256 levels, in hundred-thousandths."""
    assert TURBO.shape == (256, 3)
    assert TURBO[128].tolist() == [0.64362, 0.98999, 0.23356]
    levels = (TURBO * 100_000).round().astype("<i4")
    assert (
        hashlib.sha256(levels.tobytes()).hexdigest()
        == "e801abfd52b229e017ed30c08ebccb17eae37548e84db80818fa466beb06cc8a"
    )


def test_values_take_the_level_they_lie_in() -> None:
    values = np.array([0, 1 / 256 - 1e-5, 1 / 256, 0.5, 0.9995, 1])
    for dtype in (np.float16, np.float32, np.float64):
        assert np.array_equal(turbo(values.astype(dtype)), TURBO[[0, 0, 1, 128, 255, 255]])
    assert np.array_equal(turbo(np.array([[np.nan]])), [[[0, 0, 0]]])


def test_the_strongest_activation_is_shown_over_the_photo() -> None:
    photo = np.full((1, 2, 3), 100, np.uint8)
    found = heat(photo, np.array([[[0.0, 2.0]], [[-1.0, 0.5]]], np.float32))
    assert found.tolist() == [[[66, 47, 73], [114, 38, 37]]]
    assert np.array_equal(heat(photo, np.zeros((0, 1, 2), np.float32))[:, 0], found[:, 0])
