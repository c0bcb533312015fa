"""What does it cost to merge AMN's four scales into probabilities at full size, on one core?

Races ops/softmax.py against resizing every class, for K = 3 of 21 and of 81 classes at 480x640.

    python -m benchmarks.merge [--rounds 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.softmax import mean_softmax
from benchmarks.harness import one_core, race, write_result

SIZE, GRIDS, CLASSES = (480, 640), ((30, 40), (15, 20), (45, 60), (60, 80)), np.array([3, 9, 17])
TOLERANCE = 1e-5


def resized_softmax(logits: Sequence[Tensor], classes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Every class resized and kept: C planes of the photo's size, as published."""
    planes = [functional.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in logits]
    return torch.stack(planes).mean(0).softmax(0)[torch.from_numpy(classes)]


def measured(channels: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    logits = [torch.randn(channels, *grid) * 4 for grid in GRIDS]
    difference = float((mean_softmax(logits, CLASSES, SIZE) - resized_softmax(logits, CLASSES, SIZE)).abs().max())
    assert difference < TOLERANCE, difference
    times = race(
        {
            "every class resized": lambda: resized_softmax(logits, CLASSES, SIZE),
            "pixel by pixel": lambda: mean_softmax(logits, CLASSES, SIZE),
        },
        rounds=rounds,
    )
    return {
        "classes": channels,
        "seconds": {name: timing.as_json() for name, timing in times.items()},
        "speedup": round(times["every class resized"].median / times["pixel by pixel"].median, 2),
        "largest_difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    one_core()
    write_result("merge", {"rows": [measured(channels, arguments.rounds) for channels in (21, 81)]})


if __name__ == "__main__":
    main()
