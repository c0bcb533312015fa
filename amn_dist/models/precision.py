"""Which numbers a network computes in."""

from __future__ import annotations

import torch

from amn_dist.ops.devices import has_gpu

# Where float32 is asked for (precision fp32, heads, losses) products have its 24 bits, not the 11 of TF32: that is
# torch's choice for convolutions unless it is told otherwise.
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False


def resolve_precision(name: str = "auto") -> torch.dtype:
    """Type of mixed-precision compute: `bf16`, `fp32`, or (`auto`) bf16 where this machine computes it natively."""
    if name == "auto":
        return torch.bfloat16 if native_bf16() else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def autocast_type(device: torch.device) -> torch.dtype:
    """Type that convolutions on a device compute in here: that of an autocast around, else float32."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def precision_name(name: str = "auto") -> str:
    """What resolve_precision comes to, as it is configured: `bf16` or `fp32`."""
    return "bf16" if resolve_precision(name) == torch.bfloat16 else "fp32"


def native_bf16() -> bool:
    """Whether bf16 is computed by hardware: emulated on a CPU with AVX2 alone it is ten times slower than fp32."""
    if has_gpu():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(_supports(name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def _supports(name: str) -> bool:
    # Private to torch, and not in every version of it.
    probe = getattr(torch.cpu, name, None)
    return bool(probe()) if probe is not None else False
