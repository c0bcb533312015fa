"""The ceilings: a large matrix product in bf16 and float32, a large copy; random numbers, because zeros run faster."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.device.figures import Setting
from benchmarks.harness import race


def peaks(setting: Setting) -> dict[str, Any]:
    """Operations and bytes (read and written) a second."""
    side, copied = (128, 2**20) if setting.tiny else (8192, 2**31)
    half, full = (
        [torch.randn(side, side, device=setting.device).to(kind) for _ in range(2)]
        for kind in (torch.bfloat16, torch.float32)
    )
    source = torch.randint(0, 127, (copied,), dtype=torch.int8, device=setting.device)
    target = torch.empty_like(source)
    torch.backends.cuda.matmul.allow_tf32 = False
    timings = race(
        {"bf16": partial(torch.mm, *half), "fp32": partial(torch.mm, *full), "copy": lambda: target.copy_(source)},
        rounds=3 if setting.tiny else 15,
        warmup=1 if setting.tiny else 3,
    )
    assert torch.equal(source[:1000], target[:1000])
    return {
        **{f"{name}_flops_per_s": 2 * side**3 / timings[name].median for name in ("bf16", "fp32")},
        "bytes_per_s": 2 * copied / timings["copy"].median,
        "seconds": {name: timing.as_json() for name, timing in timings.items()},
    }
