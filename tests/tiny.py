"""The smallest networks and runs there are, for tests that look at what is around them."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {"name": "small", "stride": 8, "weights": None, "frozen_taps": 0}
"""A backbone without weights to fetch."""
FIT: dict[str, Any] = {"backbone": SMALL, "optimiser": "adam", "batch": 2, "epochs": 1, "crop": 48}
"""A Fit over a handful of drawn scenes of 48x64 pixels."""
HERE: dict[str, Any] = {"engine": {"name": "torch"}, "farm": {"name": "local"}, "loader": {"name": "torchvision"}}
"""Everything in one process."""
IRN: dict[str, Any] = {
    "name": "run",
    "method": "irn",
    "data": {"val": None},
    "classify": {**FIT, "long_side": [48, 64]},
    "cam": {"scales": [1.0]},
    "irn": FIT,
    "walk": {"pad": None, "steps": 4},
    "segment": {**FIT, "steps": None},
    **HERE,
}
"""A configuration whose stages take a second each."""
