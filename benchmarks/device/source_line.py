"""Which line of the package is being run."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parents[2] / "amn_dist") + "/"


def here() -> str:
    """The innermost line of the package that is being run; a backward pass is asked for as a whole."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{frame.f_code.co_filename[len(PACKAGE) :]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"
