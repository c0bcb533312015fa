"""CRFs of many images in batches, here on the CPU, against those of each image alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut

from amn_dist.ops.crf import batch
from amn_dist.ops.crf.batch import batched_crf, batches, deeplab_crfs, label_energies
from amn_dist.ops.crf.dense import deeplab_crf, dense_crf, hard_label_unary
from amn_dist.ops.prediction import predicted_labels, predictions_on_device
from amn_dist.ops.resize import resize_image
from amn_dist.ops.seeds import confident_seed, confident_seeds
from amn_dist.ops.signed import refine_labels, refined_on_device

SIZES = ((40, 48), (33, 41), (30, 20), (40, 48))
IMAGES = [resize_image(astronaut()[100 * n :], size) for n, size in enumerate(SIZES)]
TENSORS = [torch.from_numpy(image) for image in IMAGES]


@pytest.fixture(params=[2**26, 1])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images in one batch, and one image a batch."""
    monkeypatch.setattr(batch, "BATCH_VALUES", request.param)


def maps(random: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth maps f32[count, H, W] in [0, 1]."""
    coarse = torch.from_numpy(random.random((1, max(count, 1), 4, 4), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0, :count]
    return fine.clamp(0, 1).numpy()


@pytest.mark.usefixtures("memory")
def test_images_of_different_numbers_of_labels_are_what_they_are_alone() -> None:
    random = np.random.default_rng(0)
    counts = (4, 2, 3, 2)
    unaries = [
        random.normal(scale=2, size=(2, labels, *size)).astype(np.float32)
        for labels, size in zip(counts, SIZES, strict=True)
    ]
    marginals = dict(batched_crf(TENSORS, [torch.from_numpy(unary) for unary in unaries]))
    assert sorted(marginals) == [0, 1, 2, 3]
    for place, unary in enumerate(unaries):
        np.testing.assert_allclose(marginals[place], dense_crf(IMAGES[place], unary, backend="cpu"), atol=2e-4)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), max_size=12), st.integers(1, 3000))
def test_batches_hold_every_image_once_and_no_more_than_memory_is_for(sizes: list[tuple[int, int]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BATCH_VALUES", most)
        places = list(batches([labels * pixels for labels, pixels in sizes], [pixels for _, pixels in sizes]))
    assert sorted(place for one in places for place in one) == list(range(len(sizes)))
    for one in places:
        widest = max(max(sizes[place][0] for place in one), batch.LATTICE_VALUES)
        assert len(one) == 1 or widest * sum(sizes[place][1] for place in one) <= most


def test_energies_are_those_of_the_cpu() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2, 5, 6))
    expected = hard_label_unary(labels, 3, 0.7)
    np.testing.assert_allclose(label_energies(torch.from_numpy(labels), 3, 0.7), expected, rtol=1e-6)


@pytest.mark.usefixtures("memory")
def test_seeds_of_a_batch() -> None:
    random, thresholds = np.random.default_rng(1), {"foreground": 0.7, "background": 0.4}
    classes = [np.array(names, np.uint8) for names in ([3, 7, 9], [1], [], [2, 20])]
    fine = [maps(random, len(names), size) for names, size in zip(classes, SIZES, strict=True)]
    seeds = confident_seeds(TENSORS, [torch.from_numpy(one) for one in fine], classes, **thresholds)
    for image, own, names, seed in zip(IMAGES, fine, classes, seeds, strict=True):
        expected = confident_seed(image, own, names, **thresholds)
        assert seed.dtype == torch.uint8 and set(np.unique(expected)) <= {0, 255, *names}
        assert (seed.numpy() == expected).mean() > 0.999
    assert len(seeds[0].unique()) > 2


def test_no_image_has_a_class() -> None:
    nothing = [torch.zeros(0, *size) for size in SIZES]
    seeds = confident_seeds(TENSORS, nothing, [np.zeros(0, np.uint8)] * 4, foreground=0.3, background=0.1)
    assert [tuple(seed.shape) for seed in seeds] == list(SIZES) and not any(seed.any() for seed in seeds)


@pytest.mark.usefixtures("memory")
def test_signed_labels_of_a_batch() -> None:
    random = np.random.default_rng(2)
    labels = [np.where(maps(random, 1, size)[0] > 0.5, 3, 0).astype(np.uint8) for size in SIZES]
    for own in labels:
        own[5:12, 3:9] = 255
    refined = refined_on_device(TENSORS, [torch.from_numpy(own) for own in labels], 5)
    for image, own, found in zip(IMAGES, labels, refined, strict=True):
        assert (found.numpy() == refine_labels(image, own, 5)).mean() > 0.999


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("wrap", [False, True])
def test_predictions_of_a_batch(wrap: bool) -> None:
    random = np.random.default_rng(3)
    images = [IMAGES[0], IMAGES[3]]
    logits = torch.from_numpy(random.normal(scale=3, size=(2, 6, 5, 6)).astype(np.float32))
    tensors = [torch.from_numpy(image) for image in images]
    fields = dict(predictions_on_device(tensors, logits, refined=True, wrap_image=wrap))
    for place, image in enumerate(images):
        expected = predicted_labels(image, logits[place], backend="cpu", wrap_image=wrap)
        assert np.array_equal(fields["raw.png"][place], expected["raw.png"])
        assert (fields["mask.png"][place].numpy() == expected["mask.png"]).mean() > 0.999
    assert list(dict(predictions_on_device(tensors, logits, refined=False, wrap_image=wrap))) == ["raw.png"]


def test_deeplab_labels_come_in_the_order_of_their_images() -> None:
    random = np.random.default_rng(4)
    probabilities = [torch.from_numpy(random.normal(size=(4, *size)).astype(np.float32)).softmax(0) for size in SIZES]
    labels = deeplab_crfs(TENSORS, probabilities, wrap_image=False)
    for image, own, found in zip(IMAGES, probabilities, labels, strict=True):
        assert (found.numpy() == deeplab_crf(image, own.numpy()).argmax(0)).mean() > 0.99
