"""The compiled mean field against the reference library, against itself, and with labels left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from scipy.special import logsumexp

from amn_dist.ops.crf.dense import dense_crf, hard_label_unary
from amn_dist.ops.crf.label_bounds import TOLERANCE, negligible_labels
from amn_dist.ops.crf.lattice import bilateral_lattice
from amn_dist.ops.crf.mean_field import mean_field

SEED: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10)}
DEEPLAB: dict[str, Any] = {"gaussian": (1, 3), "bilateral": (67, 3, 4)}


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with noise, uint8[H, W, 3]."""
    random = np.random.default_rng(seed)
    colours = random.uniform(0, 255, (height // 12 + 2, width // 12 + 2, 3))
    smooth = zoom(colours, (12, 12, 1), order=1)[:height, :width]
    return (smooth + random.normal(scale=4, size=smooth.shape)).clip(0, 255).astype(np.uint8)


def energies(labels: int, height: int, width: int, seed: int = 0, scale: float = 3) -> np.ndarray:
    """Unaries of smooth random probabilities, f32[L, H, W]."""
    noise = np.random.default_rng(seed).normal(size=(labels, height, width))
    smooth = gaussian_filter(noise, (0, 4, 4))
    logits = scale * smooth / smooth.std()
    return (logsumexp(logits, axis=0) - logits).astype(np.float32)


def both(image: np.ndarray, unary: np.ndarray, **kernels: Any) -> tuple[np.ndarray, np.ndarray]:
    return dense_crf(image, unary, backend="cpu", **kernels), dense_crf(image, unary, backend="pydensecrf", **kernels)


@pytest.mark.parametrize("kernels", [SEED, DEEPLAB], ids=["seed", "deeplab"])
@pytest.mark.parametrize("labels", [2, 3, 4, 5, 6, 9, 10, 12, 17, 21, 81])
def test_agrees_with_the_reference(labels: int, kernels: dict[str, Any]) -> None:
    image, unary = scene(50, 61), energies(labels, 50, 61)
    marginals, expected = both(image, unary, **kernels)
    np.testing.assert_allclose(marginals, expected, atol=1e-3)
    assert marginals.dtype == np.float32 and np.abs(marginals - expected).mean() < 1e-6
    assert np.mean(marginals.argmax(0) == expected.argmax(0)) >= 0.9999


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 37), (41, 1), (2, 3), (3, 5), (33, 31), (32, 64), (41, 77)])
def test_sizes(size: tuple[int, int]) -> None:
    marginals, expected = both(scene(*size), energies(3, *size), **SEED)
    np.testing.assert_allclose(marginals, expected, atol=1e-4)


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_one_colour(colour: int) -> None:
    marginals, expected = both(np.full((30, 42, 3), colour, np.uint8), energies(4, 30, 42), **SEED)
    np.testing.assert_allclose(marginals, expected, atol=1e-4)


def test_extreme_colours() -> None:
    image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (40, 44, 3))
    marginals, expected = both(image, energies(4, 40, 44), **DEEPLAB)
    np.testing.assert_allclose(marginals, expected, atol=1e-4)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    labels=st.integers(2, 12),
    position=st.floats(2, 90),
    colour=st.floats(2, 40),
    weight=st.floats(0, 10),
    iterations=st.integers(0, 10),
    seed=st.integers(0, 999),
)
@example(height=1, width=1, labels=10, position=2.0, colour=2.0, weight=1e-5, iterations=0, seed=0)
@example(height=20, width=20, labels=2, position=2.0, colour=2.0, weight=8.53125, iterations=7, seed=387)
def test_any_kernels(
    height: int, width: int, labels: int, position: float, colour: float, weight: float, iterations: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    kernels: dict[str, Any] = {"gaussian": (2.0, weight), "bilateral": (position, colour, weight)}
    unary = energies(labels, height, width, seed)
    marginals, expected = both(image, unary, **kernels, iterations=iterations)
    # Where labels are undecided, iterations enlarge the last bit of an energy; the reference shows how far.
    nudged = [
        dense_crf(image, unary * np.float32(1 + nudge), backend="pydensecrf", **kernels, iterations=iterations)
        for nudge in (-(2.0**-22), 2.0**-22)
    ]
    moved = max(np.abs(other - expected).max() for other in nudged)
    np.testing.assert_allclose(marginals, expected, atol=1e-4 + 30 * moved)


def test_photographs(shared_data: Path) -> None:
    photographs = sorted((shared_data / "msrc-voc/JPEGImages").iterdir())[:60:30]
    assert len(photographs) == 2
    for number, path in enumerate(photographs):
        image = np.asarray(Image.open(path).convert("RGB"))
        labels = energies(3, *image.shape[:2], seed=number).argmin(0)
        cases: tuple[tuple[np.ndarray, dict[str, Any]], ...] = (
            (hard_label_unary(labels, 3), SEED),
            (energies(21, *image.shape[:2], seed=number), DEEPLAB),
        )
        for unary, kernels in cases:
            marginals, expected = both(image, unary, **kernels)
            np.testing.assert_allclose(marginals, expected, atol=1e-3)
            assert np.mean(marginals.argmax(0) == expected.argmax(0)) >= 0.9999


@pytest.mark.parametrize("labels", [2, 3, 5, 9])
def test_labellings_together_are_labellings_alone(labels: int) -> None:
    image = scene(45, 52)
    unary = np.stack([hard_label_unary(energies(labels, 45, 52, seed).argmin(0), labels) for seed in range(2)])
    together = dense_crf(image, unary, backend="cpu", **SEED)
    alone = np.stack([dense_crf(image, labelling, backend="cpu", **SEED) for labelling in unary])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    assert np.array_equal(together.argmax(1), alone.argmax(1))


def test_repulsion_and_far_unaries() -> None:
    image, unary = scene(30, 33), energies(5, 30, 33, scale=200)
    marginals, expected = both(image, unary, gaussian=(3, -1), bilateral=(50, 5, 2))
    np.testing.assert_allclose(marginals, expected, atol=1e-4)


def floored(labels: int, floor: float, height: int = 40, width: int = 48) -> np.ndarray:
    """Unaries of a few labels in doubt, the others at a floor, f32[L, H, W]."""
    strong = energies(5, height, width, seed=1, scale=1)
    weak = np.full((labels - 5, height, width), -np.log(floor), np.float32)
    return np.concatenate([strong, weak])


def test_leaving_out_weak_labels_changes_nothing() -> None:
    """Adversarial: strong labels tie almost everywhere, and the flat image couples every pixel with every other."""
    for image in (scene(40, 48), np.full((40, 48, 3), 90, np.uint8)):
        unary = floored(41, 1e-5)[None]
        unary[0, :5] = np.log(5) + 1e-4 * np.random.default_rng(0).normal(size=unary[0, :5].shape)
        less = mean_field(image, unary, iterations=10, **DEEPLAB)
        full = mean_field(image, unary, iterations=10, drop=False, **DEEPLAB)
        assert not np.array_equal(less, full)
        np.testing.assert_allclose(less, full, atol=1e-4)


@pytest.mark.parametrize("strong", range(1, 9))
def test_any_number_of_labels_may_be_left(strong: int) -> None:
    """However few labels compete, the others are left out and the marginals are the reference's."""
    image = scene(27, 38)
    unary = np.concatenate([energies(strong, 27, 38), np.full((30 - strong, 27, 38), 32, np.float32)])
    strips = np.ascontiguousarray(unary.reshape(30, -1, 1).repeat(8, axis=2).transpose(1, 0, 2)).ravel()
    assert len(negligible_labels(strips, 30, 7.0, 10)) == 30 - strong
    marginals, expected = both(image, unary, **DEEPLAB)
    np.testing.assert_allclose(marginals, expected, atol=1e-4)
    full = mean_field(image, unary[None], iterations=10, drop=False, **DEEPLAB)[0]
    np.testing.assert_allclose(marginals, full, atol=2e-6)


def test_bounds_hold() -> None:
    """What is left out adds up to the tolerance at most, by the marginals that really occur."""
    unary, image = floored(40, 3e-5), scene(40, 48)
    strips = np.ascontiguousarray(unary.reshape(40, -1, 8).transpose(1, 0, 2)).ravel()
    reach = float(7 * bilateral_lattice(image, 67, 3).row_sums.max())
    dropped = negligible_labels(strips, 40, reach, 10)
    assert 0 < len(dropped) < 35 and (dropped >= 5).all()
    start = np.exp(-unary[dropped]).reshape(len(dropped), -1).max(1)
    for iterations in (0, 3, 10):
        marginals = mean_field(image, unary[None], iterations=iterations, drop=False, **DEEPLAB)[0, dropped]
        strongest = marginals.reshape(len(dropped), -1).max(1)
        assert (start * np.expm1(reach * strongest)).sum() <= TOLERANCE


def test_strong_labels_are_never_left_out() -> None:
    strips = np.zeros(81 * 8 * 5, np.float32)
    assert len(negligible_labels(strips, 81, 13.0, 10)) == 0
