"""One driver at a time: the kernel's lock on a folder, a lease behind a URL."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from amn_dist.documents import read_json
from amn_dist.errors import ShardError, StageError, printable
from amn_dist.storage.atomic import json_bytes
from amn_dist.storage.paths import AnyPath, RemotePath
from amn_dist.storage.scratch import with_deadline

LEASE, LOCK = "lease.json", ".lock"
REFRESH_S = 20.0
"""Seconds between two signs of life."""
DEAD_S = 60.0
"""Seconds without one after which a holder counts as dead."""
FREE = b"{}\n"
"""The lease of a run that nobody works on."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Holder:
    """Who works on a run. machine: this boot and this space of process numbers. started: of the process, in ticks of
    the kernel. time: of the last sign of life, seconds since the epoch by the holder's clock, for people alone."""

    host: str
    machine: str
    pid: int
    started: str
    token: str
    time: float

    @property
    def died_here(self) -> bool:
        """Whether the process was one of this machine and is no more."""
        return self.machine == this_machine() and self.started != process_start(self.pid)

    def __str__(self) -> str:
        return printable(f"{self.host}, process {self.pid}")


@contextmanager
def holding(folder: AnyPath, say: Say) -> Iterator[None]:
    """Hold a run's folder: one driver at a time. Raises StageError when another process works on it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) if isinstance(folder, Path) else _leased(folder / LEASE, say):
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StageError(f"{folder}: another process is working on this run; wait or stop it") from error
        yield


@contextmanager
def _leased(path: RemotePath, say: Say) -> Iterator[None]:
    lease, over = acquire(path, say), threading.Event()
    threading.Thread(target=lease.renew, args=(over,), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if lease.lost:
            raise StageError(
                f"{path.parent}: {read_holder(path.tagged()) or 'another process'} has taken this run over, since "
                f"nothing was heard from this one for {DEAD_S:.0f} s; wait until that one ends"
            )
        with_deadline(lease.release)


@dataclass
class Lease:
    """A lease this process holds. tag: of its last version. lost: somebody else has it now. writing: held while it is
    replaced, so that it is not given up by the tag of a version that is being replaced."""

    path: RemotePath
    holder: Holder
    tag: str
    lost: bool = False
    writing: threading.Lock = field(default_factory=threading.Lock)

    def renew(self, over: threading.Event) -> None:
        """Give signs of life until it is over; stop this process when another one has the run."""
        while not over.wait(REFRESH_S):
            # A storage that does not answer this one answers no other either.
            with suppress(ShardError), self.writing:
                if over.is_set():
                    return None
                tag = self.path.swap(holder_bytes(replace(self.holder, time=time.time())), self.tag)
                if tag is None:
                    self.lost = True
                    return None if over.is_set() else interrupt()
                self.tag = tag

    def release(self) -> None:
        """Let others have the run at once."""
        with suppress(ShardError), self.writing:
            self.path.swap(FREE, self.tag)


def acquire(path: RemotePath, say: Say) -> Lease:
    """Take a lease that is free, whose holder died on this machine, or that does not change for DEAD_S.

    Clocks of machines are not compared: whether a holder lives is watched. Raises StageError when it does.
    """
    watched, watched_since, last_look = None, 0.0, time.monotonic()
    while True:
        present, now = path.tagged(), time.monotonic()
        if now - last_look > DEAD_S / 2:  # this process was stopped, or kept waiting: it has not watched
            watched_since = now
        last_look = now
        holder = read_holder(present)
        silent = present == watched and now - watched_since >= DEAD_S
        if holder is None or holder.died_here or silent:
            holder_here = this_process()
            tag = path.swap(holder_bytes(holder_here), None if present is None else present[1])
            if tag is not None:
                return Lease(path, holder_here, tag)
        elif watched is None:
            watched, watched_since = present, now
            say(
                f"{path.parent}: another process ({holder}) worked on this run {time.time() - holder.time:.0f} s ago; "
                f"waiting up to {DEAD_S:.0f} s for a sign of life, without one this process goes on in its place"
            )
        elif present != watched:
            raise StageError(f"{path.parent}: another process ({holder}) is working on this run; wait or stop it")
        time.sleep(REFRESH_S / 4)


def read_holder(present: tuple[bytes, str] | None) -> Holder | None:
    """Who holds a lease; None when it is free, or not there, or not readable."""
    try:
        return None if present is None else read_json(present[0], Holder)
    except ValueError:
        return None


def holder_bytes(holder: Holder) -> bytes:
    """A lease as bytes, unlike any before."""
    return json_bytes(asdict(holder))


def this_process() -> Holder:
    """This process as a holder."""
    pid = os.getpid()
    return Holder(socket.gethostname(), this_machine(), pid, process_start(pid), secrets.token_hex(8), time.time())


@cache
def this_machine() -> str:
    """This boot of this machine, and the space of process numbers: containers have their own."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")


def process_start(pid: int) -> str:
    """When a process began, in ticks of the kernel since the boot; empty when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def interrupt() -> None:
    """End the work of this process as Ctrl-C does, or as SIGTERM where that is ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):
            return signal.pthread_kill(threading.main_thread().ident or 0, number)
    return None
