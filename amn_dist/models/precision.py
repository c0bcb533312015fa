"""Which numbers a network computes in."""

from __future__ import annotations

import torch


def resolve_precision(name: str = "auto") -> torch.dtype:
    """Type of mixed-precision compute: `bf16`, `fp32`, or (`auto`) bf16 where this machine computes it natively."""
    if name == "auto":
        return torch.bfloat16 if native_bf16() else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def native_bf16() -> bool:
    """Whether bf16 is computed by hardware: emulated on a CPU with AVX2 alone it is ten times slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(_supports(name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _supports(name: str) -> bool:
    # Private to torch, and not in every version of it.
    probe = getattr(torch.cpu, name, None)
    return bool(probe()) if probe is not None else False
