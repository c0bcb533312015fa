"""What every kernel takes of a device of one compute capability, compiled without one: python -m ... CAPABILITY.

Prints JSON: registers of a thread, bytes of its stack that were spilled to memory, bytes of shared memory of a program.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WIDTHS: tuple[dict[str, int], ...] = ({"CHANNELS": 4, "BLOCK": 128},)
PAIRS: tuple[dict[str, int], ...] = ({"BLOCK": 128},)
KERNELS: dict[str, tuple[str, tuple[dict[str, int], ...]]] = {
    "walk.affinity_kernel": ("*fp32 *fp32 *i64 *i32 *i32 *i32 i32 fp32", PAIRS),
    "walk.degree_kernel": ("*fp32 *fp64 *i64 *i32 i32 i32", PAIRS),
    "walk.normalise_kernel": ("*fp32 *fp64 *i64 *i32 i32", PAIRS),
    "walk.product_kernel": (
        "*fp64 *fp64 *fp64 *fp32 *fp64 *i64 *i32 i32 i32 fp32 fp32",
        ({"BLOCK": 128, "GROUP": 4, "fused": True},),
    ),
    "affinity._affinity_kernel": ("*fp32 *i32 *i32 *fp32 *u8 i32 i32 i32 i32 i32 i32", PAIRS),
    "affinity._gradient_kernel": ("*fp32 *u8 *i32 *i32 *fp32 i32 i32 i32 i32 i32 i32", PAIRS),
    "affinity._kinds_kernel": ("*u8 *i32 *u8 i32 i32 i32 i32 i32 i32 i32 i32", PAIRS),
    "dropout._drop_kernel": ("*fp32 *fp32 i64 i64 i64 i64 fp32", ({"BLOCK": 1024},)),
    "lattice.embed_kernel": (
        "*u8 *i64 *fp32 i32 i32 i32 fp32 fp32 i64 fp32 fp32 fp32 fp32 fp32 i64 i64 i64 i64 i64",
        ({"COLOURED": 1, "BLOCK": 128},),
    ),
    "lattice.number_kernel": (
        "*i64 *i64 *i32 *fp32 *i64 *i32 *i32 *i32 *fp32 i32",
        ({"VERTICES": 6, "BLOCK": 128},),
    ),
    "lattice.chunk_kernel": ("*i32 *i32 *i32 i32", ({"CHUNK": 64, "BLOCK": 128},)),
    "lattice.cut_kernel": ("*i32 *i32 *i32 *i32 *i32 i32", PAIRS),
    "lattice.neighbour_kernel": ("*i64 *i32 *i32 i32 i64 i64 i64 i64 i64", ({"VERTICES": 6, "BLOCK": 128},)),
    "lattice_filter.splat_kernel": ("*fp32 *i32 *fp32 *i32 *i32 *fp32 i32 i32", WIDTHS),
    "lattice_filter.gather_kernel": ("*fp32 *i32 *i32 *fp32", WIDTHS),
    "lattice_filter.blur_kernel": ("*fp32 *i32 *i32 *i32 *fp32", WIDTHS),
    "lattice_filter.slice_kernel": (
        "*fp32 *i32 *fp32 *fp32 i32 i32 i32 fp32",
        tuple({**width, "VERTICES": 6, "ADD": 1} for width in WIDTHS),
    ),
    "lattice_filter.update_kernel": (
        "*fp32 *fp32 *fp32 *fp32 i32 i32 i32",
        ({"MESSAGES": 1, "IMPLIED": 1, "WHOLE": 1, "LANES": 4, "BLOCK": 128},),
    ),
}
"""Types of the arguments, and what the kernel is compiled for: as ops/ launches it."""


def compiled(name: str, types: str, constants: dict[str, int], capability: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, kernel = name.split(".")
    function = getattr(importlib.import_module(f"amn_dist.ops.kernels.{module}"), kernel)
    fused = bool(constants.pop("fused", False))
    free = iter(types.split())
    signature = {arg: "constexpr" if arg in constants else next(free) for arg in function.arg_names}
    assert next(free, None) is None, f"{name} takes fewer arguments than are listed"
    at = function.arg_names.index
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(at(arg),): value for arg, value in constants.items()},
        attrs={(at(arg),): [["tt.divisibility", 16]] for arg, kind in signature.items() if kind.startswith("*")},
    )
    options = {"num_warps": 4, "enable_fp_fusion": fused}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(kernel: Any) -> dict[str, int]:
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(program), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said)
    assert usage is not None, said
    registers, stack, local = map(int, usage.groups())
    return {"registers": registers, "spilled": stack + local, "shared": int(kernel.metadata.shared)}


def main() -> None:
    capability = int(sys.argv[1])
    used = {
        f"{name} {constants}": resources(compiled(name, types, dict(constants), capability))
        for name, (types, variants) in KERNELS.items()
        for constants in variants
    }
    print(json.dumps(used))


if __name__ == "__main__":
    main()
