"""The batched mean field in torch, here on the CPU, against the compiled one."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut
from torch.utils._python_dispatch import TorchDispatchMode

from amn_dist.ops.crf.dense import dense_crf
from amn_dist.ops.crf.device import gaussian_batch, mean_field_batch
from amn_dist.ops.resize import resize_image

SIZES = ((40, 48), (33, 41), (1, 9), (40, 48))


@pytest.mark.parametrize(
    "kernels",
    [{"gaussian": (3, 3), "bilateral": (50, 5, 10)}, {"gaussian": (1, 3), "bilateral": (67, 3, 4)}],
    ids=["seed", "deeplab"],
)
@pytest.mark.parametrize(("groups", "labels"), [(1, 2), (1, 21), (2, 3)])
def test_a_batch_is_its_images_alone(kernels: dict[str, Any], groups: int, labels: int) -> None:
    random = np.random.default_rng(0)
    images = [resize_image(astronaut(), size) for size in SIZES]
    images[3] = np.ascontiguousarray(images[3][::-1])
    unaries = [random.normal(scale=2, size=(groups, labels, *size)).astype(np.float32) for size in SIZES]
    marginals = mean_field_batch(
        [torch.from_numpy(image) for image in images],
        [torch.from_numpy(unary).flatten(0, 1) for unary in unaries],
        labels=labels,
        iterations=10,
        **kernels,
    )
    for image, unary, q in zip(images, unaries, marginals, strict=True):
        expected = dense_crf(image, unary, backend="cpu", **kernels)
        np.testing.assert_allclose(q.reshape(unary.shape), expected, atol=2e-4)


def test_results_repeat() -> None:
    image = torch.from_numpy(resize_image(astronaut(), (30, 30)))
    unary = torch.rand(4, 30, 30, generator=torch.Generator().manual_seed(0))
    kernels: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10), "labels": 4, "iterations": 5}
    first, second = (mean_field_batch([image], [unary], **kernels)[0] for _ in range(2))
    assert torch.equal(first, second)


class ReciprocalDivision(TorchDispatchMode):
    """Divides by a number as CUDA does: a product with its float32 reciprocal."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.div.Tensor and isinstance(args[1], int | float):
            return args[0] * float(np.float32(1 / args[1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("deviations", [(3.0, 50.0, 5.0), (1.0, 67.0, 3.0)])
def test_quotients_do_not_depend_on_how_a_device_divides(deviations: tuple[float, float, float]) -> None:
    image = torch.from_numpy(resize_image(astronaut(), (24, 90)))
    unary = torch.rand(3, 24, 90, generator=torch.Generator().manual_seed(0))
    kernels: dict[str, Any] = {"gaussian": (deviations[0], 3), "bilateral": (*deviations[1:], 10), "labels": 3}
    expected = mean_field_batch([image], [unary], iterations=3, **kernels)[0]
    gaussian_batch.cache_clear()
    with ReciprocalDivision():
        assert not torch.equal(torch.arange(90.0) / 50.0, torch.arange(90.0) / torch.tensor(50.0))
        emulated = mean_field_batch([image], [unary], iterations=3, **kernels)[0]
    assert torch.equal(emulated, expected)


@pytest.mark.gpu
def test_the_device_agrees_with_the_cpu() -> None:
    image = resize_image(astronaut(), (120, 90))
    unary = np.random.default_rng(1).normal(size=(5, 120, 90)).astype(np.float32)
    marginals = dense_crf(torch.from_numpy(image).cuda(), torch.from_numpy(unary).cuda())
    assert marginals.is_cuda
    np.testing.assert_allclose(marginals.cpu(), dense_crf(image, unary, backend="cpu"), atol=1e-3)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    groups=st.integers(1, 2),
    labels=st.integers(2, 7),
    position=st.floats(2, 90),
    colour=st.floats(2, 40),
    weight=st.floats(0, 10),
    iterations=st.integers(0, 6),
    seed=st.integers(0, 999),
)
def test_any_batch(
    sizes: list[tuple[int, int]],
    groups: int,
    labels: int,
    position: float,
    colour: float,
    weight: float,
    iterations: int,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    unaries = [random.normal(scale=2, size=(groups, labels, *size)).astype(np.float32) for size in sizes]
    kernels: dict[str, Any] = {"gaussian": (2.0, weight), "bilateral": (position, colour, weight)}
    marginals = mean_field_batch(
        [torch.from_numpy(image) for image in images],
        [torch.from_numpy(unary).flatten(0, 1) for unary in unaries],
        labels=labels,
        iterations=iterations,
        **kernels,
    )
    for image, unary, q in zip(images, unaries, marginals, strict=True):
        expected = dense_crf(image, unary, backend="cpu", iterations=iterations, **kernels)
        np.testing.assert_allclose(q.reshape(unary.shape), expected, atol=1e-3)
