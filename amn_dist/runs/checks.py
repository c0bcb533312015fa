"""Everything that can be known before any work, told at once: what a stage would stumble over, hours later."""

from __future__ import annotations

import os

from amn_dist.errors import ConfigError
from amn_dist.interfaces import Context
from amn_dist.records import CropRule
from amn_dist.runs.findings import Findings, refused
from amn_dist.runs.placement import check_devices, check_places
from amn_dist.runs.prospect import Prospect
from amn_dist.runs.room import check_disk, check_memory
from amn_dist.runs.weight_checks import check_pretrained, check_weights
from amn_dist.shards.shardset import Entry
from amn_dist.stages.irn import least_crop
from amn_dist.training.launchers import with_processes
from amn_dist.training.loop import count_pieces, count_steps
from amn_dist.variables import whole_number

SEEN = 0.25
"""Share of a crop that is photograph below which a note says so."""


def check(prospect: Prospect) -> Findings:
    """All faults and notes of a run before it works."""
    if not prospect.left:
        return
    yield from check_places(prospect.config, prospect.run.folder, prospect.address)
    yield from check_devices(prospect.config, prospect.left, prospect.farm, prospect.address)
    yield from check_weights(prospect)
    if all(stage.verb == "score" for stage in prospect.left):  # what was counted may do without the data
        return
    without_data = list(refused(lambda: prospect.looked))
    yield from without_data
    if not without_data:
        yield from refused(prospect.open_outside)
        yield from check_batches(prospect)
        yield from check_crops(prospect)
        yield from check_pretrained(prospect)
        yield from check_disk(prospect)
        yield from check_memory(prospect)


def check_batches(prospect: Prospect) -> Findings:
    """Batches that the training set, the processes or the micro-batches cannot make up."""
    images = prospect.looked["train"].images
    engine = with_processes(prospect.config.engine)
    processes = whole_number("WORLD_SIZE", 1, least=1) if "RANK" in os.environ else engine.processes
    for stage, section in prospect.fits:
        for fault in (
            *refused(lambda: count_steps(section, images)),  # noqa: B023
            *refused(lambda: count_pieces(section, processes)),  # noqa: B023
        ):
            yield ConfigError(f"{stage.name}.{fault}")


def check_crops(prospect: Prospect) -> Findings:
    """Crops that no Fit can be given, and notes of those that hold little or nothing to learn from."""
    for stage, section in prospect.fits:
        assert stage.fit is not None
        try:
            rule = stage.fit(Context(prospect.config, ("background", "object"))).rule
        except ConfigError as error:
            yield ConfigError(f"{stage.name}.{error}" if str(error).startswith("colour") else str(error))
            continue
        seen = max(seen_share(rule, entry) for entry in prospect.looked["train"].entries)
        if seen < SEEN:
            yield (
                f"{stage.name}.crop: found {section.crop} pixels, of which photographs of the training set fill "
                f"{100 * seen:.0f} % at most; a smaller crop learns the same in less time"
            )
        if stage.name == "irn" and section.crop < least_crop(prospect.config.irn):
            yield (
                f"irn.crop: found {section.crop} pixels, expected {least_crop(prospect.config.irn)} at least, else no "
                "two cells are a pair and nothing is learned; enlarge it, or make irn.radius smaller"
            )


def seen_share(rule: CropRule, entry: Entry) -> float:
    """Share of a crop that a photograph fills at most."""
    long_side = max(entry.height, entry.width)
    by_side = () if rule.long_side is None else (rule.long_side[1] / long_side,)
    factor = max(rule.scales or rule.rescale or by_side)
    sides = (min(side * factor, rule.size) for side in (entry.height, entry.width))
    return next(sides) * next(sides) / rule.size**2
