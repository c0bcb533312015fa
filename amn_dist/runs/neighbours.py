"""Other runs beside a run: stages that one of them made from the same origin are taken over; none may do harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from amn_dist.errors import AmnError, StageError, printable
from amn_dist.methods import Stage
from amn_dist.runs.origins import Origin, file_digest, is_of
from amn_dist.runs.run import LAST_FILE, Run, drop
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.folders import copy_files, files_below, in_parallel
from amn_dist.storage.paths import AnyPath

Tell = Callable[[str, str], None]
"""Is told the name of a run that is passed over, and why."""


def reuse(run: Run, stage: Stage, origin: Origin, *, tell: Tell = lambda name, why: None) -> str | None:
    """Take the stage from a sibling run that made it from the same origin. Returns that run's name, or None.

    Files are hard links, or copies inside the storage, so that neither run depends on the other's life. A sibling that
    is damaged, cannot be read or was written by another version is passed over.
    """
    if stage.verb == "score":
        return None
    for other in run.siblings():
        try:
            recorded = other.origin(stage.name) if other.is_done(stage) else None
            if recorded is None or "before" in recorded or not is_of(recorded, origin):
                continue
            check_whole(other, stage)
        except (AmnError, OSError) as error:
            found, _, advice = str(error).rpartition("; ")  # the advice is for the run it happened to
            tell(other.folder.name, printable(found or advice, 400))
            continue
        take_over(other.stage(stage.name), run.stage(stage.name), last=LAST_FILE[stage.verb])
        return other.folder.name
    return None


def check_whole(run: Run, stage: Stage) -> None:
    """Raise an AmnError or OSError unless a finished Fit or Map holds what its last file says.

    Weights and shards of a local run are compared with their digests. Behind a URL weights must be there and shards
    have their sizes: objects are written whole, and are copied inside the storage without being read.
    """
    folder = run.stage(stage.name)
    if stage.verb == "fit":
        weights, expected = run.checkpoint(stage.name), run.digest(stage)
        if isinstance(weights, Path):
            _check_digest(weights, expected)
        elif not weights.exists():
            raise StageError(f"{weights}: not found, though {stage.name} is done")
        return
    shards = ShardSet.open(str(folder))
    for number in range(len(shards.shard_sizes)):
        shards.shard(number)  # its report fits the index
    if isinstance(folder, Path):
        in_parallel(lambda shard: _check_digest(folder / shard.name, shard.sha256), shards.index.shards)


def take_over(source: AnyPath, target: AnyPath, *, last: str) -> None:
    """Make a stage of another run one of this: its files (not its checkpoints), the last one after all others."""
    drop(target)
    names = [name for name in files_below(source) if "/" not in name and name != last]
    copy_files(source, target, names)
    copy_files(source, target, [last])


def _check_digest(path: AnyPath, expected: str) -> None:
    if (digest := file_digest(path)) != expected:
        raise StageError(f"{path}: damaged, found the digest {digest[:12]}..., expected {expected[:12]}...")
