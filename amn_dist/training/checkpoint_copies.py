"""A Fit whose folder is a URL works in a local one; checkpoints and weights are copied out, and back in elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from amn_dist.errors import ShardError, StageError, printable
from amn_dist.storage.folders import files_below, remove_folder
from amn_dist.storage.paths import AnyPath, RemotePath
from amn_dist.storage.scratch import SCRATCH, exclusive, scratch
from amn_dist.training.checkpoints import KEEP, STATE, complete, is_whole
from amn_dist.training.loop import CHECKPOINTS, MODEL, STOP

LOOK_S = 5.0
"""Seconds between two looks for the file that asks a Fit to stop."""


@dataclass(frozen=True)
class Workplace:
    """Where a Fit works. folder: on this machine. saved: takes every checkpoint the first rank finishes there."""

    folder: Path
    saved: Callable[[Path], None] = lambda checkpoint: None


@contextmanager
def workplace(
    stage: AnyPath,
    *,
    first: bool,
    keep_log: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[Workplace]:
    """The folder a Fit of this stage works in, with the newest checkpoint of the stage; its own if that is local.

    first: whether this is the first rank, whose checkpoints and weights are copied to the stage's URL; the weights at
    the end of the block. keep_log: called before each checkpoint is copied. tell: gets a line for every checkpoint that
    is lost here. Raises StageError when the storage does not take them.
    """
    if isinstance(stage, Path):
        yield Workplace(stage)
        return
    folder = scratch(stage, "fit")
    try:
        with exclusive(folder):
            for name in fetch(stage / CHECKPOINTS, folder / CHECKPOINTS):
                tell(f"{folder}: its checkpoint of step {int(name)} never reached {stage}; it was removed")
    except OSError as error:
        raise StageError(
            f"{folder}: the last checkpoint cannot be fetched ({printable(error)}); make room, or set {SCRATCH}"
        ) from error
    if not first:
        yield Workplace(folder)
        return
    with ThreadPoolExecutor(1) as pool, _stopped_from(stage, folder):
        mirror = Mirror(stage / CHECKPOINTS, pool, keep_log)
        try:
            yield Workplace(folder, mirror.saved)
        finally:  # after SIGTERM too: the last checkpoint is on its way
            mirror.wait()
    _with_stage_errors(lambda: (stage / MODEL).write_bytes((folder / MODEL).read_bytes()))
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Mirror:
    """Copies checkpoints to a URL while training goes on, one at a time and in their order."""

    there: RemotePath
    pool: ThreadPoolExecutor
    keep_log: Callable[[], None]
    under_way: Future[None] | None = field(default=None, init=False)

    def saved(self, checkpoint: Path) -> None:
        """Begin to copy a checkpoint when the one before is there."""
        self.wait()
        self.under_way = self.pool.submit(self._copy, checkpoint)

    def wait(self) -> None:
        """Until no checkpoint is on its way. Raises StageError when the last one did not arrive."""
        copy, self.under_way = self.under_way, None
        if copy is not None:
            _with_stage_errors(copy.result)

    def _copy(self, checkpoint: Path) -> None:
        self.keep_log()
        publish(checkpoint, self.there)


def publish(checkpoint: Path, there: RemotePath) -> None:
    """Copy a checkpoint below a URL as its newest; it counts when its last file is there. The rule of which ones stay
    is the local one."""
    target = there / checkpoint.name
    (target / STATE).unlink()
    for name in files_below(checkpoint):
        if name != STATE:
            (target / name).write_bytes((checkpoint / name).read_bytes())
    (target / STATE).write_bytes((checkpoint / STATE).read_bytes())
    newest = [path for path in complete(there) if int(path.name) <= int(checkpoint.name)][:KEEP]
    for old in there.iterdir():
        if old not in newest:
            remove_folder(old, first=[STATE])


def fetch(there: RemotePath, here: Path) -> list[str]:
    """Make the newest whole checkpoint behind a URL the only one in a local folder.

    What else lies here goes, be it newer: it may be of a run that is no more. Returns the names of newer ones.
    """
    newest = next((there / path.name for path in complete(there) if is_whole(path)), None)
    here.mkdir(exist_ok=True)
    newer = [path.name for path in complete(here) if newest is None or int(path.name) > int(newest.name)]
    for path in here.iterdir():
        if newest is None or path.name != newest.name or not _same(path, newest):
            shutil.rmtree(path)
    if newest is None or (here / newest.name).is_dir():
        return newer
    temporary = here / f".tmp-{newest.name}"  # moved whole, as checkpoints are when they are saved
    for name, size in files_below(newest).items():
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        with (temporary / name).open("wb") as file:
            file.writelines((newest / name).pieces(size))
    os.replace(temporary, here / newest.name)
    return newer


def _same(path: Path, other: RemotePath) -> bool:
    """Whether a local checkpoint is a copy of another one."""
    return is_whole(path) and (path / STATE).read_bytes() == (other / STATE).read_bytes()


@contextmanager
def _stopped_from(stage: RemotePath, folder: Path) -> Iterator[None]:
    """Bring the file that asks a Fit to stop, when it appears behind the stage's URL."""
    over = threading.Event()
    (folder / STOP).unlink(missing_ok=True)

    def look() -> None:
        while not over.wait(LOOK_S):
            with suppress(ShardError):
                if (stage / STOP).is_file():
                    return (folder / STOP).touch()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _with_stage_errors(work: Callable[[], None]) -> None:
    """Do some work for a stage whose storage may fail."""
    try:
        work()
    except ShardError as error:
        raise StageError(str(error)) from error
