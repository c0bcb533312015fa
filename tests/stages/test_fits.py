"""Every Fit: the parts of its losses add up to the loss of the whole batch, however it is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from amn_dist.config import Config
from amn_dist.interfaces import Fit
from amn_dist.models.amn import pixel_loss
from amn_dist.models.irn import affinity_losses
from amn_dist.ops.resize import sample_labels
from amn_dist.records import Batch
from amn_dist.stages.amn import AmnFit
from amn_dist.stages.classify import ClassifyFit
from amn_dist.stages.irn import IrnFit
from amn_dist.stages.segment import SegmentFit
from tests.tiny import SMALL

CLASSES = 5
CONFIG = Config.model_validate(
    {
        "name": "x",
        **{stage: {"backbone": SMALL, "crop": 48, "steps": 1} for stage in ("classify", "amn", "irn", "segment")},
    }
)


def batch(count: int = 6) -> Batch:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, (count, 6, 6), generator=random).repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[0] = 0
    labels[1, :, :24] = 255
    return Batch(
        keys=tuple(f"k{i}" for i in range(count)),
        ordinals=tuple(range(count)),
        image=torch.randn(count, 3, 48, 48, generator=random),
        tags=torch.randint(0, 2, (count, CLASSES - 1), generator=random).float(),
        label=labels.to(torch.uint8),
    )


@pytest.fixture(params=[ClassifyFit, AmnFit, IrnFit, SegmentFit], ids=lambda kind: kind.__name__)
def fit(request: pytest.FixtureRequest) -> Fit:
    torch.manual_seed(0)
    made: Fit = request.param(CONFIG, CLASSES)
    return made


def without_dropout(network: torch.nn.Module) -> torch.nn.Module:
    """AMN's dropout differs from call to call; its gate does not."""
    forward = network.forward

    def quiet(*arguments: torch.Tensor, dropout: bool | None = None) -> torch.Tensor:
        return forward(*arguments) if dropout is None else forward(*arguments, dropout=False)

    network.forward = quiet  # type: ignore[method-assign]
    return network


def test_parts_of_pieces_add_up_to_the_whole(fit: Fit) -> None:
    network = without_dropout(fit.network().train())
    whole = batch()
    pooled = fit.normalisers(whole)
    assert torch.equal(pooled, torch.stack([fit.normalisers(piece) for piece in whole.split(2)]).sum(0))
    expected = fit.losses(network, whole, pooled)
    pieces = [fit.losses(network, piece, pooled) for piece in whole.split(1)]
    for name, value in expected.items():
        torch.testing.assert_close(sum(piece[name] for piece in pieces), value, rtol=1e-4, atol=1e-5)


def test_every_trained_parameter_is_in_one_group_and_gets_a_gradient(fit: Fit) -> None:
    network = fit.network().train()
    grouped = [id(p) for group in fit.parameter_groups(network) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    whole = batch()
    fit.losses(network, whole, fit.normalisers(whole))["total"].backward()
    silent = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


def test_a_batch_without_foreground_has_a_finite_loss(fit: Fit) -> None:
    network = fit.network().train()
    empty = batch(2)
    assert empty.label is not None
    empty.label.zero_()
    loss = fit.losses(network, empty, fit.normalisers(empty))["total"]
    assert torch.isfinite(loss)


def test_amn_total_is_the_published_loss() -> None:
    fit = AmnFit(CONFIG, CLASSES)
    network = without_dropout(fit.network())
    whole = batch()
    assert whole.label is not None
    logits = network(whole.image, whole.tags, dropout=False)
    expected = pixel_loss(logits, sample_labels(whole.label, (6, 6)), 0.4)
    torch.testing.assert_close(fit.losses(network, whole, fit.normalisers(whole))["total"], expected)


def test_irn_total_is_the_published_loss() -> None:
    fit = IrnFit(CONFIG, CLASSES)
    network = fit.network()
    whole = batch()
    assert whole.label is not None
    positive, negative = affinity_losses(network(whole.image), sample_labels(whole.label, (12, 12)), 10, CLASSES)
    found = fit.losses(network, whole, fit.normalisers(whole))["total"]
    torch.testing.assert_close(found, (positive + negative) / 2)


def test_segment_head_biases_learn_twice_as_fast_without_decay() -> None:
    fit = SegmentFit(CONFIG, CLASSES)
    rates = [(group["lr"], group["weight_decay"]) for group in fit.parameter_groups(fit.network())]
    assert rates == [(2.5e-4, 5e-4), (2.5e-3, 5e-4), (5e-3, 0.0)]


@pytest.mark.parametrize("condition", [True, False])
def test_amn_without_condition_learns_from_the_per_pixel_loss_alone(condition: bool) -> None:
    section = CONFIG.amn.model_copy(update={"condition": condition})
    fit = AmnFit(CONFIG.model_copy(update={"amn": section}), CLASSES)
    torch.manual_seed(0)
    network = without_dropout(fit.network())
    one = batch()
    other = replace(one, tags=1 - one.tags)
    totals = [float(fit.losses(network, some, fit.normalisers(one))["total"].detach()) for some in (one, other)]
    assert (totals[0] != totals[1]) == condition


def test_pixels_of_doubt_are_no_part_of_the_confidence_guided_loss() -> None:
    section = CONFIG.segment.model_copy(update={"loss": "confidence"})
    fit = SegmentFit(CONFIG.model_copy(update={"segment": section}), CLASSES)
    torch.manual_seed(0)
    network, whole = fit.network().eval(), batch()
    assert whole.label is not None and (whole.label == 255).any()
    expected = torch.zeros(())
    for logits in network.train()(whole.image):
        labels = sample_labels(whole.label, logits.shape[-2:]).long()
        expected = expected + torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
    total = fit.losses(network, whole, fit.normalisers(whole))["total"]
    assert torch.allclose(total, expected, rtol=1e-5)
