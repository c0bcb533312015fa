"""More than one training process: who starts them, when they are started again, how they are stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import torch

from amn_dist.config import EngineSection
from amn_dist.documents import read_json
from amn_dist.errors import AmnError, ConfigError, PeerLost, ShardError, StageError, printable
from amn_dist.storage.atomic import commit
from amn_dist.storage.paths import AnyPath
from amn_dist.training.checkpoints import complete
from amn_dist.training.loop import CHECKPOINTS, STOP
from amn_dist.variables import whole_number

FAULT = "fault.json"
"""In a Fit's folder: the error of a member that starting again would not mend."""


@dataclass(frozen=True)
class Fault:
    """What a member leaves there. kind: of the error. text: its message."""

    kind: Literal["ConfigError", "ShardError", "StageError"]
    rank: int
    text: str


KINDS = {kind.__name__: kind for kind in (ConfigError, ShardError, StageError)}


def with_processes(engine: EngineSection) -> EngineSection:
    """The section with a number of processes: `auto` is one for every GPU of this machine."""
    return engine if engine.processes else engine.model_copy(update={"processes": max(torch.cuda.device_count(), 1)})


def train_together(start: Callable[[], None], folder: AnyPath, *, retries: int, tell: Callable[[str], None]) -> None:
    """Start a gang; when processes or nodes die, start it again from its last checkpoint.

    start: raises PeerLost when the gang breaks. folder: the Fit's, where members leave checkpoints and faults.
    retries: times in a row without a new checkpoint. Raises a member's own error at once.
    """
    left, before = retries, complete(folder / CHECKPOINTS)[:1]
    with stopping_by_file(folder):
        while True:
            (folder / FAULT).unlink(missing_ok=True)
            try:
                return start()
            except PeerLost as lost:
                _raise_fault(folder)
                now = complete(folder / CHECKPOINTS)[:1]
                left, before = (left if now == before else retries), now
                if left == 0:
                    raise
                left -= 1
                tell(f"{lost}; started again from {now[0].name if now else 'the beginning'}")


@contextmanager
def leaving_faults(folder: AnyPath) -> Iterator[None]:
    """In a member: leave an error that starting again would not mend where the leader finds it."""
    try:
        yield
    except PeerLost:
        raise
    except AmnError as error:
        kind = type(error).__name__
        text = json.dumps({"kind": kind, "rank": whole_number("RANK", 0), "text": str(error)})
        with suppress(ShardError):  # of the storage that is the fault, perhaps
            commit(folder / FAULT, text.encode())
        raise


@contextmanager
def stopping_by_file(folder: AnyPath) -> Iterator[None]:
    """Turn SIGTERM into the file that asks a gang to save and end; a second SIGTERM does what it did before."""
    (folder / STOP).unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def ask(number: int, frame: object) -> None:
        (folder / STOP).touch()
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        (folder / STOP).unlink(missing_ok=True)


def train_with_torchrun(arguments: Sequence[str], engine: EngineSection) -> None:
    """Run `amn ARGUMENTS` in every process of a gang on this machine. Raises PeerLost when any ends badly."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", f"--nproc-per-node={engine.processes}"]
    # Behind `--` torchrun does not take our options for abbreviations of its own.
    ended = subprocess.run([*command, "-m", "--", "amn_dist", *arguments], check=False)
    if ended.returncode:
        raise PeerLost(f"a gang of {engine.processes} under torchrun ended with code {ended.returncode}")


def _raise_fault(folder: AnyPath) -> None:
    if (folder / FAULT).is_file():
        try:
            fault: Fault = read_json((folder / FAULT).read_bytes(), Fault)
        except ValueError as error:
            raise StageError(f"{folder / FAULT}: {printable(error)}; remove it, run again") from error
        raise KINDS[fault.kind](f"rank {fault.rank}: {fault.text}")
