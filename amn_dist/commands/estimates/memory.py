"""What was measured before, on this machine, with these versions, of these sets and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amn_dist.caches import may_write, private_folder
from amn_dist.commands.estimates.cost import Measured
from amn_dist.config import Config, FitSection
from amn_dist.documents import read_json
from amn_dist.errors import AmnError
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.atomic import commit_json
from amn_dist.telemetry import environment

USUAL = "~/.cache/amn"
LENGTH = ("epochs", "steps", "checkpoint_every", "log_every")
"""Settings of a Fit that say how long it is, and not what a step takes."""


def trial_key(config: Config, sets: Mapping[str, ShardSet]) -> str:
    """What decides how long the stages of a run take, but for their length, as one digest."""
    tree: dict[str, Any] = config.model_dump(mode="json", exclude={"name", "data", "score"})
    for name in type(config).model_fields:
        if isinstance(getattr(config, name), FitSection):
            tree[name] = {key: value for key, value in tree[name].items() if key not in LENGTH}
    decisive = {"config": tree, "sets": {role: images.digest for role, images in sets.items()}, "on": environment()}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def remembered(key: str) -> Measured | None:
    """What was measured under a key; None where nothing was, or what was kept cannot be read."""
    with suppress(AmnError, OSError, ValueError):
        measured: Measured = read_json(_place(key).read_bytes(), Measured)
        return measured
    return None


def remember(key: str, measured: Measured) -> None:
    """Keep it, where there is room."""
    with suppress(AmnError, OSError):
        commit_json(_place(key), asdict(measured))


def _place(key: str) -> Path:
    folder = Path(USUAL).expanduser() if may_write(USUAL) else private_folder()
    return folder / "trials" / f"{key}.json"
