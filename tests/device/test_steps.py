"""A training step of every Fit at its published crop, on a device that is only written down.

Nothing in it may make the host wait: the device is given the next step while it works on this one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amn_dist.config import Config, EngineSection, load_config
from amn_dist.interfaces import Context, Fit
from amn_dist.methods import stages
from amn_dist.records import Batch
from amn_dist.training.engines.torch import TorchEngine
from amn_dist.training.ledger import Ledger
from amn_dist.training.loop import FitContext, _step
from tests.device.recorder import META, MetaWorld, pretend_device, recording

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 21
LAUNCHES = {
    "classify": 0,
}
"""Launches of a step, forward, backward and update: what it takes today. It may fall; the number is then set anew."""


def config(file: str, **segment: object) -> Config:
    """A published configuration without weights, which move no launch."""
    sections = ("classify", "amn", "irn", "discriminate", "segment")
    return load_config(CONFIGS / file, tuple(f"{section}.backbone.weights=null" for section in sections))


def fits() -> dict[str, Fit]:
    """Every Fit of every method, by stage; segment by its loss, which differs between the sets."""
    found: dict[str, Fit] = {}
    for file in sorted(path.name for path in CONFIGS.glob("*.yaml")):
        settings = config(file)
        context = Context(settings, tuple(map(str, range(CLASSES))))
        for stage in stages(settings):
            if stage.fit is not None:
                name = f"segment-{settings.segment.loss}" if stage.name == "segment" else stage.name
                if file.startswith(("voc12", "coco14")):
                    found.setdefault(name, stage.fit(context))
    return found


FITS = fits()


def batch(fit: Fit) -> Batch:
    """A batch of the published size on the host."""
    count, side = fit.section.batch, fit.rule.size
    ids = torch.int32 if fit.rule.label == "regions" else torch.uint8
    keys = tuple(map(str, range(count)))
    image, tags = torch.zeros(count, 3, side, side), torch.zeros(count, CLASSES - 1)
    return Batch(keys, tuple(range(count)), image, tags, torch.zeros(count, side, side, dtype=ids))


@pytest.mark.parametrize("name", FITS)
def test_a_step_never_makes_the_host_wait(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, world = FITS[name], MetaWorld()
    if hasattr(fit, "grids"):
        assert fit.grids  # found once a Fit, before its first step
    pretend_device(monkeypatch)
    with META:
        engine = TorchEngine(fit, EngineSection(name="torch", precision="bf16"), world)
    context = FitContext(fit, tmp_path, EngineSection(name="torch"), world, 0, 10, 1, print, print)
    ledger = Ledger(fit.name, world)
    with recording():
        _step(context, engine, batch(fit), 0, lambda: False, ledger)  # tables of indices go to the device once
    with recording() as asked:
        _step(context, engine, batch(fit), 1, lambda: False, ledger)
    print(name, asked.launches.total())
    assert not asked.waits and not asked.copies
    assert asked.launches.total() <= LAUNCHES[name], asked.launches.most_common(12)
    with recording() as asked:
        ledger.read()
    assert asked.waits.total() == 1
