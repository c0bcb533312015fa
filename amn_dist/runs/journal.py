"""The log of a stage whose folder is a URL: written here, copied there, shared by turns with the ranks of a gang."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from amn_dist.errors import ShardError
from amn_dist.storage.folders import files_below
from amn_dist.storage.paths import AnyPath, RemotePath
from amn_dist.storage.scratch import scratch, with_deadline
from amn_dist.telemetry import FOLLOW_S, METRICS, whole_lines

COPY_S, LOOK_S = 30.0, 10.0
"""Seconds between two copies of a log that grows, and between two looks at what another process has copied."""


@dataclass
class Journal:
    """Where the log of a stage is written, and, unless that is where it belongs, where it is copied to.

    One process at a time adds to a log; whoever begins takes over all its lines.
    """

    folder: Path
    place: RemotePath | None = None
    lent: bool = field(default=False, init=False)
    copied: dict[str, int] = field(default_factory=dict, init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def look_s(self) -> float:
        """Seconds between two looks at what another process adds."""
        return FOLLOW_S if self.place is None else LOOK_S

    def push(self) -> None:
        """Copy what has been added, up to the last whole line."""
        with self.lock:
            if self.place is None or self.lent:
                return
            for name, size in files_below(self.folder).items():
                if size != self.copied.get(name):
                    content = (self.folder / name).read_bytes()
                    (self.place / name).write_bytes(whole_lines(content) if name == METRICS else content)
                    self.copied[name] = len(content)

    def pull(self) -> None:
        """Add what another process has added to the copy."""
        if self.place is None:
            return
        with suppress(FileNotFoundError), (self.folder / METRICS).open("ab") as lines:
            lines.write(whole_lines((self.place / METRICS).read_bytes())[lines.tell() :])

    def try_pull(self) -> None:
        """As pull, or nothing where the storage does not answer."""
        with suppress(ShardError):
            self.pull()

    def try_push(self) -> None:
        """As push, or nothing where the storage does not answer."""
        with suppress(ShardError, OSError):
            self.push()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Let another process add to the log until the block ends."""
        self.push()
        with self.lock:
            self.lent = True
        try:
            yield
        finally:
            self.pull()
            self.lent = False


@contextmanager
def journal(stage: AnyPath, writer: str = "log") -> Iterator[Journal]:
    """The log of a stage. writer: who writes it, where two processes of a machine do by turns."""
    if isinstance(stage, Path):
        yield Journal(stage)
        return
    folder = scratch(stage, writer)
    shutil.rmtree(folder)
    folder.mkdir()
    log_copy = Journal(folder, stage)
    log_copy.pull()
    over = threading.Event()
    thread = threading.Thread(target=_copy, args=(log_copy, over), daemon=True)
    thread.start()
    try:
        yield log_copy
    except BaseException:
        with_deadline(log_copy.try_push)
        raise
    finally:
        over.set()
    log_copy.push()
    shutil.rmtree(folder, ignore_errors=True)


def _copy(log_copy: Journal, over: threading.Event) -> None:
    while not over.wait(COPY_S):
        log_copy.try_push()
