"""What a part of the device benchmark is asked, and how its figures stand beside the floor of the arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Timing

PEAK = "peak"


@dataclass(frozen=True)
class Setting:
    """Where a part runs. tiny: on sizes that a CPU does in seconds, to see that all parts work."""

    device: str
    tiny: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of photographs."""
        return (32, 48) if self.tiny else (480, 640)

    @property
    def images(self) -> int:
        return 2 if self.tiny else 16

    @property
    def rounds(self) -> int:
        return 1 if self.tiny else 7


def row(timing: Timing, images: int, *, flops: float = 0.0, moved: float = 0.0, half: bool = False) -> dict[str, Any]:
    """A rival's figures. flops, moved: operations and bytes of an image it cannot do without. half: in bf16."""
    found: dict[str, Any] = {**timing.as_json(per=images), "images_per_s": round(images / timing.median, 3)}
    if flops:
        found |= {"flops": round(flops), "unit": "bf16" if half else "fp32"}
    return found | ({"bytes": round(moved)} if moved else {})


def counted_flops(call: Callable[[], Any]) -> float:
    """Floating-point operations of a call, two a multiply-add, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def with_floors(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts, every figure that knows its operations or bytes beside the time they take at the measured peak.

    of_peak: that floor over the measured time.
    """
    peak = parts.get(PEAK)
    return {name: part if name == PEAK or not peak else _floored(part, peak) for name, part in parts.items()}


def _floored(node: Any, peak: dict[str, Any]) -> Any:
    if not isinstance(node, dict):
        return node
    found = {key: _floored(value, peak) for key, value in node.items()}
    rates = {"flops": f"{node.get('unit')}_flops_per_s", "bytes": "bytes_per_s"}
    floors = [node[what] / peak[rate] for what, rate in rates.items() if what in node and "median_s" in node]
    if floors:
        found |= {"floor_s": max(floors), "of_peak": round(max(floors) / node["median_s"], 4)}
    return found


def predictions() -> dict[str, dict[str, list[float]]]:
    """Seconds an image, low and high, that the model of counts gives for parts and their rows (results/scale.json)."""
    path = Path(__file__).resolve().parents[1] / "results" / "scale.json"
    return dict(json.loads(path.read_text()).get("gpus", {}).get("parts", {})) if path.is_file() else {}


def with_model(part: dict[str, Any], predicted: dict[str, list[float]]) -> dict[str, Any]:
    """A part's figures, each that the model knows beside what it says: model_s, low and high."""
    rows = {row: {**part[row], "model_s": seconds} for row, seconds in predicted.items() if row in part}
    return {**part, **rows}


def beside_model(part: dict[str, Any]) -> str:
    """Measured milliseconds an image of every figure that has a prediction, and that."""
    rows = [(name, row) for name, row in part.items() if isinstance(row, dict) and "model_s" in row]
    said = [
        f"{name} {row['median_s'] * 1e3:.2f} ms an image, by the model {low * 1e3:.2f} to {high * 1e3:.2f}"
        for name, row in rows
        for low, high in [row["model_s"]]
    ]
    return "; ".join(["", *said])


def wide_range() -> None:
    """Keep float32 convolutions and products from being rounded to TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
