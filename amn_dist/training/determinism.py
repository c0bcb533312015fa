"""Whether a device repeats a Fit to the last bit (`engine.deterministic`), or takes the fastest algorithms it finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from amn_dist.errors import StageError, printable

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""What cuBLAS reads before its first product; of the sizes it knows, these repeat a product's order of sums."""
WORKSPACE_SIZES = ":4096:8"


@contextmanager
def algorithms(*, deterministic: bool) -> Iterator[None]:
    """Let torch choose its algorithms for a Fit so; what it was told before holds again at the end.

    Crops are of one size, so that a search for the fastest convolutions (cuDNN's benchmark) pays; what it finds may
    differ from run to run. Raises StageError for an operation that cannot be repeated bit by bit.
    """
    cudnn = torch.backends.cudnn
    before = (cudnn.benchmark, cudnn.deterministic)
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    if deterministic:
        os.environ.setdefault(WORKSPACE, WORKSPACE_SIZES)
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if not deterministic or "deterministic" not in str(error):
            raise
        raise StageError(
            f"engine.deterministic: this device has no such algorithm for an operation ({printable(error)}); "
            "set engine.deterministic=false"
        ) from error
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        if deterministic:
            torch.use_deterministic_algorithms(strict, warn_only=warns)
