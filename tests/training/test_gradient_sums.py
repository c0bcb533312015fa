"""Buckets of gradients: whatever their size, the sums of one collective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SCRIPT = Path(__file__).with_name("sums_run.py")


def test_buckets_of_any_size_hold_the_sums_over_the_ranks(launch: Any, tmp_path: Path) -> None:
    launch(SCRIPT, [tmp_path, tmp_path], into=tmp_path / "said").end(0, 0)
    for rank in (0, 1):
        saved = torch.load(tmp_path / f"sums-{rank}.pt")
        found = saved["found"]
        assert [found[f"buckets of {size}"] for size in (1, 200, 2**20)] == [10, 3, 1]
        for size in ("1", "200", str(2**20)):
            # Two terms have one sum; nobody's gradient is one of zeros.
            assert all(map(torch.equal, found[size], saved["expected"])), size
