"""Losses: pooled sums and counts, and what happens where a kind of pixel or pair is missing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amn_dist.models.amn import pixel_loss, pixel_loss_parts
from amn_dist.models.irn import EPSILON, affinity_loss_parts, affinity_losses, pair_counts
from amn_dist.records import IGNORE

CLASSES, SIDE, RADIUS = 4, 14, 4


def scene(seed: int = 0, batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, C, h, w], edge logits [B, 1, h, w] and labels [B, h, w] with every kind of pixel."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, CLASSES, SIDE, SIDE, generator=draw)
    edge = torch.randn(batch, 1, SIDE, SIDE, generator=draw)
    labels = torch.randint(0, CLASSES + 1, (batch, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    return logits, edge, labels.masked_fill(labels == CLASSES, IGNORE)


def test_pixel_loss_equals_the_smoothed_cross_entropy_of_each_half() -> None:
    logits, _, labels = scene()
    log_p = logits.double().log_softmax(1).permute(0, 2, 3, 1)
    halves = []
    for mask in (labels == 0, (labels > 0) & (labels < IGNORE)):
        target = torch.full((int(mask.sum()), CLASSES), 0.3 / (CLASSES - 1), dtype=torch.float64)
        target[torch.arange(len(target)), labels[mask].long()] = 0.7
        halves.append(-(target * log_p[mask]).sum(1).mean())
    assert float(pixel_loss(logits, labels, 0.3)) == pytest.approx(float(sum(halves) / 2), rel=1e-5)


@pytest.mark.parametrize("present", [0, 2, IGNORE])
def test_a_missing_half_contributes_zero_to_loss_and_gradient(present: int) -> None:
    logits, _, labels = scene()
    logits.requires_grad_()
    loss = pixel_loss(logits, torch.full_like(labels, present))
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    background, foreground = pixel_loss_parts(logits.detach(), torch.full_like(labels, present))
    assert (float(background) > 0, float(foreground) > 0) == (present == 0, present == 2)
    assert (loss.item() > 0) == (present != IGNORE)


def test_ignored_pixels_have_no_gradient() -> None:
    logits, _, labels = scene()
    logits.requires_grad_()
    pixel_loss(logits, labels).backward()
    touched = logits.grad.abs().sum(1) > 0  # type: ignore[union-attr]
    assert torch.equal(touched, labels != IGNORE)


def test_pixel_loss_samples_large_labels_at_cell_centres() -> None:
    logits, _, labels = scene()
    large = torch.full((len(labels), 4 * SIDE, 4 * SIDE), IGNORE, dtype=torch.uint8)
    large[:, 2::4, 2::4] = labels
    assert torch.equal(pixel_loss(logits, large), pixel_loss(logits, labels))


def test_pixel_loss_of_half_precision_is_computed_in_full() -> None:
    logits, _, labels = scene()
    loss = pixel_loss(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, pixel_loss(logits.bfloat16().float(), labels))


def test_pixel_parts_of_micro_batches_add_up_to_the_batch() -> None:
    logits, _, labels = scene()
    whole = torch.stack(pixel_loss_parts(logits, labels))
    pieces = [torch.stack(pixel_loss_parts(logits[i : i + 1], labels[i : i + 1])) for i in range(len(labels))]
    assert torch.allclose(torch.stack(pieces).sum(0), whole, rtol=1e-5)
    counts = torch.stack([(labels == 0).sum(), ((labels > 0) & (labels < IGNORE)).sum()])
    assert torch.allclose((whole / counts).mean(), pixel_loss(logits, labels), rtol=1e-5)


def test_affinity_parts_of_micro_batches_add_up_to_the_batch() -> None:
    _, edge, labels = scene()
    pieces = [
        torch.stack(affinity_loss_parts(edge[i : i + 1], labels[i : i + 1], RADIUS, CLASSES)) for i in range(len(edge))
    ]
    counts = [torch.stack(pair_counts(labels[i : i + 1], RADIUS, CLASSES)) for i in range(len(edge))]
    background, foreground, negative = torch.stack(pieces).sum(0) / (torch.stack(counts).sum(0) + EPSILON)
    positive_whole, negative_whole = affinity_losses(edge, labels, RADIUS, CLASSES)
    assert torch.allclose((background + foreground) / 2, positive_whole, rtol=1e-5)
    assert torch.allclose(negative, negative_whole, rtol=1e-5)


def test_every_pair_of_valid_labels_is_counted_once() -> None:
    _, _, labels = scene()
    labels = torch.where(labels == IGNORE, 1, labels).to(torch.uint8)
    directions = sum(
        1
        for dy in range(RADIUS)
        for dx in range(-RADIUS + 1, RADIUS)
        if (dy > 0 or dx > 0) and dy * dy + dx * dx < RADIUS * RADIUS
    )
    sources = (SIDE - RADIUS + 1) * (SIDE - 2 * (RADIUS - 1))
    assert int(sum(pair_counts(labels, RADIUS, CLASSES))) == len(labels) * directions * sources


def test_labels_beyond_the_classes_count_in_no_pair() -> None:
    _, edge, labels = scene()
    beyond = labels.masked_fill(labels == CLASSES - 1, IGNORE)
    assert pair_counts(labels, RADIUS, CLASSES - 1) == pair_counts(beyond, RADIUS, CLASSES)
    assert torch.equal(affinity_losses(edge, labels, RADIUS, CLASSES - 1)[0], affinity_losses(edge, beyond, RADIUS)[0])


@pytest.mark.parametrize("present", [0, 2, IGNORE])
def test_missing_kinds_of_pairs_contribute_zero(present: int) -> None:
    _, edge, labels = scene()
    edge.requires_grad_()
    labels = torch.full_like(labels, present)
    positive, negative = affinity_losses(edge, labels, RADIUS, CLASSES)
    (positive + negative).backward()
    assert negative.item() == 0 and (positive.item() > 0) == (present != IGNORE)
    assert edge.grad is not None and torch.isfinite(edge.grad).all()


def test_affinity_losses_stay_finite_for_saturated_edges() -> None:
    _, edge, labels = scene()
    saturated = (200 * edge.sign()).requires_grad_()
    sum(affinity_losses(saturated, labels, RADIUS, CLASSES)).backward()
    assert saturated.grad is not None and torch.isfinite(saturated.grad).all()


def test_an_edge_between_two_labels_beats_none() -> None:
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    labels[:, :, SIDE // 2 :] = 1
    drawn = torch.full((1, 1, SIDE, SIDE), -6.0)
    drawn[..., SIDE // 2 - 1 : SIDE // 2 + 1] = 6.0
    none = torch.full_like(drawn, -6.0)
    assert sum(affinity_losses(drawn, labels, RADIUS)) < sum(affinity_losses(none, labels, RADIUS))
