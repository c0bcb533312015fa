"""A process that keeps freed memory keeps no more than it says, whatever sizes its maps have."""

from __future__ import annotations

import subprocess
import sys

import pytest

SOURCE = """
import random
import torch
from amn_dist.ops import allocator

allocator.LEAST_KEPT, allocator.SHARE = 64 * 2**20, 0
allocator.keep_freed_memory()
random.seed(0)
start, most, kept = allocator.resident(), 0, []
for turn in range(60):
    for _ in range(3):
        large = torch.ones(random.randrange(4, 12) * 2**20)  # 16 to 48 MB
        kept.append(torch.ones(2**16))  # lies in the gap the next one leaves
    del large
    kept = kept[-60:]
    allocator.bound_freed_memory()
    most = max(most, allocator.resident() - start)
print(most >> 20)  # MiB, between turns
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_freed_memory_is_bounded() -> None:
    done = subprocess.run([sys.executable, "-c", SOURCE], capture_output=True, text=True, check=True, timeout=120)
    live = 60 * 2**16 * 4 >> 20
    assert int(done.stdout) < 64 + live + 16
