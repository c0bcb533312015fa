"""Parts that need more than torch: DALI's decoder on the device, DeepSpeed's step, Ray's farm."""

from __future__ import annotations

import contextlib
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.device.figures import Setting, row
from benchmarks.harness import race
from benchmarks.inputs import drawn_photo, training_batch
from benchmarks.reference.published_settings import CLASSES


def decode(setting: Setting) -> dict[str, Any]:
    """benchmarks/decode.py over drawn photographs."""
    from amn_dist.records import CropRule
    from benchmarks.decode import RULE, measured

    rule = CropRule(size=32, long_side=(24, 48)) if setting.tiny else RULE
    with tempfile.TemporaryDirectory() as folder:
        files = [jpeg(Path(folder) / f"{n}.jpg", n, setting.size) for n in range(4 if setting.tiny else 64)]
        return measured(files, rule, batch=2 if setting.tiny else 16, workers=1 if setting.tiny else 8, rounds=1)


def jpeg(file: Path, seed: int, size: tuple[int, int]) -> Path:
    from PIL import Image

    Image.fromarray(drawn_photo(seed, size)).save(file, quality=92)
    return file


def deepspeed(setting: Setting) -> dict[str, Any]:
    """A classifier's step on DeepSpeed beside the torch engine's, both in bf16."""
    from amn_dist.training.engines.deepspeed import DeepSpeedEngine
    from amn_dist.training.engines.engine import joined
    from amn_dist.training.engines.torch import TorchEngine
    from benchmarks.device.steps import engine_step, published_fit

    fit, count = published_fit("classify", tiny=setting.tiny)
    batch = training_batch(fit, count, CLASSES).to(setting.device)
    section = SimpleNamespace(name="deepspeed", precision="bf16", zero=0, timeout_s=60.0)
    engines: dict[str, Any] = {}
    with joined(section) as world:  # type: ignore[arg-type]
        for name, make in {"torch": TorchEngine, "deepspeed": partial(DeepSpeedEngine, pieces=1)}.items():
            torch.manual_seed(0)
            engines[name] = make(fit, section, world)  # type: ignore[operator]
        rivals = {name: partial(engine_step, engine, fit, batch) for name, engine in engines.items()}
        losses = {name: call() for name, call in rivals.items()}
        assert abs(losses["deepspeed"] - losses["torch"]) <= 1e-2 * abs(losses["torch"]), losses
        timings = race(rivals, rounds=max(setting.rounds - 2, 1))
        for engine in engines.values():
            engine.close()
        return {"losses": losses, **{name: row(timing, count) for name, timing in timings.items()}}


def farm(setting: Setting) -> dict[str, Any]:
    """What a shard costs the driver of the Ray farm."""
    from amn_dist.config import FarmSection
    from amn_dist.farms.ray.farm import RayFarm
    from benchmarks.farm import overhead

    with contextlib.closing(RayFarm(FarmSection(workers=1 if setting.tiny else 4, pools="one"), devices=False)) as ray:
        return overhead(ray, shards=10 if setting.tiny else 200)
