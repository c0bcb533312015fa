"""Every kernel compiles for the devices it may meet, keeps its values in registers, and leaves room for its fellows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="the device's kernels are written in triton")
PROGRAMS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ROOT = Path(__file__).resolve().parents[3]
REGISTERS, SHARED = 64, 8192
"""Of a thread, and bytes of a program of 128 threads: at least half of a multiprocessor's threads find room."""


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_within_their_limits(capability: int) -> None:
    compiler = PROGRAMS / ("ptxas-blackwell" if capability >= 100 else "ptxas")
    missing = [program for program in (compiler, PROGRAMS / "cuobjdump") if not program.is_file()]
    if missing:
        pytest.skip(f"this triton has no {missing[0].name}, with which kernels are compiled for sm_{capability}")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.ops.kernels.resources", str(capability)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    used = json.loads(done.stdout)
    assert len(used) == 18
    for kernel, takes in used.items():
        assert takes["spilled"] == 0, kernel
        assert 0 < takes["registers"] <= REGISTERS and takes["shared"] <= SHARED, (kernel, takes)


def test_every_kernel_is_compiled() -> None:
    from tests.ops.kernels.resources import KERNELS

    sources = (ROOT / "amn_dist" / "ops" / "kernels").glob("*.py")
    defined = {
        f"{source.stem}.{line.split('(')[0].removeprefix('def ')}"
        for source in sources
        for line in source.read_text(encoding="utf-8").splitlines()
        if line.startswith("def ") and line.split("(")[0].endswith("_kernel")
    }
    assert defined == set(KERNELS)
