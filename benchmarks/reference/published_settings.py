"""The published settings on COCO as plain values, for machines without pydantic (amn 4.1, 4.2).

tests/benchmarks/test_gpu.py holds them against configs/coco14_amn.yaml.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

CLASSES = 81
COMMON: dict[str, Any] = {
    "micro_batch": 0,
    "weight_decay": 1e-4,
    "optimiser": "sgd",
    "momentum": 0.9,
    "momentum_slip": True,
    "batch": 16,
    "crop": 512,
}


def backbone(name: str, stride: int, frozen_taps: int) -> SimpleNamespace:
    """A backbone with random weights."""
    return SimpleNamespace(name=name, stride=stride, frozen_taps=frozen_taps, weights=None)


def published_settings() -> Any:
    """The sections that networks and fits read."""
    return SimpleNamespace(
        classify=section(backbone=backbone("resnet50", 16, 3), long_side=(320, 640), lr=0.1, lr_head=1.0),
        amn=section(
            backbone=backbone("resnet50", 16, 1),
            optimiser="adam",
            lr=5e-6,
            lr_head=1e-4,
            rescale=(0.5, 1.5),
            smoothing=0.4,
            condition=True,
        ),
        irn=section(backbone=backbone("resnet50", 16, 5), batch=32, rescale=(0.5, 1.5), radius=10, lr=0.1, lr_head=0.1),
        segment=section(
            backbone=backbone("resnet101", 8, 0),
            batch=10,
            crop=321,
            scales=(0.5, 0.75, 1.0, 1.25, 1.5),
            lr=2e-4,
            lr_head=2e-3,
            weight_decay=5e-4,
            momentum_slip=False,
            loss="ce",
            branches=(0.5, 0.75),
        ),
        initial_weights=lambda backbone: None,
    )


def section(**settings: Any) -> SimpleNamespace:
    """What all fits have in common, and a fit's own."""
    return SimpleNamespace(**{**COMMON, **settings})
