"""What does a prepared network gain on one core, scale by scale?

Races the trained network as it is, in NCHW and in channels_last, against models/inference.py's `prepare`, on an image
and its mirror image of 480x640 pixels at each published scale. In bf16 the trained network runs under autocast.

    python -m benchmarks.network [--backbone resnet50] [--precision fp32] [--rounds 5] [--scales 1.0 0.5 1.5 2.0]
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from torch import Tensor

from amn_dist.config import BackboneSection
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.inference import prepare
from amn_dist.models.precision import resolve_precision
from benchmarks.harness import one_core, race, write_result

SIZE = (480, 640)
TOLERANCE = 1e-4
"""Of the largest activation, in float32."""
MORE_ROUNDING = 1.1
"""How many times as far off as autocast's, on average, bf16 maps may be."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("resnet50", "vgg16"), default="resnet50")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 0.5, 1.5, 2.0])
    arguments = parser.parse_args()
    one_core()
    torch.manual_seed(0)
    section = BackboneSection(name=arguments.backbone, stride=16, weights=None, frozen_taps=0)
    nchw = CamNet(build_backbone(section), 21).eval().requires_grad_(False)
    last = copy.deepcopy(nchw).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = resolve_precision(arguments.precision)
    # Prepared at the end: from here on this process keeps its memory, which helps all rivals and flatters none of ours.
    rivals = {"nchw": nchw, "channels_last": last, "prepared": prepare(copy.deepcopy(nchw), "cpu", precision=precision)}
    rows = [measured(rivals, scale, arguments.rounds, precision) for scale in arguments.scales]
    totals = {name: round(sum(row["seconds"][name]["median_s"] for row in rows), 3) for name in rivals}
    name = f"network_{arguments.backbone}" + ("_bf16" if precision == torch.bfloat16 else "")
    write_result(name, {"rows": rows, "all_scales_s": totals})


@torch.inference_mode()
def measured(rivals: dict[str, CamNet], scale: float, rounds: int, precision: torch.dtype) -> dict[str, Any]:
    """Seconds of an image and its mirror image at one scale; maps compared with float32's."""
    x = torch.randn(2, 3, round(SIZE[0] * scale), round(SIZE[1] * scale))
    inputs = {name: x if name == "nchw" else x.contiguous(memory_format=torch.channels_last) for name in rivals}

    def maps(name: str) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16 and name != "prepared"):
            return rivals[name].maps(inputs[name])

    expected = rivals["nchw"].maps(x)
    off = {name: (maps(name) - expected).abs() for name in rivals}
    difference = float(off["prepared"].max() / expected.abs().max())
    if precision == torch.float32:
        assert difference < TOLERANCE, difference
    else:
        assert off["prepared"].mean() < MORE_ROUNDING * off["channels_last"].mean(), off["prepared"].mean()
    times = race({name: lambda name=name: maps(name) for name in rivals}, rounds=rounds, warmup=0)
    return {
        "scale": scale,
        "seconds": {name: timing.as_json() for name, timing in times.items()},
        "speedup": round(times["nchw"].median / times["prepared"].median, 2),
        "speedup_over_channels_last": round(times["channels_last"].median / times["prepared"].median, 2),
        "largest_difference": difference,
    }


if __name__ == "__main__":
    main()
