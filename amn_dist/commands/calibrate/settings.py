"""What a threshold is a setting of: the pair of a seed around it, the walk's background, the threshold of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amn_dist.commands.init.command import run_name
from amn_dist.config import Config, IcdSeed, Seed, dump_config, parse_config
from amn_dist.errors import printable
from amn_dist.methods import stages
from amn_dist.storage.atomic import commit

if TYPE_CHECKING:
    from amn_dist.methods import Stage

Settings = Mapping[str, float]
"""Values by key, as --set takes them."""
LEAST, MOST = 0.005, 0.995
"""Thresholds of a pair."""


def settings_of(config: Config, name: str, threshold: float) -> dict[str, float]:
    """The settings that cut the maps of this name at a threshold.

    A walk has its background. An activation has the pair of the seed made of it, moved so that it lies around the
    threshold as it lay around its own middle, unless its seed asks for no threshold; the last activation of the method
    also has that of the scores.
    """
    if name == "walk":
        return {"walk.background": threshold}
    seed = seed_of(config, name)
    pair = {} if seed is None else moved_pair(config, seed.name, threshold)
    last = [stage.name for stage in stages(config) if any(made.is_activation for made in stage.makes)][-1]
    return {**pair, **({"score.threshold": threshold} if name == last else {})}


def seed_of(config: Config, activation: str) -> Stage | None:
    """The stage that makes labels of an activation by two thresholds; None where there is none."""
    seeds = [stage for stage in stages(config) if stage.follows == activation]
    sections = [(stage, getattr(config, stage.name)) for stage in seeds]
    return next((stage for stage, section in sections if isinstance(section, Seed) or by_threshold(section)), None)


def by_threshold(section: object) -> bool:
    """Whether the section of ICD's seeds asks for thresholds."""
    return isinstance(section, IcdSeed) and section.rule == "threshold"


def moved_pair(config: Config, seed: str, threshold: float) -> dict[str, float]:
    """The two thresholds of a seed around another middle: the same steps away from it in log odds, which keeps them in
    order and inside (0, 1)."""
    section = getattr(config, seed)
    low, high = log_odds(section.background), log_odds(section.foreground)
    half = (high - low) / 2
    pair = {"background": log_odds(threshold) - half, "foreground": log_odds(threshold) + half}
    return {f"{seed}.{key}": round(min(max(share(value), LEAST), MOST), 3) for key, value in pair.items()}


def log_odds(value: float) -> float:
    return math.log(value / (1 - value))


def share(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def words(settings: Settings) -> str:
    """The settings as words of a command."""
    return " ".join(f"--set {key}={value:g}" for key, value in settings.items())


def write_config(config: Config, settings: Settings, file: Path, because: Sequence[str]) -> Config:
    """Write a configuration with other settings, named after its file, and return it. because: what it says of itself,
    a line of comment each."""
    changes = (f"name={run_name(file)}", *(f"{key}={value:g}" for key, value in settings.items()))
    changed = parse_config(dump_config(config), changes, where=str(file))
    comments = "".join(f"# {printable(line, 300)}\n" for line in because)
    commit(file, (comments + dump_config(changed)).encode())
    return changed
