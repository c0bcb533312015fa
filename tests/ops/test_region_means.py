"""Averaging inside regions against the dense definition: one indicator map a region, resized."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.region_means import cell_membership, refine_scores, sample_regions


def example(image: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(sum(image))
    blocks = torch.randint(0, 7, (3, 1, -(-image[0] // 5), -(-image[1] // 5)), generator=random).float()
    regions = functional.interpolate(blocks, scale_factor=5)[:, 0, : image[0], : image[1]].int()
    regions[1, image[0] // 2 :] = -1
    score = torch.randn(3, 4, *grid, generator=random)
    tags = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]).float()
    return score, tags, regions


def dense_refine(score: Tensor, tags: Tensor, regions: Tensor) -> Tensor:
    """One image, class and region at a time, float64."""
    refined = torch.zeros_like(score, dtype=torch.float64)
    for n, (scores, tagged, ids) in enumerate(zip(score.double(), tags, regions, strict=True)):
        z = scores * tagged[:, None, None]
        for number in ids.unique():
            plane = (ids == number).double()[None, None]
            mass = functional.interpolate(plane, size=score.shape[-2:], mode="bilinear", align_corners=True)[0, 0]
            if mass.sum() == 0:
                continue
            votes = (z.sign() * mass).sum((1, 2))
            share = z.clamp(min=0) / z.amax(0).clamp(min=1e-5)
            winner = int(((share * mass).sum((1, 2)) / mass.sum()).argmax())
            for k in range(len(z)):
                wins = bool(votes.max() > 1e-5) and k == winner and tagged[k] == 1
                part = z[k].clamp(min=0) if wins else z[k].clamp(max=0)
                refined[n, k] += mass * (part * mass).sum() / mass.sum()
    return refined


@pytest.mark.parametrize(
    ("image", "grid"), [((33, 41), (5, 6)), ((12, 12), (12, 12)), ((32, 40), (5, 7)), ((48, 48), (6, 6))]
)
def test_refinement_equals_the_dense_definition(image: tuple[int, int], grid: tuple[int, int]) -> None:
    score, tags, regions = example(image, grid)
    torch.testing.assert_close(
        refine_scores(score, tags, regions).double(), dense_refine(score, tags, regions), rtol=0, atol=2e-6
    )


def test_two_regions_by_hand() -> None:
    regions = torch.tensor([[[0, 0, 1, 1]]])
    score = torch.tensor([[[[3.0, 1.0, -1.0, -1.0]], [[-2.0, 2.0, 4.0, -1.0]]]])
    tags = torch.ones(1, 2)
    # Left: class 0 has the larger share (1 and 1/2, against 0 and 1). Right: class 1 has one vote for and one against.
    expected = torch.tensor([[[[2.0, 2.0, -1.0, -1.0]], [[-1.0, -1.0, -0.5, -0.5]]]])
    torch.testing.assert_close(refine_scores(score, tags, regions), expected)


def test_grids_that_lie_on_pixels_take_one_pixel_a_cell() -> None:
    regions = torch.arange(65 * 65).reshape(1, 65, 65) % 50
    cells = cell_membership(regions, (9, 9))
    assert cells.rows.shape == (1, 1, 81) and torch.equal(cells.rows[0, 0], regions[0, ::8, ::8].flatten())
    assert torch.equal(sample_regions(regions, (9, 9)), regions[:, ::8, ::8])
    assert cell_membership(regions, (8, 8)).rows.shape == (4, 1, 64)


def test_every_cell_belongs_somewhere_once() -> None:
    _, _, regions = example((32, 40), (5, 7))
    cells = cell_membership(regions, (5, 7))
    assert cells.mass().sum() == pytest.approx(3 * 35)
    ones = torch.ones(3, 35, 2)
    torch.testing.assert_close(cells.spread(torch.ones(cells.count, 2)), ones)
    torch.testing.assert_close(cells.sums(ones)[:, 0], cells.mass())


def test_images_of_a_batch_do_not_meet() -> None:
    score, tags, regions = example((33, 41), (5, 6))
    together = refine_scores(score, tags, regions)
    alone = torch.cat([refine_scores(score[n : n + 1], tags[n : n + 1], regions[n : n + 1]) for n in range(3)])
    assert torch.equal(together, alone)
