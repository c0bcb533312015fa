"""A training step of every Fit at its published crop, on a device that is only written down.

Nothing in it may make the host wait: the device is given the next step while it works on this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from amn_dist.config import Config, EngineSection, load_config
from amn_dist.interfaces import Context, Fit
from amn_dist.methods import stages
from amn_dist.ops.normalise import crop_input
from amn_dist.records import Batch
from amn_dist.stages.icd import IcdFit
from amn_dist.training.engines.torch import TorchEngine
from amn_dist.training.ledger import Ledger
from amn_dist.training.loop import FitContext, _step
from benchmarks.device.recorder import META, MetaWorld, pretend_device, recording

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 21
PUBLISHED = ("voc12_amn", "voc12_icd", "coco14_amn")
"""Configurations that have every Fit, and both losses of segment, with published crops and batches."""
LAUNCHES = {
    "classify": 383,
    "amn": 585,
    "irn": 365,
    "segment balanced": 1727,
    "segment ce": 1679,
    "discriminate": 517,
    "discriminate masked": 538,
}
"""Launches of a step, forward, backward and update: what it takes today. They may fall; the number is then set anew."""


def config(file: str) -> Config:
    """A published configuration without weights, which move no launch."""
    sections = ("classify", "amn", "irn", "discriminate", "segment")
    return load_config(CONFIGS / f"{file}.yaml", tuple(f"{section}.backbone.weights=null" for section in sections))


def fits() -> dict[str, Fit]:
    """Every Fit of every method, by stage and, where published settings differ in what they compute, by that."""
    found: dict[str, Fit] = {}
    for file in PUBLISHED:
        settings = config(file)
        context = Context(settings, tuple(map(str, range(CLASSES))))
        for stage in stages(settings):
            if stage.fit is not None:
                name = f"segment {settings.segment.loss}" if stage.name == "segment" else stage.name
                found.setdefault(name, stage.fit(context))
    settings = config("voc12_icd")
    section = settings.discriminate.model_copy(update={"mask_padding": True})
    found["discriminate masked"] = IcdFit(settings.model_copy(update={"discriminate": section}), CLASSES)
    return found


FITS = fits()


def test_every_fit_of_every_method_takes_part() -> None:
    methods = get_args(Config.model_fields["method"].annotation)
    settings = config("voc12_refine").model_dump()
    known = {fit.name for fit in FITS.values()}
    for method in methods:
        names = {s.name for s in stages(Config.model_validate({**settings, "method": method})) if s.fit is not None}
        assert names and names <= known, method


def test_the_recorder_sees_what_makes_the_host_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_device(monkeypatch)
    values, mask = torch.ones(4, device=META), torch.ones(4, dtype=torch.bool, device=META)
    waits = [lambda: values[mask], lambda: values.sum().item(), lambda: bool(mask.any()), values.tolist, values.cpu]
    for wait in [*waits, mask.nonzero]:
        with recording() as asked:
            wait()
        assert asked.waits.total() == 1 and not asked.copies
    with recording() as asked:
        torch.ones(4).to(META)
        torch.ones(4).to(META, non_blocking=True)
        assert asked.copies.total() == 1 and not asked.launches
        (values * mask).sum().view(1)
    assert asked.launches.total() == 2 and not asked.waits


def batch(fit: Fit) -> Batch:
    """A batch of the published size on the host."""
    count, side = fit.section.batch, fit.rule.size
    ids = torch.int32 if fit.rule.label == "regions" else torch.uint8
    keys = tuple(map(str, range(count)))
    image, tags = torch.zeros(count, 3, side, side), torch.zeros(count, CLASSES - 1)
    return Batch(keys, tuple(range(count)), image, tags, torch.zeros(count, side, side, dtype=ids))


def test_bytes_are_normalised_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_device(monkeypatch)
    crops, boxes = torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device=META), torch.zeros(2, 4, device=META)
    with recording():
        crop_input(crops, boxes, "imagenet")  # mean and deviation go to the device once
    with recording() as asked:
        assert crop_input(crops, boxes, "imagenet").shape == crops.shape
    assert not asked.waits and not asked.copies


@pytest.mark.parametrize("name", FITS)
def test_a_step_never_makes_the_host_wait(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, world = FITS[name], MetaWorld()
    pretend_device(monkeypatch)
    with META:
        engine = TorchEngine(fit, EngineSection(name="torch", precision="bf16"), world)
    context = FitContext(fit, tmp_path, EngineSection(name="torch"), world, 0, 10, 1, print, print)
    ledger = Ledger(fit.name, world)
    with recording():
        _step(context, engine, batch(fit), 0, lambda: False, ledger)  # tables of indices go to the device once
    with recording() as asked:
        _step(context, engine, batch(fit), 1, lambda: False, ledger)
    assert not asked.waits and not asked.copies
    assert asked.launches.total() <= LAUNCHES[name], asked.launches.most_common(12)
    with recording() as asked:
        ledger.read()
    assert asked.waits.total() == 1
