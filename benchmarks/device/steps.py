"""A training step of every learned stage: the torch engine in bf16 against the published loop in float32."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from amn_dist.interfaces import Fit
from amn_dist.records import Batch
from benchmarks.device.figures import Setting, counted_flops, row
from benchmarks.harness import race
from benchmarks.inputs import training_batch
from benchmarks.reference.published_settings import CLASSES, published_settings

if TYPE_CHECKING:
    from amn_dist.training.engines.engine import Engine

TOLERANCES = {"fp32": 1e-2, "bf16": 5e-2}
"""Relative, of the first loss; float32 convolutions may be rounded to TF32, as in published runs."""


def engine_step(engine: Engine, fit: Fit, batch: Batch) -> float:
    """One step of an engine; its loss."""
    pooled = fit.normalisers(batch)
    losses = [float(parts["total"]) for parts in engine.accumulate([batch], pooled)]
    engine.update(1.0)
    return losses[0]


def step(setting: Setting, stage: str) -> dict[str, Any]:
    """A stage at its published batch and crop."""
    from amn_dist.training.engines.torch import TorchEngine
    from amn_dist.training.world import World
    from benchmarks.reference.published_train import published_step

    fit, count = published_fit(stage, tiny=setting.tiny)
    batch = training_batch(fit, count, CLASSES).to(setting.device)
    torch.manual_seed(0)
    rivals = {"published": published_step(fit, batch)}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        engine = TorchEngine(fit, SimpleNamespace(precision=precision), World())  # type: ignore[arg-type]
        rivals[precision] = partial(engine_step, engine, fit, batch)
    losses = agreeing({name: call() for name, call in rivals.items()})
    flops = counted_flops(rivals["published"]) / count
    timings = race(rivals, rounds=max(setting.rounds - 2, 1), warmup=1)
    memory = torch.cuda.max_memory_allocated() / 2**30 if setting.device == "cuda" else 0.0
    return {
        "images": count,
        "crop": fit.rule.size,
        "losses": losses,
        **{name: row(timing, count, flops=flops, half=name == "bf16") for name, timing in timings.items()},
        "ratio": round(timings["published"].median / timings["bf16"].median, 2),
        "memory_gib_of_all": round(memory, 2),
    }


def published_fit(stage: str, *, tiny: bool = False) -> tuple[Fit, int]:
    """A stage's Fit with published settings and random weights, and its batch."""
    from amn_dist.stages.amn import AmnFit
    from amn_dist.stages.classify import ClassifyFit
    from amn_dist.stages.irn import IrnFit
    from amn_dist.stages.segment import SegmentFit

    settings = published_settings()
    section = getattr(settings, stage)
    if tiny:
        section.batch, section.crop = 2, 33 if stage == "segment" else 64
    fits: dict[str, Any] = {"classify": ClassifyFit, "amn": AmnFit, "irn": IrnFit, "segment": SegmentFit}
    return fits[stage](settings, CLASSES), section.batch


def agreeing(losses: dict[str, float]) -> dict[str, float]:
    """First losses; ours must be the published loop's."""
    for name, tolerance in TOLERANCES.items():
        expected = losses["published"]
        assert abs(losses[name] - expected) <= tolerance * abs(expected), (
            f"{name}: first loss {losses[name]}, {expected}"
        )
    return losses
