"""The batched device walk against the one-core walk; on a CPU its kernels are interpreted."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from amn_dist.ops.walk.walk import random_walk

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 256 if DEVICE == "cuda" else 6
"""Interpreted kernels take seconds for what a device does in microseconds."""


@pytest.fixture
def walks() -> Callable[..., list[Tensor]]:
    pytest.importorskip("triton", reason="the device walk is written in triton")
    from amn_dist.ops.walk.gpu import walks

    return walks


def scene(seed: int, classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(classes, height, width, generator=random)
    return x, torch.rand(height, width, generator=random) ** 4


@pytest.mark.parametrize(
    ("radius", "beta", "steps"), [(5, 10.0, STEPS), (3, 2.5, 7), (4, 10.0, 1), (5, 10.0, 0)], ids=str
)
def test_images_of_all_sizes_walk_together_as_alone(
    walks: Callable[..., list[Tensor]], radius: int, beta: float, steps: int
) -> None:
    sizes = [(2, 7, 9), (5, 3, 30), (1, 1, 1), (0, 6, 6)]
    scenes = [scene(seed, *size) for seed, size in enumerate(sizes)]
    walked_maps = walks(
        [x.to(DEVICE) for x, _ in scenes],
        [edge.to(DEVICE) for _, edge in scenes],
        radius=radius,
        beta=beta,
        steps=steps,
    )
    for (x, edge), walked in zip(scenes, walked_maps, strict=True):
        expected = random_walk(x, edge, radius=radius, beta=beta, steps=steps)
        assert walked.shape == x.shape and walked.dtype == torch.float32
        assert not len(x) or (walked.cpu() - expected).abs().max() <= 1e-5 * expected.max()


def test_a_closed_edge_is_never_crossed(walks: Callable[..., list[Tensor]]) -> None:
    x, edge = torch.zeros(1, 6, 13), torch.zeros(6, 13)
    x[:, :, :3], edge[:, 6] = 1, 1
    (walked,) = walks([x.to(DEVICE)], [edge.to(DEVICE)], radius=5, beta=10.0, steps=STEPS)
    assert walked[..., :6].min() > 0 and not walked[..., 6:].any()


def test_no_classes_at_all(walks: Callable[..., list[Tensor]]) -> None:
    x, edge = scene(0, 0, 5, 6)
    assert walks([x.to(DEVICE)], [edge.to(DEVICE)], radius=5, beta=10.0, steps=256)[0].shape == (0, 5, 6)


def test_nothing_is_read_outside_the_buffers(walks: Callable[..., list[Tensor]]) -> None:
    from amn_dist.ops.paths import path_table
    from amn_dist.ops.walk.gpu import BLOCK, Region

    for reach in (1, 2, 4, 9):
        region = Region(0, 7, 9, reach)
        farthest = max(dy * region.pitch + dx for dy, dx in path_table(reach + 1)[0].tolist())
        assert farthest <= region.inside
        assert region.inside + region.blocks * BLOCK - 1 + farthest < region.cells
